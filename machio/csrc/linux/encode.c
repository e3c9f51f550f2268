/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * A message leaves the task. First everything is made that the frame needs: kernel objects for
 * ports that had none, socket pairs for send-once rights. Nothing of that matters if it turns out
 * to be in vain. Then the frame is sent. Then, and only if that worked, the rights are gone: the
 * descriptors in flight keep their objects alive, this task closes its own.
 *
 * A send-once right of this task and its home are the two ends of a pair as soon as one of them
 * leaves. If the right goes, its home keeps `pending_rx`; if the home goes, because the receive
 * right of its port does, the right keeps `pending_tx`; both may go in one message.
 *
 * A receive right takes along what was queued: first of all its local messages are sent, as
 * frames, into the port's own socket.
 *
 * Guarded by mio_task.lock. Owns the pending ends of the pairs until the frame is sent.
 */
#include "wire.h"

#include <string.h>
#include <unistd.h>

#define FLUSH_DEPTH 64 /* receive rights in messages queued on a port that moves, and so on */

struct encoder {
    struct mio_kmsg *kmsg;
    unsigned nfds, nreceives;
    int fds[MIO_WIRE_FDS_MAX];
    struct mio_wire_receive receives[MIO_WIRE_RECEIVES];
    int memfd;
    bool indexed; /* the descriptors can be found by their numbers */
};

/* Every right of a message, the reply right first. */
static unsigned right_count(const struct mio_kmsg *kmsg) {
    return 1 + kmsg->nrights;
}

static struct mio_right *right_at(struct mio_kmsg *kmsg, unsigned i) {
    return i == 0 ? &kmsg->reply : &kmsg->rights[i - 1];
}

/* ---- what the frame refers to ------------------------------------------------------------ */

/* The index by which the frame refers to a descriptor: the same for the same one. */
static bool carry(struct encoder *encoder, int fd, uint16_t *ret_index) {
    uint16_t *place = NULL;
    if (encoder->nfds >= MIO_WIRE_FDS) {
        place = mio_bundles_place(encoder->fds, encoder->nfds, fd, &encoder->indexed);
        *ret_index = *place;
        if (*place != MIO_WIRE_NO_FD)
            return true;
    } else {
        for (unsigned i = encoder->nfds; i-- > 0;) {
            if (encoder->fds[i] == fd) {
                *ret_index = (uint16_t)i;
                return true;
            }
        }
    }
    if (encoder->nfds == MIO_WIRE_FDS_MAX)
        return false;
    *ret_index = (uint16_t)encoder->nfds;
    encoder->fds[encoder->nfds++] = fd;
    if (place != NULL)
        *place = *ret_index;
    return true;
}

/* A send-once right is about to leave its home, or the home the right. */
static bool make_pair(struct mio_once *once) {
    int fds[2];
    if (once->pending_rx >= 0)
        return true;
    if (mio_pair(fds) != 0)
        return false;
    once->pending_tx = fds[0];
    once->pending_rx = fds[1];
    shutdown(once->pending_tx, SHUT_RD);
    mio_pair_receiver(once->pending_rx);
    return true;
}

static void drop_pair(struct mio_once *once) {
    if (once->pending_tx >= 0)
        close(once->pending_tx);
    if (once->pending_rx >= 0)
        close(once->pending_rx);
    once->pending_tx = once->pending_rx = -1;
}

static bool put_send(struct encoder *encoder, struct mio_port *port, struct mio_wire_right *ret) {
    if (port->kind == MIO_PORT_FILE) {
        ret->kind = MIO_WIRE_FILE;
        return carry(encoder, port->tx, &ret->fd[0]);
    }
    if (port->state == MIO_PORT_LOCAL &&
        (mio_channel_open(port) != KERN_SUCCESS || mio_channel_open_cr(port) != KERN_SUCCESS))
        return false;
    if (port->state == MIO_PORT_DEAD || port->tx < 0) {
        ret->kind = MIO_RIGHT_DEAD;
        return true;
    }
    return carry(encoder, port->tx, &ret->fd[0]) && carry(encoder, port->cr.fd, &ret->fd[1]);
}

/* *ret_fd stays as it is for a dead one. */
static bool put_once(struct encoder *encoder, struct mio_once *once, uint16_t *ret_fd) {
    if (once->state == MIO_ONCE_LOCAL)
        return make_pair(once) && carry(encoder, once->pending_tx, ret_fd);
    if (once->state == MIO_ONCE_REMOTE && once->source.fd >= 0)
        return carry(encoder, once->source.fd, ret_fd);
    return true;
}

static bool put_home(struct encoder *encoder, struct mio_once *once,
                     struct mio_wire_receive *receive) {
    uint16_t index;
    int fd = once->source.fd;
    if (once->state == MIO_ONCE_LOCAL) {
        if (!make_pair(once))
            return false;
        fd = once->pending_rx;
    }
    if (fd < 0)
        return true;
    if (!carry(encoder, fd, &index))
        return false;
    if (receive->once_count++ == 0)
        receive->once_first = index;
    return true;
}

static bool put_receive(struct encoder *encoder, struct mio_port *port,
                        struct mio_wire_right *ret) {
    if (encoder->nreceives == MIO_WIRE_RECEIVES ||
        (port->srights > 0 && mio_channel_open_cr(port) != KERN_SUCCESS))
        return false;
    ret->extra = (uint16_t)encoder->nreceives;
    struct mio_wire_receive *receive = &encoder->receives[encoder->nreceives++];
    *receive = (struct mio_wire_receive){
        .qlimit = port->qlimit,
        .issued = port->issued > 0 ? (uint32_t)port->issued : 0,
        .once_frames = port->once_frames,
        .no_senders = MIO_WIRE_NO_FD,
        .destroyed = MIO_WIRE_NO_FD,
        .flags = (port->senders_seen ? MIO_RECEIVE_SENDERS_SEEN : 0u) |
                 (port->no_senders != NULL ? MIO_RECEIVE_NO_SENDERS : 0u) |
                 (port->destroyed != NULL ? MIO_RECEIVE_DESTROYED : 0u),
    };
    if (!carry(encoder, port->rx.fd, &ret->fd[0]) || !carry(encoder, port->tx, &ret->fd[1]) ||
        !carry(encoder, port->cw.fd, &ret->fd[2]))
        return false;
    MIO_EACH(item, &port->onces)
        if (!put_home(encoder, MIO_CONTAINER(item, struct mio_once, link), receive))
            return false;
    return (port->no_senders == NULL ||
            put_once(encoder, port->no_senders, &receive->no_senders)) &&
           (port->destroyed == NULL || put_once(encoder, port->destroyed, &receive->destroyed));
}

static bool put_right(struct encoder *encoder, struct mio_right *right,
                      struct mio_wire_right *ret) {
    *ret = (struct mio_wire_right){
        .kind = (uint8_t)right->kind,
        .disposition = (uint8_t)right->disposition,
        .fd = {MIO_WIRE_NO_FD, MIO_WIRE_NO_FD, MIO_WIRE_NO_FD},
    };
    switch (right->kind) {
    case MIO_RIGHT_SEND:
        return put_send(encoder, right->port, ret);
    case MIO_RIGHT_ONCE:
        if (!put_once(encoder, right->once, &ret->fd[0]))
            return false;
        if (ret->fd[0] == MIO_WIRE_NO_FD)
            ret->kind = MIO_RIGHT_DEAD;
        return true;
    case MIO_RIGHT_RECEIVE:
        return put_receive(encoder, right->port, ret);
    default:
        return true;
    }
}

/* ---- the body ---------------------------------------------------------------------------- */

/* A file of exactly these bytes that nobody can change any more; -1: none to be had. */
static int seal_body(const uint8_t *body, size_t size) {
    int fd = mio_memfd_new();
    if (fd >= 0 && (mio_memfd_write(fd, body, size, 0) != KERN_SUCCESS ||
                    !mio_memfd_resize(fd, size) || !mio_memfd_seal(fd))) {
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- before and after -------------------------------------------------------------------- */

/* Calls `act` for each send-once right that the message takes along or tears from its home. */
static void each_once(struct mio_kmsg *kmsg, void (*act)(struct mio_once *)) {
    for (unsigned i = 0; i < right_count(kmsg); i++) {
        struct mio_right *right = right_at(kmsg, i);
        if (right->kind == MIO_RIGHT_ONCE) {
            act(right->once);
        } else if (right->kind == MIO_RIGHT_RECEIVE) {
            MIO_EACH(item, &right->port->onces)
                act(MIO_CONTAINER(item, struct mio_once, link));
            if (right->port->no_senders != NULL)
                act(right->port->no_senders);
            if (right->port->destroyed != NULL)
                act(right->port->destroyed);
        }
    }
}

/* The destination's right of a queued message is used up; what that means, the receiver sees. */
static void release_dest(struct mio_right *dest) {
    if (dest->kind == MIO_RIGHT_SEND) {
        dest->port->srights--;
        mio_port_unref(dest->port);
    } else if (dest->kind == MIO_RIGHT_ONCE) {
        mio_once_free(dest->once);
    }
    dest->kind = MIO_RIGHT_NULL;
}

static bool is_own(const struct mio_sender *sender) {
    struct mio_sender self;
    mio_task_sender(&self);
    return !sender->kernel && sender->pid == self.pid && sender->uid == self.uid &&
           sender->gid == self.gid;
}

/* Sends the port's local messages into its own socket. What was sent stays sent on failure. */
static bool flush(struct mio_port *port) {
    static unsigned depth;
    enum mio_wire_result result = MIO_WIRE_OK;
    unsigned count = 0;
    if (mio_channel_open(port) != KERN_SUCCESS || (port->head != NULL && depth == FLUSH_DEPTH))
        return false;
    for (struct mio_kmsg *kmsg = port->head; kmsg != NULL; kmsg = kmsg->next)
        count++;
    if (count > 0)
        mio_channel_widen(port, count + port->qlimit);
    depth++;
    while (port->head != NULL) {
        struct mio_kmsg *kmsg = port->head;
        bool once = kmsg->dest.kind == MIO_RIGHT_ONCE ||
                    kmsg->dest.disposition == MACH_MSG_TYPE_PORT_SEND_ONCE;
        result = mio_wire_send(port->tx, kmsg,
                               (kmsg->counted ? 0u : MIO_FRAME_NO_CREDIT) |
                                   (once ? MIO_FRAME_ONCE : 0u) |
                                   (is_own(&kmsg->sender) ? 0u : MIO_FRAME_RELAYED));
        if (result != MIO_WIRE_OK)
            break;
        port->head = kmsg->next;
        if (port->head == NULL)
            port->tail = &port->head;
        port->queued--;
        port->counted -= kmsg->counted;
        port->once_frames += once;
        release_dest(&kmsg->dest);
        mio_kmsg_free(kmsg);
    }
    depth--;
    for (struct mio_kmsg *kmsg = port->head; kmsg != NULL; kmsg = kmsg->next)
        kmsg->stamp = mio_now(); /* behind those that are in the socket now */
    return port->head == NULL;
}

/* Fills the frame; its size, or 0 for a shortage. */
static size_t prepare(struct encoder *encoder, uint8_t *frame, unsigned flags) {
    struct mio_kmsg *kmsg = encoder->kmsg;
    size_t body = kmsg->size - sizeof(mach_msg_header_t);
    struct mio_wire_head head = {
        .magic = MIO_WIRE_MAGIC,
        .version = MIO_WIRE_VERSION,
        .kind = MIO_FRAME_MESSAGE,
        .flags = (uint8_t)((kmsg->complex ? MIO_HEAD_COMPLEX : 0) |
                           (flags & MIO_FRAME_NO_CREDIT ? MIO_HEAD_NO_CREDIT : 0) |
                           (flags & MIO_FRAME_ONCE ? MIO_HEAD_ONCE : 0) |
                           (flags & MIO_FRAME_RELAYED ? MIO_HEAD_RELAYED : 0)),
        .size = kmsg->size,
        .id = kmsg->id,
        .voucher = kmsg->voucher,
        .nrights = (uint16_t)right_count(kmsg),
    };
    size_t length = sizeof head;
    uint16_t index;
    if (right_count(kmsg) > MIO_WIRE_RIGHTS)
        return 0;
    for (unsigned i = 0; i < right_count(kmsg); i++) {
        struct mio_wire_right record;
        if (!put_right(encoder, right_at(kmsg, i), &record))
            return 0;
        memcpy(frame + length, &record, sizeof record);
        length += sizeof record;
    }
    if (kmsg->complex)
        mio_descriptors_blank(kmsg->body);
    memcpy(frame + length, encoder->receives, encoder->nreceives * sizeof(struct mio_wire_receive));
    length += encoder->nreceives * sizeof(struct mio_wire_receive);
    if (length + body <= MIO_WIRE_INLINE || body == 0) {
        memcpy(frame + length, kmsg->body, body);
        length += body;
    } else {
        encoder->memfd = seal_body(kmsg->body, body);
        if (encoder->memfd < 0 || !carry(encoder, encoder->memfd, &index))
            return 0;
        head.flags |= MIO_HEAD_MEMFD;
    }
    if (kmsg->heap >= 0) {
        if (!carry(encoder, kmsg->heap, &index))
            return 0;
        head.flags |= MIO_HEAD_HEAP;
    }
    if (encoder->nfds > MIO_WIRE_FDS)
        head.flags |= MIO_HEAD_BUNDLES;
    head.nreceives = (uint16_t)encoder->nreceives;
    head.nfds = (uint16_t)encoder->nfds;
    memcpy(frame, &head, sizeof head);
    return length;
}

/* ---- the rights are gone ----------------------------------------------------------------- */

/* Step 1: the right is in another task; what is pending now is its home's end. */
static void right_left(struct mio_once *once) {
    if (once->state == MIO_ONCE_LOCAL && once->pending_tx >= 0) {
        once->cookie = mio_socket_cookie(once->pending_tx);
        close(once->pending_tx);
        once->pending_tx = -1;
    }
}

/* Step 2: the home is in another task. A right that stays here is a remote one now. */
static void home_left(struct mio_once *once) {
    mio_list_remove(&once->link);
    if (once->state == MIO_ONCE_EXPORTED) {
        mio_source_close(&once->source);
        mio_once_free(once);
        return;
    }
    if (once->pending_rx >= 0)
        close(once->pending_rx);
    once->pending_rx = -1;
    once->cookie = 0;
    if (once->pending_tx < 0) { /* left as well: step 3 frees it */
        once->state = MIO_ONCE_DEAD;
        return;
    }
    once->home->sorights--;
    mio_port_unref(once->home);
    once->home = NULL;
    once->state = MIO_ONCE_REMOTE;
    once->source.kind = MIO_SOURCE_ONCE_TX;
    if (mio_source_set(&once->source, once->pending_tx) != 0) {
        close(once->pending_tx);
        once->state = MIO_ONCE_DEAD;
    }
    once->pending_tx = -1;
    mio_notice_update_once(once);
}

/* Step 3: what the task still knows of a right that left. */
static void settle_once(struct mio_once *once) {
    if (once->state != MIO_ONCE_LOCAL) {
        mio_once_free(once);
        return;
    }
    once->source.kind = MIO_SOURCE_ONCE_RX;
    if (mio_source_set(&once->source, once->pending_rx) != 0) {
        close(once->pending_rx);
        once->pending_rx = -1;
        once->cookie = 0;
        mio_once_free(once);
        return;
    }
    once->pending_rx = -1;
    once->stamp = 0;
    mio_once_left(once);
    if (once->cookie != 0)
        mio_once_hash(once);
    mio_crowd_join(once);
}

/* Step 4. Closed, not shut down nor drained: the receiver has the same sockets. */
static void receive_left(struct mio_port *port) {
    mio_source_close(&port->rx);
    mio_source_close(&port->cw);
    port->carrier = NULL;
    port->issued = 0;
    port->reserved = port->once_frames = 0;
    port->senders_gone = port->senders_seen = port->broken = false;
    if (port->srights > 0) {
        port->state = MIO_PORT_REMOTE;
        mio_requests_moved(port);
    } else {
        port->state = MIO_PORT_DEAD; /* nobody here knows it any more */
        mio_channel_close(port);
    }
    mio_port_wake_all(port);
    mio_port_unref(port);
}

static void commit(struct mio_kmsg *kmsg, unsigned nreceives) {
    unsigned count = right_count(kmsg);
    for (unsigned i = 0; i < count; i++) {
        struct mio_right *right = right_at(kmsg, i);
        if (right->kind == MIO_RIGHT_ONCE) {
            right_left(right->once);
        } else if (right->kind == MIO_RIGHT_RECEIVE) {
            if (right->port->no_senders != NULL)
                right_left(right->port->no_senders);
            if (right->port->destroyed != NULL)
                right_left(right->port->destroyed);
        }
    }
    for (unsigned i = 0; i < count && nreceives > 0; i++) {
        struct mio_right *right = right_at(kmsg, i);
        if (right->kind == MIO_RIGHT_RECEIVE)
            MIO_EACH(item, &right->port->onces)
                home_left(MIO_CONTAINER(item, struct mio_once, link));
    }
    for (unsigned i = 0; i < count; i++) {
        struct mio_right *right = right_at(kmsg, i);
        if (right->kind == MIO_RIGHT_ONCE) {
            right->kind = MIO_RIGHT_NULL;
            settle_once(right->once);
        } else if (right->kind == MIO_RIGHT_RECEIVE) {
            struct mio_once *no_senders = right->port->no_senders;
            struct mio_once *destroyed = right->port->destroyed;
            right->port->no_senders = right->port->destroyed = NULL;
            if (no_senders != NULL)
                settle_once(no_senders);
            if (destroyed != NULL)
                settle_once(destroyed);
        }
    }
    for (unsigned i = 0; i < count && nreceives > 0; i++) {
        struct mio_right *right = right_at(kmsg, i);
        if (right->kind == MIO_RIGHT_RECEIVE) {
            right->kind = MIO_RIGHT_NULL;
            receive_left(right->port);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        struct mio_right *right = right_at(kmsg, i);
        if (right->kind == MIO_RIGHT_SEND) {
            right->kind = MIO_RIGHT_NULL;
            mio_port_ref(right->port);
            if (right->port->state == MIO_PORT_REMOTE && right->port->srights == 1 &&
                right->port != mio_task.bootstrap)
                mio_source_close(&right->port->cr); /* it goes on, so this is not its end */
            mio_port_drop_send(right->port);
            mio_channel_trim(right->port);
            mio_port_unref(right->port);
        }
    }
    if (nreceives > 0)
        mio_collect_cycles();
}

/*
 * Ownership: on MIO_WIRE_OK the message holds no right any more; otherwise all of them, and the
 * kmsg itself is the caller's in either case.
 */
enum mio_wire_result mio_wire_send(int fd, struct mio_kmsg *kmsg, unsigned flags) {
    static uint8_t frame[MIO_WIRE_FRAME_MAX];
    static struct encoder encoder; /* large: its arrays are filled as they are used */
    enum mio_wire_result result = MIO_WIRE_SHORTAGE;

    for (unsigned i = 0; i < kmsg->nrights; i++)
        if (kmsg->rights[i].kind == MIO_RIGHT_RECEIVE && !flush(kmsg->rights[i].port))
            return MIO_WIRE_SHORTAGE;
    encoder.kmsg = kmsg;
    encoder.nfds = encoder.nreceives = 0;
    encoder.memfd = -1;
    encoder.indexed = false;
    size_t length = prepare(&encoder, frame, flags);
    if (length > 0)
        result = encoder.nfds <= MIO_WIRE_FDS
                     ? mio_wire_transmit(fd, frame, length, encoder.fds, encoder.nfds)
                     : mio_bundles_send(fd, frame, length, encoder.fds, encoder.nfds);
    if (encoder.memfd >= 0)
        close(encoder.memfd);
    if (result == MIO_WIRE_OK)
        commit(kmsg, encoder.nreceives);
    else
        each_once(kmsg, drop_pair);
    return result;
}
