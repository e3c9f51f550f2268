/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * A frame becomes a message. Its sender is not trusted: first every number in it is checked and
 * every descriptor asked what it is, and until that is done nothing in the task changes. What
 * then can go wrong is memory. A bad frame is dropped whole, with every right in it.
 *
 * Each descriptor has exactly one role in a frame. Only the parts of send rights may be referred to
 * more than once: the same right several times in a message.
 *
 * Guarded by mio_task.lock. Owns the frame's descriptors until they are adopted or discarded.
 */
#include "wire.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define QLIMIT_MAX 1024u /* MACH_PORT_QLIMIT_MAX */

enum role { NONE, SEND_TX, SEND_CR, FILE_TX, ONCE_TX, PORT_RX, PORT_CW, ONCE_RX, FILE_OF_BYTES };

struct slot {
    enum role role;
    uint16_t cr; /* SEND_TX: the pipe it was verified with, or MIO_WIRE_NO_FD; FILE_TX: itself */
    uint64_t cookie; /* of the port (SEND_TX, FILE_TX, PORT_RX) or send-once right (ONCE_TX) */
    ino_t pipe;
    enum mio_port_kind kind;
};

struct decoder {
    struct mio_wire_input *input;
    struct mio_wire_head head;
    const uint8_t *rights, *receives, *body;
    size_t body_size;
    int memfd, heap;    /* the body, the out-of-line memory; or -1 */
    unsigned nreceives; /* seen so far */
    struct slot *slots; /* few, or allocated for descriptors that came in bundles */
    struct slot few[MIO_WIRE_FDS];
};

static struct mio_wire_right right_at(const struct decoder *decoder, unsigned i) {
    struct mio_wire_right record;
    memcpy(&record, decoder->rights + i * sizeof record, sizeof record);
    return record;
}

static struct mio_wire_receive receive_at(const struct decoder *decoder, unsigned i) {
    struct mio_wire_receive record;
    memcpy(&record, decoder->receives + i * sizeof record, sizeof record);
    return record;
}

/* ---- checks ------------------------------------------------------------------------------ */

static bool claim(struct decoder *decoder, uint16_t fd, enum role role) {
    if (fd >= decoder->input->nfds)
        return false;
    struct slot *slot = &decoder->slots[fd];
    if (slot->role == role)
        return role == SEND_TX || role == SEND_CR || role == FILE_TX;
    if (slot->role != NONE)
        return false;
    slot->role = role;
    slot->cr = MIO_WIRE_NO_FD;
    return true;
}

static bool has_fds(const struct mio_wire_right *record, unsigned n) {
    for (unsigned i = n; i < 3; i++)
        if (record->fd[i] != MIO_WIRE_NO_FD)
            return false;
    return true;
}

/* A port is known by its socket; the pipe it has here must be the one it has there. */
static bool agrees(const struct slot *slot) {
    const struct mio_port *port = mio_port_by_cookie(slot->cookie);
    return port == NULL || port->pipe == slot->pipe;
}

static void identify(struct slot *slot, const struct mio_port *identity) {
    slot->cookie = identity->cookie;
    slot->pipe = identity->pipe;
    slot->kind = identity->kind;
}

static bool check_send(struct decoder *decoder, const struct mio_wire_right *record) {
    struct mio_port identity;
    const int *fds = decoder->input->fds;
    uint16_t tx = record->fd[0], cr = record->fd[1];
    if (!claim(decoder, tx, SEND_TX) || !claim(decoder, cr, SEND_CR))
        return false;
    struct slot *slot = &decoder->slots[tx];
    if (slot->cr == cr)
        return true;
    if (!mio_channel_verify_send(fds[tx], fds[cr], &identity))
        return false;
    identify(slot, &identity);
    slot->cr = cr;
    return agrees(slot);
}

static bool check_file(struct decoder *decoder, uint16_t tx) {
    if (!claim(decoder, tx, FILE_TX))
        return false;
    struct slot *slot = &decoder->slots[tx];
    if (slot->cr == tx)
        return true;
    slot->cr = tx, slot->pipe = 0, slot->kind = MIO_PORT_FILE;
    return mio_channel_verify_file(decoder->input->fds[tx], &slot->cookie) && agrees(slot);
}

static bool check_once(struct decoder *decoder, uint16_t tx) {
    return claim(decoder, tx, ONCE_TX) &&
           mio_channel_verify_once(decoder->input->fds[tx], &decoder->slots[tx].cookie);
}

static bool check_request(struct decoder *decoder, bool armed, uint16_t index) {
    return index == MIO_WIRE_NO_FD || (armed && check_once(decoder, index));
}

static bool check_receive_record(struct decoder *decoder, const struct mio_wire_receive *record) {
    if (record->qlimit > QLIMIT_MAX || record->issued > MIO_QUEUE_MAX ||
        record->once_frames > MIO_QUEUE_MAX || record->flags & ~(uint32_t)MIO_RECEIVE_KNOWN ||
        (record->once_count == 0 && record->once_first != 0))
        return false;
    for (unsigned i = 0; i < record->once_count; i++) {
        unsigned fd = record->once_first + i;
        if (fd >= decoder->input->nfds || !claim(decoder, (uint16_t)fd, ONCE_RX) ||
            !mio_channel_verify_once_rx(decoder->input->fds[fd]))
            return false;
    }
    return check_request(decoder, record->flags & MIO_RECEIVE_NO_SENDERS, record->no_senders) &&
           check_request(decoder, record->flags & MIO_RECEIVE_DESTROYED, record->destroyed);
}

/* A receive right that is here is a lie. */
static bool is_new_here(const struct decoder *decoder, uint16_t rx) {
    const struct mio_port *port = mio_port_by_cookie(decoder->slots[rx].cookie);
    return port == NULL || port->state == MIO_PORT_REMOTE;
}

static int compare_cookies(const void *a, const void *b) {
    const uint64_t *one = a, *other = b;
    return (*one > *other) - (*one < *other);
}

/* One that is twice in the message is another. */
static bool are_distinct(const struct decoder *decoder) {
    static uint64_t cookies[MIO_WIRE_RECEIVES];
    unsigned count = 0;
    for (unsigned i = 0; i < decoder->input->nfds; i++)
        if (decoder->slots[i].role == PORT_RX)
            cookies[count++] = decoder->slots[i].cookie;
    qsort(cookies, count, sizeof *cookies, compare_cookies);
    for (unsigned i = 1; i < count; i++)
        if (cookies[i] == cookies[i - 1])
            return false;
    return true;
}

static bool check_receive(struct decoder *decoder, const struct mio_wire_right *record) {
    struct mio_port identity;
    const int *fds = decoder->input->fds;
    uint16_t rx = record->fd[0], tx = record->fd[1], cw = record->fd[2];
    if (!claim(decoder, rx, PORT_RX) || !claim(decoder, tx, SEND_TX) ||
        !claim(decoder, cw, PORT_CW) || record->extra != decoder->nreceives ||
        decoder->nreceives == decoder->head.nreceives ||
        !mio_channel_verify_receive(fds[rx], fds[tx], fds[cw], &identity))
        return false;
    identify(&decoder->slots[rx], &identity);
    struct mio_wire_receive receive = receive_at(decoder, decoder->nreceives++);
    return agrees(&decoder->slots[rx]) && is_new_here(decoder, rx) &&
           check_receive_record(decoder, &receive);
}

static bool check_right(struct decoder *decoder, const struct mio_wire_right *record) {
    if (record->reserved != 0 || (record->kind != MIO_RIGHT_RECEIVE && record->extra != 0))
        return false;
    switch (record->kind) {
    case MIO_RIGHT_NULL:
    case MIO_RIGHT_DEAD:
        return has_fds(record, 0);
    case MIO_RIGHT_SEND:
        return has_fds(record, 2) && check_send(decoder, record);
    case MIO_WIRE_FILE:
        return has_fds(record, 1) && check_file(decoder, record->fd[0]);
    case MIO_RIGHT_ONCE:
        return has_fds(record, 1) && check_once(decoder, record->fd[0]);
    case MIO_RIGHT_RECEIVE:
        return check_receive(decoder, record);
    default:
        return false;
    }
}

/* The last descriptor that has no role yet is a file of bytes. */
static bool claim_last(struct decoder *decoder, unsigned *end, int *ret_fd) {
    if (*end == 0 || !claim(decoder, (uint16_t)(*end - 1), FILE_OF_BYTES))
        return false;
    *ret_fd = decoder->input->fds[--*end];
    return true;
}

/* The header, and that all parts lie within the frame. */
static bool check_head(struct decoder *decoder) {
    const struct mio_wire_input *input = decoder->input;
    struct mio_wire_head *head = &decoder->head;
    if (input->length < sizeof *head)
        return false;
    memcpy(head, input->frame, sizeof *head);
    if (head->flags & ~MIO_HEAD_KNOWN || head->reserved != 0 || head->nfds != input->nfds ||
        head->nrights == 0 || head->nrights > MIO_WIRE_RIGHTS ||
        head->nreceives > MIO_WIRE_RECEIVES || head->size < sizeof(mach_msg_header_t) ||
        head->size > MIO_WIRE_SIZE_MAX || head->size % 4 != 0)
        return false;
    size_t rights = head->nrights * sizeof(struct mio_wire_right);
    size_t receives = head->nreceives * sizeof(struct mio_wire_receive);
    if (input->length - sizeof *head < rights + receives)
        return false;
    decoder->rights = input->frame + sizeof *head;
    decoder->receives = decoder->rights + rights;
    decoder->body = decoder->receives + receives;
    decoder->body_size = head->size - sizeof(mach_msg_header_t);
    size_t rest = input->length - sizeof *head - rights - receives;
    unsigned end = input->nfds;
    decoder->memfd = decoder->heap = -1;
    if (head->flags & MIO_HEAD_HEAP && !claim_last(decoder, &end, &decoder->heap))
        return false;
    if (!(head->flags & MIO_HEAD_MEMFD))
        return rest == decoder->body_size;
    return rest == 0 && decoder->body_size > 0 && claim_last(decoder, &end, &decoder->memfd);
}

static bool check(struct decoder *decoder) {
    if (!check_head(decoder))
        return false;
    for (unsigned i = 0; i < decoder->head.nrights; i++) {
        struct mio_wire_right record = right_at(decoder, i);
        if ((i == 0 && record.kind == MIO_RIGHT_RECEIVE) || !check_right(decoder, &record))
            return false;
    }
    for (unsigned i = 0; i < decoder->input->nfds; i++)
        if (decoder->slots[i].role == NONE)
            return false;
    return decoder->nreceives == decoder->head.nreceives &&
           (decoder->nreceives < 2 || are_distinct(decoder));
}

/* ---- the body ---------------------------------------------------------------------------- */

static bool read_body(const struct decoder *decoder, uint8_t *body) {
    if (decoder->memfd < 0)
        memcpy(body, decoder->body, decoder->body_size);
    else if (!mio_memfd_is_sealed(decoder->memfd, decoder->body_size) ||
             !mio_memfd_read(decoder->memfd, body, decoder->body_size, 0))
        return false;
    return mio_wire_check_body(&decoder->head, decoder->rights, decoder->heap, body);
}

/* ---- rights ------------------------------------------------------------------------------ */

/* The descriptor, once: it is the caller's now. -1: it was taken before. */
static int adopt(struct decoder *decoder, uint16_t index) {
    int fd = decoder->input->fds[index];
    decoder->input->fds[index] = -1;
    return fd;
}

static bool set_source(struct mio_source *source, enum mio_source_kind kind, int fd) {
    source->kind = kind;
    if (mio_source_set(source, fd) == 0)
        return true;
    mio_fd_discard(fd);
    return false;
}

/* The port that a send right is for has died; or its file was taken out. */
static bool has_died(const struct decoder *decoder, const struct mio_wire_right *record) {
    if (record->kind == MIO_WIRE_FILE)
        return !mio_file_is_there(decoder->input->fds[record->fd[0]]);
    struct pollfd cr = {.fd = decoder->input->fds[record->fd[1]]};
    return poll(&cr, 1, 0) == 1 && cr.revents & POLLHUP;
}

static struct mio_port *new_local(const struct slot *slot) {
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    if (port == NULL)
        return NULL;
    port->kind = slot->kind;
    port->cookie = slot->cookie;
    port->pipe = slot->pipe;
    return port;
}

static struct mio_port *new_remote(struct decoder *decoder, const struct mio_wire_right *record) {
    const struct slot *slot = &decoder->slots[record->fd[0]];
    int tx = adopt(decoder, record->fd[0]);
    int cr = record->kind == MIO_WIRE_FILE ? -1 : adopt(decoder, record->fd[1]);
    return mio_port_new_remote(slot->kind, slot->cookie, slot->pipe, tx, cr);
}

static bool import_send(struct decoder *decoder, const struct mio_wire_right *record,
                        struct mio_right *ret) {
    struct mio_port *port = mio_port_by_cookie(decoder->slots[record->fd[0]].cookie);
    ret->disposition = MACH_MSG_TYPE_PORT_SEND;
    if (port != NULL) {
        mio_port_ref(port);
        if (port->state == MIO_PORT_LOCAL)
            port->senders_seen = true;
    } else if (has_died(decoder, record)) {
        ret->kind = MIO_RIGHT_DEAD;
        return true;
    } else if ((port = new_remote(decoder, record)) == NULL) {
        return false;
    }
    port->srights++;
    ret->kind = MIO_RIGHT_SEND;
    ret->port = port;
    return true;
}

/* One that comes home is a local one again, and its pair is gone. */
static struct mio_once *import_once(struct decoder *decoder, uint16_t index) {
    struct mio_once *once = mio_once_by_cookie(decoder->slots[index].cookie);
    if (once != NULL && once->state == MIO_ONCE_EXPORTED) {
        mio_once_close_home(once);
        once->stamp = 0;
        mio_once_came_home(once);
        return once;
    }
    once = mio_once_new(NULL);
    if (once != NULL && !set_source(&once->source, MIO_SOURCE_ONCE_TX, adopt(decoder, index))) {
        mio_once_free(once);
        return NULL;
    }
    return once;
}

static struct mio_once *import_request(struct decoder *decoder, uint16_t index) {
    struct mio_once *dead;
    if (index != MIO_WIRE_NO_FD)
        return import_once(decoder, index);
    dead = mio_once_new(NULL);
    if (dead != NULL)
        dead->state = MIO_ONCE_DEAD;
    return dead;
}

/* The home end of a send-once right whose holder is elsewhere. */
static bool import_home(struct decoder *decoder, struct mio_port *port, uint16_t index) {
    struct mio_once *once = mio_once_new(port);
    if (once == NULL)
        return false;
    int fd = adopt(decoder, index);
    mio_pair_receiver(fd);
    if (!set_source(&once->source, MIO_SOURCE_ONCE_RX, fd)) {
        mio_once_free(once);
        return false;
    }
    mio_once_left(once);
    mio_watch_source_added(port, &once->source);
    return true;
}

/* On failure *ret may own the port all the same: whoever destroys it ends the port. */
static bool import_receive(struct decoder *decoder, const struct mio_wire_right *record,
                           struct mio_right *ret) {
    const struct slot *slot = &decoder->slots[record->fd[0]];
    struct mio_wire_receive receive = receive_at(decoder, record->extra);
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
        port->tx = adopt(decoder, record->fd[1]);
    port->qlimit = receive.qlimit;
    port->issued = (int)receive.issued;
    port->once_frames = receive.once_frames;
    port->senders_seen = receive.flags & MIO_RECEIVE_SENDERS_SEEN || port->srights > 0;
    mio_pair_receiver(decoder->input->fds[record->fd[0]]);
    if (!set_source(&port->rx, MIO_SOURCE_RX, adopt(decoder, record->fd[0])) ||
        !set_source(&port->cw, MIO_SOURCE_CW, adopt(decoder, record->fd[2])))
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

static bool import_right(struct decoder *decoder, unsigned i, struct mio_right *ret) {
    struct mio_wire_right record = right_at(decoder, i);
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

static bool import_rights(struct decoder *decoder, struct mio_kmsg *kmsg) {
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

/* ---- the whole --------------------------------------------------------------------------- */

static struct mio_kmsg *build(struct decoder *decoder) {
    const struct mio_wire_head *head = &decoder->head;
    struct mio_kmsg *kmsg = mio_kmsg_new(head->size, head->nrights - 1u);
    if (kmsg == NULL)
        return NULL;
    kmsg->id = head->id;
    kmsg->voucher = head->voucher;
    kmsg->complex = head->flags & MIO_HEAD_COMPLEX;
    kmsg->counted = !(head->flags & MIO_HEAD_NO_CREDIT);
    kmsg->stamp = decoder->input->stamp;
    kmsg->dest.disposition =
        head->flags & MIO_HEAD_ONCE ? MACH_MSG_TYPE_PORT_SEND_ONCE : MACH_MSG_TYPE_PORT_SEND;
    kmsg->sender = decoder->input->sender;
    if (head->flags & MIO_HEAD_RELAYED)
        kmsg->sender = (struct mio_sender){.uid = MIO_WIRE_NOBODY, .gid = MIO_WIRE_NOBODY};
    if (!read_body(decoder, kmsg->body)) {
        mio_kmsg_free(kmsg);
        return NULL;
    }
    if (decoder->heap >= 0)
        kmsg->heap = adopt(decoder, (uint16_t)(decoder->input->nfds - 1));
    if (!import_rights(decoder, kmsg)) { /* its messages may be read now: the frame is gone */
        mio_kmsg_destroy(kmsg);
        return NULL;
    }
    return kmsg;
}

struct mio_kmsg *mio_wire_decode(struct mio_wire_input *input) {
    struct decoder decoder;
    struct mio_kmsg *kmsg = NULL;
    decoder.input = input;
    decoder.nreceives = 0;
    decoder.slots =
        input->nfds <= MIO_WIRE_FDS ? decoder.few : malloc(input->nfds * sizeof *decoder.slots);
    if (decoder.slots != NULL) {
        for (unsigned i = 0; i < input->nfds; i++)
            decoder.slots[i].role = NONE;
        if (check(&decoder))
            kmsg = build(&decoder);
    }
    if (decoder.slots != decoder.few)
        free(decoder.slots);
    mio_wire_input_clear(input);
    return kmsg;
}
