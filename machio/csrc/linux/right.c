/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Rights between names and transit. A right is either under a name (an entry holds it) or in
 * transit (a struct mio_right holds it), never both. Copyin takes it from a name as a message
 * does, copyout gives it one, destroy drops it with everything Mach does on such an occasion.
 *
 * A name whose port died becomes a dead name when a call next touches it (mio_entry_get), so the
 * death of a port costs nothing per name. Guarded by mio_task.lock; owns no descriptors.
 */
#include "internal.h"

#include <stdlib.h>

#define SEND_RECEIVE (MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_RECEIVE)

/* One more reference; at the maximum the count is stuck. */
static void add_uref(struct mio_entry *entry) {
    if (entry->urefs < MIO_UREFS_MAX)
        entry->urefs++;
}

/* The port died: the name is a dead name from now on, with one more reference if it was asked. */
static void convert(struct mio_entry *entry) {
    if (entry->type & MACH_PORT_TYPE_SEND) {
        entry->port->name = MACH_PORT_NULL;
        mio_port_drop_send(entry->port);
    } else {
        entry->once->request = NULL;
        mio_once_free(entry->once);
    }
    entry->type = MACH_PORT_TYPE_DEAD_NAME;
    entry->port = NULL;
    if (entry->request != NULL) {
        mio_request_free(entry->request);
        entry->request = NULL;
        add_uref(entry);
    }
}

struct mio_entry *mio_entry_get(mach_port_name_t name) {
    struct mio_entry *entry = mio_space_lookup(name);
    if (entry == NULL)
        return NULL;
    if ((entry->type & SEND_RECEIVE) == MACH_PORT_TYPE_SEND) {
        if (mio_port_is_dead(entry->port))
            convert(entry);
    } else if (entry->type & MACH_PORT_TYPE_SEND_ONCE) {
        if (mio_once_is_dead(entry->once))
            convert(entry);
    }
    return entry;
}

struct mio_entry *mio_entry_get_unasked(mach_port_name_t name, mach_port_type_t types) {
    struct mio_entry *entry = mio_space_lookup(name);
    if (entry != NULL && entry->type & types && entry->request == NULL) {
        if ((entry->type & SEND_RECEIVE) == MACH_PORT_TYPE_SEND)
            mio_port_presume_alive(entry->port);
        else if (entry->type & MACH_PORT_TYPE_SEND_ONCE)
            mio_once_presume_alive(entry->once);
    }
    return mio_entry_get(name);
}

void mio_entry_free(mach_port_name_t name, struct mio_entry *entry) {
    struct mio_request *request = entry->request;
    mio_space_free(name);
    if (request != NULL) {
        struct mio_once *notify = request->notify;
        mio_request_free(request);
        mio_notify_name(notify, MACH_NOTIFY_PORT_DELETED, name, MIO_NOW);
    }
}

void mio_entry_drop_send(mach_port_name_t name, struct mio_entry *entry, unsigned urefs) {
    struct mio_port *port = entry->port;
    if (entry->urefs == MIO_UREFS_MAX && urefs != MIO_UREFS_MAX)
        return;
    entry->urefs -= urefs;
    if (entry->urefs > 0)
        return;
    if (entry->type & MACH_PORT_TYPE_RECEIVE) {
        entry->type &= ~MACH_PORT_TYPE_SEND;
        mio_port_ref(port); /* the name keeps the one it has */
        mio_port_drop_send(port);
        return;
    }
    /* NO_SENDERS goes before PORT_DELETED. */
    port->name = MACH_PORT_NULL;
    mio_port_ref(port);
    mio_port_drop_send(port);
    mio_entry_free(name, entry);
    mio_port_unref(port);
}

void mio_entry_take_receive(mach_port_name_t name, struct mio_entry *entry) {
    struct mio_port *port = entry->port;
    mio_port_leave_space(port);
    if (entry->type & MACH_PORT_TYPE_SEND) {
        entry->type &= ~MACH_PORT_TYPE_RECEIVE;
        mio_port_ref(port); /* one for the name, one for the right that leaves */
    } else {
        port->name = MACH_PORT_NULL;
        mio_entry_free(name, entry);
    }
}

mach_msg_type_name_t mio_received_as(mach_msg_type_name_t disposition) {
    switch (disposition) {
    case MACH_MSG_TYPE_MOVE_RECEIVE:
        return MACH_MSG_TYPE_PORT_RECEIVE;
    case MACH_MSG_TYPE_MOVE_SEND:
    case MACH_MSG_TYPE_COPY_SEND:
    case MACH_MSG_TYPE_MAKE_SEND:
        return MACH_MSG_TYPE_PORT_SEND;
    case MACH_MSG_TYPE_MOVE_SEND_ONCE:
    case MACH_MSG_TYPE_MAKE_SEND_ONCE:
        return MACH_MSG_TYPE_PORT_SEND_ONCE;
    default:
        return 0;
    }
}

static void carry_send(struct mio_port *port, struct mio_right *ret) {
    mio_port_ref(port);
    port->srights++;
    ret->kind = MIO_RIGHT_SEND;
    ret->port = port;
}

/* A dead name gives a dead right; a moved one costs it a reference. */
static kern_return_t copyin_dead(mach_port_name_t name, struct mio_entry *entry,
                                 mach_msg_type_name_t disposition, struct mio_right *ret) {
    switch (disposition) {
    case MACH_MSG_TYPE_COPY_SEND:
        break;
    case MACH_MSG_TYPE_MOVE_SEND:
    case MACH_MSG_TYPE_MOVE_SEND_ONCE:
        if (entry->urefs != MIO_UREFS_MAX && --entry->urefs == 0)
            mio_entry_free(name, entry);
        break;
    default:
        return KERN_INVALID_RIGHT;
    }
    ret->kind = MIO_RIGHT_DEAD;
    return KERN_SUCCESS;
}

kern_return_t mio_right_copyin(mach_port_name_t name, mach_msg_type_name_t disposition,
                               struct mio_right *ret) {
    *ret = (struct mio_right){.kind = MIO_RIGHT_NULL, .disposition = mio_received_as(disposition)};
    if (!MACH_PORT_VALID(name)) {
        ret->kind = name == MACH_PORT_DEAD ? MIO_RIGHT_DEAD : MIO_RIGHT_NULL;
        return KERN_SUCCESS;
    }
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return KERN_INVALID_NAME;
    if (entry->type & MACH_PORT_TYPE_DEAD_NAME)
        return copyin_dead(name, entry, disposition, ret);

    switch (disposition) {
    case MACH_MSG_TYPE_MAKE_SEND:
        if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
            return KERN_INVALID_RIGHT;
        mio_port_check_senders(entry->port,
                               MIO_NOW); /* that they were gone before this one was made */
        entry->port->mscount++;
        entry->port->senders_seen = true;
        carry_send(entry->port, ret);
        return KERN_SUCCESS;

    case MACH_MSG_TYPE_MAKE_SEND_ONCE:
        if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
            return KERN_INVALID_RIGHT;
        ret->once = mio_once_new(entry->port);
        if (ret->once == NULL)
            return KERN_RESOURCE_SHORTAGE;
        ret->kind = MIO_RIGHT_ONCE;
        return KERN_SUCCESS;

    case MACH_MSG_TYPE_COPY_SEND:
        if (!(entry->type & MACH_PORT_TYPE_SEND))
            return KERN_INVALID_RIGHT;
        carry_send(entry->port, ret);
        return KERN_SUCCESS;

    case MACH_MSG_TYPE_MOVE_SEND:
        if (!(entry->type & MACH_PORT_TYPE_SEND))
            return KERN_INVALID_RIGHT;
        carry_send(entry->port, ret);
        mio_entry_drop_send(name, entry, 1);
        return KERN_SUCCESS;

    case MACH_MSG_TYPE_MOVE_SEND_ONCE:
        if (!(entry->type & MACH_PORT_TYPE_SEND_ONCE))
            return KERN_INVALID_RIGHT;
        ret->kind = MIO_RIGHT_ONCE;
        ret->once = entry->once;
        ret->once->request = NULL;
        mio_notice_update_once(ret->once);
        mio_entry_free(name, entry);
        return KERN_SUCCESS;

    case MACH_MSG_TYPE_MOVE_RECEIVE:
        if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
            return KERN_INVALID_RIGHT;
        if (entry->port->immovable)
            return KERN_INVALID_CAPABILITY;
        ret->kind = MIO_RIGHT_RECEIVE;
        ret->port = entry->port;
        mio_entry_take_receive(name, entry);
        return KERN_SUCCESS;

    default:
        return KERN_INVALID_RIGHT;
    }
}

kern_return_t mio_right_copyin_unasked(mach_port_name_t name, mach_msg_type_name_t disposition,
                                       struct mio_right *ret) {
    if (disposition == MACH_MSG_TYPE_COPY_SEND || disposition == MACH_MSG_TYPE_MOVE_SEND)
        mio_entry_get_unasked(name, MACH_PORT_TYPE_SEND);
    else if (disposition == MACH_MSG_TYPE_MOVE_SEND_ONCE)
        mio_entry_get_unasked(name, MACH_PORT_TYPE_SEND_ONCE);
    return mio_right_copyin(name, disposition, ret);
}

/* A dead port's right has no name: it is dropped and the caller sees MACH_PORT_DEAD. */
static bool arrived_dead(struct mio_right *right) {
    if (right->kind == MIO_RIGHT_DEAD)
        return true;
    if (right->kind == MIO_RIGHT_SEND ? !mio_port_is_dead(right->port)
                                      : !mio_once_is_dead(right->once))
        return false;
    mio_right_destroy(right);
    return true;
}

/* Puts a send or receive right under the entry of its port. */
static void merge(struct mio_entry *entry, struct mio_right *right) {
    struct mio_port *port = right->port;
    if (right->kind == MIO_RIGHT_RECEIVE) {
        entry->type |= MACH_PORT_TYPE_RECEIVE;
        port->carrier = NULL;
    } else if (entry->type & MACH_PORT_TYPE_SEND) {
        add_uref(entry);
        port->srights--; /* the name is one holder, however many references */
    } else {
        entry->type |= MACH_PORT_TYPE_SEND;
        entry->urefs = 1;
    }
    right->kind = MIO_RIGHT_NULL;
}

static void settle(struct mio_entry *entry, mach_port_name_t name, struct mio_right *right) {
    if (right->kind == MIO_RIGHT_ONCE) {
        entry->type = MACH_PORT_TYPE_SEND_ONCE;
        entry->urefs = 1;
        entry->once = right->once;
        right->kind = MIO_RIGHT_NULL;
        return;
    }
    entry->port = right->port;
    entry->port->name = name;
    merge(entry, right);
}

kern_return_t mio_right_copyout(struct mio_right *right, mach_port_name_t *ret_name) {
    struct mio_entry *entry;
    *ret_name = MACH_PORT_NULL;
    if (right->kind == MIO_RIGHT_NULL)
        return KERN_SUCCESS;
    if (right->kind != MIO_RIGHT_RECEIVE && arrived_dead(right)) {
        *ret_name = MACH_PORT_DEAD;
        return KERN_SUCCESS;
    }
    if (right->kind != MIO_RIGHT_ONCE && right->port->name != MACH_PORT_NULL) {
        struct mio_port *port = right->port;
        *ret_name = port->name;
        merge(mio_space_lookup(port->name), right);
        mio_port_unref(port); /* the name has one already */
        return KERN_SUCCESS;
    }
    kern_return_t kr = mio_space_alloc(ret_name, &entry);
    if (kr == KERN_SUCCESS)
        settle(entry, *ret_name, right);
    return kr;
}

kern_return_t mio_right_copyout_as(struct mio_right *right, mach_port_name_t name) {
    struct mio_entry *entry = NULL;
    kern_return_t kr;

    if (!MACH_PORT_VALID(name)) {
        kr = KERN_INVALID_VALUE;
    } else if (right->kind != MIO_RIGHT_RECEIVE && arrived_dead(right)) {
        kr = KERN_INVALID_CAPABILITY;
    } else if (right->kind != MIO_RIGHT_ONCE && right->port->name == name) {
        struct mio_port *port = right->port;
        merge(mio_space_lookup(name), right);
        mio_port_unref(port);
        return KERN_SUCCESS;
    } else {
        kr = mio_space_alloc_name(name, &entry);
        if ((kr == KERN_SUCCESS || kr == KERN_NAME_EXISTS) && right->kind != MIO_RIGHT_ONCE &&
            right->port->name != MACH_PORT_NULL) {
            if (kr == KERN_SUCCESS)
                mio_space_free(name);
            kr = KERN_RIGHT_EXISTS;
        }
    }
    if (kr == KERN_SUCCESS)
        settle(entry, name, right);
    else
        mio_right_destroy(right);
    return kr;
}

void mio_right_destroy(struct mio_right *right) {
    struct mio_right gone = *right;
    right->kind = MIO_RIGHT_NULL;
    switch (gone.kind) {
    case MIO_RIGHT_NULL:
    case MIO_RIGHT_DEAD:
        break;
    case MIO_RIGHT_SEND:
        mio_port_drop_send(gone.port);
        break;
    case MIO_RIGHT_ONCE:
        mio_once_drop(gone.once);
        break;
    case MIO_RIGHT_RECEIVE:
        gone.port->carrier = NULL;
        mio_port_destroy(gone.port);
        break;
    }
}
