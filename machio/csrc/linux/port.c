/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Ports as objects: birth, counts, death. What the space, messages and requests hold are references
 * (memory); what counts for Mach is kept apart: `srights` for the holders of send rights, the list
 * `onces` for the send-once rights of a port.
 *
 * Guarded by mio_task.lock. A port owns the descriptors that channel.c makes for it.
 */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>

/* ---- ports ------------------------------------------------------------------------------- */

static void source_init(struct mio_source *source, enum mio_source_kind kind, void *object) {
    *source = (struct mio_source){.fd = -1, .kind = kind, .port = object};
}

struct mio_port *mio_port_new(enum mio_port_state state) {
    struct mio_port *port = calloc(1, sizeof *port);
    if (port == NULL)
        return NULL;
    port->refs = 1;
    port->state = state;
    port->kind = MIO_PORT_PLAIN;
    port->tx = -1;
    port->tail = &port->head;
    port->qlimit = MACH_PORT_QLIMIT_DEFAULT;
    source_init(&port->rx, MIO_SOURCE_RX, port);
    source_init(&port->cw, MIO_SOURCE_CW, port);
    source_init(&port->cr, MIO_SOURCE_CR, port);
    source_init(&port->room, MIO_SOURCE_TX, port);
    source_init(&port->crowd, MIO_SOURCE_CROWD, port);
    mio_list_init(&port->turn);
    mio_list_init(&port->onces);
    mio_list_init(&port->ripe);
    mio_list_init(&port->memberships);
    mio_list_init(&port->receivers);
    mio_list_init(&port->senders);
    mio_list_init(&port->links);
    mio_list_init(&port->knotes);
    mio_list_init(&port->requests);
    return port;
}

struct mio_port *mio_port_new_remote(enum mio_port_kind kind, uint64_t cookie, ino_t pipe, int tx,
                                     int cr) {
    struct mio_port *port = mio_port_new(MIO_PORT_REMOTE);
    if (port == NULL || (cr >= 0 && mio_source_set(&port->cr, cr) != 0)) {
        free(port);
        mio_fd_discard(cr);
        mio_fd_discard(tx);
        return NULL;
    }
    port->kind = kind;
    port->cookie = cookie;
    port->pipe = pipe;
    port->tx = tx;
    mio_port_hash(port);
    return port;
}

void mio_port_ref(struct mio_port *port) {
    port->refs++;
}

void mio_port_unref(struct mio_port *port) {
    if (--port->refs == 0)
        free(port);
}

void mio_port_drop_send(struct mio_port *port) {
    port->srights--;
    if (port->srights == 0) {
        if (port->state == MIO_PORT_LOCAL) {
            mio_channel_trim(port);
            mio_port_check_senders(port, MIO_NOW);
        } else if (port->state == MIO_PORT_REMOTE && port != mio_task.bootstrap) {
            mio_channel_close(port);
        }
    }
    mio_port_unref(port);
}

bool mio_port_has_senders(struct mio_port *port) {
    if (port->srights > 0)
        return true;
    if (port->cw.fd < 0)
        return false;
    mio_source_close(&port->cr); /* ours is not a sender's */
    struct pollfd fds[2] = {{.fd = port->cw.fd}, {.fd = port->rx.fd, .events = POLLIN}};
    poll(fds, 2, 0);
    port->senders_gone = fds[0].revents & POLLERR;
    bool only_once = port->once_frames > 0 && mio_channel_depth(port) == 0;
    return !port->senders_gone || (fds[1].revents & POLLIN && !only_once);
}

bool mio_port_check_senders(struct mio_port *port, uint64_t when) {
    struct mio_once *notify = port->no_senders;
    if (notify == NULL || !port->senders_seen)
        return false;
    if (mio_port_has_senders(port)) {
        mio_notice_update_port(port);
        return false;
    }
    port->no_senders = NULL;
    port->senders_seen = false;
    mio_notice_update_port(port);
    mio_notify_count(notify, MACH_NOTIFY_NO_SENDERS, port->mscount, when);
    return true;
}

void mio_port_mark_ready(struct mio_port *port) {
    MIO_EACH(item, &port->memberships) {
        struct mio_member *member = MIO_CONTAINER(item, struct mio_member, of_port);
        if (mio_list_empty(&member->ready))
            mio_list_append(&member->set->ready, &member->ready);
    }
}

void mio_port_ready(struct mio_port *port) {
    mio_port_mark_ready(port);
    mio_knotes_activate(&port->knotes);
    if (!mio_list_empty(&port->receivers))
        mio_wake(MIO_CONTAINER(port->receivers.next, struct mio_waiter, link));
    MIO_EACH(item, &port->memberships) {
        struct mio_set *set = MIO_CONTAINER(item, struct mio_member, of_port)->set;
        mio_knotes_activate(&set->knotes);
        if (!mio_list_empty(&set->receivers))
            mio_wake(MIO_CONTAINER(set->receivers.next, struct mio_waiter, link));
    }
}

bool mio_port_travels_in(const struct mio_port *port, const struct mio_port *dest) {
    while (dest != NULL && dest != port)
        dest = dest->carrier;
    return dest != NULL;
}

static void wake_list(struct mio_list *waiters) {
    MIO_EACH(item, waiters)
        mio_wake(MIO_CONTAINER(item, struct mio_waiter, link));
}

void mio_port_wake_all(struct mio_port *port) {
    wake_list(&port->receivers);
    wake_list(&port->senders);
    MIO_EACH(item, &port->memberships)
        wake_list(&MIO_CONTAINER(item, struct mio_member, of_port)->set->receivers);
}

void mio_port_leave_space(struct mio_port *port) {
    /* Before what it would tell, the make-send count, is reset. */
    mio_port_check_senders(port, MIO_NOW);
    mio_knotes_vanish(&port->knotes);
    MIO_EACH(item, &port->memberships)
        mio_set_remove(MIO_CONTAINER(item, struct mio_member, of_port));
    wake_list(&port->receivers);
    port->seqno = port->mscount = 0;
    port->context = 0;
    port->guarded = port->strict = port->immovable = false;
}

/* ---- death --------------------------------------------------------------------------------- */

/* Every send-once right of the port is void; those elsewhere learn it from the kernel. */
static void kill_onces(struct mio_port *port) {
    MIO_EACH(item, &port->onces) {
        struct mio_once *once = MIO_CONTAINER(item, struct mio_once, link);
        if (once->state == MIO_ONCE_EXPORTED) {
            mio_once_free(once);
        } else {
            once->state = MIO_ONCE_DEAD;
            mio_list_remove(&once->link);
        }
    }
}

/* Ownership: consumes the reference that came with the receive right. */
void mio_port_destroy(struct mio_port *port) {
    if (port->destroyed != NULL) {
        struct mio_once *notify = port->destroyed;
        port->destroyed = NULL;
        if (mio_notify_port_destroyed(notify, port))
            return;
    }
    struct mio_once *no_senders = port->no_senders;
    port->no_senders = NULL;
    port->state = MIO_PORT_DEAD;
    mio_port_wake_all(port);
    mio_channel_hang_up(port);
    mio_port_abandon(port);
    kill_onces(port);
    mio_reap();
    if (no_senders != NULL)
        mio_once_drop(no_senders);
    mio_channel_bury(port);
    mio_requests_port_died(port, MIO_NOW);
    mio_port_unref(port);
}

void mio_port_died(struct mio_port *port) {
    if (port->state != MIO_PORT_REMOTE)
        return;
    uint64_t when = port->cr.fd >= 0 ? mio_channel_ended(port->cr.fd) : MIO_NOW;
    mio_source_close(&port->cr); /* nobody is left to be told of its end */
    mio_channel_close(port);
    mio_port_wake_all(port);
    if (port == mio_task.bootstrap) {
        mio_bootstrap_lost(); /* the next call finds another server */
        return;
    }
    port->state = MIO_PORT_DEAD;
    mio_requests_port_died(port, when);
}

bool mio_port_is_dead(struct mio_port *port) {
    if (port->state == MIO_PORT_REMOTE && port->cr.fd >= 0 && port->asked != mio_task.hold) {
        struct pollfd fds[2] = {{.fd = port->cr.fd}, {.fd = port->tx}};
        poll(fds, 2, 0);
        port->asked = mio_task.hold;
        port->shut = fds[1].revents & (POLLERR | POLLHUP);
        if (fds[0].revents & POLLHUP) {
            mio_port_ref(port);
            mio_port_died(port);
            bool dead = port->state == MIO_PORT_DEAD;
            mio_port_unref(port);
            return dead;
        }
    }
    return port->state == MIO_PORT_DEAD;
}

bool mio_port_presume_alive(struct mio_port *port) {
    if (port->state != MIO_PORT_REMOTE || port->cr.fd < 0 || mio_kind_is_kernels(port->kind))
        return false;
    port->asked = mio_task.hold;
    port->shut = false;
    return true;
}

void mio_port_break(struct mio_port *port) {
    port->broken = true;
    mio_channel_close(port);
    port->broken = false;
    port->issued = 0;
    mio_port_wake_all(port);
    mio_port_check_senders(port, MIO_NOW);
}

void mio_port_make_local(struct mio_port *port) {
    mio_notice_forget_room(port);
    mio_source_close(&port->cr); /* opened again when someone here sends */
    port->state = MIO_PORT_LOCAL;
    port->seqno = port->mscount = 0;
    port->context = 0;
    port->flags = 0;
    port->guarded = port->strict = port->immovable = false;
    port->senders_gone = port->broken = port->credit_in_hand = false;
}

/* ---- identity ------------------------------------------------------------------------------ */

struct mio_port *mio_port_by_cookie(uint64_t cookie) {
    struct mio_port *port = mio_task.by_cookie[cookie % MIO_HASH];
    while (port != NULL && port->cookie != cookie)
        port = port->hash_next;
    return port;
}

void mio_port_hash(struct mio_port *port) {
    struct mio_port **bucket = &mio_task.by_cookie[port->cookie % MIO_HASH];
    port->hash_next = *bucket;
    *bucket = port;
}

void mio_port_unhash(struct mio_port *port) {
    struct mio_port **link = &mio_task.by_cookie[port->cookie % MIO_HASH];
    for (; *link != NULL; link = &(*link)->hash_next) {
        if (*link == port) {
            *link = port->hash_next;
            return;
        }
    }
}
