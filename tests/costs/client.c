/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * COUNT round trips of 64 bytes from here to a child process and back, between two SIGUSR1.
 *
 *     client COUNT
 */
#include <mach/mach.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARM_UP 20

#define MUST(CONDITION)                                                                   \
    do {                                                                                  \
        if (!(CONDITION)) {                                                               \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #CONDITION); \
            _exit(1);                                                                     \
        }                                                                                 \
    } while (0)

static struct {
    mach_msg_header_t header;
    char body[64];
    mach_msg_max_trailer_t trailer;
} buffer;

static mach_port_t new_port(void) {
    mach_port_t port;
    MUST(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port) == KERN_SUCCESS);
    return port;
}

static void exchange(mach_msg_option_t option, mach_port_t to, mach_msg_type_name_t reply_type,
                     mach_port_t reply) {
    buffer.header = (mach_msg_header_t){
        .msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, reply_type),
        .msgh_size = sizeof buffer.header + sizeof buffer.body,
        .msgh_remote_port = to,
        .msgh_local_port = reply_type == 0 ? MACH_PORT_NULL : reply,
    };
    MUST(mach_msg(&buffer.header, option, buffer.header.msgh_size, sizeof buffer, reply,
                  MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL) == MACH_MSG_SUCCESS);
}

/* The child has what its parent registered, and introduces its own port with the first message. */
static int answer(void) {
    mach_port_array_t ports;
    mach_msg_type_number_t n;
    mach_port_t port = new_port();
    MUST(mach_ports_lookup(mach_task_self(), &ports, &n) == KERN_SUCCESS && n > 0);
    exchange(MACH_SEND_MSG | MACH_RCV_MSG, ports[0], MACH_MSG_TYPE_MAKE_SEND, port);
    while (buffer.header.msgh_id == 0)
        exchange(MACH_SEND_MSG | MACH_RCV_MSG, ports[0], 0, port);
    return 0;
}

int main(int argc, char **argv) {
    MUST(argc == 2);
    long count = atol(argv[1]);
    mach_port_t port = new_port();
    MUST(mach_port_insert_right(mach_task_self(), port, port, MACH_MSG_TYPE_MAKE_SEND) ==
         KERN_SUCCESS);
    MUST(mach_ports_register(mach_task_self(), &port, 1) == KERN_SUCCESS);
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0)
        return answer();

    MUST(mach_msg(&buffer.header, MACH_RCV_MSG, 0, sizeof buffer, port, MACH_MSG_TIMEOUT_NONE,
                  MACH_PORT_NULL) == MACH_MSG_SUCCESS);
    mach_port_t peer = buffer.header.msgh_remote_port;
    for (long i = -WARM_UP; i < count; i++) {
        if (i == 0)
            raise(SIGUSR1);
        exchange(MACH_SEND_MSG | MACH_RCV_MSG, peer, 0, port);
    }
    raise(SIGUSR1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
