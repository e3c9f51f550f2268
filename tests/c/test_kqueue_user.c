/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * EVFILT_USER, and how its events wake whoever waits for the kqueue.
 */
#include "kqueues.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>

static void check_user(int kq, unsigned fflags) {
    struct kevent64_s event;
    CHECK_EQ(next(kq, &event), 1);
    CHECK_EQ(event.ident, 5);
    CHECK_EQ(event.filter, EVFILT_USER);
    CHECK_EQ(event.fflags, fflags);
}

TEST(user_events) {
    int kq = kqueue();
    CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER), ENOENT);
    CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_FFCOPY | 1), 0);
    check_none(kq);
    CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFOR | 2), 0);
    CHECK(readable(kq));
    check_user(kq, 3);
    check_none(kq);
    CHECK(!readable(kq));
    CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFCOPY | 6), 0);
    CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_FFAND | 12), 0);
    check_user(kq, 4);
    CHECK_EQ(change(kq, 5, EVFILT_USER, EV_DELETE, 0), 0);
    CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ADD, NOTE_TRIGGER), 0);
    check_user(kq, 0);
    check_user(kq, 0);
    CHECK_EQ(change(kq, 5, EVFILT_USER, EV_DISABLE, 0), 0);
    CHECK(!readable(kq));
    check_none(kq);
    CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ENABLE, 0), 0);
    check_user(kq, 0);
    close(kq);
}

TEST(a_user_event_once) {
    struct kevent64_s event;
    int kq = kqueue();
    CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ADD | EV_ONESHOT, 0), 0);
    check_none(kq);
    CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFOR | 8), 0);
    CHECK_EQ(next(kq, &event), 1);
    CHECK_EQ(event.flags, EV_ADD | EV_ONESHOT);
    CHECK_EQ(event.fflags, 8);
    CHECK(!readable(kq));
    CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER), ENOENT);
    close(kq);
}

TEST(a_user_event_dispatched) {
    int kq = kqueue();
    CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ADD | EV_DISPATCH | EV_CLEAR, 0), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFCOPY | 7), 0);
        check_user(kq, 7);
        CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFCOPY | 9), 0);
        check_none(kq); /* disabled by the event before */
        CHECK(!readable(kq));
        CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ENABLE, NOTE_FFNOP), 0);
        CHECK(readable(kq));
        check_user(kq, 9);
        CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ENABLE, 0), 0);
        check_none(kq); /* it was cleared when it was reported */
    }
    CHECK_EQ(change(kq, 6, EVFILT_USER, EV_ADD | EV_DISPATCH, NOTE_TRIGGER), 0);
    for (int i = 0; i < 3; i++) { /* without EV_CLEAR it stays triggered */
        struct kevent64_s event;
        CHECK_EQ(next(kq, &event), 1);
        CHECK_EQ(event.ident, 6);
        check_none(kq);
        CHECK_EQ(change(kq, 6, EVFILT_USER, EV_ENABLE, 0), 0);
    }
    close(kq);
}

TEST(receipts_of_user_events) {
    struct kevent64_s events[2] = {
        {.ident = 5, .filter = EVFILT_USER, .flags = EV_ADD | EV_RECEIPT, .udata = 6},
        {.ident = 7, .filter = EVFILT_USER, .flags = EV_RECEIPT, .fflags = NOTE_TRIGGER},
    };
    int kq = kqueue();
    CHECK_EQ(kevent64(kq, events, 2, events, 2, 0, &now), 2);
    CHECK(events[0].flags & EV_ERROR && events[1].flags & EV_ERROR);
    CHECK_EQ(events[0].data, 0);
    CHECK_EQ(events[1].data, ENOENT);
    CHECK_EQ(events[0].udata, 6);
    check_none(kq);
    events[0] = (struct kevent64_s){
        .ident = 5, .filter = EVFILT_USER, .flags = EV_RECEIPT, .fflags = NOTE_TRIGGER, .data = 77};
    CHECK_EQ(kevent64(kq, events, 1, events, 1, 0, &now), 1);
    CHECK_EQ(events[0].data, 0);
    CHECK_EQ(next(kq, &events[1]), 1);
    CHECK_EQ(events[1].ident, 5);
    CHECK_EQ(events[1].data, 77);
    close(kq);
}

/* ---- from another thread --------------------------------------------------------------------- */

static void *trigger(void *argument) {
    int kq = *(int *)argument;
    CHECK_EQ(change(kq, 5, EVFILT_USER, 0, NOTE_TRIGGER | NOTE_FFCOPY | 3), 0);
    return NULL;
}

static void trigger_elsewhere(int *kq, pthread_t *thread) {
    CHECK_EQ(pthread_create(thread, NULL, trigger, kq), 0);
}

TEST(another_thread_wakes_who_waits_in_the_kqueue) {
    struct kevent64_s event;
    const struct timespec long_time = {.tv_sec = 20};
    pthread_t thread;
    int kq = kqueue();
    CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ADD | EV_CLEAR, 0), 0);
    for (int i = 0; i < 100; i++) {
        trigger_elsewhere(&kq, &thread);
        CHECK_EQ(kevent64(kq, NULL, 0, &event, 1, 0, &long_time), 1);
        CHECK_EQ(event.fflags, 3);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        check_none(kq);
    }
    close(kq);
}

static int wait_by_poll(int kq) {
    struct pollfd fd = {.fd = kq, .events = POLLIN};
    return poll(&fd, 1, 20000);
}

static int wait_by_select(int kq) {
    fd_set set;
    struct timeval limit = {.tv_sec = 20};
    FD_ZERO(&set);
    FD_SET(kq, &set);
    return select(kq + 1, &set, NULL, NULL, &limit);
}

static int wait_by_epoll(int kq, uint32_t edge) {
    struct epoll_event event = {.events = EPOLLIN | edge};
    int loop = epoll_create1(EPOLL_CLOEXEC);
    CHECK_EQ(epoll_ctl(loop, EPOLL_CTL_ADD, kq, &event), 0);
    int count = epoll_wait(loop, &event, 1, 20000);
    close(loop);
    return count;
}

static int wait_by_level(int kq) {
    return wait_by_epoll(kq, 0);
}

static int wait_by_edge(int kq) {
    return wait_by_epoll(kq, EPOLLET);
}

static int wait_by_kqueue(int kq) {
    const struct timespec long_time = {.tv_sec = 20};
    struct kevent64_s event;
    int outer = kqueue();
    CHECK_EQ(change(outer, (uint64_t)kq, EVFILT_READ, EV_ADD, 0), 0);
    int count = kevent64(outer, NULL, 0, &event, 1, 0, &long_time);
    CHECK_EQ(event.ident, kq);
    CHECK_EQ(event.data, 1);
    close(outer);
    return count;
}

TEST(another_thread_wakes_who_polls_the_kqueue) {
    int (*const waits[])(int) = {wait_by_poll, wait_by_select, wait_by_level, wait_by_edge,
                                 wait_by_kqueue};
    pthread_t thread;
    for (size_t way = 0; way < sizeof waits / sizeof *waits; way++) {
        int kq = kqueue();
        CHECK_EQ(change(kq, 5, EVFILT_USER, EV_ADD | EV_CLEAR, 0), 0);
        for (int i = 0; i < 20; i++) {
            trigger_elsewhere(&kq, &thread);
            CHECK_EQ(waits[way](kq), 1);
            CHECK_EQ(pthread_join(thread, NULL), 0);
            check_user(kq, 3);
            CHECK(!readable(kq));
        }
        close(kq);
    }
}

CHECK_MAIN()
