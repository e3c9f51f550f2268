/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What can be asked and set of a port by its receive right: limits, status, counts, context,
 * guards. Nothing here waits or touches another port.
 */
#include "internal.h"

#include <string.h>

#define STATUS_COUNT 10
#define INFO_EXT_COUNT 17

kern_return_t mio_receive_right_enter(ipc_space_t task, mach_port_name_t name,
                                      kern_return_t invalid, struct mio_port **ret_port) {
    if (task != mach_task_self_ || task == MACH_PORT_NULL)
        return MACH_SEND_INVALID_DEST;
    if (!MACH_PORT_VALID(name))
        return invalid;
    mio_lock();
    struct mio_entry *entry = mio_entry_get(name);
    kern_return_t kr = KERN_SUCCESS;
    if (entry == NULL || entry->type & MACH_PORT_TYPE_DEAD_NAME)
        kr = KERN_INVALID_NAME;
    else if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
        kr = KERN_INVALID_RIGHT;
    else
        *ret_port = entry->port;
    if (kr != KERN_SUCCESS)
        mio_unlock();
    return kr;
}

/* ---- attributes ---------------------------------------------------------------------------- */

static void fill_status(struct mio_port *port, mach_port_status_t *status) {
    mio_notice_poll(); /* what has happened may have sent a notification here */
    *status = (mach_port_status_t){
        .mps_pset = !mio_list_empty(&port->memberships),
        .mps_seqno = port->seqno,
        .mps_mscount = port->mscount,
        .mps_qlimit = port->qlimit,
        .mps_msgcount = port->queued + port->reserved + port->once_frames +
                        mio_channel_depth(port) + mio_port_waiting_onces(port),
        .mps_sorights = port->sorights + port->once_frames,
        .mps_srights = mio_port_has_senders(port),
        .mps_pdrequest = port->destroyed != NULL,
        .mps_nsrequest = port->no_senders != NULL,
        .mps_flags = port->flags,
    };
    if (port->guarded)
        status->mps_flags |= MACH_PORT_STATUS_FLAG_GUARDED |
                             (port->strict ? MACH_PORT_STATUS_FLAG_STRICT_GUARD : 0u) |
                             (port->immovable ? MACH_PORT_STATUS_FLAG_GUARD_IMMOVABLE_RECEIVE : 0u);
}

kern_return_t mach_port_get_attributes(ipc_space_t task, mach_port_name_t name,
                                       mach_port_flavor_t flavor, mach_port_info_t info,
                                       mach_msg_type_number_t *count) {
    mach_msg_type_number_t needed;
    kern_return_t invalid = KERN_INVALID_RIGHT;
    switch (flavor) {
    case MACH_PORT_LIMITS_INFO:
    case MACH_PORT_DNREQUESTS_SIZE:
        needed = 1;
        invalid = KERN_SUCCESS;
        break;
    case MACH_PORT_RECEIVE_STATUS:
        needed = STATUS_COUNT;
        break;
    case MACH_PORT_INFO_EXT:
        needed = INFO_EXT_COUNT;
        break;
    default:
        return KERN_INVALID_ARGUMENT;
    }
    if (*count < needed)
        return KERN_FAILURE;
    struct mio_port *port = NULL;
    kern_return_t kr = mio_receive_right_enter(task, name, invalid, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    if (port == NULL) { /* no port has no limit, and no requests */
        if (flavor == MACH_PORT_LIMITS_INFO)
            *count = 0;
        else
            *info = 0;
        return KERN_SUCCESS;
    }
    mach_port_info_ext_t ext;
    memset(&ext, 0, sizeof ext);
    switch (flavor) {
    case MACH_PORT_LIMITS_INFO:
        ext.mpie_status.mps_pset = port->qlimit;
        break;
    case MACH_PORT_DNREQUESTS_SIZE:
        MIO_EACH(item, &port->requests)
            ext.mpie_status.mps_pset++;
        break;
    default:
        fill_status(port, &ext.mpie_status);
        break;
    }
    memcpy(info, &ext, needed * sizeof(natural_t));
    *count = needed;
    return mio_leave(KERN_SUCCESS);
}

static void set_limit(struct mio_port *port, unsigned limit) {
    if (port->cw.fd >= 0)
        mio_credit_set_limit(port, limit);
    port->qlimit = limit;
    mio_port_room(port);
}

kern_return_t mach_port_set_attributes(ipc_space_t task, mach_port_name_t name,
                                       mach_port_flavor_t flavor, mach_port_info_t info,
                                       mach_msg_type_number_t count) {
    switch (flavor) {
    case MACH_PORT_LIMITS_INFO:
        if (count < 1)
            return KERN_FAILURE;
        if ((natural_t)info[0] > MACH_PORT_QLIMIT_MAX)
            return KERN_INVALID_VALUE;
        break;
    case MACH_PORT_DNREQUESTS_SIZE:
        if (count < 1)
            return KERN_FAILURE;
        break;
    case MACH_PORT_TEMPOWNER:
    case MACH_PORT_IMPORTANCE_RECEIVER:
    case MACH_PORT_DENAP_RECEIVER:
        break;
    default:
        return KERN_INVALID_ARGUMENT;
    }
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_RIGHT, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    if (flavor == MACH_PORT_LIMITS_INFO)
        set_limit(port, (natural_t)info[0]);
    else if (flavor == MACH_PORT_TEMPOWNER)
        port->flags |= MACH_PORT_STATUS_FLAG_TEMPOWNER;
    else if (flavor != MACH_PORT_DNREQUESTS_SIZE)
        port->flags |= MACH_PORT_STATUS_FLAG_IMP_DONATION;
    return mio_leave(KERN_SUCCESS);
}

/* Whether the guard is what the caller believes, without taking it off. */
kern_return_t mach_port_assert_attributes(ipc_space_t task, mach_port_name_t name,
                                          mach_port_flavor_t flavor, mach_port_info_t info,
                                          mach_msg_type_number_t count) {
    mach_port_guard_info_t expected;
    struct mio_port *port;
    if (flavor != MACH_PORT_GUARD_INFO)
        return KERN_INVALID_ARGUMENT;
    if (count < MACH_PORT_GUARD_INFO_COUNT)
        return KERN_FAILURE;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_RIGHT, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    memcpy(&expected, info, sizeof expected);
    if (!port->strict || port->context != expected.mpgi_guard)
        return mio_leave(KERN_INVALID_ARGUMENT);
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_set_mscount(ipc_space_t task, mach_port_name_t name,
                                    mach_port_mscount_t mscount) {
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_RIGHT, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    port->mscount = mscount;
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_set_seqno(ipc_space_t task, mach_port_name_t name,
                                  mach_port_seqno_t seqno) {
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_RIGHT, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    port->seqno = seqno;
    return mio_leave(KERN_SUCCESS);
}

/* Holders elsewhere are counted as one: the kernel tells that there are some, not how many. */
kern_return_t mach_port_get_srights(ipc_space_t task, mach_port_name_t name,
                                    mach_port_rights_t *srights) {
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_NAME, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    unsigned here = port->srights;
    port->srights = 0;
    *srights = here + mio_port_has_senders(port);
    port->srights = here;
    return mio_leave(KERN_SUCCESS);
}

/* ---- context and guard ----------------------------------------------------------------------- */

kern_return_t mach_port_get_context(ipc_space_t task, mach_port_name_t name,
                                    mach_port_context_t *context) {
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_RIGHT, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    *context = port->strict ? 0 : port->context;
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_set_context(ipc_space_t task, mach_port_name_t name,
                                    mach_port_context_t context) {
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_RIGHT, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    if (port->strict)
        return mio_leave(KERN_INVALID_ARGUMENT);
    port->context = context;
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_guard_with_flags(ipc_space_t task, mach_port_name_t name,
                                         mach_port_context_t guard, uint64_t flags) {
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_NAME, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    if (port->guarded || port->context != 0)
        return mio_leave(KERN_INVALID_ARGUMENT);
    port->context = guard;
    port->guarded = true;
    port->strict = flags & MPG_STRICT;
    port->immovable |= (flags & MPG_IMMOVABLE_RECEIVE) != 0;
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_guard(ipc_space_t task, mach_port_name_t name, mach_port_context_t guard,
                              boolean_t strict) {
    return mach_port_guard_with_flags(task, name, guard, strict ? MPG_STRICT : 0);
}

kern_return_t mach_port_unguard(ipc_space_t task, mach_port_name_t name,
                                mach_port_context_t guard) {
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_NAME, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    if (!port->guarded || port->context != guard)
        return mio_leave(KERN_INVALID_ARGUMENT);
    port->context = 0;
    port->guarded = port->strict = false;
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_swap_guard(ipc_space_t task, mach_port_name_t name,
                                   mach_port_context_t old_guard, mach_port_context_t new_guard) {
    struct mio_port *port;
    kern_return_t kr = mio_receive_right_enter(task, name, KERN_INVALID_NAME, &port);
    if (kr != KERN_SUCCESS)
        return kr;
    if (!port->guarded || port->strict || port->context != old_guard)
        return mio_leave(KERN_INVALID_ARGUMENT);
    port->context = new_guard;
    return mio_leave(KERN_SUCCESS);
}
