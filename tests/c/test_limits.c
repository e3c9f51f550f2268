/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Many ports: those that nobody can reach cost no file, those that another task can reach cost
 * what docs/linux-wire.md says, and all is given back. (tests/test_costs.py counts what an
 * operation costs among them.)
 */
#include "ports.h"

#include <malloc.h>
#include <poll.h>
#include <sys/resource.h>

#define PORTS 100000
#define SHARED 10000
#define FILES_EACH 5 /* rx, tx, cw of the port; tx and cr of the right to it */

static mach_port_t names[PORTS];

/* Bytes of the heap in use; 0 if the C library does not tell. */
static size_t heap_in_use(void) {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

TEST(a_hundred_thousand_ports_cost_no_file) {
    int files = check_fd_count();
    size_t after_round[2] = {0};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < PORTS; i++)
            names[i] = new_port();
        size_t most = heap_in_use();
        CHECK_FDS(files);
        send_id(names[PORTS - 1], 1);
        receive_from(names[PORTS - 1], names[PORTS - 1], 1);
        for (int i = 0; i < PORTS; i++)
            destroy_port(names[i]);
        CHECK_FDS(files);
        mach_port_t after = new_port();
        CHECK(after >> 8 <= PORTS + 256u); /* indices are used again */
        destroy_port(after);
        after_round[round] = heap_in_use();
        CHECK(after_round[round] <= most / 5); /* the table of names keeps its size */
    }
    CHECK_EQ(after_round[1], after_round[0]);
}

/* A send right to each port goes to the process at the other end, in messages of a hundred. */
static void hand_over(int line, const mach_port_t *ports, unsigned count) {
    mio_lock();
    struct mio_kmsg *kmsg = mio_kmsg_new(28 + 12 * count, count);
    CHECK(kmsg != NULL);
    memset(kmsg->body, 0, 4 + 12 * count);
    memcpy(kmsg->body, &count, sizeof count);
    kmsg->complex = true;
    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(mio_right_copyin(ports[i], MACH_MSG_TYPE_MAKE_SEND, &kmsg->rights[i]),
                 KERN_SUCCESS);
    CHECK_EQ(mio_wire_send(line, kmsg, 0), MIO_WIRE_OK);
    mio_kmsg_free(kmsg);
    mio_unlock();
}

static void take_over(int line, mach_port_t *ports, unsigned count) {
    struct mio_kmsg *kmsg;
    unsigned kind, flags;
    struct pollfd fd = {.fd = line, .events = POLLIN};
    CHECK_EQ(poll(&fd, 1, 10000), 1);
    mio_lock();
    CHECK_EQ(mio_wire_receive(line, &kmsg, &kind, &flags), MIO_WIRE_OK);
    CHECK(kmsg != NULL);
    CHECK_EQ(kmsg->nrights, count);
    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(mio_right_copyout(&kmsg->rights[i], &ports[i]), KERN_SUCCESS);
    mio_kmsg_destroy(kmsg);
    mio_unlock();
}

static void be_the_other(int line, int count) {
    char go = 0;
    int files = check_fd_count();
    for (int i = 0; i < count; i += 100) {
        take_over(line, names + i, 100);
        CHECK_EQ(write(line, &go, 1), 1);
    }
    for (int i = 0; i < count; i++)
        CHECK_EQ(mach_port_deallocate(SELF, names[i]), KERN_SUCCESS);
    CHECK(check_fd_count() <= files + 2); /* /dev/null and the watch for notifications */
    _exit(0);
}

TEST(thousands_of_ports_with_rights_elsewhere) {
    struct rlimit limit;
    int line[2];
    char go;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int count = SHARED; /* as many as the limit allows, in hundreds */
    if (limit.rlim_max < (rlim_t)SHARED * FILES_EACH)
        count = (int)(limit.rlim_max / FILES_EACH) / 100 * 100 - 100;
    CHECK(count >= 100);
    CHECK_EQ(mio_pair(line), 0);
    pid_t child = fork();
    if (child == 0)
        be_the_other(line[1], count);
    for (int i = 0; i < count; i++)
        names[i] = new_port();
    int files = check_fd_count();
    for (int i = 0; i < count; i += 100) {
        hand_over(line[0], names + i, 100);
        CHECK_EQ(read(line[0], &go, 1), 1);
    }
    CHECK_CHILD(child);
    for (int i = 0; i < count; i++)
        destroy_port(names[i]);
    CHECK(check_fd_count() <= files + 2);
}

CHECK_MAIN()
