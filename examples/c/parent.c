/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The twin of reverse_parent.py in C: it starts a child, waits for the send right that the child
 * checks in, and calls the child's service.
 *
 *     ./parent ./child        or        ./parent python examples/reverse_child.py
 *
 * It is the handshake's server, as Crashpad's is: it writes a secret and the name of a fresh
 * service into a pipe, and one kqueue tells it of the check-in (EVFILT_MACHPORT) and of the end of
 * the pipe (EVFILT_WRITE), whichever comes first.
 *
 * `make -C examples/c` makes it.
 */

#include <mach/mach.h>
#include <mach/ndr.h>
#include <servers/bootstrap.h>
#include <sys/event.h>

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UPPER = 1, QUIT = 2 };    /* what parent and child agree on */
enum { CHECK_IN = 10011 };       /* child_port_check_in, a simpleroutine of MIG */
enum { MOST = 256, NAME = 128 }; /* bytes of a text, of a name with its NUL */

static void say(const char *text) {
    printf("parent %d: %s\n", (int)getpid(), text);
    fflush(stdout);
}

static void check(kern_return_t code, const char *what) {
    if (code == KERN_SUCCESS)
        return;
    fprintf(stderr, "parent %d: %s: %s\n", (int)getpid(), what, bootstrap_strerror(code));
    exit(1);
}

static void must(int good, const char *what) {
    if (good)
        return;
    perror(what);
    exit(1);
}

/* ---- the child ----------------------------------------------------------------------------- */

/* argv and the number of the descriptor; its end of the pipe is the only one left then. */
static pid_t start(char **argv, int fd, int ours) {
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        char number[16], *words[32] = {0};
        for (int i = 0; i < 30 && argv[i] != NULL; i++)
            words[i] = argv[i], words[i + 1] = number;
        snprintf(number, sizeof number, "%d", fd);
        close(ours);
        execvp(words[0], words);
        perror(words[0]);
        _exit(127);
    }
    close(fd);
    return pid;
}

/* ---- the handshake's server ---------------------------------------------------------------- */

#pragma pack(push, 4)
typedef struct {
    mach_msg_header_t Head;
    mach_msg_body_t msgh_body;
    mach_msg_port_descriptor_t port;
    NDR_record_t NDR;
    uint64_t token;
} check_in_t;
#pragma pack(pop)

static void write_offer(int fd, uint64_t token, const char *name) {
    char offer[sizeof token + sizeof(uint32_t) + NAME];
    uint32_t length = (uint32_t)strlen(name);

    memcpy(offer, &token, sizeof token);
    memcpy(offer + sizeof token, &length, sizeof length);
    memcpy(offer + sizeof token + sizeof length, name, length);
    /* It fits into an empty pipe. If nobody reads it any more, the kqueue will tell. */
    (void)!write(fd, offer, sizeof token + sizeof length + length);
}

/* The order is that of MIG's server stubs. */
static int is_genuine(const check_in_t *message, uint64_t token) {
    return message->Head.msgh_id == CHECK_IN &&
           (message->Head.msgh_bits & MACH_MSGH_BITS_COMPLEX) != 0 &&
           message->Head.msgh_size == sizeof *message &&
           message->msgh_body.msgh_descriptor_count == 1 &&
           message->port.type == MACH_MSG_PORT_DESCRIPTOR &&
           message->port.disposition == MACH_MSG_TYPE_MOVE_SEND && message->token == token &&
           MACH_PORT_VALID(message->port.name);
}

/* Look at what is queued, without waiting; whatever is not the check-in is destroyed. */
static mach_port_t take_check_in(mach_port_t service, uint64_t token) {
    for (;;) {
        struct {
            check_in_t message;
            mach_msg_max_trailer_t trailer;
        } in = {0};
        mach_msg_return_t code = mach_msg(&in.message.Head, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0,
                                          sizeof in, service, 0, MACH_PORT_NULL);
        if (code == MACH_RCV_TIMED_OUT)
            return MACH_PORT_NULL;
        if (code == MACH_RCV_TOO_LARGE)
            continue; /* it was destroyed */
        check(code, "receive");
        if (is_genuine(&in.message, token)) {
            mach_port_deallocate(mach_task_self(), in.message.Head.msgh_remote_port);
            return in.message.port.name;
        }
        mach_msg_destroy(&in.message.Head);
    }
}

/* Offer a service and wait for the check-in, or for the end of the pipe: MACH_PORT_NULL. */
static mach_port_t serve(int fd) {
    mach_port_t service, right = MACH_PORT_NULL;
    uint64_t secret[3];
    char name[NAME];
    struct kevent changes[2], event;

    must(getentropy(secret, sizeof secret) == 0, "getentropy");
    snprintf(name, sizeof name, "org.machio.child_port_handshake.%d.%016llx%016llx", (int)getpid(),
             (unsigned long long)secret[1], (unsigned long long)secret[2]);
    check(bootstrap_check_in(bootstrap_port, name, &service), "bootstrap_check_in");
    write_offer(fd, secret[0], name);

    int kq = kqueue();
    must(kq >= 0, "kqueue");
    EV_SET(&changes[0], service, EVFILT_MACHPORT, EV_ADD, 0, 0, NULL);
    EV_SET(&changes[1], fd, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, NULL);
    must(kevent(kq, changes, 2, NULL, 0, NULL) == 0, "kevent");
    for (int ended = 0; !ended && right == MACH_PORT_NULL;) {
        must(kevent(kq, NULL, 0, &event, 1, NULL) == 1, "kevent");
        ended = event.filter == EVFILT_WRITE && (event.flags & EV_EOF) != 0;
        /* After the end too: a check-in may have been sent just before. */
        right = take_check_in(service, secret[0]);
    }
    close(kq);
    close(fd);
    check(mach_port_mod_refs(mach_task_self(), service, MACH_PORT_RIGHT_RECEIVE, -1),
          "the service");
    return right;
}

/* ---- calls --------------------------------------------------------------------------------- */

typedef struct {
    mach_msg_header_t Head;
    char text[MOST];
    mach_msg_max_trailer_t trailer;
} message_t;

static void send_text(mach_port_t to, mach_port_t reply, int id, const char *text) {
    message_t message = {.Head = {.msgh_remote_port = to, .msgh_local_port = reply, .msgh_id = id}};
    size_t length = strlen(text);

    message.Head.msgh_bits = MACH_MSGH_BITS(
        MACH_MSG_TYPE_COPY_SEND, reply != MACH_PORT_NULL ? MACH_MSG_TYPE_MAKE_SEND_ONCE : 0);
    message.Head.msgh_size = (mach_msg_size_t)(sizeof message.Head + ((length + 3) & ~(size_t)3));
    memcpy(message.text, text, length);
    check(mach_msg(&message.Head, MACH_SEND_MSG, message.Head.msgh_size, 0, MACH_PORT_NULL,
                   MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL),
          "send");
}

static void call(mach_port_t service, mach_port_t replies, const char *text) {
    message_t answer = {0};
    char line[MOST + 64];

    snprintf(line, sizeof line, "I call it: '%s'", text);
    say(line);
    send_text(service, replies, UPPER, text);
    check(mach_msg(&answer.Head, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof answer, replies, 10000,
                   MACH_PORT_NULL),
          "the answer");
    if (answer.Head.msgh_id != UPPER) /* a send-once notification: the call was dropped */
        check(KERN_FAILURE, "the answer");
    snprintf(line, sizeof line, "it answers '%.*s'",
             (int)(answer.Head.msgh_size - sizeof answer.Head), answer.text);
    say(line);
    mach_msg_destroy(&answer.Head);
}

int main(int argc, char **argv) {
    mach_port_t service, replies;
    int fds[2], status;

    if (argc < 2) {
        fprintf(stderr, "usage: parent PROGRAM [ARGUMENT ...]\n");
        return 2;
    }
    must(pipe(fds) == 0, "pipe");
    fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    pid_t child = start(argv + 1, fds[0], fds[1]);
    signal(SIGPIPE, SIG_IGN); /* the child may be gone before it reads */
    say("I started a child and wait for its check-in");
    service = serve(fds[1]);
    if (service == MACH_PORT_NULL) {
        fprintf(stderr, "parent %d: the child did not check in\n", (int)getpid());
        waitpid(child, &status, 0);
        return 1;
    }
    say("I hold a send right to the child's service");
    check(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &replies), "a port");
    call(service, replies, "hello, child");
    call(service, replies, "mach on every kernel");
    send_text(service, MACH_PORT_NULL, QUIT, "");
    check(mach_port_deallocate(mach_task_self(), service), "the right");
    check(mach_port_mod_refs(mach_task_self(), replies, MACH_PORT_RIGHT_RECEIVE, -1), "the port");
    must(waitpid(child, &status, 0) == child, "waitpid");
    printf("parent %d: the child ended with status %d\n", (int)getpid(), WEXITSTATUS(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
