/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * EVFILT_MACHPORT with MACH_RCV_MSG: the event brings the message.
 */
#include "kqueues.h"

static void add_receive(int kq, mach_port_t name, unsigned options, void *buffer, size_t size) {
    struct kevent64_s event = {.ident = name,
                               .filter = EVFILT_MACHPORT,
                               .flags = EV_ADD,
                               .fflags = MACH_RCV_MSG | options,
                               .ext = {(uintptr_t)buffer, size}};
    CHECK_EQ(kevent64(kq, &event, 1, NULL, 0, 0, NULL), 0);
}

TEST(receive_with_the_event) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port(), set = new_set();
        struct message message = {.header = {.msgh_id = 0}};
        struct kevent64_s event;
        int kq = kqueue();
        CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
        add_receive(kq, set, 0, &message, sizeof message);
        send(port, 11);
        CHECK_EQ(next(kq, &event), 1);
        CHECK_EQ(event.ident, set);
        CHECK_EQ(event.fflags, MACH_MSG_SUCCESS);
        CHECK_EQ(event.data, 0);
        CHECK_EQ(event.ext[0], (uintptr_t)&message);
        CHECK_EQ(event.ext[1], sizeof message);
        CHECK_EQ(message.header.msgh_id, 11);
        CHECK_EQ(message.header.msgh_local_port, port);
        check_empty(port);
        check_none(kq);
        CHECK(!readable(kq));
        close(kq);
        destroy_set(set);
        destroy_port(port);
    }
}

TEST(receive_too_large) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port();
        struct message message;
        struct kevent64_s event;
        int kq = kqueue();
        add_receive(kq, port, MACH_RCV_LARGE | MACH_RCV_LARGE_IDENTITY, &message, 28);
        send(port, 12);
        CHECK_EQ(next(kq, &event), 1);
        CHECK_EQ(event.fflags, MACH_RCV_TOO_LARGE);
        CHECK_EQ(event.data, port);
        CHECK_EQ(event.ext[1], sizeof message.header);
        receive_from(port, port, 12);
        add_receive(kq, port, MACH_RCV_LARGE, &message, 28);
        send(port, 13);
        CHECK_EQ(next(kq, &event), 1);
        CHECK_EQ(event.fflags, MACH_RCV_TOO_LARGE);
        CHECK_EQ(event.data, 0);
        receive_from(port, port, 13);
        add_receive(kq, port, 0, NULL, 0); /* no buffer at all */
        send(port, 14);
        CHECK_EQ(next(kq, &event), 1);
        CHECK_EQ(event.fflags, MACH_RCV_TOO_LARGE);
        CHECK_EQ(event.data, port);
        receive_from(port, port, 14);
        close(kq);
        destroy_port(port);
    }
}

TEST(receive_by_plain_kevent) {
    mach_port_t port = new_port();
    struct kevent event;
    int kq = kqueue();
    EV_SET(&event, port, EVFILT_MACHPORT, EV_ADD, MACH_RCV_MSG, 0, &port);
    send_id(port, 15);
    CHECK_EQ(kevent(kq, &event, 1, &event, 1, &now), 1);
    CHECK_EQ(event.fflags, MACH_RCV_TOO_LARGE);
    CHECK_EQ(event.data, port);
    CHECK(event.udata == &port);
    receive_from(port, port, 15);
    close(kq);
    destroy_port(port);
}

CHECK_MAIN()
