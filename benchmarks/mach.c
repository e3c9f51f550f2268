/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The same in Mach: round trips of SIZE bytes of body between two processes, each side with one
 * mach_msg() that sends and receives, for so many SECONDS and no more than COUNT.
 *
 * A forked child inherits the ports that its parent registered: so it finds the parent's, and its
 * first message brings the parent a right to its own.
 *
 *     mach SECONDS SIZE [COUNT]
 */
#include "times.h"

#include <limits.h>
#include <mach/mach.h>
#include <signal.h>
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

static size_t size;
static mach_port_t here, there; /* our port, and a right to the other process's */

static void trip(void *way) {
    (void)way;
    buffer.header.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0);
    buffer.header.msgh_size = (mach_msg_size_t)(sizeof buffer.header + size);
    buffer.header.msgh_remote_port = there;
    buffer.header.msgh_local_port = MACH_PORT_NULL;
    MUST(mach_msg(&buffer.header, MACH_SEND_MSG | MACH_RCV_MSG, buffer.header.msgh_size,
                  sizeof buffer, here, MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL) == MACH_MSG_SUCCESS);
}

static void child(void) {
    mach_port_array_t ports;
    mach_msg_type_number_t n;
    here = new_port();
    MUST(mach_ports_lookup(mach_task_self(), &ports, &n) == KERN_SUCCESS && n > 0);
    there = ports[0];
    buffer.header = (mach_msg_header_t){
        .msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND),
        .msgh_size = sizeof buffer.header,
        .msgh_remote_port = there,
        .msgh_local_port = here,
    };
    MUST(mach_msg(&buffer.header, MACH_SEND_MSG | MACH_RCV_MSG, sizeof buffer.header, sizeof buffer,
                  here, MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL) == MACH_MSG_SUCCESS);
    for (;;)
        trip(NULL);
}

int main(int argc, char **argv) {
    MUST(argc == 3 || argc == 4);
    size = (size_t)atol(argv[2]) & ~(size_t)3;
    here = new_port();
    MUST(size <= 65536);
    MUST(mach_port_insert_right(mach_task_self(), here, here, MACH_MSG_TYPE_MAKE_SEND) ==
         KERN_SUCCESS);
    MUST(mach_ports_register(mach_task_self(), &here, 1) == KERN_SUCCESS);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0)
        child();

    MUST(mach_msg(&buffer.header, MACH_RCV_MSG, 0, sizeof buffer, here, MACH_MSG_TIMEOUT_NONE,
                  MACH_PORT_NULL) == MACH_MSG_SUCCESS);
    there = buffer.header.msgh_remote_port;
    report(atof(argv[1]), argc == 4 ? atol(argv[3]) : LONG_MAX, trip, NULL);
    MUST(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    return 0;
}
