/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Messages inside the task: memory, and destruction with everything they carry. Guarded by
 * mio_task.lock where rights are touched; owns
 * descriptors through its rights, and the file of its out-of-line memory.
 */
#include "internal.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

uint64_t mio_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* One block: the struct, its rights, the body. */
struct mio_kmsg *mio_kmsg_new(mach_msg_size_t size, unsigned nrights) {
    size_t rights = sizeof(struct mio_kmsg);
    size_t body = rights + nrights * sizeof(struct mio_right);
    struct mio_kmsg *kmsg = malloc(body + (size - sizeof(mach_msg_header_t)));
    if (kmsg == NULL)
        return NULL;
    *kmsg = (struct mio_kmsg){
        .size = size,
        .nrights = nrights,
        .heap = -1,
        .rights = (struct mio_right *)(void *)((char *)kmsg + rights),
        .body = (uint8_t *)kmsg + body,
    };
    for (unsigned i = 0; i < nrights; i++)
        kmsg->rights[i] = (struct mio_right){.kind = MIO_RIGHT_NULL};
    return kmsg;
}

void mio_kmsg_free(struct mio_kmsg *kmsg) {
    if (kmsg->heap >= 0)
        close(kmsg->heap);
    free(kmsg);
}

void mio_kmsg_destroy(struct mio_kmsg *kmsg) {
    mio_right_destroy(&kmsg->dest);
    mio_right_destroy(&kmsg->reply);
    for (unsigned i = 0; i < kmsg->nrights; i++)
        mio_right_destroy(&kmsg->rights[i]);
    mio_kmsg_free(kmsg);
}

/*
 * First come, first destroyed. A receive right in one of them adds its own queue at the end
 * instead of going deeper, so that no chain of ports can exhaust the stack.
 */
void mio_reap(void) {
    if (mio_task.reaping)
        return;
    mio_task.reaping = true;
    while (mio_task.dying != NULL) {
        struct mio_kmsg *kmsg = mio_task.dying;
        mio_task.dying = kmsg->next;
        if (mio_task.dying == NULL)
            mio_task.dying_tail = &mio_task.dying;
        mio_kmsg_destroy(kmsg);
    }
    mio_task.reaping = false;
}
