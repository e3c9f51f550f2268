/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The kqueue as a descriptor: polled, nested, closed, forked, waited for by threads.
 */
#include "kqueues.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>

/* ---- the descriptor -------------------------------------------------------------------------- */

static void poll_by_epoll(uint32_t edge) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port();
        int kq = kqueue(), loop = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event event = {.events = (uint32_t)EPOLLIN | edge};
        CHECK_EQ(epoll_ctl(loop, EPOLL_CTL_ADD, kq, &event), 0);
        CHECK_EQ(change_port(kq, port, EV_ADD | EV_CLEAR), 0);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(epoll_wait(loop, &event, 1, 0), 0);
            send(port, i);
            CHECK_EQ(epoll_wait(loop, &event, 1, 0), 1);
            check_event(kq, port, EV_ADD | EV_CLEAR, port);
            CHECK_EQ(epoll_wait(loop, &event, 1, 0), 0);
            receive_from(port, port, i);
            check_empty(port);
        }
        close(loop);
        close(kq);
        destroy_port(port);
    }
}

TEST(polled_by_an_epoll) {
    poll_by_epoll(0);
}

TEST(polled_by_an_edge_triggered_epoll) {
    poll_by_epoll(EPOLLET);
}

TEST(in_another_kqueue) {
    send_fn send;
    EACH_WAY(send) {
        for (unsigned clear = 0; clear < 2; clear++) {
            mach_port_t a = new_port(), b = new_port();
            int inner = kqueue(), outer = kqueue();
            struct kevent64_s event;
            CHECK_EQ(change_port(inner, a, EV_ADD), 0);
            CHECK_EQ(change_port(inner, b, EV_ADD), 0);
            unsigned flags = EV_ADD | (clear ? EV_CLEAR : 0u);
            CHECK_EQ(change(outer, (uint64_t)inner, EVFILT_READ, flags, 0), 0);
            check_none(outer);
            send(a, 1);
            send(b, 2);
            CHECK(readable(outer));
            CHECK_EQ(next(outer, &event), 1);
            CHECK_EQ(event.ident, inner);
            CHECK_EQ(event.data, 2);
            if (clear)
                check_none(outer);
            receive_from(a, a, 1);
            if (!clear) {
                CHECK_EQ(next(outer, &event), 1);
                CHECK_EQ(event.data, 1);
            }
            receive_from(b, b, 2);
            if (clear)
                check_none(inner); /* only now it can become readable again */
            check_none(outer);
            CHECK(!readable(outer));
            send(b, 3);
            CHECK_EQ(next(outer, &event), 1);
            CHECK_EQ(event.data, 1);
            check_event(inner, b, EV_ADD, b);
            close(inner);
            check_none(outer);
            close(outer);
            destroy_port(a);
            destroy_port(b);
        }
    }
}

TEST(kqueues_that_cannot_nest) {
    int a = kqueue(), b = kqueue();
    CHECK_EQ(change(a, (uint64_t)b, EVFILT_WRITE, EV_ADD, 0), EINVAL);
    CHECK_EQ(change(a, (uint64_t)a, EVFILT_READ, EV_ADD, 0), EINVAL);
    CHECK_EQ(change(a, (uint64_t)b, EVFILT_READ, EV_ADD, 0), 0);
    CHECK_EQ(change(b, (uint64_t)a, EVFILT_READ, EV_ADD, 0), EINVAL);
    check_none(a);
    check_none(b);
    close(a);
    close(b);
}

/* The number of a closed kqueue is soon another file's; what we then do must not reach that. */
TEST(closed_behind_our_back) {
    send_fn send;
    EACH_WAY(send) {
        close(kqueue()); /* the task keeps what its first kqueue needed */
        int fds = check_fd_count(), pipe_fds[2];
        mach_port_t port = new_port(), set = new_set();
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77}, got;
        int kq = kqueue();
        CHECK_EQ(pipe(pipe_fds), 0);
        CHECK_EQ(change_port(kq, port, EV_ADD), 0);
        CHECK_EQ(change_port(kq, set, EV_ADD), 0);
        CHECK_EQ(change(kq, (uint64_t)pipe_fds[0], EVFILT_READ, EV_ADD, 0), 0);
        close(kq);
        CHECK_EQ(epoll_create1(EPOLL_CLOEXEC), kq);
        CHECK_EQ(epoll_ctl(kq, EPOLL_CTL_ADD, pipe_fds[0], &event), 0);
        send(port, 1);
        CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
        CHECK_EQ(epoll_wait(kq, &got, 1, 0), 0);
        CHECK_EQ(kevent64(kq, NULL, 0, NULL, 0, 0, NULL), -1);
        CHECK_EQ(errno, EBADF);
        CHECK_EQ(write(pipe_fds[1], "x", 1), 1);
        CHECK_EQ(epoll_wait(kq, &got, 1, 0), 1);
        CHECK_EQ(got.data.u64, 77);
        close(kq);
        CHECK_EQ(kqueue(), kq); /* a new one under the old number */
        check_none(kq);
        CHECK_EQ(change_port(kq, port, EV_DELETE), ENOENT);
        CHECK_EQ(change_port(kq, port, EV_ADD), 0);
        check_event(kq, port, EV_ADD, port);
        close(kq);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        destroy_set(set);
        destroy_port(port);
        CHECK_FDS(fds);
    }
}

TEST(kqueues_come_and_go) {
    mach_port_t port = new_port();
    int fds[20];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 20; i++) {
            fds[i] = kqueue();
            CHECK_EQ(change_port(fds[i], port, EV_ADD | EV_CLEAR), 0);
        }
        (round % 2 ? send_id : send_wire)(port, round);
        for (int i = round % 20; i < 20; i++)
            check_event(fds[i], port, EV_ADD | EV_CLEAR, port);
        receive_from(port, port, round);
        for (int i = 0; i < 20; i++)
            close(fds[i]);
    }
    destroy_port(port);
}

TEST(not_inherited_by_fork) {
    send_fn send;
    EACH_WAY(send) {
        int fds = check_fd_count();
        mach_port_t port = new_port();
        int kq = kqueue();
        CHECK_EQ(change_port(kq, port, EV_ADD | EV_CLEAR), 0);
        send(port, 1);
        pid_t child = fork();
        if (child == 0) {
            CHECK(check_fd_count() <= fds);
            CHECK_EQ(kevent64(kq, NULL, 0, NULL, 0, 0, NULL), -1);
            CHECK_EQ(errno, EBADF);
            CHECK_EQ(fcntl(kq, F_GETFD), -1);
            CHECK_EQ(kqueue(), kq);
            port = new_port();
            CHECK_EQ(change_port(kq, port, EV_ADD), 0);
            send(port, 2);
            check_event(kq, port, EV_ADD, port);
            _exit(0);
        }
        CHECK_CHILD(child);
        CHECK(readable(kq));
        check_event(kq, port, EV_ADD | EV_CLEAR, port);
        receive_from(port, port, 1);
        check_none(kq);
        send(port, 2);
        check_event(kq, port, EV_ADD | EV_CLEAR, port);
        close(kq);
        destroy_port(port);
    }
}

/* ---- notifications --------------------------------------------------------------------------- */

TEST(a_notification_is_an_event) {
    mach_port_t port = new_port(), notify = new_port(), previous;
    int kq = kqueue();
    CHECK_EQ(change_port(kq, notify, EV_ADD | EV_CLEAR), 0);
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    CHECK_EQ(mach_port_request_notification(SELF, port, MACH_NOTIFY_NO_SENDERS, 0, notify,
                                            MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
             KERN_SUCCESS);
    check_none(kq);
    CHECK(!readable(kq));
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, -1), KERN_SUCCESS);
    CHECK(readable(kq));
    check_event(kq, notify, EV_ADD | EV_CLEAR, notify);
    close(kq);
    destroy_port(port);
    destroy_port(notify);
}

/* ---- waiting --------------------------------------------------------------------------------- */

struct later {
    pthread_t thread;
    mach_port_t port;
    send_fn send; /* NULL: destroy it */
    int kq;
};

static void *act(void *argument) {
    struct later *later = argument;
    struct pollfd none = {.fd = -1};
    poll(&none, 1, 20);
    if (later->send != NULL)
        later->send(later->port, 1);
    else
        destroy_port(later->port);
    return NULL;
}

TEST(a_thread_waits) {
    const send_fn acts[] = {send_id, send_wire, NULL};
    for (unsigned i = 0; i < 3; i++) {
        struct later later = {.port = new_port(), .send = acts[i]};
        struct kevent64_s event;
        int kq = kqueue();
        CHECK_EQ(change_port(kq, later.port, EV_ADD), 0);
        if (i == 1)
            send_wire(later.port, 0), receive_from(later.port, later.port, 0);
        CHECK_EQ(pthread_create(&later.thread, NULL, act, &later), 0);
        CHECK_EQ(kevent64(kq, NULL, 0, &event, 1, 0, i ? NULL : &second), 1);
        CHECK_EQ(event.ident, later.port);
        CHECK_EQ(pthread_join(later.thread, NULL), 0);
        close(kq);
    }
}

static void on_alarm(int signal) {
    (void)signal;
}

TEST(waiting_ends) {
    struct sigaction action = {.sa_handler = on_alarm};
    const struct timespec little = {0, 5000000};
    struct timespec before, after;
    struct kevent64_s event;
    int kq = kqueue();
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK_EQ(kevent64(kq, NULL, 0, &event, 1, 0, &little), 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK((after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec >= 5000000);

    sigaction(SIGALRM, &action, NULL);
    alarm(1);
    CHECK_EQ(kevent64(kq, NULL, 0, &event, 1, 0, NULL), -1);
    CHECK_EQ(errno, EINTR);
    close(kq);
}

enum { MESSAGES = 4000, RECEIVERS = 3 };
static int received, stop_pipe[2];
static pthread_mutex_t received_lock = PTHREAD_MUTEX_INITIALIZER;

/* As an event loop does: after each event, until the port is empty. */
static void *drain(void *argument) {
    struct later *later = argument;
    for (;;) {
        struct kevent64_s events[2];
        struct message message;
        int n = kevent64(later->kq, NULL, 0, events, 2, 0, &second);
        CHECK(n >= 0);
        for (int i = 0; i < n; i++) {
            if (events[i].filter == EVFILT_READ)
                return NULL;
            while (receive(later->port, &message, 0) == MACH_MSG_SUCCESS) {
                pthread_mutex_lock(&received_lock);
                bool last = ++received == MESSAGES;
                pthread_mutex_unlock(&received_lock);
                if (last)
                    CHECK_EQ(write(stop_pipe[1], "x", 1), 1);
            }
        }
    }
}

TEST(many_threads_lose_no_message) {
    struct later later = {.port = new_port(), .kq = kqueue()};
    pthread_t threads[RECEIVERS];
    CHECK_EQ(pipe(stop_pipe), 0);
    CHECK_EQ(change(later.kq, (uint64_t)stop_pipe[0], EVFILT_READ, EV_ADD, 0), 0);
    CHECK_EQ(change_port(later.kq, later.port, EV_ADD | EV_CLEAR), 0);
    for (int i = 0; i < RECEIVERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, drain, &later), 0);
    for (int i = 0; i < MESSAGES; i++) {
        mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MAKE_SEND, 0),
                                     .msgh_size = sizeof message,
                                     .msgh_remote_port = later.port};
        if (i == MESSAGES / 2) {
            send_wire(later.port, i); /* wired from here on */
            continue;
        }
        CHECK_EQ(mach_msg(&message, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0), MACH_MSG_SUCCESS);
    }
    for (int i = 0; i < RECEIVERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(received, MESSAGES);
    close(later.kq);
    destroy_port(later.port);
}

CHECK_MAIN()
