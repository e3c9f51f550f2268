/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The calls of <servers/bootstrap.h>: each a request to the bootstrap server and its reply, sent
 * with mach_msg like anybody's. The messages are those of rendezvous.h and docs/bootstrap.md.
 * Called without mio_task.lock; owns nothing.
 */
#include "internal.h"
#include "rendezvous.h"

#include <mach/mig_errors.h>
#include <servers/bootstrap.h>

#include <string.h>

/* ---- requests; without the lock ------------------------------------------------------------ */

union message {
    mach_msg_header_t head;
    struct mio_bootstrap_look_up look_up;
    struct mio_bootstrap_offer offer;
    struct mio_bootstrap_found found;
    mig_reply_error_t error;
    char room[256]; /* any reply with its trailer */
};

/* A longer name loses its end, as MIG's stubs have it. */
static void set_name(struct mio_bootstrap_request *request, const char *name) {
    size_t size = strnlen(name, MIO_BOOTSTRAP_NAME - 1);
    memset(request->name, 0, MIO_BOOTSTRAP_NAME);
    memcpy(request->name, name, size);
}

static mach_msg_size_t build(const struct mio_bootstrap_request *request, union message *message) {
    *message = (union message){.room = {0}};
    message->head.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    message->head.msgh_id = request->id;
    if (request->id == MIO_BOOTSTRAP_LOOK_UP) {
        message->look_up.ndr = NDR_record;
        memcpy(message->look_up.name, request->name, MIO_BOOTSTRAP_NAME);
        return sizeof message->look_up;
    }
    message->head.msgh_bits |= MACH_MSGH_BITS_COMPLEX;
    message->offer.body.msgh_descriptor_count = 1;
    message->offer.port.type = MACH_MSG_PORT_DESCRIPTOR;
    message->offer.port.name = request->port;
    message->offer.port.disposition = request->disposition;
    message->offer.ndr = NDR_record;
    memcpy(message->offer.name, request->name, MIO_BOOTSTRAP_NAME);
    return sizeof message->offer;
}

/* Ownership: on success *ret_found is the caller's; a reply of any other shape is destroyed. */
static kern_return_t parse(const struct mio_bootstrap_request *request, union message *message,
                           mach_port_name_t *ret_found) {
    const mach_msg_header_t *head = &message->head;
    bool complex = head->msgh_bits & MACH_MSGH_BITS_COMPLEX;

    if (head->msgh_id == MACH_NOTIFY_SEND_ONCE)
        return MIG_SERVER_DIED;
    if (head->msgh_id != request->id + MIO_BOOTSTRAP_REPLY) {
        mach_msg_destroy(&message->head);
        return MIG_REPLY_MISMATCH;
    }
    if (!complex && head->msgh_size == sizeof message->error &&
        (request->id != MIO_BOOTSTRAP_LOOK_UP || message->error.RetCode != KERN_SUCCESS))
        return message->error.RetCode;
    if (complex && request->id == MIO_BOOTSTRAP_LOOK_UP &&
        head->msgh_size == sizeof message->found &&
        message->found.body.msgh_descriptor_count == 1 &&
        message->found.port.type == MACH_MSG_PORT_DESCRIPTOR &&
        message->found.port.disposition == MACH_MSG_TYPE_PORT_SEND) {
        *ret_found = message->found.port.name;
        return MACH_PORT_VALID(*ret_found) ? KERN_SUCCESS : BOOTSTRAP_UNKNOWN_SERVICE;
    }
    mach_msg_destroy(&message->head);
    return MIG_TYPE_ERROR;
}

/* One request and its reply. The reply port is the call's own: a late reply meets nobody. */
kern_return_t mio_bootstrap_exchange(mach_port_t bp, const struct mio_bootstrap_request *request,
                                     mach_port_name_t *ret_found) {
    union message message;
    mach_port_name_t reply;
    mach_msg_size_t size = build(request, &message);

    kern_return_t result = mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &reply);
    if (result != KERN_SUCCESS)
        return result;
    message.head.msgh_remote_port = bp;
    message.head.msgh_local_port = reply;
    result = mach_msg(&message.head, MACH_SEND_MSG | MACH_RCV_MSG, size, sizeof message, reply,
                      MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
    if (result == MACH_MSG_SUCCESS)
        result = parse(request, &message, ret_found);
    mach_port_mod_refs(mach_task_self(), reply, MACH_PORT_RIGHT_RECEIVE, -1);
    return result;
}

/* ---- the calls ----------------------------------------------------------------------------- */

static bool is_ours(mach_port_t bp) {
    mio_lock();
    bool ours =
        mio_task.bootstrap != NULL && bp != MACH_PORT_NULL && bp == mio_task.bootstrap->name;
    mio_unlock();
    return ours;
}

/* A request to whatever bp is; if it is the bootstrap server, to its successor when it dies. */
static kern_return_t call(mach_port_t bp, struct mio_bootstrap_request *request,
                          mach_port_name_t *ret_found) {
    for (unsigned tries = 0;; tries++) {
        bool ours = is_ours(bp);
        if (ours) {
            kern_return_t result = mio_bootstrap_ensure(true);
            if (result != KERN_SUCCESS)
                return result == KERN_RESOURCE_SHORTAGE ? BOOTSTRAP_NO_MEMORY
                                                        : MACH_SEND_INVALID_DEST;
            mio_say(NULL);
        }
        mio_lock();
        request->connection = mio_bootstrap_connection();
        mio_unlock();
        kern_return_t result = mio_bootstrap_exchange(bp, request, ret_found);
        if (!ours || tries == 3 || (result != MIG_SERVER_DIED && result != MACH_SEND_INVALID_DEST))
            return result;
    }
}

/* check_in and register: the server's answer, remembered if it is yes. */
static kern_return_t offer(mach_port_t bp, mach_msg_id_t id, const char *name,
                           mach_port_name_t port, mach_msg_type_name_t disposition) {
    struct mio_bootstrap_request request = {.id = id, .port = port, .disposition = disposition};

    set_name(&request, name);
    for (bool again = false, remembered = false; !remembered; again = true) {
        kern_return_t result = call(bp, &request, &(mach_port_name_t){0});
        if (again && result == BOOTSTRAP_SERVICE_ACTIVE)
            result = KERN_SUCCESS; /* it was the new server that had said yes */
        if (result != KERN_SUCCESS || !is_ours(bp) || !MACH_PORT_VALID(port))
            return result;
        mio_lock();
        remembered = mio_bootstrap_remember(&request);
        mio_unlock();
    }
    return KERN_SUCCESS;
}

/*
 * The receive right is made here and never leaves: the server only gets a send right. As on macOS
 * the owner has no send right, and its make-send count begins at 0.
 */
kern_return_t bootstrap_check_in(mach_port_t bp, const char *service_name, mach_port_t *sp) {
    mach_port_name_t port;

    mio_say(NULL);
    kern_return_t result = mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port);
    if (result != KERN_SUCCESS)
        return BOOTSTRAP_NO_MEMORY;
    result = offer(bp, MIO_BOOTSTRAP_CHECK_IN, service_name, port, MACH_MSG_TYPE_MAKE_SEND);
    if (result != KERN_SUCCESS) {
        mach_port_mod_refs(mach_task_self(), port, MACH_PORT_RIGHT_RECEIVE, -1);
        return result;
    }
    mio_lock();
    struct mio_entry *entry = mio_space_lookup(port);
    if (entry != NULL && entry->type & MACH_PORT_TYPE_RECEIVE)
        entry->port->mscount = 0;
    mio_unlock();
    *sp = port;
    return KERN_SUCCESS;
}

/* As with launchd, registering no port takes nothing away. */
kern_return_t bootstrap_register(mach_port_t bp, char *service_name, mach_port_t sp) {
    mio_say(NULL);
    if (sp == MACH_PORT_NULL && is_ours(bp))
        return BOOTSTRAP_SUCCESS;
    return offer(bp, MIO_BOOTSTRAP_REGISTER, service_name, sp, MACH_MSG_TYPE_COPY_SEND);
}

kern_return_t bootstrap_look_up(mach_port_t bp, const char *service_name, mach_port_t *sp) {
    struct mio_bootstrap_request request = {.id = MIO_BOOTSTRAP_LOOK_UP};
    mach_port_name_t found;

    mio_say(NULL);
    set_name(&request, service_name);
    kern_return_t result = call(bp, &request, &found);
    if (result == KERN_SUCCESS)
        *sp = found;
    return result;
}

/* No service is declared without a process that has checked it in: one that is known is active. */
kern_return_t bootstrap_status(mach_port_t bp, const char *service_name,
                               bootstrap_status_t *service_active) {
    mach_port_t port;
    kern_return_t result = bootstrap_look_up(bp, service_name, &port);
    if (result != KERN_SUCCESS)
        return result;
    mach_port_deallocate(mach_task_self(), port);
    *service_active = BOOTSTRAP_STATUS_ACTIVE;
    return BOOTSTRAP_SUCCESS;
}
