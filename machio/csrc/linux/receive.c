/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_msg, the receiving half.
 *
 * A message is taken off its port's queue (queue.c), its rights get names, and it is laid out in
 * the receiver's buffer with a trailer. A set takes from its members in turn.
 *
 * Guarded by mio_task.lock, let go only to wait. After a wait the name is looked up again: what
 * was a receive right may be gone (MACH_RCV_PORT_CHANGED).
 */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define HEADER_SIZE ((mach_msg_size_t)sizeof(mach_msg_header_t))

/* ---- taking off ------------------------------------------------------------ */

/* The message is the receiver's: its slot is free again, its number used. */
static void consume(struct mio_port *port, const struct mio_kmsg *kmsg) {
    port->seqno++;
    if (port->cw.fd >= 0)
        mio_credit_return(port, kmsg->counted);
    mio_port_room(port);
    if (port->senders_gone)
        mio_port_check_senders(port, MIO_NOW);
}

/* ---- into the receiver's buffer ----------------------------------------------------------------- */

static mach_msg_size_t trailer_size(mach_msg_option_t option) {
    return (mach_msg_size_t)REQUESTED_TRAILER_SIZE(option);
}

/* The right that brought the message is used up; it is no right that was dropped. */
static void release_dest(struct mio_kmsg *kmsg) {
    if (kmsg->dest.kind == MIO_RIGHT_ONCE)
        mio_once_free(kmsg->dest.once);
    else if (kmsg->dest.kind == MIO_RIGHT_SEND)
        mio_port_drop_send(kmsg->dest.port);
    kmsg->dest.kind = MIO_RIGHT_NULL;
}

/* Ownership: consumes the message; its rights get names. */
static mach_msg_return_t write_message(mach_msg_header_t *msg, mach_msg_option_t option,
                                       struct mio_port *port, struct mio_kmsg *kmsg) {
    mach_port_seqno_t seqno = port->seqno - 1;
    mach_port_context_t context = port->strict ? 0 : port->context;
    mach_port_name_t reply;

    mio_trailer_write((uint8_t *)msg + kmsg->size, trailer_size(option), seqno, &kmsg->sender,
                      context);
    msg->msgh_bits = MACH_MSGH_BITS_SET(kmsg->reply.disposition, kmsg->dest.disposition, 0,
                                        kmsg->complex ? MACH_MSGH_BITS_COMPLEX : 0u);
    msg->msgh_size = kmsg->size;
    msg->msgh_local_port = port->name;
    msg->msgh_voucher_port = kmsg->voucher;
    msg->msgh_id = kmsg->id;
    mach_msg_return_t header_trouble = mio_right_give(&kmsg->reply, &reply);
    msg->msgh_remote_port = reply;

    mach_msg_return_t trouble =
        mio_body_give(kmsg, msg, option & MACH_RCV_GUARDED_DESC ? MIO_GIVE_GUARDED : MIO_GIVE);
    release_dest(kmsg);
    mio_kmsg_free(kmsg);
    if (header_trouble != 0)
        return MACH_RCV_HEADER_ERROR | header_trouble;
    return trouble == 0 ? MACH_MSG_SUCCESS : MACH_RCV_BODY_ERROR | trouble;
}

/* A message too large for the buffer: only its header is told, the rest is destroyed. */
static mach_msg_return_t write_bare(mach_msg_header_t *msg, mach_msg_size_t limit,
                                    struct mio_port *port, struct mio_kmsg *kmsg) {
    mach_msg_return_t mr = MACH_RCV_INVALID_DATA;
    if (limit >= HEADER_SIZE) {
        bool dead = kmsg->reply.kind == MIO_RIGHT_DEAD;
        msg->msgh_bits = MACH_MSGH_BITS_SET(kmsg->reply.disposition, kmsg->dest.disposition, 0,
                                            kmsg->complex ? MACH_MSGH_BITS_COMPLEX : 0u);
        msg->msgh_size = HEADER_SIZE;
        msg->msgh_remote_port = dead ? MACH_PORT_DEAD : MACH_PORT_NULL;
        msg->msgh_local_port = port->name;
        msg->msgh_voucher_port = MACH_PORT_NULL;
        msg->msgh_id = kmsg->id;
        struct mio_sender kernel = {.kernel = true};
        mach_msg_size_t room = limit - HEADER_SIZE;
        if (room >= sizeof(mach_msg_trailer_t))
            mio_trailer_write((uint8_t *)(msg + 1), sizeof(mach_msg_trailer_t), 0, &kernel, 0);
        mr = MACH_RCV_TOO_LARGE;
    }
    release_dest(kmsg);
    mio_kmsg_destroy(kmsg);
    return mr;
}

static mach_msg_return_t give(struct mio_port *port, struct mio_kmsg *kmsg, mach_msg_header_t *msg,
                              mach_msg_option_t option, mach_msg_size_t limit,
                              mach_msg_size_t *ret_size) {
    uint64_t needed = (uint64_t)kmsg->size + trailer_size(option);
    *ret_size = (mach_msg_size_t)needed;
    if (needed <= limit) {
        consume(port, kmsg);
        return write_message(msg, option, port, kmsg);
    }
    *ret_size = kmsg->size;
    if (option & MACH_RCV_LARGE) {
        if (limit >= 2 * sizeof(mach_msg_size_t))
            msg->msgh_size = kmsg->size;
        if (option & MACH_RCV_LARGE_IDENTITY && limit >= 4 * sizeof(mach_msg_size_t))
            msg->msgh_local_port = port->name;
        mio_kmsg_push_front(port, kmsg);
        mio_port_mark_ready(port);
        return MACH_RCV_TOO_LARGE;
    }
    consume(port, kmsg);
    return write_bare(msg, limit, port, kmsg);
}

/* ---- ports and sets ------------------------------------------------------------------------------- */

/* Members whose descriptors are ready join the set's ready list. */
static void collect_ready(struct mio_set *set) {
    struct epoll_event events[32];
    if (set->watch == NULL) {
        set->watch = mio_watch_new();
        if (set->watch == NULL)
            return;
        MIO_EACH(item, &set->members)
            mio_watch_add(set->watch, MIO_CONTAINER(item, struct mio_member, of_set)->port, false);
    }
    int n = epoll_wait(set->watch->epfd, events, 32, 0);
    for (int i = 0; i < n; i++) {
        struct mio_source *source = mio_source_find((int)(uint32_t)events[i].data.u64);
        struct mio_port *port = source != NULL ? mio_source_port(source) : NULL;
        if (port != NULL) {
            mio_port_told(port, source, n < 32);
            mio_port_mark_ready(port);
        }
    }
    set->collected = true;
}

bool mio_set_has_message(struct mio_set *set, struct mio_port **ret_port) {
    collect_ready(set);
    MIO_EACH(item, &set->ready) {
        struct mio_member *member = MIO_CONTAINER(item, struct mio_member, ready);
        if (mio_port_has_message(member->port)) {
            *ret_port = member->port;
            return true;
        }
        mio_list_remove(&member->ready);
    }
    return false;
}

/*
 * Takes from the member that has waited longest since its last turn. One turn each for what was
 * collected: of two that are busy neither keeps the other waiting.
 */
static struct mio_kmsg *dequeue_set(struct mio_set *set, struct mio_port **ret_port,
                                    bool *ret_shortage) {
    bool once_more = set->collected; /* some time ago, by who asked if there is something */
    *ret_shortage = false;
    if (!set->collected)
        collect_ready(set);
    set->collected = false;
    while (!mio_list_empty(&set->ready)) {
        struct mio_member *member = MIO_CONTAINER(set->ready.next, struct mio_member, ready);
        struct mio_port *port = member->port;
        mio_list_remove(&member->ready);
        struct mio_kmsg *kmsg = mio_port_dequeue(port, ret_shortage);
        if (kmsg != NULL || *ret_shortage) {
            if (port->head != NULL)
                mio_port_mark_ready(port); /* of what is on its wire the watch tells */
            *ret_port = port;
            return kmsg;
        }
        port->drained++;
    }
    if (once_more)
        return dequeue_set(set, ret_port, ret_shortage);
    set->drained++;
    return NULL;
}

/* What a name can be received on: a port or a set; neither: MACH_RCV_INVALID_NAME. */
struct target {
    struct mio_port *port;
    struct mio_set *set;
};

static bool find_target(mach_port_name_t name, struct target *ret) {
    struct mio_entry *entry = mio_space_lookup(name);
    *ret = (struct target){0};
    if (entry == NULL)
        return false;
    if (entry->type & MACH_PORT_TYPE_RECEIVE)
        ret->port = entry->port;
    else if (entry->type & MACH_PORT_TYPE_PORT_SET)
        ret->set = entry->set;
    return ret->port != NULL || ret->set != NULL;
}

/*
 * A foreign bootstrap port in the message: one's own must be known first, so that the two can be
 * one. False: the port is no longer the receiver's.
 */
static bool settle_bootstrap(struct mio_port *port) {
    mach_port_name_t name = port->name;
    mio_port_ref(port);
    mio_unlock();
    mio_bootstrap_ensure(false);
    mio_lock();
    bool still = port->state == MIO_PORT_LOCAL && port->name == name && port->refs > 1;
    mio_port_unref(port);
    return still;
}

/*
 * Whether the target, from which `port` had a message, has none left. It is noted: a kqueue's event
 * is due for what comes next. A set that is gone, the lock having been let go, is no set of `port`.
 */
static bool is_drained(const struct target *target, struct mio_port *port) {
    struct mio_port *other;
    bool drained = !mio_list_empty(&port->knotes) && !mio_port_has_message(port);
    if (drained)
        port->drained++;
    if (target->port != NULL)
        return drained;
    MIO_EACH(item, &port->memberships) {
        struct mio_set *set = MIO_CONTAINER(item, struct mio_member, of_port)->set;
        if (set == target->set && !mio_list_empty(&set->knotes) &&
            !mio_set_has_message(set, &other)) {
            set->drained++;
            return true;
        }
    }
    return false;
}

/* What a receive found: the message with its trailer, or the size alone if that is too large. */
struct found {
    mach_msg_size_t size;
    mach_port_name_t port;
    bool last; /* nothing is left, and a kqueue that watches the target will tell of the next */
};

/* Looks once. MACH_RCV_TIMED_OUT: nothing there. settle: the lock may be let go on the way. */
static mach_msg_return_t try_receive(const struct target *target, mach_msg_header_t *msg,
                                     mach_msg_option_t option, mach_msg_size_t limit, bool settle,
                                     struct found *ret) {
    struct mio_port *port = target->port;
    bool shortage;
    mio_notice_poll(); /* what has happened is told before what is queued since */
    struct mio_kmsg *kmsg = port != NULL ? mio_port_dequeue(port, &shortage)
                                         : dequeue_set(target->set, &port, &shortage);
    if (shortage)
        return MACH_RCV_BODY_ERROR | MACH_MSG_IPC_KERNEL;
    if (kmsg == NULL) {
        if (target->port != NULL)
            port->drained++;
        return MACH_RCV_TIMED_OUT;
    }
    if (kmsg->foreign_bootstrap && settle && !settle_bootstrap(port)) {
        release_dest(kmsg);
        mio_kmsg_destroy(kmsg);
        return MACH_RCV_PORT_CHANGED;
    }
    ret->port = port->name;
    mach_msg_return_t mr = give(port, kmsg, msg, option, limit, &ret->size);
    ret->last = is_drained(target, port);
    return mr;
}

mach_msg_return_t mio_receive_now(mach_msg_header_t *msg, mach_msg_option_t option,
                                  mach_msg_size_t limit, mach_port_name_t name,
                                  mach_msg_size_t *ret_size, mach_port_name_t *ret_port) {
    struct target target;
    struct found found = {0};
    if (!find_target(name, &target))
        return MACH_RCV_INVALID_NAME;
    mach_msg_return_t mr = try_receive(&target, msg, option, limit, false, &found);
    *ret_size = found.size;
    *ret_port = found.port;
    return mr;
}

mach_msg_return_t machio_receive_now(mach_msg_header_t *buffer, mach_msg_option_t option,
                                     mach_msg_size_t size, mach_port_name_t name) {
    struct target target;
    struct found found;
    mach_msg_return_t mr = MACH_RCV_INVALID_NAME;
    mio_lock();
    if (find_target(name, &target))
        mr = try_receive(&target, buffer, option, size, true, &found);
    mio_unlock();
    return mr == MACH_MSG_SUCCESS && found.last ? MACHIO_RECEIVED_LAST : mr;
}

/* What a poll of the port's descriptors has told. */
static void tell(struct mio_port *port, const struct pollfd *fds, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct mio_source *source = fds[i].revents != 0 ? mio_source_find(fds[i].fd) : NULL;
        if (source != NULL && mio_source_port(source) == port)
            mio_port_told(port, source, true);
    }
}

/* Waits for whatever may bring a message to the target. */
static kern_return_t wait_for_message(const struct target *target,
                                      const struct mio_deadline *deadline) {
    struct mio_waiter waiter = {.fd = mio_thread_fd()};
    size_t n;
    struct pollfd *all = mio_port_fds(target->port, 3, &n);
    if (waiter.fd < 0 || !mio_notice_open() || all == NULL)
        return KERN_RESOURCE_SHORTAGE;
    struct mio_watch *watch = target->port == NULL ? target->set->watch : NULL;
    all[2] = (struct pollfd){.fd = watch != NULL ? watch->epfd : -1, .events = POLLIN};
    struct pollfd few[8], *fds = n <= 8 ? few : malloc(n * sizeof *fds);
    if (fds == NULL)
        return KERN_RESOURCE_SHORTAGE;
    memcpy(fds, all, n * sizeof *fds);
    fds[0] = (struct pollfd){.fd = waiter.fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = mio_task.notice, .events = POLLIN};

    struct mio_list *waiters =
        target->port != NULL ? &target->port->receivers : &target->set->receivers;
    mio_list_append(waiters, &waiter.link);
    if (target->port != NULL)
        mio_port_ref(target->port); /* a set that is destroyed lets its waiters go itself */
    kern_return_t kr = mio_wait(&waiter, fds, (unsigned)n, deadline);
    mio_list_remove(&waiter.link);
    if (fds[1].revents != 0)
        mio_notice_take();
    if (target->port != NULL) {
        tell(target->port, fds + 3, n - 3);
        mio_port_unref(target->port);
    }
    if (fds != few)
        free(fds);
    return kr;
}

static mach_msg_return_t receive_locked(mach_msg_header_t *msg, mach_msg_option_t option,
                                        mach_msg_size_t limit, mach_port_name_t name,
                                        mach_msg_timeout_t timeout, bool is_answer) {
    struct target target, now;
    struct found found;
    if (!find_target(name, &target))
        return MACH_RCV_INVALID_NAME;
    struct mio_deadline deadline =
        option & MACH_RCV_TIMEOUT ? mio_deadline_in(timeout) : mio_deadline_never();
    /* An answer is never there yet: a look at the wire would be in vain. */
    bool look = !is_answer || (target.port != NULL ? mio_port_holds_message(target.port)
                                                   : target.set->watch == NULL ||
                                                         !mio_list_empty(&target.set->ready));
    for (bool last = option & MACH_RCV_TIMEOUT && timeout == 0;; look = true) {
        if (look || last) {
            mach_msg_return_t mr = try_receive(&target, msg, option, limit, true, &found);
            if (mr != MACH_RCV_TIMED_OUT)
                return mr;
        }
        if (last)
            return MACH_RCV_TIMED_OUT;
        kern_return_t kr = wait_for_message(&target, &deadline);
        if (kr == KERN_RESOURCE_SHORTAGE)
            return MACH_RCV_BODY_ERROR | MACH_MSG_IPC_KERNEL;
        if (!find_target(name, &now) || now.port != target.port || now.set != target.set)
            return MACH_RCV_PORT_CHANGED;
        if (kr == KERN_ABORTED && option & MACH_RCV_INTERRUPT)
            return MACH_RCV_INTERRUPTED;
        last = kr == KERN_OPERATION_TIMED_OUT;
    }
}

mach_msg_return_t mio_receive(mach_msg_header_t *msg, mach_msg_option_t option,
                              mach_msg_size_t limit, mach_port_name_t name,
                              mach_msg_timeout_t timeout, bool is_answer) {
    mio_lock();
    mach_msg_return_t mr = receive_locked(msg, option, limit, name, timeout, is_answer);
    mio_unlock();
    return mr;
}
