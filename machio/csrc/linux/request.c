/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_port_request_notification, and the dead-name and send-possible requests on names. A port's
 * no-senders and port-destroyed requests are fields of the port.
 *
 * Guarded by mio_task.lock; owns no descriptors.
 */
#include "internal.h"

#include <stdlib.h>

/* ---- dead-name and send-possible requests ---------------------------------------------------- */

/* Keeps mio_task.armed, and the timer that runs while it is not 0. */
static void recount(struct mio_request *request) {
    bool remote = request->armed && request->port->state == MIO_PORT_REMOTE;
    if (remote != request->ticking)
        mio_task.armed += remote ? 1u : -1u;
    request->ticking = remote;
    mio_notice_start_tick();
}

static void disarm(struct mio_request *request) {
    request->armed = false;
    recount(request);
}

static void arm(struct mio_request *request) {
    if (request->armed || request->port == NULL)
        return;
    request->armed = true;
    recount(request);
    mio_notice_update_port(request->port);
}

/* The receive right of a port with requests came or went: what is watched changes with it. */
void mio_requests_moved(struct mio_port *port) {
    MIO_EACH(item, &port->requests)
        recount(MIO_CONTAINER(item, struct mio_request, link));
    mio_notice_update_port(port);
}

void mio_request_arm(struct mio_entry *entry) {
    if (entry->request != NULL && entry->request->send_possible && entry->request->notify != NULL)
        arm(entry->request);
}

static void detach(struct mio_request *request) {
    struct mio_port *port = request->port;
    struct mio_once *once = request->once;
    disarm(request);
    mio_list_remove(&request->link);
    request->port = NULL;
    request->once = NULL;
    if (once != NULL) {
        once->request = NULL;
        mio_notice_update_once(once);
    } else if (port != NULL) {
        mio_notice_update_port(port);
    }
}

void mio_request_free(struct mio_request *request) {
    detach(request);
    free(request);
}

void mio_request_fire_dead(struct mio_request *request, uint64_t when) {
    if (request == NULL || request->notify == NULL)
        return;
    struct mio_once *notify = request->notify;
    request->notify = NULL; /* the name gets its extra reference when it is converted */
    detach(request);
    mio_notify_name(notify, MACH_NOTIFY_DEAD_NAME, request->name, when);
}

void mio_requests_port_died(struct mio_port *port, uint64_t when) {
    while (!mio_list_empty(&port->requests))
        mio_request_fire_dead(MIO_CONTAINER(port->requests.next, struct mio_request, link), when);
}

bool mio_requests_room(struct mio_port *port) {
    bool any = false;
    MIO_EACH(item, &port->requests) {
        struct mio_request *request = MIO_CONTAINER(item, struct mio_request, link);
        if (!request->armed)
            continue;
        struct mio_entry *entry = mio_space_lookup(request->name);
        struct mio_once *notify = request->notify;
        if (entry != NULL && entry->request == request)
            entry->request = NULL;
        mach_port_name_t name = request->name;
        mio_request_free(request);
        mio_notify_name(notify, MACH_NOTIFY_SEND_POSSIBLE, name, MIO_NOW);
        any = true;
    }
    return any;
}

struct mio_once *mio_request_cancel(struct mio_entry *entry) {
    struct mio_request *request = entry->request;
    if (request == NULL)
        return NULL;
    struct mio_once *notify = request->notify;
    entry->request = NULL;
    mio_request_free(request);
    return notify;
}

static kern_return_t register_on(mach_port_name_t name, struct mio_entry *entry, bool send_possible,
                                 const struct mio_loop *loop, struct mio_once *notify) {
    struct mio_request *request = calloc(1, sizeof *request);
    if (request == NULL)
        return KERN_RESOURCE_SHORTAGE;
    mio_list_init(&request->link);
    request->name = name;
    request->send_possible = send_possible;
    request->loop = *loop;
    request->notify = notify;
    entry->request = request;
    if (entry->type & MACH_PORT_TYPE_SEND_ONCE) {
        request->once = entry->once;
        entry->once->request = request;
        if (entry->once->state == MIO_ONCE_LOCAL)
            mio_list_append(&entry->once->home->requests, &request->link);
        mio_notice_update_once(entry->once);
    } else {
        request->port = entry->port;
        mio_list_append(&entry->port->requests, &request->link);
        mio_notice_update_port(entry->port);
    }
    return KERN_SUCCESS;
}

static kern_return_t request_on_send(mach_port_name_t name, struct mio_entry *entry,
                                     bool send_possible, bool immediate,
                                     const struct mio_loop *loop, struct mio_once *notify,
                                     struct mio_once **ret_previous) {
    *ret_previous = NULL;
    if (notify == NULL && entry->request == NULL)
        return KERN_SUCCESS;
    if (entry->type & MACH_PORT_TYPE_PORT_SET)
        return KERN_INVALID_RIGHT;
    if (entry->type & MACH_PORT_TYPE_DEAD_NAME) {
        if (!send_possible)
            return KERN_INVALID_ARGUMENT;
        if (entry->urefs < MIO_UREFS_MAX)
            entry->urefs++;
        mio_notify_name(notify, MACH_NOTIFY_DEAD_NAME, name, MIO_NOW);
        return KERN_SUCCESS;
    }
    *ret_previous = mio_request_cancel(entry);
    if (notify == NULL)
        return KERN_SUCCESS;
    bool once = entry->type & MACH_PORT_TYPE_SEND_ONCE;
    if (send_possible && immediate && (once || mio_port_has_room(entry->port))) {
        mio_notify_name(notify, MACH_NOTIFY_SEND_POSSIBLE, name, MIO_NOW);
        return KERN_SUCCESS;
    }
    kern_return_t kr = register_on(name, entry, send_possible, loop, notify);
    if (kr == KERN_SUCCESS && send_possible && immediate)
        arm(entry->request);
    return kr;
}

/* ---- the call ------------------------------------------------------------------------------------- */

static kern_return_t request_on_receive(struct mio_entry *entry, mach_msg_id_t id,
                                        mach_port_mscount_t sync, struct mio_once *notify,
                                        struct mio_once **ret_previous) {
    if (entry->type & MACH_PORT_TYPE_DEAD_NAME)
        return KERN_INVALID_NAME;
    if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
        return KERN_INVALID_RIGHT;
    struct mio_port *port = entry->port;
    if (id == MACH_NOTIFY_PORT_DESTROYED) {
        if (port->destroyed != NULL)
            return KERN_FAILURE;
        port->destroyed = notify;
        return KERN_SUCCESS;
    }
    mio_port_check_senders(port, MIO_NOW); /* the old request may be due, unnoticed as yet */
    *ret_previous = port->no_senders;
    port->no_senders = NULL;
    bool senders = mio_port_has_senders(port);
    if (!senders && sync <= port->mscount && notify != NULL) {
        mio_notify_count(notify, MACH_NOTIFY_NO_SENDERS, port->mscount, MIO_NOW);
    } else {
        port->no_senders = notify;
        port->senders_seen = senders;
    }
    mio_notice_update_port(port);
    return KERN_SUCCESS;
}

static kern_return_t request(mach_port_name_t name, mach_msg_id_t id, mach_port_mscount_t sync,
                             const struct mio_loop *loop, struct mio_once *notify,
                             struct mio_once **ret_previous) {
    struct mio_entry *entry = MACH_PORT_VALID(name) ? mio_entry_get(name) : NULL;
    switch (id) {
    case MACH_NOTIFY_PORT_DESTROYED:
        if (sync != 0)
            return KERN_INVALID_VALUE;
        /* fall through */
    case MACH_NOTIFY_NO_SENDERS:
        if (!MACH_PORT_VALID(name))
            return KERN_INVALID_RIGHT;
        return entry == NULL ? KERN_INVALID_NAME
                             : request_on_receive(entry, id, sync, notify, ret_previous);
    case MACH_NOTIFY_DEAD_NAME:
    case MACH_NOTIFY_SEND_POSSIBLE:
        if (!MACH_PORT_VALID(name))
            return KERN_INVALID_ARGUMENT;
        return entry == NULL ? KERN_INVALID_NAME
                             : request_on_send(name, entry, id == MACH_NOTIFY_SEND_POSSIBLE,
                                               sync != 0, loop, notify, ret_previous);
    default:
        return KERN_INVALID_VALUE;
    }
}

static kern_return_t ask(ipc_space_t task, mach_port_name_t name, mach_msg_id_t id,
                         mach_port_mscount_t sync, const struct mio_loop *loop, mach_port_t notify,
                         mach_msg_type_name_t notify_poly, mach_port_t *previous) {
    struct mio_right right = {.kind = MIO_RIGHT_NULL};
    struct mio_once *old = NULL;
    MIO_ENTER(task);
    if (notify_poly != MACH_MSG_TYPE_MAKE_SEND_ONCE && notify_poly != MACH_MSG_TYPE_MOVE_SEND_ONCE)
        return mio_leave(MIG_TYPE_ERROR);
    if (notify == MACH_PORT_DEAD)
        return mio_leave(KERN_INVALID_CAPABILITY);
    mio_notice_poll(); /* what has happened is told before what this brings about */
    kern_return_t kr = mio_right_copyin(notify, notify_poly, &right);
    if (kr != KERN_SUCCESS)
        return mio_leave(kr);
    if (right.kind == MIO_RIGHT_DEAD)
        return mio_leave(KERN_INVALID_CAPABILITY);
    kr = request(name, id, sync, loop, right.kind == MIO_RIGHT_ONCE ? right.once : NULL, &old);
    if (kr != KERN_SUCCESS) {
        mio_right_destroy(&right);
        return mio_leave(kr);
    }
    struct mio_right old_right = {.kind = old != NULL ? MIO_RIGHT_ONCE : MIO_RIGHT_NULL,
                                  .once = old};
    mach_port_name_t old_name;
    kr = mio_right_copyout(&old_right, &old_name);
    if (kr != KERN_SUCCESS) {
        mio_right_destroy(&old_right);
        return mio_leave(kr);
    }
    if (old_name == MACH_PORT_DEAD)
        return mio_leave(KERN_INVALID_CAPABILITY);
    *previous = old_name;
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_request_notification(ipc_space_t task, mach_port_name_t name,
                                             mach_msg_id_t id, mach_port_mscount_t sync,
                                             mach_port_t notify, mach_msg_type_name_t notify_poly,
                                             mach_port_t *previous) {
    const struct mio_loop none = {.epfd = -1, .kq = -1};
    return ask(task, name, id, sync, &none, notify, notify_poly, previous);
}

kern_return_t machio_request_room(mach_port_name_t name, mach_port_name_t notify, int kq, int epfd,
                                  mach_port_t *previous) {
    const struct mio_loop loop = {.epfd = epfd, .kq = kq};
    return ask(mach_task_self_, name, MACH_NOTIFY_SEND_POSSIBLE, 1, &loop, notify,
               MACH_MSG_TYPE_MAKE_SEND_ONCE, previous);
}
