/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * EVFILT_MACHPORT: modes, registering, last events. Receiving by kevent is in
 * test_kqueue_receive.c, the kqueue as a descriptor in test_kqueue_fd.c, and the other filters are
 * in test_kqueue_files.c.
 */
#include "kqueues.h"

/* ---- modes ----------------------------------------------------------------------------------- */

TEST(port_and_set_both_fire) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port(), set = new_set();
        struct kevent64_s events[4];
        int kq = kqueue();
        CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
        send(port, 1);
        CHECK_EQ(change_port(kq, port, EV_ADD), 0);
        CHECK_EQ(change_port(kq, set, EV_ADD), 0);
        for (int i = 0; i < 2; i++) { /* level: as often as one asks */
            CHECK_EQ(kevent64(kq, NULL, 0, events, 4, 0, &now), 2);
            CHECK(events[0].ident + events[1].ident == (uint64_t)port + set);
            CHECK_EQ(events[0].data, port);
            CHECK_EQ(events[1].data, port);
        }
        receive_from(port, port, 1);
        check_none(kq);
        CHECK(!readable(kq));
        send(port, 2);
        CHECK(readable(kq));
        CHECK_EQ(kevent64(kq, NULL, 0, events, 4, 0, &now), 2);
        receive_from(set, port, 2);
        check_none(kq);
        close(kq);
        destroy_set(set);
        destroy_port(port);
    }
}

TEST(clear_fires_when_the_queue_was_empty) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port();
        int kq = kqueue();
        CHECK_EQ(change_port(kq, port, EV_ADD | EV_CLEAR), 0);
        check_none(kq);
        for (int i = 0; i < 3; i++) {
            send(port, 1);
            CHECK(readable(kq));
            check_event(kq, port, EV_ADD | EV_CLEAR, port);
            CHECK(!readable(kq));
            check_none(kq);
            send(port, 2);
            check_none(kq);
            CHECK(!readable(kq));
            receive_from(port, port, 1);
            send(port, 3);
            check_none(kq);
            receive_from(port, port, 2);
            receive_from(port, port, 3);
        }
        check_empty(port);
        send(port, 4);
        check_event(kq, port, EV_ADD | EV_CLEAR, port);
        receive_from(port, port, 4);
        check_none(kq);
        close(kq);
        destroy_port(port);
    }
}

TEST(clear_on_a_set) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t a = new_port(), b = new_port(), set = new_set();
        int kq = kqueue();
        CHECK_EQ(mach_port_insert_member(SELF, a, set), KERN_SUCCESS);
        CHECK_EQ(change_port(kq, set, EV_ADD | EV_CLEAR), 0);
        send(a, 1);
        check_event(kq, set, EV_ADD | EV_CLEAR, a);
        check_none(kq);
        receive_from(set, a, 1);
        check_empty(set);
        send(a, 2);
        check_event(kq, set, EV_ADD | EV_CLEAR, a);
        receive_from(set, a, 2);
        check_empty(set);
        send(b, 3);
        check_none(kq);
        CHECK_EQ(mach_port_insert_member(SELF, b, set), KERN_SUCCESS);
        check_event(kq, set, EV_ADD | EV_CLEAR, b);
        CHECK_EQ(mach_port_extract_member(SELF, b, set), KERN_SUCCESS);
        send(b, 4);
        check_none(kq);
        CHECK(!readable(kq));
        close(kq);
        destroy_set(set);
        destroy_port(a);
        destroy_port(b);
    }
}

TEST(a_member_with_messages_is_an_event) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port(), set = new_set();
        int kq = kqueue();
        CHECK_EQ(change_port(kq, set, EV_ADD), 0);
        check_none(kq);
        send(port, 1);
        CHECK(!readable(kq));
        CHECK_EQ(mach_port_move_member(SELF, port, set), KERN_SUCCESS);
        CHECK(readable(kq));
        check_event(kq, set, EV_ADD, port);
        CHECK_EQ(mach_port_move_member(SELF, port, MACH_PORT_NULL), KERN_SUCCESS);
        check_none(kq);
        CHECK(!readable(kq));
        close(kq);
        destroy_set(set);
        destroy_port(port);
    }
}

TEST(oneshot) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port();
        int kq = kqueue();
        CHECK_EQ(change_port(kq, port, EV_ADD | EV_ONESHOT), 0);
        send(port, 1);
        check_event(kq, port, EV_ADD | EV_ONESHOT, port);
        check_none(kq);
        CHECK(!readable(kq));
        CHECK_EQ(change_port(kq, port, EV_DELETE), ENOENT);
        close(kq);
        destroy_port(port);
    }
}

TEST(dispatch) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port();
        int kq = kqueue();
        CHECK_EQ(change_port(kq, port, EV_ADD | EV_DISPATCH), 0);
        send(port, 1);
        check_event(kq, port, EV_ADD | EV_DISPATCH, port);
        check_none(kq);
        CHECK(!readable(kq));
        CHECK_EQ(change_port(kq, port, EV_ADD), 0);
        check_none(kq);
        CHECK_EQ(change_port(kq, port, EV_ENABLE), 0);
        CHECK(readable(kq));
        check_event(kq, port, EV_ADD | EV_DISPATCH, port);
        receive_from(port, port, 1);
        CHECK_EQ(change_port(kq, port, EV_ENABLE), 0);
        check_none(kq);
        send(port, 2);
        check_event(kq, port, EV_ADD | EV_DISPATCH, port);
        close(kq);
        destroy_port(port);
    }
}

TEST(disabled) {
    send_fn send;
    EACH_WAY(send) {
        for (unsigned clear = 0; clear < 2; clear++) {
            unsigned flags = EV_ADD | EV_DISABLE | (clear ? EV_CLEAR : 0u);
            mach_port_t port = new_port();
            int kq = kqueue();
            CHECK_EQ(change_port(kq, port, flags), 0);
            send(port, 1);
            CHECK(!readable(kq));
            check_none(kq);
            CHECK_EQ(change_port(kq, port, EV_ENABLE), 0);
            CHECK(readable(kq));
            CHECK_EQ(change_port(kq, port, EV_DISABLE), 0);
            CHECK(!readable(kq));
            check_none(kq);
            CHECK_EQ(change_port(kq, port, EV_ENABLE | EV_DISABLE), 0);
            check_none(kq);
            CHECK_EQ(change_port(kq, port, EV_ENABLE), 0);
            check_event(kq, port, flags, port);
            close(kq);
            destroy_port(port);
        }
    }
}

TEST(level_stays_readable_until_asked) {
    mach_port_t port = new_port();
    int kq = kqueue();
    CHECK_EQ(change_port(kq, port, EV_ADD), 0);
    send_id(port, 1);
    check_event(kq, port, EV_ADD, port);
    receive_from(port, port, 1);
    CHECK(readable(kq));
    check_none(kq);
    CHECK(!readable(kq));
    close(kq);
    destroy_port(port);
}

TEST(events_come_in_order_of_activation) {
    mach_port_t ports[5];
    struct kevent64_s events[5];
    int kq = kqueue();
    for (int i = 0; i < 5; i++) {
        ports[i] = new_port();
        CHECK_EQ(change_port(kq, ports[i], EV_ADD), 0);
    }
    for (int i = 0; i < 5; i++)
        send_id(ports[4 - i], i);
    CHECK_EQ(kevent64(kq, NULL, 0, events, 3, 0, &now), 3);
    CHECK_EQ(events[0].ident, ports[4]);
    CHECK_EQ(events[2].ident, ports[2]);
    CHECK_EQ(kevent64(kq, NULL, 0, events, 5, 0, &now), 5); /* level ones line up again */
    CHECK_EQ(events[0].ident, ports[1]);
    CHECK_EQ(events[1].ident, ports[0]);
    CHECK_EQ(events[2].ident, ports[4]);
    close(kq);
}

TEST(several_kqueues) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port();
        int a = kqueue(), b = kqueue();
        CHECK_EQ(change_port(a, port, EV_ADD | EV_CLEAR), 0);
        CHECK_EQ(change_port(b, port, EV_ADD), 0);
        send(port, 1);
        check_event(a, port, EV_ADD | EV_CLEAR, port);
        check_event(b, port, EV_ADD, port);
        check_none(a);
        check_event(b, port, EV_ADD, port);
        close(a);
        check_event(b, port, EV_ADD, port);
        close(b);
        destroy_port(port);
    }
}

/* ---- registering ----------------------------------------------------------------------------- */

TEST(attach_errors) {
    mach_port_t port = new_port(), send, once, dead;
    mach_msg_type_name_t type;
    int kq = kqueue();
    CHECK_EQ(mach_port_allocate(SELF, MACH_PORT_RIGHT_DEAD_NAME, &dead), KERN_SUCCESS);
    CHECK_EQ(mach_port_extract_right(SELF, port, MACH_MSG_TYPE_MAKE_SEND_ONCE, &once, &type),
             KERN_SUCCESS);
    CHECK_EQ(change_port(kq, once, EV_ADD), ENOTSUP);
    CHECK_EQ(change_port(kq, SELF, EV_ADD), ENOTSUP); /* a send right */
    CHECK_EQ(change_port(kq, UNUSED_NAME, EV_ADD), ENOENT);
    CHECK_EQ(change_port(kq, dead, EV_ADD), ENOENT);
    CHECK_EQ(change_port(kq, MACH_PORT_NULL, EV_ADD), ENOENT);
    CHECK_EQ(change(kq, (uint64_t)port + (UINT64_C(1) << 32), EVFILT_MACHPORT, EV_ADD, 0), ENOENT);
    CHECK_EQ(change_port(kq, port, EV_DELETE), ENOENT);
    CHECK_EQ(change_port(kq, port, EV_ENABLE), ENOENT);
    CHECK_EQ(change_port(kq, port, EV_DISABLE), ENOENT);
    CHECK_EQ(change(kq, port, -99, EV_ADD, 0), EINVAL);
    CHECK_EQ(change(kq, port, EVFILT_TIMER, EV_ADD, 0), EINVAL);
    CHECK_EQ(change_port(kq, port, EV_ADD | EV_VANISHED), EINVAL);
    CHECK_EQ(change_port(kq, port, EV_ADD), 0);
    CHECK_EQ(change(kq, port, EVFILT_MACHPORT, EV_ADD, MACH_RCV_MSG), EINVAL);
    CHECK_EQ(change_port(kq, port, EV_ADD | EV_DELETE), 0); /* deleting wins */
    CHECK_EQ(change_port(kq, port, EV_DELETE), ENOENT);
    send = port;
    CHECK_EQ(mach_port_insert_right(SELF, port, send, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    destroy_port(port);
    CHECK_EQ(change_port(kq, port, EV_ADD), ENOENT); /* a dead name now */
    close(kq);
}

TEST(call_errors) {
    struct kevent64_s event = {.ident = UNUSED_NAME, .filter = EVFILT_MACHPORT, .flags = EV_ADD};
    const struct timespec bad = {0, 1000000000};
    int kq = kqueue(), pipe_fds[2];
    CHECK_EQ(pipe(pipe_fds), 0);
    CHECK_EQ(kevent64(kq, NULL, 0, &event, 1, 0x40, &now), -1);
    CHECK_EQ(errno, EINVAL);
    CHECK_EQ(kevent64(kq, NULL, 0, &event, 1, 0, &bad), -1);
    CHECK_EQ(errno, EINVAL);
    CHECK_EQ(kevent64(-1, NULL, 0, &event, 1, 0, &now), -1);
    CHECK_EQ(errno, EBADF);
    CHECK_EQ(kevent64(pipe_fds[0], NULL, 0, &event, 1, 0, &now), -1);
    CHECK_EQ(errno, EBADF);
    CHECK_EQ(kevent64(kq, NULL, 0, &event, 1, KEVENT_FLAG_IMMEDIATE, NULL), 0);
    CHECK_EQ(kevent64(kq, NULL, 0, NULL, 0, 0, NULL), 0);
    close(kq);
    CHECK_EQ(kevent64(kq, NULL, 0, NULL, 0, 0, NULL), -1);
    CHECK_EQ(errno, EBADF);
}

TEST(change_errors_and_receipts) {
    mach_port_t port = new_port();
    int kq = kqueue();
    struct kevent64_s event;
    struct kevent64_s list[3] = {
        {.ident = UNUSED_NAME, .filter = EVFILT_MACHPORT, .flags = EV_ADD, .udata = 1},
        {.ident = port, .filter = EVFILT_MACHPORT, .flags = EV_ADD | EV_RECEIPT, .udata = 2},
        {.ident = port, .filter = EVFILT_MACHPORT, .flags = EV_ENABLE, .udata = 3}};
    send_id(port, 1);
    CHECK_EQ(kevent64(kq, list, 3, list, 3, 0, NULL), 2); /* does not wait */
    CHECK_EQ(list[0].ident, UNUSED_NAME);
    CHECK_EQ(list[0].flags, EV_ADD | EV_ERROR);
    CHECK_EQ(list[0].data, ENOENT);
    CHECK_EQ(list[0].udata, 1);
    CHECK_EQ(list[1].ident, port);
    CHECK_EQ(list[1].flags, EV_ADD | EV_RECEIPT | EV_ERROR);
    CHECK_EQ(list[1].data, 0);

    struct kevent64_s no_room[2] = {
        {.ident = UNUSED_NAME, .filter = EVFILT_MACHPORT, .flags = EV_ADD},
        {.ident = port, .filter = EVFILT_MACHPORT, .flags = EV_DELETE}};
    CHECK_EQ(kevent64(kq, no_room, 2, NULL, 0, 0, NULL), -1);
    CHECK_EQ(errno, ENOENT);
    CHECK_EQ(next(kq, &event), 1); /* the second change was not made */
    CHECK_EQ(event.flags, EV_ADD | EV_RECEIPT);
    CHECK_EQ(kevent64(kq, NULL, 0, list, 3, KEVENT_FLAG_ERROR_EVENTS, NULL), 0);
    close(kq);
    destroy_port(port);
}

static int add_with_udata(int kq, mach_port_t port, unsigned flags, uint64_t udata) {
    struct kevent64_s event = {
        .ident = port, .filter = EVFILT_MACHPORT, .flags = (uint16_t)flags, .udata = udata};
    return kevent64(kq, &event, 1, NULL, 0, 0, NULL) == 0 ? 0 : errno;
}

TEST(identity_with_udata) {
    mach_port_t port = new_port();
    struct kevent64_s events[4];
    int kq = kqueue();
    CHECK_EQ(add_with_udata(kq, port, EV_ADD | EV_UDATA_SPECIFIC, 1), 0);
    CHECK_EQ(add_with_udata(kq, port, EV_ADD | EV_UDATA_SPECIFIC, 2), 0);
    CHECK_EQ(add_with_udata(kq, port, EV_ADD, 3), 0);
    CHECK_EQ(add_with_udata(kq, port, EV_ADD, 4), 0); /* the same knote, another udata */
    send_id(port, 1);
    CHECK_EQ(kevent64(kq, NULL, 0, events, 4, 0, &now), 3);
    CHECK_EQ(events[0].udata + events[1].udata + events[2].udata, 1 + 2 + 4);
    CHECK_EQ(add_with_udata(kq, port, EV_DELETE | EV_UDATA_SPECIFIC, 3), ENOENT);
    CHECK_EQ(add_with_udata(kq, port, EV_DELETE | EV_UDATA_SPECIFIC, 2), 0);
    CHECK_EQ(kevent64(kq, NULL, 0, events, 4, 0, &now), 2);
    close(kq);
    destroy_port(port);
}

TEST(many_ports) {
    enum { N = 500 };
    static mach_port_t ports[N];
    static struct kevent64_s events[N];
    send_fn send;
    EACH_WAY(send) {
        int kq = kqueue(), total = 0, n;
        unsigned step = send == send_id ? 1 : 10; /* sockets are few */
        for (unsigned i = 0; i < N; i += step) {
            ports[i] = new_port();
            CHECK_EQ(change_port(kq, ports[i], EV_ADD | EV_CLEAR), 0);
            send(ports[i], (int)i);
        }
        while ((n = kevent64(kq, NULL, 0, events, N, 0, &now)) > 0)
            total += n;
        CHECK_EQ(total, N / step);
        CHECK(!readable(kq));
        close(kq);
        for (unsigned i = 0; i < N; i += step)
            destroy_port(ports[i]);
    }
}

/* ---- the end of a port or set ---------------------------------------------------------------- */

TEST(a_destroyed_port_is_a_last_event) {
    send_fn send;
    EACH_WAY(send) {
        mach_port_t port = new_port();
        int kq = kqueue();
        CHECK_EQ(change_port(kq, port, EV_ADD), 0);
        send(port, 1);
        destroy_port(port);
        CHECK(readable(kq));
        check_event(kq, port, EV_ADD | EV_EOF | EV_ONESHOT, 0);
        check_none(kq);
        CHECK(!readable(kq));
        CHECK_EQ(change_port(kq, port, EV_DELETE), ENOENT);
        close(kq);
    }
}

TEST(deleting_before_the_last_event) {
    mach_port_t port = new_port();
    int kq = kqueue();
    CHECK_EQ(change_port(kq, port, EV_ADD), 0);
    destroy_port(port);
    CHECK_EQ(change_port(kq, port, EV_DELETE), 0);
    check_none(kq);
    CHECK(!readable(kq));
    close(kq);
}

TEST(a_disabled_knote_keeps_its_last_event) {
    mach_port_t port = new_port();
    int kq = kqueue();
    CHECK_EQ(change_port(kq, port, EV_ADD | EV_DISABLE), 0);
    destroy_port(port);
    CHECK(!readable(kq));
    CHECK_EQ(change_port(kq, port, EV_ENABLE), 0);
    check_event(kq, port, EV_ADD | EV_DISABLE | EV_EOF | EV_ONESHOT, 0);
    close(kq);
}

TEST(a_port_sent_away_is_a_last_event) {
    mach_port_t port = new_port(), carrier = new_port();
    struct {
        mach_msg_base_t base;
        mach_msg_port_descriptor_t descriptor;
    } message = {{{.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MAKE_SEND, 0) | MACH_MSGH_BITS_COMPLEX,
                   .msgh_size = sizeof message,
                   .msgh_remote_port = carrier},
                  {1}},
                 {.name = port,
                  .disposition = MACH_MSG_TYPE_MOVE_RECEIVE,
                  .type = MACH_MSG_PORT_DESCRIPTOR}};
    int kq = kqueue();
    CHECK_EQ(change_port(kq, port, EV_ADD), 0);
    send_wire(port, 1);
    CHECK_EQ(mach_msg(&message.base.header, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0),
             MACH_MSG_SUCCESS);
    check_event(kq, port, EV_ADD | EV_EOF | EV_ONESHOT, 0);
    check_none(kq);
    CHECK(!readable(kq));
    CHECK_EQ(change_port(kq, port, EV_DELETE), ENOENT);
    destroy_port(carrier);
    close(kq);
}

TEST(a_destroyed_set_is_a_last_event) {
    mach_port_t port = new_port(), set = new_set();
    int kq = kqueue();
    CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
    CHECK_EQ(change_port(kq, set, EV_ADD | EV_CLEAR), 0);
    send_wire(port, 1);
    destroy_set(set);
    check_event(kq, set, EV_ADD | EV_CLEAR | EV_EOF | EV_ONESHOT, 0);
    check_none(kq);
    CHECK(!readable(kq));
    destroy_port(port);
    close(kq);
}

TEST(vanished) {
    const unsigned flags = EV_ADD | EV_DISPATCH2 | EV_VANISHED;
    mach_port_t port = new_port();
    int kq = kqueue();
    CHECK_EQ(add_with_udata(kq, port, flags, (uint64_t)port + 1), 0);
    destroy_port(port);
    check_event(kq, port, EV_DISPATCH2 | EV_ONESHOT | EV_VANISHED, 0);
    check_none(kq);
    CHECK_EQ(add_with_udata(kq, port, EV_DELETE | EV_DISPATCH2, (uint64_t)port + 1), EINPROGRESS);
    CHECK_EQ(add_with_udata(kq, port, EV_ENABLE | EV_DISPATCH2, (uint64_t)port + 1), 0);
    check_event(kq, port, EV_DISPATCH2 | EV_ONESHOT | EV_DELETE, 0);
    CHECK_EQ(add_with_udata(kq, port, EV_DELETE | EV_DISPATCH2, (uint64_t)port + 1), ENOENT);
    close(kq);
}

CHECK_MAIN()
