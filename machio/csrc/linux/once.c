/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Send-once rights as objects: birth, identity, death.
 *
 * Guarded by mio_task.lock. A send-once right owns the one end of its socket pair that its state
 * names, and a reference to its home.
 */
#include "internal.h"

#include <poll.h>
#include <stdlib.h>

/* ---- birth ------------------------------------------------------------------------------- */

struct mio_once *mio_once_new(struct mio_port *home) {
    struct mio_once *once = calloc(1, sizeof *once);
    if (once == NULL)
        return NULL;
    once->pending_tx = once->pending_rx = -1;
    mio_list_init(&once->link);
    mio_list_init(&once->ripe);
    once->source = (struct mio_source){.fd = -1, .kind = MIO_SOURCE_ONCE_RX, .once = once};
    if (home == NULL) {
        once->state = MIO_ONCE_REMOTE;
        once->source.kind = MIO_SOURCE_ONCE_TX;
        return once;
    }
    once->state = MIO_ONCE_LOCAL;
    once->home = home;
    mio_port_ref(home);
    home->sorights++;
    mio_list_append(&home->onces, &once->link);
    return once;
}

void mio_once_left(struct mio_once *once) {
    once->state = MIO_ONCE_EXPORTED;
    mio_list_remove(&once->link);
    mio_list_append(once->home->onces.next, &once->link);
}

void mio_once_came_home(struct mio_once *once) {
    once->state = MIO_ONCE_LOCAL;
    mio_list_remove(&once->link);
    mio_list_append(&once->home->onces, &once->link);
}

/* ---- identity ------------------------------------------------------------------------------ */

struct mio_once *mio_once_by_end(int tx) {
    uint64_t cookie = mio_task.exported > 0 ? mio_socket_cookie(tx) : 0;
    struct mio_once *once = mio_task.once_by_cookie[cookie % MIO_HASH];
    while (once != NULL && once->cookie != cookie)
        once = once->hash_next;
    return once;
}

void mio_once_hash(struct mio_once *once) {
    struct mio_once **bucket = &mio_task.once_by_cookie[once->cookie % MIO_HASH];
    once->hash_next = *bucket;
    *bucket = once;
    mio_task.exported++;
}

void mio_once_unhash(struct mio_once *once) {
    struct mio_once **link = &mio_task.once_by_cookie[once->cookie % MIO_HASH];
    for (; *link != NULL; link = &(*link)->hash_next) {
        if (*link == once) {
            *link = once->hash_next;
            mio_task.exported--;
            return;
        }
    }
}

/* ---- death --------------------------------------------------------------------------------- */

void mio_once_close_home(struct mio_once *once) {
    if (once->source.fd < 0)
        return;
    mio_wire_discard(once->source.fd);
    mio_source_close(&once->source);
    if (once->cookie != 0)
        mio_once_unhash(once);
    once->cookie = 0;
}

void mio_once_free(struct mio_once *once) {
    mio_source_close(&once->source);
    if (once->cookie != 0)
        mio_once_unhash(once);
    mio_list_remove(&once->link);
    if (once->home != NULL) {
        once->home->sorights--;
        mio_port_unref(once->home);
    }
    free(once);
}

bool mio_once_is_dead(struct mio_once *once) {
    if (once->state == MIO_ONCE_REMOTE && once->asked != mio_task.hold) {
        struct pollfd fd = {.fd = once->source.fd};
        once->asked = mio_task.hold;
        if (poll(&fd, 1, 0) == 1 && fd.revents & (POLLHUP | POLLERR)) {
            once->state = MIO_ONCE_DEAD;
            mio_source_close(&once->source);
            mio_request_fire_dead(once->request, MIO_NOW);
        }
    }
    return once->state == MIO_ONCE_DEAD;
}

bool mio_once_presume_alive(struct mio_once *once) {
    if (once->state != MIO_ONCE_REMOTE)
        return false;
    once->asked = mio_task.hold;
    return true;
}

void mio_once_drop(struct mio_once *once) {
    if (once->state == MIO_ONCE_LOCAL) {
        mio_notify_send_once(once);
        return;
    }
    if (once->state == MIO_ONCE_REMOTE)
        mio_wire_signal(once->source.fd, MIO_FRAME_DROPPED);
    mio_once_free(once);
}
