/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * One busy port among N others: what it costs must not depend on them. Between two SIGUSR1, for
 * count.c, the busy port is made, gets rights, a message and a notification, and goes.
 *
 *     crowd KIND N
 *
 * KIND is what the others are: `local`, known to this task alone; `member`s of the set that is
 * received from; `wired`, with a right in another task's hands; `watched`, remote ones whose death
 * this task wants to hear of; `lent`, send-once rights of the busy port's own that others have.
 */
#include "kqueues.h"
#include "tasks.h"

#include <signal.h>
#include <sys/resource.h>

static mach_port_t set, lender;
static int kq;

/* A right to a port of nobody's task: its other end is in this process, and the layer does not
 * know. */
static mach_port_t make_remote(void) {
    mach_port_t name = new_port();
    struct handed handed = hand_over(name);
    mio_lock();
    struct mio_port *port = mio_space_lookup(name)->port;
    int rx = dup(port->rx.fd), cw = dup(port->cw.fd);
    mio_unlock();
    CHECK(rx >= 0 && cw >= 0);
    destroy_port(name);
    return take_over(&handed);
}

static void add_to_crowd(const char *kind, mach_port_t notify) {
    mach_port_t previous;
    if (strcmp(kind, "watched") == 0) {
        CHECK_EQ(mach_port_request_notification(SELF, make_remote(), MACH_NOTIFY_DEAD_NAME, 0,
                                                notify, MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
                 KERN_SUCCESS);
        return;
    }
    if (strcmp(kind, "lent") == 0) {
        lend_once(lender);
        return;
    }
    mach_port_t name = new_port();
    if (strcmp(kind, "member") == 0)
        CHECK_EQ(mach_port_insert_member(SELF, name, set), KERN_SUCCESS);
    if (strcmp(kind, "wired") == 0)
        hand_over(name); /* the other task's copies live as long as this process */
}

static void be_busy(mach_port_t notify) {
    struct message message;
    mach_port_t name = new_port(), previous;
    mach_port_urefs_t refs;
    CHECK_EQ(mach_port_insert_member(SELF, name, set), KERN_SUCCESS);
    CHECK_EQ(mach_port_insert_right(SELF, name, name, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    CHECK_EQ(mach_port_get_refs(SELF, name, MACH_PORT_RIGHT_SEND, &refs), KERN_SUCCESS);
    CHECK_EQ(mach_port_request_notification(SELF, name, MACH_NOTIFY_NO_SENDERS, 0, notify,
                                            MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
             KERN_SUCCESS);
    send_id(name, 1);
    CHECK_EQ(receive(set, &message, 0), MACH_MSG_SUCCESS);
    send_wire(name, 2);
    CHECK_EQ(receive(name, &message, 0), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_port_deallocate(SELF, name), KERN_SUCCESS);
    CHECK_EQ(receive(notify, &message, 0), MACH_RCV_TOO_LARGE); /* it has come, and goes */
    destroy_port(name);
}

/* What one that lent many rights receives, in each way. */
static void receive_as_lender(void) {
    use_once(lend_once(lender), 1);
    receive_from(lender, lender, 1);
    use_once(lend_once(lender), 2);
    receive_from(set, lender, 2);
    send_wire(lender, 3);
    CHECK_EQ(change_port(kq, lender, EV_ENABLE), 0);
    check_event(kq, lender, EV_ADD | EV_DISPATCH, lender);
    receive_from(lender, lender, 3);
    check_empty(lender);
}

int main(int argc, char **argv) {
    struct rlimit limit;
    CHECK_EQ(argc, 3);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    set = new_set();
    lender = new_port();
    CHECK_EQ(mach_port_insert_member(SELF, lender, set), KERN_SUCCESS);
    kq = kqueue();
    CHECK_EQ(change_port(kq, lender, EV_ADD | EV_DISPATCH), 0);
    mach_port_t notify = new_port();
    for (int i = 0; i < atoi(argv[2]); i++)
        add_to_crowd(argv[1], notify);
    be_busy(notify); /* what the first time makes */
    receive_as_lender();
    raise(SIGUSR1);
    be_busy(notify);
    receive_as_lender();
    raise(SIGUSR1);
    return 0;
}
