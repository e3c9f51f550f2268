/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The rights of a frame become rights of this task: decode.c has found every descriptor to be what
 * it should. One that is for a port known here is that port's, whatever came with it.
 *
 * Guarded by mio_task.lock. The descriptors that are needed become those of ports and of send-once
 * rights; the others stay the frame's.
 */
#include "decode.h"

#include <poll.h>

static bool set_source(struct mio_source *source, enum mio_source_kind kind, int fd) {
    source->kind = kind;
    if (mio_source_set(source, fd) == 0)
        return true;
    mio_fd_discard(fd);
    return false;
}

/* The port that a send right is for has died; or its file was taken out. */
static bool has_died(const struct mio_decoder *decoder, const struct mio_wire_right *record) {
    if (record->kind == MIO_WIRE_FILE)
        return !mio_file_is_there(decoder->input->fds[record->fd[0]]);
    struct pollfd cr = {.fd = decoder->input->fds[record->fd[1]]};
    return poll(&cr, 1, 0) == 1 && cr.revents & POLLHUP;
}

static struct mio_port *new_local(const struct mio_slot *slot) {
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    if (port == NULL)
        return NULL;
    port->kind = slot->kind;
    port->cookie = slot->cookie;
    port->pipe = slot->pipe;
    return port;
}

static struct mio_port *new_remote(struct mio_decoder *decoder,
                                   const struct mio_wire_right *record) {
    const struct mio_slot *slot = &decoder->slots[record->fd[0]];
    int tx = mio_decoder_adopt(decoder, record->fd[0]);
    int cr = record->kind == MIO_WIRE_FILE ? -1 : mio_decoder_adopt(decoder, record->fd[1]);
    return mio_port_new_remote(slot->kind, slot->cookie, slot->pipe, tx, cr);
}

static bool import_send(struct mio_decoder *decoder, const struct mio_wire_right *record,
                        struct mio_right *ret) {
    const struct mio_slot *slot = &decoder->slots[record->fd[0]];
    struct mio_port *port = mio_port_by_cookie(slot->cookie);
    ret->disposition = MACH_MSG_TYPE_PORT_SEND;
    if (port != NULL) {
        mio_port_ref(port);
        if (port->state == MIO_PORT_LOCAL)
            port->senders_seen = true;
    } else if (slot->known) {
        return false; /* cannot be: no port goes while a frame is read */
    } else if (has_died(decoder, record)) {
        ret->kind = MIO_RIGHT_DEAD;
        return true;
    } else if ((port = new_remote(decoder, record)) == NULL) {
        return false;
    } else {
        mio_port_presume_alive(port); /* it was asked just now */
    }
    port->srights++;
    ret->kind = MIO_RIGHT_SEND;
    ret->port = port;
    return true;
}

/* One that comes home is a local one again, and its pair is gone. */
static struct mio_once *import_once(struct mio_decoder *decoder, uint16_t index) {
    struct mio_once *once = mio_once_by_end(decoder->input->fds[index]);
    if (once != NULL && once->state == MIO_ONCE_EXPORTED) {
        mio_once_close_home(once);
        once->stamp = 0;
        mio_once_came_home(once);
        return once;
    }
    once = mio_once_new(NULL);
    if (once != NULL &&
        !set_source(&once->source, MIO_SOURCE_ONCE_TX, mio_decoder_adopt(decoder, index))) {
        mio_once_free(once);
        return NULL;
    }
    return once;
}

static struct mio_once *import_request(struct mio_decoder *decoder, uint16_t index) {
    struct mio_once *dead;
    if (index != MIO_WIRE_NO_FD)
        return import_once(decoder, index);
    dead = mio_once_new(NULL);
    if (dead != NULL)
        dead->state = MIO_ONCE_DEAD;
    return dead;
}

/* The home end of a send-once right whose holder is elsewhere. */
static bool import_home(struct mio_decoder *decoder, struct mio_port *port, uint16_t index) {
    struct mio_once *once = mio_once_new(port);
    if (once == NULL)
        return false;
    int fd = mio_decoder_adopt(decoder, index);
    mio_pair_receiver(fd);
    mio_look_at_front(fd);
    if (!set_source(&once->source, MIO_SOURCE_ONCE_RX, fd)) {
        mio_once_free(once);
        return false;
    }
    mio_once_left(once);
    mio_crowd_join(once);
    return true;
}

/* On failure *ret may own the port all the same: whoever destroys it ends the port. */
static bool import_receive(struct mio_decoder *decoder, const struct mio_wire_right *record,
                           struct mio_right *ret) {
    const struct mio_slot *slot = &decoder->slots[record->fd[0]];
    struct mio_wire_receive receive = mio_decoder_receive(decoder, record->extra);
    struct mio_port *port = mio_port_by_cookie(slot->cookie);
    bool has_credit = port != NULL && port->credit_in_hand;
    if (port != NULL) {
        mio_port_ref(port);
        mio_port_make_local(port);
    } else {
        port = new_local(slot);
        if (port == NULL)
            return false;
        mio_port_hash(port);
    }
    ret->kind = MIO_RIGHT_RECEIVE;
    ret->disposition = MACH_MSG_TYPE_PORT_RECEIVE;
    ret->port = port;
    if (port->tx < 0)
        port->tx = mio_decoder_adopt(decoder, record->fd[1]);
    port->qlimit = receive.qlimit;
    port->issued = (int)receive.issued;
    port->once_frames = receive.once_frames;
    port->senders_seen = receive.flags & MIO_RECEIVE_SENDERS_SEEN || port->srights > 0;
    mio_pair_receiver(decoder->input->fds[record->fd[0]]);
    mio_look_at_front(decoder->input->fds[record->fd[0]]);
    if (!set_source(&port->rx, MIO_SOURCE_RX, mio_decoder_adopt(decoder, record->fd[0])) ||
        !set_source(&port->cw, MIO_SOURCE_CW, mio_decoder_adopt(decoder, record->fd[2])))
        return false;
    if (has_credit)
        mio_credit_return(port, true);
    for (unsigned i = 0; i < receive.once_count; i++)
        if (!import_home(decoder, port, (uint16_t)(receive.once_first + i)))
            return false;
    if (receive.flags & MIO_RECEIVE_NO_SENDERS &&
        (port->no_senders = import_request(decoder, receive.no_senders)) == NULL)
        return false;
    if (receive.flags & MIO_RECEIVE_DESTROYED &&
        (port->destroyed = import_request(decoder, receive.destroyed)) == NULL)
        return false;
    mio_requests_moved(port);
    mio_port_wake_all(port);
    return true;
}

static bool import_right(struct mio_decoder *decoder, unsigned i, struct mio_right *ret) {
    struct mio_wire_right record = mio_decoder_right(decoder, i);
    *ret = (struct mio_right){.kind = MIO_RIGHT_NULL};
    switch (record.kind) {
    case MIO_RIGHT_SEND:
    case MIO_WIRE_FILE:
        return import_send(decoder, &record, ret);
    case MIO_RIGHT_RECEIVE:
        return import_receive(decoder, &record, ret);
    case MIO_RIGHT_ONCE:
        ret->once = import_once(decoder, record.fd[0]);
        if (ret->once == NULL)
            return false;
        ret->kind = MIO_RIGHT_ONCE;
        ret->disposition = MACH_MSG_TYPE_PORT_SEND_ONCE;
        return true;
    default:
        ret->kind = (enum mio_right_kind)record.kind;
        if (record.disposition >= MACH_MSG_TYPE_PORT_RECEIVE &&
            record.disposition <= MACH_MSG_TYPE_PORT_SEND_ONCE)
            ret->disposition = record.disposition;
        return true;
    }
}

bool mio_import_rights(struct mio_decoder *decoder, struct mio_kmsg *kmsg) {
    const bool connected = mio_task.bootstrap == NULL || mio_task.bootstrap->tx >= 0;
    for (unsigned i = 0; i < decoder->head.nrights; i++) {
        struct mio_right *right = i == 0 ? &kmsg->reply : &kmsg->rights[i - 1];
        if (!import_right(decoder, i, right))
            return false;
        if (right->kind == MIO_RIGHT_SEND && right->port->kind == MIO_PORT_BOOTSTRAP && !connected)
            kmsg->foreign_bootstrap = true;
    }
    return true;
}
