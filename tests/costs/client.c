/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * COUNT round trips of 64 bytes from here to a child process and back, between two SIGUSR1.
 *
 *     client COUNT          messages
 *     client COUNT call     the answer comes by a send-once right
 *     client COUNT right    a send right to a port of this process goes there and comes back
 */
#include <mach/mach.h>

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    mach_msg_body_t body;
    mach_msg_port_descriptor_t port;
    char bytes[48];
    mach_msg_max_trailer_t trailer;
} buffer;

static mach_port_t new_port(void) {
    mach_port_t port;
    MUST(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port) == KERN_SUCCESS);
    return port;
}

static void exchange(mach_port_t to, mach_msg_type_name_t type, mach_msg_type_name_t reply_type,
                     mach_port_t reply, mach_port_t moving) {
    buffer.header = (mach_msg_header_t){
        .msgh_bits = MACH_MSGH_BITS(type, reply_type) |
                     (moving != MACH_PORT_NULL ? MACH_MSGH_BITS_COMPLEX : 0),
        .msgh_size = offsetof(__typeof__(buffer), trailer),
        .msgh_remote_port = to,
        .msgh_local_port = reply_type == 0 ? MACH_PORT_NULL : reply,
    };
    buffer.body.msgh_descriptor_count = 1;
    buffer.port = (mach_msg_port_descriptor_t){
        .name = moving, .disposition = MACH_MSG_TYPE_MOVE_SEND, .type = MACH_MSG_PORT_DESCRIPTOR};
    MUST(mach_msg(&buffer.header, MACH_SEND_MSG | MACH_RCV_MSG, buffer.header.msgh_size,
                  sizeof buffer, reply, MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL) == MACH_MSG_SUCCESS);
}

/* The child has what its parent registered, and introduces its own port with the first message. */
static int answer(void) {
    mach_port_array_t ports;
    mach_msg_type_number_t n;
    mach_port_t port = new_port();
    MUST(mach_ports_lookup(mach_task_self(), &ports, &n) == KERN_SUCCESS && n > 0);
    exchange(ports[0], MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND, port, MACH_PORT_NULL);
    while (buffer.header.msgh_id == 0) {
        bool complex = buffer.header.msgh_bits & MACH_MSGH_BITS_COMPLEX;
        bool call = buffer.header.msgh_remote_port != MACH_PORT_NULL;
        exchange(call ? buffer.header.msgh_remote_port : ports[0],
                 call ? MACH_MSG_TYPE_MOVE_SEND_ONCE : MACH_MSG_TYPE_COPY_SEND, 0, port,
                 complex ? buffer.port.name : MACH_PORT_NULL);
    }
    return 0;
}

int main(int argc, char **argv) {
    MUST(argc == 2 || argc == 3);
    long count = atol(argv[1]);
    bool call = argc == 3 && strcmp(argv[2], "call") == 0;
    bool right = argc == 3 && strcmp(argv[2], "right") == 0;
    mach_port_t port = new_port(), moving = new_port();
    MUST(mach_port_insert_right(mach_task_self(), moving, moving, MACH_MSG_TYPE_MAKE_SEND) ==
         KERN_SUCCESS);
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
        exchange(peer, MACH_MSG_TYPE_COPY_SEND, call ? MACH_MSG_TYPE_MAKE_SEND_ONCE : 0, port,
                 right ? moving : MACH_PORT_NULL);
    }
    raise(SIGUSR1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}
