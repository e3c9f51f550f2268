/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The twin of reverse_child.py in C: a service whose send right goes to the parent, nobody else.
 *
 * It is the handshake's client. It reads the offer from the inherited pipe, finds the service in it
 * by name and checks in: one message with the secret and the right. Started by
 *
 *     python examples/reverse_parent.py ./child        or        ./parent ./child
 *
 * `make -C examples/c` makes it.
 */

#include <mach/mach.h>
#include <mach/ndr.h>
#include <servers/bootstrap.h>

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UPPER = 1, QUIT = 2 };     /* what parent and child agree on */
enum { CHECK_IN = 10011 };        /* child_port_check_in, a simpleroutine of MIG */
enum { MOST = 4096, NAME = 128 }; /* bytes of a request, of a name with its NUL */

static void say(const char *text) {
    printf("child %d: %s\n", (int)getpid(), text);
    fflush(stdout);
}

static void check(kern_return_t code, const char *what) {
    if (code == KERN_SUCCESS)
        return;
    fprintf(stderr, "child %d: %s: %s\n", (int)getpid(), what, bootstrap_strerror(code));
    exit(1);
}

/* ---- the handshake's client ---------------------------------------------------------------- */

struct offer {
    uint64_t token;
    uint32_t length;
    char name[NAME];
};

static void read_all(int fd, void *to, size_t size) {
    for (ssize_t got; size > 0; to = (char *)to + got, size -= (size_t)got) {
        got = read(fd, to, size);
        if (got <= 0) {
            fprintf(stderr, "child %d: the pipe holds no offer\n", (int)getpid());
            exit(1);
        }
    }
}

/* The length is the peer's word: it is looked at before so many bytes are read. */
static struct offer read_offer(int fd) {
    struct offer offer = {0};
    read_all(fd, &offer.token, sizeof offer.token);
    read_all(fd, &offer.length, sizeof offer.length);
    if (offer.length == 0 || offer.length >= NAME) {
        fprintf(stderr, "child %d: that is no offer\n", (int)getpid());
        exit(1);
    }
    read_all(fd, offer.name, offer.length);
    return offer;
}

#pragma pack(push, 4)
typedef struct {
    mach_msg_header_t Head;
    mach_msg_body_t msgh_body;
    mach_msg_port_descriptor_t port;
    NDR_record_t NDR;
    uint64_t token;
} check_in_t;
#pragma pack(pop)

/* MAKE_SEND: the receive right stays here, and a send right made from it travels. */
static void check_in(int fd, mach_port_t port) {
    struct offer offer = read_offer(fd);
    mach_port_t server;

    check(bootstrap_look_up(bootstrap_port, offer.name, &server), "the handshake's server");
    check_in_t message = {
        .Head = {.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSGH_BITS(MACH_MSG_TYPE_MOVE_SEND, 0),
                 .msgh_remote_port = server,
                 .msgh_size = sizeof message,
                 .msgh_id = CHECK_IN},
        .msgh_body = {1},
        .port = {.name = port,
                 .disposition = MACH_MSG_TYPE_MAKE_SEND,
                 .type = MACH_MSG_PORT_DESCRIPTOR},
        .NDR = NDR_record,
        .token = offer.token,
    };
    check(mach_msg(&message.Head, MACH_SEND_MSG, sizeof message, 0, MACH_PORT_NULL,
                   MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL),
          "check in");
    close(fd); /* not before: the end of the pipe says that nobody will check in any more */
}

/* ---- the service --------------------------------------------------------------------------- */

typedef struct {
    mach_msg_header_t Head;
    char text[MOST];
    mach_msg_max_trailer_t trailer;
} message_t;

/* The request becomes its own answer: the reply right, a send-once right, is used up by it. */
static void answer(message_t *message) {
    for (size_t i = 0; i < message->Head.msgh_size - sizeof message->Head; i++)
        message->text[i] = (char)toupper((unsigned char)message->text[i]);
    message->Head.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MOVE_SEND_ONCE, 0);
    message->Head.msgh_local_port = MACH_PORT_NULL;
    if (mach_msg(&message->Head, MACH_SEND_MSG, message->Head.msgh_size, 0, MACH_PORT_NULL,
                 MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL) != MACH_MSG_SUCCESS)
        mach_msg_destroy(&message->Head);
}

/* A message with rights in its body, or without a reply right, is none of ours: it is destroyed. */
static int is_upper(const mach_msg_header_t *head) {
    return head->msgh_id == UPPER && !(head->msgh_bits & MACH_MSGH_BITS_COMPLEX) &&
           MACH_MSGH_BITS_REMOTE(head->msgh_bits) == MACH_MSG_TYPE_MOVE_SEND_ONCE;
}

int main(int argc, char **argv) {
    mach_port_t port;
    message_t message;

    if (argc != 2) {
        fprintf(stderr, "child is started by parent, or by reverse_parent.py: run that one\n");
        return 1;
    }
    check(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port), "a port");
    say("I made a service and check in with a send right to it");
    check_in(atoi(argv[1]), port);
    do {
        message = (message_t){0};
        check(mach_msg(&message.Head, MACH_RCV_MSG, 0, sizeof message, port, MACH_MSG_TIMEOUT_NONE,
                       MACH_PORT_NULL),
              "receive");
        if (is_upper(&message.Head)) {
            say("I answer a call; the reply right is used up");
            answer(&message);
        } else {
            mach_msg_destroy(&message.Head);
        }
    } while (message.Head.msgh_id != QUIT);
    say("asked to quit");
    check(mach_port_mod_refs(mach_task_self(), port, MACH_PORT_RIGHT_RECEIVE, -1), "the end");
    return 0;
}
