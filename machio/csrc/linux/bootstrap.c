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
    struct mio_bootstrap_question question;
    struct mio_bootstrap_offer offer;
    struct mio_bootstrap_found found;
    struct mio_bootstrap_state state;
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
    if (request->port == MACH_PORT_NULL) {
        message->question.ndr = NDR_record;
        memcpy(message->question.name, request->name, MIO_BOOTSTRAP_NAME);
        return sizeof message->question;
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

/* Whether a code alone is the whole answer: without success it always is. */
static bool needs_no_more(mach_msg_id_t id, kern_return_t code) {
    return code != KERN_SUCCESS || id == MIO_BOOTSTRAP_CHECK_IN || id == MIO_BOOTSTRAP_REGISTER;
}

/* The right that the answer to a request brings, if it brings one. */
static mach_msg_type_name_t brings(mach_msg_id_t id) {
    switch (id) {
    case MIO_BOOTSTRAP_LOOK_UP:
    case MIO_BOOTSTRAP_CREATE_SERVICE:
        return MACH_MSG_TYPE_PORT_SEND;
    case MIO_BOOTSTRAP_CHECK_IN:
        return MACH_MSG_TYPE_PORT_RECEIVE;
    default:
        return 0;
    }
}

/* Ownership: on success the right in the answer is the caller's; of any other reply no right is. */
static kern_return_t parse(mach_msg_id_t id, union message *message,
                           struct mio_bootstrap_answer *answer) {
    const mach_msg_header_t *head = &message->head;
    bool complex = head->msgh_bits & MACH_MSGH_BITS_COMPLEX;

    if (head->msgh_id == MACH_NOTIFY_SEND_ONCE)
        return MIG_SERVER_DIED;
    if (head->msgh_id != id + MIO_BOOTSTRAP_REPLY) {
        mach_msg_destroy(&message->head);
        return MIG_REPLY_MISMATCH;
    }
    if (!complex && head->msgh_size == sizeof message->error &&
        needs_no_more(id, message->error.RetCode))
        return message->error.RetCode;
    if (!complex && head->msgh_size == sizeof message->state && id == MIO_BOOTSTRAP_STATUS &&
        message->state.code == KERN_SUCCESS) {
        answer->status = message->state.status;
        return KERN_SUCCESS;
    }
    if (complex && head->msgh_size == sizeof message->found &&
        message->found.body.msgh_descriptor_count == 1 &&
        message->found.port.type == MACH_MSG_PORT_DESCRIPTOR &&
        message->found.port.disposition == brings(id)) {
        if (!MACH_PORT_VALID(message->found.port.name))
            return BOOTSTRAP_UNKNOWN_SERVICE;
        answer->port = message->found.port.name;
        return KERN_SUCCESS;
    }
    mach_msg_destroy(&message->head);
    return MIG_TYPE_ERROR;
}

/* Sends a request and, with MACH_RCV_MSG, receives the reply. */
static mach_msg_return_t transmit(union message *message, mach_msg_option_t option,
                                  mach_msg_size_t size, mach_port_t bp, mach_port_name_t reply) {
    message->head.msgh_remote_port = bp;
    message->head.msgh_local_port = reply;
    mach_msg_return_t result = mach_msg(&message->head, option, size, sizeof *message, reply,
                                        MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
    mach_msg_return_t code = result & ~MACH_MSG_MASK;
    if (code == MACH_SEND_TIMED_OUT || code == MACH_SEND_NO_BUFFER)
        mach_msg_destroy(&message->head); /* it came back */
    return result;
}

/* One request and its reply. The reply port is the call's own: a late reply meets nobody. */
kern_return_t mio_bootstrap_exchange(mach_port_t bp, const struct mio_bootstrap_request *request,
                                     struct mio_bootstrap_answer *answer) {
    union message message;
    mach_port_name_t reply;
    mach_msg_size_t size = build(request, &message);

    *answer = (struct mio_bootstrap_answer){.port = MACH_PORT_NULL};
    kern_return_t result = mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &reply);
    if (result != KERN_SUCCESS)
        return result;
    result = transmit(&message, MACH_SEND_MSG | MACH_RCV_MSG, size, bp, reply);
    if (result == MACH_MSG_SUCCESS)
        result = parse(request->id, &message, answer);
    mach_port_mod_refs(mach_task_self(), reply, MACH_PORT_RIGHT_RECEIVE, -1);
    return result;
}

/* ---- the calls ----------------------------------------------------------------------------- */

static bool is_ours_locked(mach_port_t bp) {
    return mio_task.bootstrap != NULL && bp != MACH_PORT_NULL && bp == mio_task.bootstrap->name;
}

static bool is_ours(mach_port_t bp) {
    mio_lock();
    bool ours = is_ours_locked(bp);
    mio_unlock();
    return ours;
}

/* A request to whatever bp is; if it is the bootstrap server, to its successor when it dies. */
static kern_return_t call(mach_port_t bp, struct mio_bootstrap_request *request,
                          struct mio_bootstrap_answer *answer) {
    for (unsigned tries = 0;; tries++) {
        mio_lock();
        bool ours = is_ours_locked(bp), ready = tries == 0 && mio_bootstrap_seems_ready();
        mio_unlock();
        if (ours && !ready) {
            kern_return_t result = mio_bootstrap_ensure(true);
            if (result != KERN_SUCCESS)
                return result == KERN_RESOURCE_SHORTAGE ? BOOTSTRAP_NO_MEMORY
                                                        : MACH_SEND_INVALID_DEST;
        }
        if (ours)
            mio_say(NULL);
        mio_lock();
        request->connection = mio_bootstrap_connection();
        mio_unlock();
        mio_bootstrap_asking(ours);
        kern_return_t result = mio_bootstrap_exchange(bp, request, answer);
        mio_bootstrap_asking(false);
        if (!ours || tries == 3 || (result != MIG_SERVER_DIED && result != MACH_SEND_INVALID_DEST))
            return result;
    }
}

static void give_up(mach_port_name_t name, mach_port_right_t right) {
    mach_port_mod_refs(mach_task_self(), name, right, -1);
}

/* Of what was answered with yes; false: by a server that has died since. */
static bool remember(struct mio_bootstrap_request *request,
                     const struct mio_bootstrap_answer *answer) {
    if (request->id != MIO_BOOTSTRAP_CREATE_SERVICE && answer->port != MACH_PORT_NULL) {
        request->id = MIO_BOOTSTRAP_REGISTER; /* what another server is told of it */
        request->port = answer->port;
        request->disposition = MACH_MSG_TYPE_MAKE_SEND;
    }
    mio_lock();
    bool remembered = mio_bootstrap_remember(request);
    mio_unlock();
    return remembered;
}

/*
 * A request that changes what the server knows: its answer, remembered if it is yes. Ownership: on
 * success the right in the answer is the caller's.
 */
static kern_return_t change(mach_port_t bp, struct mio_bootstrap_request *request,
                            struct mio_bootstrap_answer *answer) {
    bool creates = request->id == MIO_BOOTSTRAP_CREATE_SERVICE, remembered = false;
    mach_port_name_t given = MACH_PORT_NULL; /* the receive right of a check-in */

    for (bool again = false; !remembered; again = true) {
        kern_return_t result = call(bp, request, answer);
        if (again && !creates && result == BOOTSTRAP_SERVICE_ACTIVE)
            result = KERN_SUCCESS; /* it was the new server that had said yes */
        if (result != KERN_SUCCESS && given != MACH_PORT_NULL)
            give_up(given, MACH_PORT_RIGHT_RECEIVE);
        if (result != KERN_SUCCESS || !is_ours(bp))
            return result;
        if (!creates && answer->port != MACH_PORT_NULL)
            given = answer->port;
        remembered = remember(request, answer);
        if (!remembered && creates)
            give_up(answer->port, MACH_PORT_RIGHT_SEND);
    }
    if (given != MACH_PORT_NULL)
        answer->port = given;
    return KERN_SUCCESS;
}

/* The owner did not make the right that the server has. */
static void reset_count(mach_port_name_t port) {
    mio_lock();
    struct mio_entry *entry = mio_space_lookup(port);
    if (entry != NULL && entry->type & MACH_PORT_TYPE_RECEIVE)
        entry->port->mscount = 0;
    mio_unlock();
}

/*
 * The receive right is made here and never leaves: the server only gets a send right. As on macOS
 * the owner has no send right, and its make-send count begins at 0. Of a service that was created
 * before, the server has the receive right, and gives it instead.
 */
kern_return_t bootstrap_check_in(mach_port_t bp, const char *service_name, mach_port_t *sp) {
    struct mio_bootstrap_request request = {.id = MIO_BOOTSTRAP_CHECK_IN,
                                            .disposition = MACH_MSG_TYPE_MAKE_SEND};
    struct mio_bootstrap_answer answer;
    mach_port_name_t port;

    mio_say(NULL);
    set_name(&request, service_name);
    kern_return_t result = mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port);
    if (result != KERN_SUCCESS)
        return BOOTSTRAP_NO_MEMORY;
    request.port = port;
    result = change(bp, &request, &answer);
    if (result == KERN_SUCCESS && answer.port == MACH_PORT_NULL) {
        reset_count(port);
        *sp = port;
        return KERN_SUCCESS;
    }
    give_up(port, MACH_PORT_RIGHT_RECEIVE);
    if (result == KERN_SUCCESS)
        *sp = answer.port;
    return result;
}

/* As with launchd, no port takes nothing away but a name that one has created. */
kern_return_t bootstrap_register(mach_port_t bp, char *service_name, mach_port_t sp) {
    struct mio_bootstrap_request request = {
        .id = MIO_BOOTSTRAP_REGISTER, .port = sp, .disposition = MACH_MSG_TYPE_COPY_SEND};

    mio_say(NULL);
    set_name(&request, service_name);
    return change(bp, &request, &(struct mio_bootstrap_answer){0});
}

/* The server is given this task's port: the service ends with the task. */
kern_return_t bootstrap_create_service(mach_port_t bp, const char *service_name, mach_port_t *sp) {
    struct mio_bootstrap_request request = {.id = MIO_BOOTSTRAP_CREATE_SERVICE,
                                            .port = mach_task_self(),
                                            .disposition = MACH_MSG_TYPE_COPY_SEND};
    struct mio_bootstrap_answer answer;

    mio_say(NULL);
    set_name(&request, service_name);
    kern_return_t result = change(bp, &request, &answer);
    if (result == KERN_SUCCESS)
        *sp = answer.port;
    return result;
}

static kern_return_t ask(mach_port_t bp, mach_msg_id_t id, const char *service_name,
                         struct mio_bootstrap_answer *answer) {
    struct mio_bootstrap_request request = {.id = id};
    mio_say(NULL);
    set_name(&request, service_name);
    return call(bp, &request, answer);
}

kern_return_t bootstrap_look_up(mach_port_t bp, const char *service_name, mach_port_t *sp) {
    struct mio_bootstrap_answer answer;
    kern_return_t result = ask(bp, MIO_BOOTSTRAP_LOOK_UP, service_name, &answer);
    if (result == KERN_SUCCESS)
        *sp = answer.port;
    return result;
}

kern_return_t bootstrap_status(mach_port_t bp, const char *service_name,
                               bootstrap_status_t *service_active) {
    struct mio_bootstrap_answer answer;
    kern_return_t result = ask(bp, MIO_BOOTSTRAP_STATUS, service_name, &answer);
    if (result == KERN_SUCCESS)
        *service_active = answer.status;
    return result;
}

/* ---- in two halves ------------------------------------------------------------------------- */

static struct mio_bootstrap_request request_of(int what, const char *service_name,
                                               mach_port_t port) {
    struct mio_bootstrap_request request = {.id = what,
                                            .port = port,
                                            .disposition = what == MIO_BOOTSTRAP_CHECK_IN
                                                               ? MACH_MSG_TYPE_MAKE_SEND
                                                               : MACH_MSG_TYPE_COPY_SEND};
    set_name(&request, service_name);
    return request;
}

kern_return_t machio_bootstrap_ask(int what, const char *service_name, mach_port_t port,
                                   mach_port_t reply, unsigned *ret_connection) {
    struct mio_bootstrap_request request = request_of(what, service_name, port);
    union message message;

    mio_say(NULL);
    mio_lock();
    bool ready = is_ours_locked(bootstrap_port) && mio_bootstrap_seems_ready();
    *ret_connection = mio_bootstrap_connection();
    mio_unlock();
    if (!ready)
        return MACH_SEND_INVALID_DEST;
    mio_bootstrap_asking(true);
    kern_return_t result = transmit(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT,
                                    build(&request, &message), bootstrap_port, reply);
    mio_bootstrap_asking(false);
    return result;
}

kern_return_t machio_bootstrap_answer(int what, const char *service_name, mach_port_t port,
                                      mach_port_t reply, unsigned connection, mach_port_t *sp) {
    struct mio_bootstrap_request request = request_of(what, service_name, port);
    struct mio_bootstrap_answer answer = {.port = MACH_PORT_NULL};
    union message message;

    mach_msg_return_t mr = machio_receive_now(&message.head, MACH_RCV_MSG, sizeof message, reply);
    if (mr != MACH_MSG_SUCCESS && mr != MACHIO_RECEIVED_LAST)
        return mr;
    kern_return_t result = parse(what, &message, &answer);
    request.connection = connection;
    if (result == KERN_SUCCESS && what != MIO_BOOTSTRAP_LOOK_UP && !remember(&request, &answer)) {
        if (answer.port != MACH_PORT_NULL)
            give_up(answer.port, MACH_PORT_RIGHT_RECEIVE);
        return MIG_SERVER_DIED;
    }
    if (result != KERN_SUCCESS)
        return result;
    if (what == MIO_BOOTSTRAP_CHECK_IN && answer.port == MACH_PORT_NULL)
        reset_count(port);
    *sp = answer.port != MACH_PORT_NULL ? answer.port : port;
    return KERN_SUCCESS;
}
