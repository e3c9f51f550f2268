/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_msg, the sending half, in the three phases that Mach's contract has:
 *
 *   A  everything about the header is checked; a failure leaves names and buffer as they were
 *   B  the rights are taken, header first, then descriptors in order; a failure destroys them
 *   C  the message is queued, here or in another task; one that finds no room in time goes back
 *      into the sender's buffer with the rights it carries (pseudo-receive)
 *
 * Guarded by mio_task.lock, which is let go only to wait for room.
 */
#include "internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>

#define HEADER_SIZE ((mach_msg_size_t)sizeof(mach_msg_header_t))
#define SIZE_MAX_INLINE 50331580u /* 3/4 of 64 MiB, less the largest trailer */
#define NUDGE_MS 1000

/* ---- phase A --------------------------------------------------------------------------------- */

static mach_msg_return_t check_body(const mach_msg_header_t *msg, mach_msg_size_t size,
                                    struct mio_layout *ret) {
    *ret = (struct mio_layout){0};
    return msg->msgh_bits & MACH_MSGH_BITS_COMPLEX ? mio_layout_of(msg + 1, size - HEADER_SIZE, ret)
                                                   : MACH_MSG_SUCCESS;
}

static bool is_send_disposition(mach_msg_type_name_t type) {
    return type >= MACH_MSG_TYPE_MOVE_SEND && type <= MACH_MSG_TYPE_MAKE_SEND_ONCE;
}

/* Whether the entry holds what the disposition takes. */
static bool holds(const struct mio_entry *entry, mach_msg_type_name_t type) {
    switch (type) {
    case MACH_MSG_TYPE_MOVE_SEND:
    case MACH_MSG_TYPE_COPY_SEND:
        return entry->type & MACH_PORT_TYPE_SEND;
    case MACH_MSG_TYPE_MOVE_SEND_ONCE:
        return entry->type & MACH_PORT_TYPE_SEND_ONCE;
    default:
        return entry->type & MACH_PORT_TYPE_RECEIVE;
    }
}

/* A remote port whose socket a hostile holder shut down takes no message, though it lives. */
static bool is_broken(struct mio_port *port) {
    return !mio_port_is_dead(port) && port->state == MIO_PORT_REMOTE && port->shut;
}

static mach_msg_return_t check_header(const mach_msg_header_t *msg) {
    mach_msg_type_name_t dest_type = MACH_MSGH_BITS_REMOTE(msg->msgh_bits);
    mach_msg_type_name_t reply_type = MACH_MSGH_BITS_LOCAL(msg->msgh_bits);
    mach_msg_type_name_t voucher_type = MACH_MSGH_BITS_VOUCHER(msg->msgh_bits);
    mach_port_name_t dest_name = msg->msgh_remote_port;
    mach_port_name_t reply_name = msg->msgh_local_port;
    mach_port_name_t voucher_name = msg->msgh_voucher_port;
    bool voucher_is_right =
        voucher_type == MACH_MSG_TYPE_MOVE_SEND || voucher_type == MACH_MSG_TYPE_COPY_SEND;

    if (reply_type == 0 ? reply_name != MACH_PORT_NULL : !is_send_disposition(reply_type))
        return MACH_SEND_INVALID_HEADER;
    if (voucher_type != 0 && (!voucher_is_right || voucher_name == MACH_PORT_DEAD))
        return MACH_SEND_INVALID_VOUCHER;
    if (!is_send_disposition(dest_type))
        return MACH_SEND_INVALID_HEADER;
    if (!MACH_PORT_VALID(dest_name))
        return MACH_SEND_INVALID_DEST;
    if (voucher_is_right && MACH_PORT_VALID(voucher_name)) /* this system has no vouchers */
        return dest_name == voucher_name && dest_type != MACH_MSG_TYPE_MOVE_SEND &&
                       dest_type != MACH_MSG_TYPE_COPY_SEND
                   ? MACH_SEND_INVALID_DEST
               : reply_name == voucher_name ? MACH_SEND_INVALID_REPLY
                                            : MACH_SEND_INVALID_VOUCHER;

    struct mio_entry *dest = mio_entry_get(dest_name);
    if (dest == NULL)
        return MACH_SEND_INVALID_DEST;
    if (MACH_PORT_VALID(reply_name)) {
        struct mio_entry *reply = mio_entry_get(reply_name);
        if (reply == NULL || !holds(reply, reply_type))
            return MACH_SEND_INVALID_REPLY;
    }
    if (!holds(dest, dest_type))
        return MACH_SEND_INVALID_DEST;
    if (dest_name == reply_name &&
        (dest_type == MACH_MSG_TYPE_MOVE_SEND_ONCE || reply_type == MACH_MSG_TYPE_MOVE_SEND_ONCE))
        return MACH_SEND_INVALID_DEST;
    if (dest_name == reply_name && dest_type == MACH_MSG_TYPE_MOVE_SEND &&
        reply_type == MACH_MSG_TYPE_MOVE_SEND && dest->urefs < 2)
        return MACH_SEND_INVALID_DEST;
    if (dest_type != MACH_MSG_TYPE_MOVE_SEND_ONCE && is_broken(dest->port))
        return MACH_SEND_INVALID_DEST;
    return MACH_MSG_SUCCESS;
}

/*
 * A dead destination fails before anything is taken. To know, the kernel need not be asked each
 * time: what takes nothing that could not be put back unseen is sent on the presumption that its
 * destination lives. If that does not succeed the kernel is asked, and all is as if it had been
 * asked before.
 */
struct presumption {
    struct mio_port *port;
    struct mio_once *once;
};

static struct presumption presume_alive(const mach_msg_header_t *msg) {
    mach_msg_type_name_t dest_type = MACH_MSGH_BITS_REMOTE(msg->msgh_bits);
    mach_msg_type_name_t reply_type = MACH_MSGH_BITS_LOCAL(msg->msgh_bits);
    struct mio_entry *dest = mio_space_lookup(msg->msgh_remote_port);
    struct presumption ret = {0};
    if (dest == NULL || msg->msgh_bits & MACH_MSGH_BITS_COMPLEX ||
        (reply_type != 0 && reply_type != MACH_MSG_TYPE_MAKE_SEND_ONCE) || !holds(dest, dest_type))
        return ret;
    bool spare = dest->urefs > 1 && dest->urefs < MIO_UREFS_MAX; /* a move only counts down */
    if ((dest_type == MACH_MSG_TYPE_COPY_SEND || (dest_type == MACH_MSG_TYPE_MOVE_SEND && spare)) &&
        mio_port_presume_alive(dest->port))
        ret.port = dest->port;
    else if (dest_type == MACH_MSG_TYPE_MOVE_SEND_ONCE && dest->request == NULL &&
             mio_once_presume_alive(dest->once))
        ret.once = dest->once;
    return ret;
}

/* Asks now: whether it was presumed in vain. */
static bool was_dead(const struct presumption *presumed) {
    if (presumed->port != NULL)
        return mio_port_is_dead(presumed->port) || presumed->port->shut;
    return presumed->once != NULL && mio_once_is_dead(presumed->once);
}

/* As if the message had never been made. Ownership: consumes it. */
static void put_back(const mach_msg_header_t *msg, struct mio_kmsg *kmsg) {
    mach_port_name_t dest_name = msg->msgh_remote_port;
    struct mio_entry *entry = mio_space_lookup(dest_name);
    if (entry != NULL && MACH_MSGH_BITS_REMOTE(msg->msgh_bits) == MACH_MSG_TYPE_MOVE_SEND)
        entry->urefs++;
    if (kmsg->reply.kind == MIO_RIGHT_ONCE)
        mio_once_free(kmsg->reply.once);
    kmsg->reply.kind = MIO_RIGHT_NULL;
    if (kmsg->dest.kind == MIO_RIGHT_ONCE) {
        kern_return_t kr = mio_space_alloc_name(dest_name, &entry); /* it was freed just now */
        if (kr == KERN_SUCCESS) {
            entry->type = MACH_PORT_TYPE_DEAD_NAME;
            entry->urefs = 1;
        }
        mio_once_free(kmsg->dest.once);
        kmsg->dest.kind = MIO_RIGHT_NULL;
    }
    mio_kmsg_destroy(kmsg);
}

/* ---- phase B --------------------------------------------------------------------------------- */

/* Cannot fail but for memory: check_header saw that both rights are there. */
static kern_return_t take_header(const mach_msg_header_t *msg, struct mio_kmsg *kmsg) {
    mach_msg_type_name_t dest_type = MACH_MSGH_BITS_REMOTE(msg->msgh_bits);
    mach_msg_type_name_t reply_type = MACH_MSGH_BITS_LOCAL(msg->msgh_bits);
    bool move_goes_last =
        msg->msgh_remote_port == msg->msgh_local_port && dest_type == MACH_MSG_TYPE_MOVE_SEND;
    kern_return_t kr;

    if (move_goes_last) { /* one reference serves a move and a copy */
        kr = mio_right_copyin(msg->msgh_local_port, reply_type, &kmsg->reply);
        if (kr == KERN_SUCCESS)
            kr = mio_right_copyin(msg->msgh_remote_port, dest_type, &kmsg->dest);
    } else {
        kr = mio_right_copyin(msg->msgh_remote_port, dest_type, &kmsg->dest);
        if (kr == KERN_SUCCESS)
            kr = mio_right_copyin(msg->msgh_local_port, reply_type, &kmsg->reply);
    }
    return kr;
}

/* ---- phase C --------------------------------------------------------------------------------- */

/* A message that would carry the receive right of the port it is queued on, at any depth. */
static bool is_circular(const struct mio_kmsg *kmsg, const struct mio_port *dest) {
    for (unsigned i = 0; i < kmsg->nrights; i++)
        if (kmsg->rights[i].kind == MIO_RIGHT_RECEIVE &&
            mio_port_travels_in(kmsg->rights[i].port, dest))
            return true;
    return false;
}

enum outcome { DONE, GONE, FULL, SHORTAGE, UNSEALED };

static enum outcome from_wire(enum mio_wire_result result) {
    switch (result) {
    case MIO_WIRE_OK:
        return DONE;
    case MIO_WIRE_GONE:
        return GONE;
    case MIO_WIRE_FULL:
        return FULL;
    default:
        return SHORTAGE;
    }
}

static bool local_has_room(const struct mio_port *port) {
    return port->queued + port->reserved < port->qlimit;
}

/* Queues on a port of this task. granted: a slot was reserved for this sender. */
static enum outcome queue_here(struct mio_port *port, struct mio_kmsg *kmsg, bool granted) {
    kmsg->counted = true;
    if (port->cw.fd >= 0) {
        if (mio_channel_open_cr(port) != KERN_SUCCESS)
            return SHORTAGE;
        if (mio_credit_take(port) != MIO_CREDIT_TAKEN)
            return FULL;
    } else if (granted) {
        port->reserved--;
    } else if (!local_has_room(port)) {
        return FULL;
    }
    mio_task_sender(&kmsg->sender);
    mio_port_enqueue(port, kmsg);
    return DONE;
}

static enum outcome queue_there(struct mio_port *port, struct mio_kmsg *kmsg) {
    if (!port->credit_in_hand) {
        switch (mio_credit_take(port)) {
        case MIO_CREDIT_TAKEN:
            break;
        case MIO_CREDIT_NONE:
            return FULL;
        case MIO_CREDIT_DEAD:
            return GONE;
        }
    }
    enum outcome outcome = from_wire(mio_wire_send(port->tx, kmsg, 0));
    port->credit_in_hand = outcome == FULL || outcome == SHORTAGE;
    return outcome;
}

static enum outcome queue_once(struct mio_once *once, struct mio_kmsg *kmsg) {
    enum outcome outcome = GONE;
    if (once->state == MIO_ONCE_LOCAL) {
        if (once->home->queued >= MIO_QUEUE_MAX)
            return SHORTAGE;
        if (is_circular(kmsg, once->home))
            return GONE;
        mio_task_sender(&kmsg->sender);
        mio_port_enqueue(once->home, kmsg);
        return DONE;
    }
    if (once->state == MIO_ONCE_REMOTE) {
        outcome =
            from_wire(mio_wire_send(once->source.fd, kmsg, MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT));
        if (outcome == FULL) /* nobody sends twice on such a socket but a hostile holder */
            outcome = GONE;
    }
    if (outcome == DONE) {
        mio_once_free(once);
        mio_kmsg_free(kmsg);
    }
    return outcome;
}

/*
 * Ownership: DONE consumed the message; otherwise it is still the caller's. UNSEALED: it would have
 * left, but for its memory, which stays as it is until there is room.
 */
static enum outcome queue(struct mio_kmsg *kmsg, bool granted) {
    if (kmsg->dest.kind == MIO_RIGHT_ONCE)
        return kmsg->unsealed > 0 ? UNSEALED : queue_once(kmsg->dest.once, kmsg);
    if (kmsg->dest.kind != MIO_RIGHT_SEND) /* it died after its name was checked */
        return GONE;
    struct mio_port *port = kmsg->dest.port;
    if (port->state == MIO_PORT_DEAD || mio_kind_is_kernels(port->kind) ||
        is_circular(kmsg, port) || (port->state == MIO_PORT_REMOTE && port->tx < 0))
        return GONE;
    if (kmsg->unsealed > 0)
        return granted || mio_port_has_room(port) ? UNSEALED : FULL;
    if (port->state == MIO_PORT_LOCAL)
        return queue_here(port, kmsg, granted);
    enum outcome outcome = queue_there(port, kmsg);
    if (outcome == DONE) {
        mio_right_destroy(&kmsg->dest);
        mio_kmsg_free(kmsg);
    }
    return outcome;
}

bool mio_port_has_room(struct mio_port *port) {
    if (mio_kind_is_kernels(port->kind))
        return true;
    if (port->state == MIO_PORT_LOCAL && port->cw.fd < 0)
        return local_has_room(port);
    if (port->state == MIO_PORT_LOCAL) {
        int credits = 0;
        return ioctl(port->cw.fd, FIONREAD, &credits) == 0 && credits > 0;
    }
    struct pollfd fd = port->credit_in_hand ? (struct pollfd){.fd = port->tx, .events = POLLOUT}
                                            : (struct pollfd){.fd = port->cr.fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

void mio_port_nudge(struct mio_port *port) {
    int unread = 1;
    if (port->tx >= 0 && !mio_port_has_room(port) && ioctl(port->tx, SIOCOUTQ, &unread) == 0 &&
        unread == 0)
        mio_wire_signal(port->tx, MIO_FRAME_NUDGE);
}

void mio_port_room(struct mio_port *port) {
    MIO_EACH(item, &port->senders) {
        struct mio_waiter *waiter = MIO_CONTAINER(item, struct mio_waiter, link);
        if (waiter->granted || port->cw.fd >= 0)
            continue;
        if (!local_has_room(port))
            break;
        waiter->granted = true;
        port->reserved++;
        mio_wake(waiter);
    }
    mio_requests_room(port);
}

/*
 * Waits until a send may find room. Returns what mio_wait does; KERN_SUCCESS and *ret_granted:
 * a slot is reserved.
 */
static kern_return_t wait_for_room(struct mio_port *port, const struct mio_deadline *deadline,
                                   bool *ret_granted) {
    struct mio_waiter waiter = {.fd = mio_thread_fd()};
    struct pollfd fds[2] = {{.fd = waiter.fd, .events = POLLIN}, {.fd = -1}};
    *ret_granted = false;
    if (waiter.fd < 0)
        return KERN_RESOURCE_SHORTAGE;
    bool in_turn = port->state == MIO_PORT_REMOTE && !port->credit_in_hand;
    struct mio_deadline soon = *deadline;
    if (port->state == MIO_PORT_REMOTE) {
        fds[1] = in_turn ? (struct pollfd){.fd = port->cr.fd, .events = POLLIN}
                         : (struct pollfd){.fd = port->tx, .events = POLLOUT};
        soon = mio_deadline_sooner(deadline, NUDGE_MS);
    } else if (port->cw.fd >= 0) {
        if (mio_channel_open_cr(port) != KERN_SUCCESS)
            return KERN_RESOURCE_SHORTAGE;
        fds[1] = (struct pollfd){.fd = port->cr.fd, .events = POLLIN};
    }
    mio_list_append(&port->senders, &waiter.link);
    kern_return_t kr =
        in_turn ? mio_wait_in_turn(&waiter, fds, &soon) : mio_wait(&waiter, fds, 2, &soon);
    mio_list_remove(&waiter.link);
    *ret_granted = waiter.granted;
    if (waiter.granted && port->cw.fd >= 0) { /* the port was wired meanwhile: credits rule */
        port->reserved--;
        *ret_granted = false;
    }
    if (kr == KERN_OPERATION_TIMED_OUT && !*ret_granted) {
        if (port->state == MIO_PORT_REMOTE)
            mio_port_nudge(port);
        if (deadline->never || soon.at < deadline->at)
            kr = KERN_SUCCESS;
    }
    return waiter.granted ? KERN_SUCCESS : kr;
}

/* ---- pseudo-receive ----------------------------------------------------------------------------- */

/* The message returns into the buffer it came from, its rights in their moved form. */
static mach_msg_return_t pseudo_receive(mach_msg_header_t *msg, struct mio_kmsg *kmsg) {
    mach_msg_return_t trouble = 0;
    msg->msgh_bits = MACH_MSGH_BITS_SET(kmsg->dest.disposition, kmsg->reply.disposition,
                                        MACH_MSGH_BITS_VOUCHER(msg->msgh_bits),
                                        msg->msgh_bits & MACH_MSGH_BITS_COMPLEX);
    msg->msgh_size = kmsg->size;
    trouble |= mio_right_give(&kmsg->dest, &msg->msgh_remote_port);
    trouble |= mio_right_give(&kmsg->reply, &msg->msgh_local_port);
    trouble |= mio_body_give(kmsg, msg, MIO_GIVE_RETURNED);
    mio_kmsg_free(kmsg);
    return trouble;
}

/* ---- the whole ------------------------------------------------------------------------------------ */

static mach_msg_return_t send_locked(mach_msg_header_t *msg, mach_msg_option_t option,
                                     mach_msg_size_t size, unsigned nrights,
                                     struct mio_gathered *gathered, mach_msg_timeout_t timeout) {
    struct presumption presumed = presume_alive(msg);
    mach_msg_return_t mr = check_header(msg);
    if (mr != MACH_MSG_SUCCESS)
        return mr;
    struct mio_kmsg *kmsg = mio_kmsg_new(size, nrights);
    if (kmsg == NULL)
        return MACH_SEND_NO_BUFFER;
    kmsg->id = msg->msgh_id;
    kmsg->complex = msg->msgh_bits & MACH_MSGH_BITS_COMPLEX;
    kmsg->voucher = MACH_MSGH_BITS_VOUCHER(msg->msgh_bits) == 0 ? msg->msgh_voucher_port : 0;

    mach_port_name_t dest_name = msg->msgh_remote_port;
    kern_return_t kr = take_header(msg, kmsg);
    mr = kr == KERN_SUCCESS             ? mio_body_take(msg + 1, gathered, kmsg)
         : kr == KERN_RESOURCE_SHORTAGE ? MACH_SEND_NO_BUFFER
                                        : MACH_SEND_INVALID_RIGHT;
    if (mr != MACH_MSG_SUCCESS) {
        mio_kmsg_destroy(kmsg);
        return mr;
    }

    bool granted = false;
    struct mio_deadline deadline =
        option & MACH_SEND_TIMEOUT ? mio_deadline_in(timeout) : mio_deadline_never();
    for (;;) {
        enum outcome outcome = queue(kmsg, granted);
        if (outcome == DONE)
            return MACH_MSG_SUCCESS;
        mio_task.hold++; /* nothing is presumed any more, also of the rights in the message */
        if (was_dead(&presumed)) {
            put_back(msg, kmsg);
            return MACH_SEND_INVALID_DEST;
        }
        presumed = (struct presumption){0};
        if (outcome == GONE) {
            mio_kmsg_destroy(kmsg);
            return MACH_MSG_SUCCESS;
        }
        if (outcome == UNSEALED) { /* takes its time */
            mio_unlock();
            bool sealed = mio_body_seal(kmsg);
            mio_lock();
            if (sealed)
                continue;
            outcome = SHORTAGE;
        }
        if (outcome == SHORTAGE) {
            mio_channel_explain();
            return MACH_SEND_NO_BUFFER | pseudo_receive(msg, kmsg);
        }
        if (option & MACH_SEND_NOTIFY) {
            struct mio_entry *entry = mio_space_lookup(dest_name);
            if (entry != NULL)
                mio_request_arm(entry);
            option &= ~MACH_SEND_NOTIFY;
        }
        if (option & MACH_SEND_TIMEOUT && timeout == 0)
            return MACH_SEND_TIMED_OUT | pseudo_receive(msg, kmsg);
        kr = wait_for_room(kmsg->dest.port, &deadline, &granted);
        if (kr == KERN_OPERATION_TIMED_OUT)
            return MACH_SEND_TIMED_OUT | pseudo_receive(msg, kmsg);
        if (kr == KERN_RESOURCE_SHORTAGE)
            return MACH_SEND_NO_BUFFER | pseudo_receive(msg, kmsg);
        if (kr == KERN_ABORTED && option & MACH_SEND_INTERRUPT)
            return MACH_SEND_INTERRUPTED | pseudo_receive(msg, kmsg);
    }
}

/* The bootstrap port is connected at its first use, before anything is locked or taken. */
static void connect_bootstrap(mach_msg_header_t *msg, const struct mio_layout *layout,
                              const struct mio_gathered *gathered) {
    mach_msg_descriptor_t *descriptor = mio_descriptor_first(msg + 1);
    mio_lock();
    bool pending =
        mio_bootstrap_pending(msg->msgh_remote_port) || mio_bootstrap_pending(msg->msgh_local_port);
    for (unsigned i = 0; i < layout->descriptors && !pending; i++) {
        if (descriptor->type.type == MACH_MSG_PORT_DESCRIPTOR)
            pending = mio_bootstrap_pending(descriptor->port.name);
        descriptor = mio_descriptor_next(descriptor);
    }
    for (unsigned i = 0; i < layout->arrays && gathered->why == KERN_SUCCESS && !pending; i++)
        pending = mio_bootstrap_pending(gathered->names[i]);
    mio_unlock();
    if (pending)
        mio_bootstrap_ensure(true);
}

mach_msg_return_t mio_send(mach_msg_header_t *msg, mach_msg_option_t option, mach_msg_size_t size,
                           mach_msg_timeout_t timeout) {
    struct mio_gathered gathered;
    struct mio_layout layout;
    if (size < HEADER_SIZE || size & 3)
        return MACH_SEND_MSG_TOO_SMALL;
    if (size > SIZE_MAX_INLINE)
        return MACH_SEND_TOO_LARGE;
    mach_msg_return_t mr = check_body(msg, size, &layout);
    if (mr != MACH_MSG_SUCCESS)
        return mr;
    if (!mio_gather(msg + 1, &layout, &gathered))
        return MACH_SEND_NO_BUFFER;
    connect_bootstrap(msg, &layout, &gathered);
    mio_lock();
    mr = send_locked(msg, option, size, layout.rights, &gathered, timeout);
    mio_unlock();
    mio_gathered_free(&gathered);
    return mr;
}
