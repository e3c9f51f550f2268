/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * kqueues.h - short words for the C tests: register a knote, take the next event.
 */
#ifndef MACHIO_TESTS_KQUEUES_H
#define MACHIO_TESTS_KQUEUES_H

#include "ports.h"

#include <sys/event.h>

#include <errno.h>
#include <poll.h>

static const struct timespec now = {0, 0};
__attribute__((unused)) static const struct timespec second = {1, 0};

__attribute__((unused)) static int change(int kq, uint64_t ident, int filter, unsigned flags,
                                          unsigned fflags) {
    struct kevent64_s event = {.ident = ident,
                               .filter = (int16_t)filter,
                               .flags = (uint16_t)flags,
                               .fflags = fflags,
                               .udata = ident + 1};
    return kevent64(kq, &event, 1, NULL, 0, 0, NULL) == 0 ? 0 : errno;
}

__attribute__((unused)) static int change_port(int kq, mach_port_t port, unsigned flags) {
    return change(kq, port, EVFILT_MACHPORT, flags, 0);
}

__attribute__((unused)) static int next(int kq, struct kevent64_s *event) {
    return kevent64(kq, NULL, 0, event, 1, 0, &now);
}

__attribute__((unused)) static void check_none(int kq) {
    struct kevent64_s event;
    CHECK_EQ(next(kq, &event), 0);
}

__attribute__((unused)) static void check_event(int kq, mach_port_t ident, unsigned flags,
                                                mach_port_t data) {
    struct kevent64_s event;
    CHECK_EQ(next(kq, &event), 1);
    CHECK_EQ(event.ident, ident);
    CHECK_EQ(event.filter, EVFILT_MACHPORT);
    CHECK_EQ(event.flags, flags);
    CHECK_EQ(event.fflags, 0);
    CHECK_EQ(event.data, data);
    CHECK_EQ(event.udata, (uint64_t)ident + 1);
}

__attribute__((unused)) static bool readable(int kq) {
    struct pollfd fd = {.fd = kq, .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

__attribute__((unused)) static const send_fn ways[] = {send_id, send_wire};

/* The body once for each way to send a message. */
#define EACH_WAY(SEND) for (unsigned way = 0; way < 2 && (SEND = ways[way], true); way++)

#endif
