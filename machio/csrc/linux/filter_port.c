/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * EVFILT_MACHPORT: a knote on a receive right or a port set.
 *
 * What may wake it is the sources of the port, or of every member, in the kqueue's epoll, and
 * mio_knotes_activate() for messages that never left the task. With EV_CLEAR an event is due only
 * once the queue was seen empty since the last one; the object's `drained` counts that.
 *
 * Guarded by mio_task.lock. Owns no descriptors. The object holds the knote in its list and calls
 * mio_knotes_vanish() before it goes, so the knote needs no reference.
 */
#include "kqueue.h"

#include <errno.h>

#define OPTIONS                                                                        \
    (MACH_RCV_MSG | MACH_RCV_LARGE | MACH_RCV_LARGE_IDENTITY | MACH_RCV_TRAILER_MASK | \
     MACH_RCV_VOUCHER | MACH_MSG_STRICT_REPLY)

/* What must not change once a knote exists. */
#define FIXED_OPTIONS (MACH_RCV_MSG | MACH_RCV_SYNC_PEEK)

static struct mio_knote *knote_of(struct mio_list *item) {
    return MIO_CONTAINER(item, struct mio_knote, of_object);
}

static bool is_edge(const struct mio_knote *knote) {
    return knote->event.flags & EV_CLEAR;
}

static unsigned drained(const struct mio_knote *knote) {
    return knote->is_set ? knote->set->drained : knote->port->drained;
}

/* EV_CLEAR, reported, and not seen empty since. */
static bool is_quiet(const struct mio_knote *knote) {
    return is_edge(knote) && knote->fired && knote->seen == drained(knote);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static int attach(struct mio_knote *knote) {
    uint64_t name = knote->event.ident;
    struct mio_entry *entry = NULL;
    if (name <= UINT32_MAX && MACH_PORT_VALID((mach_port_name_t)name))
        entry = mio_entry_get((mach_port_name_t)name);
    if (entry == NULL || entry->type & MACH_PORT_TYPE_DEAD_NAME)
        return ENOENT;
    if (entry->type & MACH_PORT_TYPE_RECEIVE) {
        knote->port = entry->port;
        mio_list_append(&knote->port->knotes, &knote->of_object);
    } else if (entry->type & MACH_PORT_TYPE_PORT_SET) {
        knote->is_set = true;
        knote->set = entry->set;
        mio_list_append(&knote->set->knotes, &knote->of_object);
    } else {
        return ENOTSUP;
    }
    knote->kq->nports++;
    mio_kq_watch_notice(knote->kq);
    return 0;
}

static void detach(struct mio_knote *knote) {
    knote->port = NULL;
    knote->kq->nports--;
    mio_kq_watch_notice(knote->kq);
}

static int touch(struct mio_knote *knote, const struct kevent64_s *change, bool add) {
    if (!add)
        return 0;
    if ((knote->event.fflags ^ change->fflags) & FIXED_OPTIONS)
        return EINVAL;
    knote->event.fflags = change->fflags;
    knote->event.data = change->data;
    knote->event.udata = change->udata;
    knote->event.ext[0] = change->ext[0];
    knote->event.ext[1] = change->ext[1];
    knote->fired = false;
    return 0;
}

static void unwatch_members(struct mio_knote *knote, const struct mio_list *end) {
    for (struct mio_list *item = knote->set->members.next; item != end; item = item->next)
        mio_watch_remove(&knote->kq->watch, MIO_CONTAINER(item, struct mio_member, of_set)->port,
                         is_edge(knote));
}

static int watch_members(struct mio_knote *knote) {
    MIO_EACH(item, &knote->set->members) {
        struct mio_port *port = MIO_CONTAINER(item, struct mio_member, of_set)->port;
        if (mio_watch_add(&knote->kq->watch, port, is_edge(knote)) != KERN_SUCCESS) {
            unwatch_members(knote, item);
            return ENOMEM;
        }
    }
    return 0;
}

static int watch(struct mio_knote *knote, bool on) {
    if (knote->is_set && on)
        return watch_members(knote);
    if (knote->is_set)
        unwatch_members(knote, &knote->set->members);
    else if (!on)
        mio_watch_remove(&knote->kq->watch, knote->port, is_edge(knote));
    else if (mio_watch_add(&knote->kq->watch, knote->port, is_edge(knote)) != KERN_SUCCESS)
        return ENOMEM;
    return 0;
}

/* ---- reporting ------------------------------------------------------------------------------- */

/* The port that has a message, or NULL. */
static struct mio_port *find_message(struct mio_knote *knote) {
    struct mio_port *port = NULL;
    if (knote->is_set)
        return mio_set_has_message(knote->set, &port) ? port : NULL;
    return mio_port_has_message(knote->port) ? knote->port : NULL;
}

static enum mio_event peek(struct mio_knote *knote) {
    if (knote->vanished)
        return MIO_EVENT_READY;
    return !is_quiet(knote) && find_message(knote) != NULL ? MIO_EVENT_READY : MIO_EVENT_NONE;
}

/* Receives into the buffer that the program registered. The lock may be let go. */
static enum mio_event receive(struct kevent64_s *event, bool wide) {
    mach_msg_header_t nothing;
    mach_msg_header_t *buffer = (mach_msg_header_t *)(uintptr_t)event->ext[0];
    mach_msg_option_t option = (mach_msg_option_t)event->fflags & OPTIONS;
    mach_msg_size_t limit =
        event->ext[1] < UINT32_MAX ? (mach_msg_size_t)event->ext[1] : UINT32_MAX;
    mach_msg_size_t size = 0;
    mach_port_name_t port = MACH_PORT_NULL;

    if (!wide || limit == 0) {
        buffer = &nothing; /* nowhere to put it: the message stays, its size is told */
        limit = 0;
        option |= MACH_RCV_LARGE | MACH_RCV_LARGE_IDENTITY;
    }
    mach_msg_return_t mr =
        mio_receive_now(buffer, option, limit, (mach_port_name_t)event->ident, &size, &port);
    if (mr == MACH_RCV_TIMED_OUT || mr == MACH_RCV_INVALID_NAME || mr == MACH_RCV_PORT_CHANGED)
        return MIO_EVENT_NONE;
    event->fflags = (uint32_t)mr;
    event->data = mr == MACH_RCV_TOO_LARGE && option & MACH_RCV_LARGE_IDENTITY ? port : 0;
    event->ext[1] = size;
    return MIO_EVENT_READY;
}

static enum mio_event report(struct mio_knote *knote, struct kevent64_s *event, bool wide) {
    if (is_quiet(knote))
        return MIO_EVENT_NONE;
    unsigned seen = drained(knote); /* before the receive, which may drain it */
    struct mio_port *port = find_message(knote);
    knote->seen = seen;
    knote->fired = port != NULL;
    if (port == NULL)
        return MIO_EVENT_NONE;
    if (event->fflags & MACH_RCV_MSG) {
        enum mio_event result = receive(event, wide);
        if (result == MIO_EVENT_NONE)
            knote->fired = false;
        return result;
    }
    event->fflags = 0;
    event->data = port->name;
    return MIO_EVENT_READY;
}

const struct mio_filter mio_filter_port = {.number = EVFILT_MACHPORT,
                                           .attach = attach,
                                           .detach = detach,
                                           .touch = touch,
                                           .watch = watch,
                                           .peek = peek,
                                           .report = report};

/* ---- what ports and sets tell ---------------------------------------------------------------- */

void mio_knotes_activate(struct mio_list *knotes) {
    MIO_EACH(item, knotes) {
        struct mio_knote *knote = knote_of(item);
        if (is_quiet(knote))
            continue;
        mio_knote_activate(knote);
        mio_kq_mark(knote->kq);
    }
}

void mio_knotes_vanish(struct mio_list *knotes) {
    MIO_EACH(item, knotes) {
        struct mio_knote *knote = knote_of(item);
        if (knote->watched)
            watch(knote, false);
        knote->watched = false;
        mio_list_remove(&knote->of_object);
        knote->port = NULL;
        knote->vanished = true;
        mio_knote_activate(knote);
        mio_kq_mark(knote->kq);
    }
}

static void unwatch_until(struct mio_set *set, struct mio_port *port, const struct mio_list *end) {
    for (struct mio_list *item = set->knotes.next; item != end; item = item->next) {
        struct mio_knote *knote = knote_of(item);
        if (knote->watched)
            mio_watch_remove(&knote->kq->watch, port, is_edge(knote));
    }
}

kern_return_t mio_knotes_member_added(struct mio_set *set, struct mio_port *port) {
    MIO_EACH(item, &set->knotes) {
        struct mio_knote *knote = knote_of(item);
        if (!knote->watched)
            continue;
        if (mio_watch_add(&knote->kq->watch, port, is_edge(knote)) != KERN_SUCCESS) {
            unwatch_until(set, port, item);
            return KERN_RESOURCE_SHORTAGE;
        }
    }
    return KERN_SUCCESS;
}

void mio_knotes_member_removed(struct mio_set *set, struct mio_port *port) {
    unwatch_until(set, port, &set->knotes);
}

static void fired(struct mio_kq *kq, struct mio_list *knotes) {
    MIO_EACH(item, knotes) {
        struct mio_knote *knote = knote_of(item);
        if (knote->kq == kq && !is_quiet(knote))
            mio_knote_activate(knote);
    }
}

void mio_filter_port_fired(struct mio_kq *kq, struct mio_port *port,
                           const struct mio_source *source) {
    mio_port_told(port, source, false);
    mio_port_mark_ready(port);
    fired(kq, &port->knotes);
    MIO_EACH(item, &port->memberships)
        fired(kq, &MIO_CONTAINER(item, struct mio_member, of_port)->set->knotes);
}
