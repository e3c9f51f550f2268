/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_port_deallocate, _destroy, _destruct, _mod_refs: a name loses its rights. Where several
 * notifications come of one call, they come in the order that Mach has. Guarded by mio_task.lock.
 */
#include "internal.h"

/* ---- dropping ------------------------------------------------------------------------------------ */

/*
 * The receive right dies. The name keeps its send references, soon of a dead name. Where a name
 * goes with its right, PORT_DELETED is told last, here and in the next function.
 */
static void destroy_receive(mach_port_name_t name, struct mio_entry *entry) {
    struct mio_port *port = entry->port;
    if (entry->type & MACH_PORT_TYPE_SEND) {
        mio_entry_take_receive(name, entry);
        mio_port_destroy(port);
        return;
    }
    struct mio_once *notify = mio_request_cancel(entry);
    mio_entry_take_receive(name, entry);
    mio_port_destroy(port);
    mio_notify_name(notify, MACH_NOTIFY_PORT_DELETED, name, MIO_NOW);
}

static void destroy_once(mach_port_name_t name, struct mio_entry *entry) {
    struct mio_once *notify = mio_request_cancel(entry), *once = entry->once;
    mio_entry_free(name, entry);
    mio_once_drop(once);
    mio_notify_name(notify, MACH_NOTIFY_PORT_DELETED, name, MIO_NOW);
}

static void destroy_set(mach_port_name_t name, struct mio_entry *entry) {
    struct mio_set *set = entry->set;
    mio_space_free(name);
    mio_set_destroy(set);
}

static void drop_dead_name(mach_port_name_t name, struct mio_entry *entry, unsigned urefs) {
    if (entry->urefs == MIO_UREFS_MAX && urefs != MIO_UREFS_MAX)
        return;
    entry->urefs -= urefs;
    if (entry->urefs == 0)
        mio_entry_free(name, entry);
}

kern_return_t mach_port_deallocate(ipc_space_t task, mach_port_name_t name) {
    if (!MACH_PORT_VALID(name))
        return task == mach_task_self_ ? KERN_SUCCESS : MACH_SEND_INVALID_DEST;
    MIO_ENTER(task);
    struct mio_entry *entry =
        mio_entry_get_unasked(name, MACH_PORT_TYPE_SEND | MACH_PORT_TYPE_SEND_ONCE);
    if (entry == NULL)
        return mio_leave(KERN_INVALID_NAME);
    if (entry->type & MACH_PORT_TYPE_SEND)
        mio_entry_drop_send(name, entry, 1);
    else if (entry->type & MACH_PORT_TYPE_SEND_ONCE)
        destroy_once(name, entry);
    else if (entry->type & MACH_PORT_TYPE_PORT_SET)
        destroy_set(name, entry);
    else if (entry->type & MACH_PORT_TYPE_DEAD_NAME)
        drop_dead_name(name, entry, 1);
    else
        return mio_leave(KERN_INVALID_RIGHT);
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_destroy(ipc_space_t task, mach_port_name_t name) {
    if (!MACH_PORT_VALID(name))
        return task == mach_task_self_ ? KERN_SUCCESS : MACH_SEND_INVALID_DEST;
    MIO_ENTER(task);
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return mio_leave(KERN_INVALID_NAME);
    if (entry->type & MACH_PORT_TYPE_RECEIVE && entry->port->guarded && entry->port->context != 0)
        return mio_leave(KERN_INVALID_RIGHT);
    switch (entry->type & MACH_PORT_TYPE_ALL_RIGHTS) {
    case MACH_PORT_TYPE_SEND:
        mio_entry_drop_send(name, entry, entry->urefs);
        break;
    case MACH_PORT_TYPE_SEND_RECEIVE: {
        /* The send right goes first, but NO_SENDERS is told after the port's death. */
        struct mio_port *port = entry->port;
        struct mio_once *no_senders = NULL;
        natural_t mscount = port->mscount;
        if (port->srights == 1 && port->no_senders != NULL) {
            port->srights--;
            if (!mio_port_has_senders(port)) {
                no_senders = port->no_senders;
                port->no_senders = NULL;
                mio_notice_update_port(port);
            }
            port->srights++;
        }
        mio_entry_drop_send(name, entry, entry->urefs);
        destroy_receive(name, entry);
        mio_notify_count(no_senders, MACH_NOTIFY_NO_SENDERS, mscount, MIO_NOW);
        break;
    }
    case MACH_PORT_TYPE_RECEIVE:
        destroy_receive(name, entry);
        break;
    case MACH_PORT_TYPE_SEND_ONCE:
        destroy_once(name, entry);
        break;
    case MACH_PORT_TYPE_PORT_SET:
        destroy_set(name, entry);
        break;
    default:
        mio_entry_free(name, entry);
        break;
    }
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_destruct(ipc_space_t task, mach_port_name_t name, mach_port_delta_t srdelta,
                                 mach_port_context_t guard) {
    MIO_ENTER(task);
    struct mio_entry *entry = MACH_PORT_VALID(name) ? mio_entry_get(name) : NULL;
    if (entry == NULL)
        return mio_leave(KERN_INVALID_NAME);
    if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
        return mio_leave(KERN_INVALID_RIGHT);
    if (srdelta != 0 && !(entry->type & MACH_PORT_TYPE_SEND))
        return mio_leave(KERN_INVALID_RIGHT);
    if (srdelta > 0)
        return mio_leave(KERN_INVALID_VALUE);
    if (entry->port->guarded && guard != entry->port->context)
        return mio_leave(KERN_INVALID_ARGUMENT);
    unsigned drop = (unsigned)-(int64_t)srdelta;
    if (drop > entry->urefs)
        return mio_leave(KERN_INVALID_VALUE);
    if (drop > 0)
        mio_entry_drop_send(name, entry, drop);
    destroy_receive(name, entry);
    return mio_leave(KERN_SUCCESS);
}

/* ---- counts ---------------------------------------------------------------------------------------- */

/* A right that can only be kept or dropped. */
static kern_return_t mod_single(mach_port_name_t name, struct mio_entry *entry,
                                mach_port_right_t right, mach_port_delta_t delta) {
    if (delta == 0)
        return KERN_SUCCESS;
    if (delta != -1)
        return KERN_INVALID_VALUE;
    switch (right) {
    case MACH_PORT_RIGHT_RECEIVE:
        if (entry->port->guarded)
            return KERN_INVALID_RIGHT;
        destroy_receive(name, entry);
        break;
    case MACH_PORT_RIGHT_SEND_ONCE:
        destroy_once(name, entry);
        break;
    default:
        destroy_set(name, entry);
        break;
    }
    return KERN_SUCCESS;
}

/* Send rights and dead names, which are counted. */
static kern_return_t mod_counted(mach_port_name_t name, struct mio_entry *entry,
                                 mach_port_delta_t delta) {
    int64_t wide = delta;
    if (wide > MIO_UREFS_MAX || wide < -(int64_t)MIO_UREFS_MAX || -wide > (int64_t)entry->urefs)
        return KERN_INVALID_VALUE;
    if (delta < 0) {
        if (entry->type & MACH_PORT_TYPE_SEND)
            mio_entry_drop_send(name, entry, (unsigned)-wide);
        else
            drop_dead_name(name, entry, (unsigned)-wide);
    } else if (entry->urefs + (unsigned)delta >= MIO_UREFS_MAX) {
        entry->urefs = MIO_UREFS_MAX;
    } else {
        entry->urefs += (unsigned)delta;
    }
    return KERN_SUCCESS;
}

kern_return_t mach_port_mod_refs(ipc_space_t task, mach_port_name_t name, mach_port_right_t right,
                                 mach_port_delta_t delta) {
    MIO_ENTER(task);
    if (right >= MACH_PORT_RIGHT_NUMBER)
        return mio_leave(KERN_INVALID_VALUE);
    if (!MACH_PORT_VALID(name))
        return mio_leave(right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_SEND_ONCE
                             ? KERN_SUCCESS
                             : KERN_INVALID_NAME);
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return mio_leave(KERN_INVALID_NAME);
    if (!(entry->type & MACH_PORT_TYPE(right)))
        return mio_leave(KERN_INVALID_RIGHT);
    if (right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_DEAD_NAME)
        return mio_leave(mod_counted(name, entry, delta));
    return mio_leave(mod_single(name, entry, right, delta));
}
