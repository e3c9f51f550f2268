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
#include "decode.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QLIMIT_MAX 1024u /* MACH_PORT_QLIMIT_MAX */

/* ---- checks ------------------------------------------------------------------------------ */

static bool claim(struct mio_decoder *decoder, uint16_t fd, enum mio_role role) {
    if (fd >= decoder->input->nfds)
        return false;
    struct mio_slot *slot = &decoder->slots[fd];
    if (slot->role == role)
        return role == SEND_TX || role == SEND_CR || role == FILE_TX;
    if (slot->role != NONE)
        return false;
    *slot = (struct mio_slot){.role = role, .cr = MIO_WIRE_NO_FD};
    return true;
}

static bool has_fds(const struct mio_wire_right *record, unsigned n) {
    for (unsigned i = n; i < 3; i++)
        if (record->fd[i] != MIO_WIRE_NO_FD)
            return false;
    return true;
}

/* A port is known by its socket; the pipe it has here must be the one it has there. */
static bool agrees(const struct mio_slot *slot) {
    const struct mio_port *port = mio_port_by_cookie(slot->cookie);
    return port == NULL || port->pipe == slot->pipe;
}

static void identify(struct mio_slot *slot, const struct mio_port *identity) {
    slot->cookie = identity->cookie;
    slot->pipe = identity->pipe;
    slot->kind = identity->kind;
}

/*
 * Asks whose socket it is. That of a port that is known here was verified, or made, before, and is
 * what it was: what is left to ask is whether the pipe that comes with it is the port's. false: it
 * cannot be told.
 */
static bool recognise(struct mio_slot *slot, int tx) {
    slot->cookie = mio_socket_cookie(tx);
    const struct mio_port *port = slot->cookie != 0 ? mio_port_by_cookie(slot->cookie) : NULL;
    slot->known = port != NULL && port->kind != MIO_PORT_FILE;
    if (slot->known)
        slot->pipe = port->pipe;
    return slot->cookie != 0;
}

static bool check_send(struct mio_decoder *decoder, const struct mio_wire_right *record) {
    const int *fds = decoder->input->fds;
    uint16_t tx = record->fd[0], cr = record->fd[1];
    if (!claim(decoder, tx, SEND_TX) || !claim(decoder, cr, SEND_CR))
        return false;
    struct mio_slot *slot = &decoder->slots[tx];
    if (slot->cr == cr)
        return true;
    if (!recognise(slot, fds[tx]))
        return false;
    struct mio_port identity = {.cookie = slot->cookie};
    if (slot->known ? !mio_pipe_is(fds[cr], slot->pipe)
                    : !mio_channel_verify_send(fds[tx], fds[cr], &identity))
        return false;
    if (!slot->known)
        identify(slot, &identity);
    slot->cr = cr;
    slot->sound = decoder->slots[cr].sound = true;
    return true;
}

static bool check_file(struct mio_decoder *decoder, uint16_t tx) {
    if (!claim(decoder, tx, FILE_TX))
        return false;
    struct mio_slot *slot = &decoder->slots[tx];
    if (slot->cr == tx)
        return true;
    slot->cr = tx, slot->pipe = 0, slot->kind = MIO_PORT_FILE;
    return mio_channel_verify_file(decoder->input->fds[tx], &slot->cookie) && agrees(slot);
}

static bool check_once(struct mio_decoder *decoder, uint16_t tx) {
    if (!claim(decoder, tx, ONCE_TX) || !mio_channel_verify_once(decoder->input->fds[tx]))
        return false;
    decoder->slots[tx].sound = true;
    return true;
}

static bool check_request(struct mio_decoder *decoder, bool armed, uint16_t index) {
    return index == MIO_WIRE_NO_FD || (armed && check_once(decoder, index));
}

static bool check_receive_record(struct mio_decoder *decoder,
                                 const struct mio_wire_receive *record) {
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
static bool is_new_here(const struct mio_decoder *decoder, uint16_t rx) {
    const struct mio_port *port = mio_port_by_cookie(decoder->slots[rx].cookie);
    return port == NULL || port->state == MIO_PORT_REMOTE;
}

static int compare_cookies(const void *a, const void *b) {
    const uint64_t *one = a, *other = b;
    return (*one > *other) - (*one < *other);
}

/* One that is twice in the message is another. */
static bool are_distinct(const struct mio_decoder *decoder) {
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

static bool check_receive(struct mio_decoder *decoder, const struct mio_wire_right *record) {
    const int *fds = decoder->input->fds;
    uint16_t rx = record->fd[0], tx = record->fd[1], cw = record->fd[2];
    if (!claim(decoder, rx, PORT_RX) || !claim(decoder, tx, SEND_TX) ||
        !claim(decoder, cw, PORT_CW) || record->extra != decoder->nreceives ||
        decoder->nreceives == decoder->head.nreceives || !recognise(&decoder->slots[tx], fds[tx]))
        return false;
    struct mio_port identity = {.cookie = decoder->slots[tx].cookie};
    if (!mio_channel_verify_receive(fds[rx], fds[tx], fds[cw], decoder->slots[tx].known, &identity))
        return false;
    decoder->slots[tx].sound = true;
    identify(&decoder->slots[rx], &identity);
    struct mio_wire_receive receive = mio_decoder_receive(decoder, decoder->nreceives++);
    return agrees(&decoder->slots[rx]) && is_new_here(decoder, rx) &&
           check_receive_record(decoder, &receive);
}

static bool check_right(struct mio_decoder *decoder, const struct mio_wire_right *record) {
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
static bool claim_last(struct mio_decoder *decoder, unsigned *end, int *ret_fd) {
    if (*end == 0 || !claim(decoder, (uint16_t)(*end - 1), FILE_OF_BYTES))
        return false;
    *ret_fd = decoder->input->fds[--*end];
    return true;
}

/* The header, and that all parts lie within the frame. */
static bool check_head(struct mio_decoder *decoder) {
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

static bool check(struct mio_decoder *decoder) {
    if (!check_head(decoder))
        return false;
    for (unsigned i = 0; i < decoder->head.nrights; i++) {
        struct mio_wire_right record = mio_decoder_right(decoder, i);
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

static bool read_body(const struct mio_decoder *decoder, uint8_t *body) {
    if (decoder->memfd < 0)
        memcpy(body, decoder->body, decoder->body_size);
    else if (!mio_memfd_is_sealed(decoder->memfd, decoder->body_size) ||
             !mio_memfd_read(decoder->memfd, body, decoder->body_size, 0))
        return false;
    return mio_wire_check_body(&decoder->head, decoder->rights, decoder->heap, body);
}

/* ---- the whole --------------------------------------------------------------------------- */

static struct mio_kmsg *build(struct mio_decoder *decoder) {
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
        kmsg->heap = mio_decoder_adopt(decoder, (uint16_t)(decoder->input->nfds - 1));
    if (!mio_import_rights(decoder, kmsg)) { /* its messages may be read now: the frame is gone */
        mio_kmsg_destroy(kmsg);
        return NULL;
    }
    return kmsg;
}

struct mio_kmsg *mio_wire_decode(struct mio_wire_input *input) {
    struct mio_decoder decoder;
    struct mio_kmsg *kmsg = NULL;
    decoder.input = input;
    decoder.nreceives = 0;
    decoder.slots =
        input->nfds <= MIO_WIRE_FDS ? decoder.few : malloc(input->nfds * sizeof *decoder.slots);
    if (decoder.slots != NULL) {
        for (unsigned i = 0; i < input->nfds; i++)
            decoder.slots[i] = (struct mio_slot){.role = NONE};
        if (check(&decoder))
            kmsg = build(&decoder);
        for (unsigned i = 0; i < input->nfds; i++) {
            if (decoder.slots[i].sound && input->fds[i] >= 0) {
                close(input->fds[i]);
                input->fds[i] = -1;
            }
        }
    }
    if (decoder.slots != decoder.few)
        free(decoder.slots);
    mio_wire_input_clear(input);
    return kmsg;
}
