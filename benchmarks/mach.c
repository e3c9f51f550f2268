/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The same in Mach: COUNT round trips of SIZE bytes of body between two processes, each side with
 * one mach_msg() that sends and receives. Prints the median in nanoseconds.
 *
 * A forked child inherits the ports that its parent registered: so it finds the parent's, and its
 * first message brings the parent a right to its own.
 *
 *     mach COUNT SIZE
 */
#include "clock.h"

#include <mach/mach.h>
#include <sys/wait.h>
#include <unistd.h>

static union {
    mach_msg_header_t header;
    char bytes[65536 + 1024];
} buffer;

static mach_port_t new_port(void) {
    mach_port_t port;
    MUST(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port) == KERN_SUCCESS);
    return port;
}

static void exchange(mach_msg_option_t option, mach_port_t to, mach_port_t from, size_t size) {
    buffer.header.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0);
    buffer.header.msgh_size = (mach_msg_size_t)(sizeof buffer.header + size);
    buffer.header.msgh_remote_port = to;
    buffer.header.msgh_local_port = MACH_PORT_NULL;
    MUST(mach_msg(&buffer.header, option, buffer.header.msgh_size, sizeof buffer, from,
                  MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL) == MACH_MSG_SUCCESS);
}

static int child(long count, size_t size) {
    mach_port_array_t ports;
    mach_msg_type_number_t n;
    mach_port_t port = new_port();
    MUST(mach_ports_lookup(mach_task_self(), &ports, &n) == KERN_SUCCESS && n > 0);
    mach_port_t parent = ports[0];
    buffer.header = (mach_msg_header_t){
        .msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND),
        .msgh_size = sizeof buffer.header,
        .msgh_remote_port = parent,
        .msgh_local_port = port,
    };
    MUST(mach_msg(&buffer.header, MACH_SEND_MSG | MACH_RCV_MSG, sizeof buffer.header, sizeof buffer,
                  port, MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL) == MACH_MSG_SUCCESS);
    for (long i = 1 - WARM_UP; i < count; i++)
        exchange(MACH_SEND_MSG | MACH_RCV_MSG, parent, port, size);
    exchange(MACH_SEND_MSG, parent, MACH_PORT_NULL, size);
    return 0;
}

int main(int argc, char **argv) {
    MUST(argc == 3);
    long count = atol(argv[1]);
    size_t size = (size_t)atol(argv[2]) & ~(size_t)3;
    mach_port_t port = new_port();
    MUST(size <= 65536);
    MUST(mach_port_insert_right(mach_task_self(), port, port, MACH_MSG_TYPE_MAKE_SEND) ==
         KERN_SUCCESS);
    MUST(mach_ports_register(mach_task_self(), &port, 1) == KERN_SUCCESS);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0)
        return child(count, size);

    MUST(mach_msg(&buffer.header, MACH_RCV_MSG, 0, sizeof buffer, port, MACH_MSG_TIMEOUT_NONE,
                  MACH_PORT_NULL) == MACH_MSG_SUCCESS);
    mach_port_t peer = buffer.header.msgh_remote_port;
    int64_t *times = calloc((size_t)count, sizeof *times);
    MUST(times != NULL && count > 0);
    for (long i = -WARM_UP; i < count; i++) {
        int64_t start = now();
        exchange(MACH_SEND_MSG | MACH_RCV_MSG, peer, port, size);
        if (i >= 0)
            times[i] = now() - start;
    }
    report(times, count);
    waitpid(pid, NULL, 0);
    return 0;
}
