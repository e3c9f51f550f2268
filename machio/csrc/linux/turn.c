/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Event loops that wait for room in the queue of another task, in turn.
 *
 * A credit is for one sender, and the kernel wakes one of those who sleep in epoll_wait() with the
 * pipe in their epoll, EPOLLEXCLUSIVE: the first in the pipe's line who does sleep. A loop's epoll
 * looks into a kqueue's, though, and that into mio_task.notice, and through an epoll all are woken.
 * So while a loop waits, the pipe is in the loop's own epoll, as if it were the kqueue: what the
 * loop hears is that its kqueue is ready. It asks that, and mio_turns_look() finds the room.
 *
 * No place is slept over. A loop that is awake does not stop a credit, which wakes the next; and it
 * finds the pipe readable when it goes to sleep. Who was woken, or may have been, and sends nothing
 * hands the turn on (machio_pass_room). Who is killed cannot, and who is busy with other things
 * does not yet: then another has the place when the next credit comes, or the timer of notice.c, by
 * which all look for themselves within a second.
 *
 * Guarded by mio_task.lock. Owns no descriptors: the epoll is the loop's. What is in there leaves
 * it before it is closed.
 */
#include "internal.h"

#include "wire.h"

#include <poll.h>
#include <sys/epoll.h>

/* Each is looked at whenever a kqueue is asked. Of more ports notice.c tells, and so to all. */
#define MOST 16

static bool is_full(void) {
    unsigned count = 0;
    MIO_EACH(item, &mio_task.turns)
        count++;
    return count >= MOST;
}

bool mio_turn_wait(struct mio_port *port, const struct mio_loop *loop) {
    int epfd = loop != NULL ? loop->epfd : -1;
    bool waits = !mio_list_empty(&port->turn);
    if (waits && port->epfd == epfd)
        return true;
    if (waits)
        epoll_ctl(port->epfd, EPOLL_CTL_DEL, port->cr.fd, NULL);
    mio_list_remove(&port->turn);
    if (epfd < 0 || port->cr.fd < 0 || is_full())
        return false;
    struct epoll_event event = {.events = (uint32_t)EPOLLIN | (uint32_t)EPOLLEXCLUSIVE,
                                .data.u64 = (uint32_t)loop->kq};
    if (epoll_ctl(epfd, EPOLL_CTL_ADD, port->cr.fd, &event) != 0)
        return false;
    port->epfd = epfd;
    mio_list_append(&mio_task.turns, &port->turn);
    return true;
}

void mio_turns_look(void) {
    MIO_EACH(item, &mio_task.turns) {
        struct mio_port *port = MIO_CONTAINER(item, struct mio_port, turn);
        struct pollfd fd = {.fd = port->cr.fd, .events = POLLIN};
        if (poll(&fd, 1, 0) == 1 && !(fd.revents & POLLHUP)) /* of its end mio_task.notice tells */
            mio_requests_room(port);
    }
}

/* The receiver puts the credit of a message that was dropped into the pipe again, which wakes. */
void machio_pass_room(mach_port_name_t name) {
    mio_lock();
    struct mio_entry *entry = mio_space_lookup(name);
    struct mio_port *port = entry != NULL && entry->type & MACH_PORT_TYPE_SEND ? entry->port : NULL;
    if (port != NULL && port->state == MIO_PORT_REMOTE && port->cr.fd >= 0 &&
        mio_credit_take(port) == MIO_CREDIT_TAKEN)
        port->credit_in_hand = mio_wire_signal(port->tx, MIO_FRAME_DROPPED) != MIO_WIRE_OK;
    mio_unlock();
}
