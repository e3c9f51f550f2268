/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_port_peek: a look at a queued message. The messages up to it are taken off and put back to
 * the front of the port's own queue, as one that is too large for its receiver is.
 *
 * Guarded by mio_task.lock; owns nothing.
 */
#include "internal.h"

/* What a message is larger by in XNU's kernel, and each port descriptor in it. */
#define KERNEL_EXTRA 8u
#define KERNEL_PORT_EXTRA 4u

/* Takes off `count` messages, the last taken first in the list. Fewer, if there are fewer. */
static struct mio_kmsg *take(struct mio_port *port, unsigned count, unsigned *ret_taken) {
    struct mio_kmsg *taken = NULL;
    bool shortage;
    for (*ret_taken = 0; *ret_taken < count; ++*ret_taken) {
        struct mio_kmsg *kmsg = mio_port_dequeue(port, &shortage);
        if (kmsg == NULL)
            break;
        kmsg->next = taken;
        taken = kmsg;
    }
    return taken;
}

static void put_back(struct mio_port *port, struct mio_kmsg *taken) {
    while (taken != NULL) {
        struct mio_kmsg *next = taken->next;
        mio_kmsg_push_front(port, taken);
        taken = next;
    }
    mio_port_mark_ready(port);
}

kern_return_t mach_port_peek(ipc_space_t task, mach_port_name_t name,
                             mach_msg_trailer_type_t trailer_type, mach_port_seqno_t *seqno,
                             mach_msg_size_t *size, mach_msg_id_t *id,
                             mach_msg_trailer_info_t trailer,
                             mach_msg_type_number_t *trailer_size) {
    struct mio_port *port;
    mach_msg_size_t wanted =
        (mach_msg_size_t)REQUESTED_TRAILER_SIZE((mach_msg_option_t)trailer_type);
    unsigned taken;
    if (GET_RCV_ELEMENTS((mach_msg_option_t)trailer_type) > MACH_RCV_TRAILER_AUDIT ||
        wanted > *trailer_size)
        return MACH_PORT_VALID(name) ? KERN_INVALID_VALUE : KERN_INVALID_RIGHT;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_RIGHT, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    unsigned nth = *seqno == 0 ? 0 : *seqno - port->seqno;
    struct mio_kmsg *kmsg = nth < MIO_QUEUE_MAX ? take(port, nth + 1, &taken) : NULL;
    if (kmsg == NULL || taken <= nth) {
        kr = KERN_FAILURE;
    } else {
        *seqno = port->seqno + nth;
        *size = kmsg->size + KERNEL_EXTRA + KERNEL_PORT_EXTRA * kmsg->nrights;
        *id = kmsg->id;
        *trailer_size = wanted;
        mio_trailer_write(trailer, wanted, *seqno, &kmsg->sender, 0);
    }
    put_back(port, kmsg);
    mio_unlock();
    return kr;
}
