/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The queue of a port of this task. Its messages come from several sources: its list inside the
 * task (own messages and notifications), its socket, and the home end of each send-once right that
 * is elsewhere. The kernel stamps every message; with more than one source ready the oldest goes
 * first. A right that its holder's end took with it carries no stamp and goes last.
 *
 * Guarded by mio_task.lock; the descriptors are the port's and its send-once rights'.
 */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BAD_FRAMES 16384 /* so many are dropped at once: more than a socket's buffer holds */

/* A buffer for poll(), grown as needed; the lock guards it. */
static struct pollfd *scratch;
static size_t scratch_size;

static bool scratch_for(size_t n) {
    if (n > scratch_size) {
        struct pollfd *bigger = realloc(scratch, (n + 16) * sizeof *bigger);
        if (bigger == NULL)
            return false;
        scratch = bigger;
        scratch_size = n + 16;
    }
    return true;
}

/* ---- its sources ------------------------------------------------------------------------ */

/* Appends the port's descriptors to the scratch buffer from `n` on; the new length. */
static size_t collect_fds(struct mio_port *port, size_t n) {
    if (port->rx.fd >= 0 && scratch_for(n + 1))
        scratch[n++] = (struct pollfd){.fd = port->rx.fd, .events = POLLIN};
    if (port->crowd.fd >= 0) {
        if (scratch_for(n + 1))
            scratch[n++] = (struct pollfd){.fd = port->crowd.fd, .events = POLLIN};
        return n;
    }
    MIO_EACH(item, &port->onces) {
        struct mio_once *once = MIO_CONTAINER(item, struct mio_once, link);
        if (once->state != MIO_ONCE_EXPORTED)
            break;
        if (scratch_for(n + 1))
            scratch[n++] = (struct pollfd){.fd = once->source.fd, .events = POLLIN};
    }
    return n;
}

struct pollfd *mio_port_fds(struct mio_port *port, size_t before, size_t *ret_n) {
    if (!scratch_for(before + 1))
        return NULL;
    *ret_n = port != NULL ? collect_fds(port, before) : before;
    return scratch;
}

void mio_port_told(struct mio_port *port, const struct mio_source *source, bool all) {
    port->told = all && port->ready != mio_task.hold ? source->fd : -1;
    port->ready = mio_task.hold;
}

bool mio_port_holds_message(const struct mio_port *port) {
    return port->head != NULL || mio_crowd_first(port) != NULL;
}

bool mio_port_has_message(struct mio_port *port) {
    if (mio_port_holds_message(port) || port->ready == mio_task.hold)
        return true;
    size_t n = collect_fds(port, 0);
    return n > 0 && poll(scratch, n, 0) > 0;
}

/* The crowd's descriptor tells nobody of them any more. */
static void tell_of_ripe(struct mio_port *port) {
    if (mio_crowd_first(port) != NULL)
        mio_port_ready(port);
}

unsigned mio_port_waiting_onces(struct mio_port *port) {
    unsigned waiting = 0;
    if (port->crowd.fd >= 0) {
        mio_crowd_collect(port);
        tell_of_ripe(port);
        MIO_EACH(item, &port->ripe)
            waiting++;
        return waiting;
    }
    size_t n = collect_fds(port, 0);
    if (n == 0 || poll(scratch, n, 0) <= 0)
        return 0;
    for (size_t i = 0; i < n; i++)
        waiting += scratch[i].revents != 0 && scratch[i].fd != port->rx.fd;
    return waiting;
}

/* ---- the list inside the task ------------------------------------------------------------ */

void mio_port_enqueue(struct mio_port *port, struct mio_kmsg *kmsg) {
    struct mio_kmsg **at = port->tail;
    if (kmsg->stamp == MIO_NOW)
        kmsg->stamp = mio_now();
    else /* its cause may have come before what is queued */
        for (at = &port->head; *at != NULL && (*at)->stamp <= kmsg->stamp; at = &(*at)->next)
            ;
    kmsg->next = *at;
    *at = kmsg;
    if (kmsg->next == NULL)
        port->tail = &kmsg->next;
    port->queued++;
    port->counted += kmsg->counted;
    if (port->cw.fd >= 0 && !kmsg->counted)
        mio_credit_set_limit(port, port->qlimit); /* it takes a slot without having a credit */
    for (unsigned i = 0; i < kmsg->nrights; i++)
        if (kmsg->rights[i].kind == MIO_RIGHT_RECEIVE)
            kmsg->rights[i].port->carrier = port;
    mio_port_ready(port);
}

void mio_kmsg_push_front(struct mio_port *port, struct mio_kmsg *kmsg) {
    if (port->head == NULL)
        port->tail = &kmsg->next;
    kmsg->next = port->head;
    port->head = kmsg;
    port->queued++;
    port->counted += kmsg->counted;
}

static struct mio_kmsg *pop_local(struct mio_port *port) {
    struct mio_kmsg *kmsg = port->head;
    port->head = kmsg->next;
    if (port->head == NULL)
        port->tail = &port->head;
    port->queued--;
    port->counted -= kmsg->counted;
    kmsg->next = NULL;
    for (unsigned i = 0; i < kmsg->nrights; i++)
        if (kmsg->rights[i].kind == MIO_RIGHT_RECEIVE)
            kmsg->rights[i].port->carrier = NULL;
    return kmsg;
}

/* ---- the next message -------------------------------------------------------------------- */

/* What a send-once right's home end holds: its one message, or word that there will be none. */
static struct mio_kmsg *take_once(struct mio_once *once, bool *ret_shortage) {
    struct mio_kmsg *kmsg = NULL;
    unsigned kind = MIO_FRAME_BAD, flags;
    enum mio_wire_result result = mio_wire_receive(once->source.fd, &kmsg, &kind, &flags);
    if (result == MIO_WIRE_FULL) {
        mio_crowd_look_again(once);
        return NULL;
    }
    if (result == MIO_WIRE_SHORTAGE) {
        *ret_shortage = true;
        return NULL;
    }
    mio_once_came_home(once); /* in the message, as its destination */
    mio_once_close_home(once);
    mio_reap();
    if (kmsg != NULL)
        kmsg->dest = (struct mio_right){
            .kind = MIO_RIGHT_ONCE, .disposition = MACH_MSG_TYPE_PORT_SEND_ONCE, .once = once};
    else
        kmsg = mio_notify_send_once_kmsg(once);
    if (kmsg == NULL)
        mio_once_free(once);
    else
        kmsg->counted = false;
    return kmsg;
}

/* One frame off the port's socket. NULL with *ret_again: it was no message, look again. */
static struct mio_kmsg *take_wire(struct mio_port *port, bool *ret_shortage, bool *ret_again) {
    struct mio_kmsg *kmsg = NULL;
    unsigned kind = MIO_FRAME_BAD, flags = 0;
    *ret_again = false;
    switch (mio_wire_receive(port->rx.fd, &kmsg, &kind, &flags)) {
    case MIO_WIRE_FULL:
        return NULL;
    case MIO_WIRE_SHORTAGE:
        *ret_shortage = true;
        return NULL;
    case MIO_WIRE_GONE:
        mio_port_break(port);
        *ret_again = true;
        return NULL;
    case MIO_WIRE_OK:
        break;
    }
    if (kmsg != NULL) {
        kmsg->counted = !(flags & MIO_FRAME_NO_CREDIT);
        kmsg->dest.disposition =
            flags & MIO_FRAME_ONCE ? MACH_MSG_TYPE_PORT_SEND_ONCE : MACH_MSG_TYPE_PORT_SEND;
        if (flags & MIO_FRAME_ONCE && port->once_frames > 0)
            port->once_frames--;
        return kmsg;
    }
    *ret_again = true;
    if (kind == MIO_FRAME_NUDGE)
        mio_credit_recover(port);
    else
        mio_credit_return(port, true);
    return NULL;
}

/* Of the `ready` sources among n the one whose message is oldest: NULL for the local queue. */
static struct mio_source *oldest(struct mio_port *port, size_t n, int ready) {
    struct mio_source *best = NULL, *dead = NULL;
    uint64_t best_stamp = port->head != NULL ? port->head->stamp : UINT64_MAX;
    bool alone = ready == 1 && !mio_port_holds_message(port);
    struct mio_once *ripe = mio_crowd_first(port);
    if (ripe != NULL && ripe->stamp == 0) {
        dead = &ripe->source;
    } else if (ripe != NULL && ripe->stamp < best_stamp) {
        best_stamp = ripe->stamp;
        best = &ripe->source;
    }
    for (size_t i = 0; i < n; i++) {
        if (scratch[i].revents == 0)
            continue;
        struct mio_source *source = mio_source_find(scratch[i].fd);
        if (source == NULL || source->kind == MIO_SOURCE_CROWD)
            continue;
        if (alone)
            return source;
        uint64_t stamp = 0;
        if (source->kind == MIO_SOURCE_ONCE_RX && source->once->stamp != 0)
            stamp = source->once->stamp;
        else if (scratch[i].revents & POLLIN)
            stamp = mio_wire_peek_stamp(source->fd);
        if (source->kind == MIO_SOURCE_ONCE_RX)
            source->once->stamp = stamp;
        if (stamp == 0) {
            dead = source;
        } else if (stamp < best_stamp) {
            best_stamp = stamp;
            best = source;
        }
    }
    return best != NULL || port->head != NULL ? best : dead;
}

/* The same of those collected, whichever are ready. */
static struct mio_source *next_source(struct mio_port *port, size_t n) {
    int ready = n > 0 ? poll(scratch, n, 0) : 0;
    if (ready > 0)
        mio_crowd_collect(port);
    return ready > 0 || mio_crowd_first(port) != NULL ? oldest(port, n, ready) : NULL;
}

static struct mio_kmsg *take_next(struct mio_port *port, bool *ret_shortage) {
    struct mio_source *told = port->ready == mio_task.hold ? mio_source_find(port->told) : NULL;
    *ret_shortage = false;
    port->ready = 0;
    for (unsigned bad = 0;; bad++) {
        struct mio_source *source = NULL;
        bool again = false;
        size_t n = collect_fds(port, 0);
        if (n == 1 && port->crowd.fd < 0 && port->head == NULL)
            source = mio_source_find(scratch[0].fd);
        else if (told != NULL && told->kind != MIO_SOURCE_CROWD && mio_source_port(told) == port &&
                 !mio_port_holds_message(port))
            source = told;
        else
            source = next_source(port, n);
        told = NULL;
        if (source == NULL)
            return port->head != NULL ? pop_local(port) : NULL;
        struct mio_kmsg *kmsg = source->kind == MIO_SOURCE_RX
                                    ? take_wire(port, ret_shortage, &again)
                                    : take_once(source->once, ret_shortage);
        if (kmsg != NULL || !again)
            return kmsg;
        if (bad == BAD_FRAMES) { /* whoever floods must not keep others from the lock */
            mio_port_ready(port);
            return NULL;
        }
    }
}

struct mio_kmsg *mio_port_dequeue(struct mio_port *port, bool *ret_shortage) {
    struct mio_kmsg *kmsg = take_next(port, ret_shortage);
    tell_of_ripe(port);
    return kmsg;
}

static void abandon(struct mio_kmsg *kmsg) {
    kmsg->next = NULL;
    *mio_task.dying_tail = kmsg;
    mio_task.dying_tail = &kmsg->next;
}

/* What a source of a dying port holds next; one that holds nothing more is closed. */
static void abandon_next(struct mio_source *source) {
    struct mio_kmsg *kmsg = NULL;
    unsigned kind, flags;
    if (mio_wire_receive(source->fd, &kmsg, &kind, &flags) != MIO_WIRE_OK)
        mio_source_close(source);
    else if (kmsg != NULL)
        abandon(kmsg);
    if (source->fd >= 0 && source->kind == MIO_SOURCE_ONCE_RX)
        mio_once_close_home(source->once);
}

void mio_port_abandon(struct mio_port *port) {
    size_t n;
    MIO_EACH(item, &port->onces) {
        struct mio_once *once = MIO_CONTAINER(item, struct mio_once, link);
        if (once->state == MIO_ONCE_EXPORTED)
            shutdown(once->source.fd, SHUT_RDWR); /* a flood comes to its end */
    }
    while ((n = collect_fds(port, 0)) > 0 || port->head != NULL) {
        struct mio_source *source = next_source(port, n);
        if (source != NULL)
            abandon_next(source);
        else if (port->head != NULL)
            abandon(pop_local(port));
        else
            break;
    }
}
