/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_msg_server: receives requests, has a demultiplexer answer them, sends the replies.
 *
 * Called without mio_task.lock. Owns two buffers; the rights in a request are the routine's, and
 * those in a reply are gone with it, sent or not.
 */
#include "internal.h"

#include <mach/mig_errors.h>

#include <string.h>

/* The least that a demultiplexer may fill. */
#define REPLY_MIN sizeof(mig_reply_error_t)

typedef boolean_t (*demux_t)(mach_msg_header_t *, mach_msg_header_t *);

struct server {
    demux_t demux;
    mach_msg_options_t options;
    mach_port_name_t port;
    mach_msg_header_t *request;
    mig_reply_error_t *reply;
    vm_size_t request_size, reply_size;
};

static void *allocate(vm_size_t size) {
    vm_address_t address = 0;
    return vm_allocate(mach_task_self(), &address, size, VM_FLAGS_ANYWHERE) == KERN_SUCCESS
               ? (void *)address
               : NULL;
}

static void deallocate(void *memory, vm_size_t size) {
    if (memory != NULL)
        vm_deallocate(mach_task_self(), (vm_address_t)memory, size);
}

static void end(struct server *server) {
    deallocate(server->request, server->request_size);
    deallocate(server->reply, server->reply_size);
}

static kern_return_t begin(struct server *server, demux_t demux, mach_msg_size_t max_size,
                           mach_port_name_t port, mach_msg_options_t options) {
    *server = (struct server){
        .demux = demux,
        .options = (options & ~(MACH_SEND_MSG | MACH_RCV_MSG)) | MACH_RCV_VOUCHER,
        .port = port,
    };
    vm_size_t trailer = REQUESTED_TRAILER_SIZE(options);
    vm_size_t reply = max_size + (options & MACH_SEND_TRAILER ? MAX_TRAILER_SIZE : 0u);
    server->request_size = max_size + trailer;
    if (options & MACH_RCV_LARGE)
        server->request_size = mach_vm_round_page(server->request_size);
    server->reply_size = mach_vm_round_page(reply < REPLY_MIN ? REPLY_MIN : reply);
    server->request = allocate(server->request_size);
    server->reply = allocate(server->reply_size);
    if (server->reply != NULL && (server->request != NULL || server->request_size == 0))
        return KERN_SUCCESS;
    end(server);
    return KERN_RESOURCE_SHORTAGE;
}

/* With MACH_RCV_LARGE the buffer grows with the message. */
static mach_msg_return_t receive(struct server *server) {
    for (;;) {
        mach_msg_return_t mr = mach_msg(server->request, MACH_RCV_MSG | server->options, 0,
                                        (mach_msg_size_t)server->request_size, server->port,
                                        MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
        if (mr != MACH_RCV_TOO_LARGE || !(server->options & MACH_RCV_LARGE))
            return mr;
        vm_size_t size = mach_vm_round_page((vm_size_t)server->request->msgh_size +
                                            (vm_size_t)REQUESTED_TRAILER_SIZE(server->options));
        deallocate(server->request, server->request_size);
        server->request_size = size;
        server->request = allocate(size);
        if (server->request == NULL)
            return KERN_RESOURCE_SHORTAGE;
    }
}

/* Ownership: every right in the reply, its local port's too, is gone. */
static void drop_reply(mach_msg_header_t *reply) {
    mach_msg_type_name_t local = MACH_MSGH_BITS_LOCAL(reply->msgh_bits);
    if (local == MACH_MSG_TYPE_MOVE_SEND || local == MACH_MSG_TYPE_MOVE_SEND_ONCE)
        mach_port_deallocate(mach_task_self(), reply->msgh_local_port);
    mach_msg_destroy(reply);
}

/* The reply never waits for its receiver: one that does not listen must not stop the server. */
static mach_msg_return_t answer(struct server *server) {
    mach_msg_header_t *reply = &server->reply->Head;
    server->demux(server->request, reply);
    if (!(reply->msgh_bits & MACH_MSGH_BITS_COMPLEX)) {
        kern_return_t result = server->reply->RetCode;
        if (result == MIG_NO_REPLY) {
            reply->msgh_remote_port = MACH_PORT_NULL;
        } else if (result != KERN_SUCCESS) {
            server->request->msgh_remote_port = MACH_PORT_NULL; /* the reply has it */
            mach_msg_destroy(server->request);
        }
    }
    if (reply->msgh_remote_port == MACH_PORT_NULL) {
        if (reply->msgh_bits & MACH_MSGH_BITS_COMPLEX)
            drop_reply(reply);
        return MACH_MSG_SUCCESS;
    }
    bool once = MACH_MSGH_BITS_REMOTE(reply->msgh_bits) == MACH_MSG_TYPE_MOVE_SEND_ONCE;
    mach_msg_return_t mr =
        mach_msg(reply, MACH_SEND_MSG | (once ? 0 : MACH_SEND_TIMEOUT) | server->options,
                 reply->msgh_size, 0, MACH_PORT_NULL, MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
    switch (mr) {
    case MACH_SEND_INVALID_DEST:
    case MACH_SEND_TIMED_OUT:
    case MACH_SEND_INTERRUPTED:
        drop_reply(reply);
        return MACH_MSG_SUCCESS;
    default:
        return mr;
    }
}

mach_msg_return_t mach_msg_server_once(demux_t demux, mach_msg_size_t max_size,
                                       mach_port_t rcv_name, mach_msg_options_t options) {
    struct server server;
    mach_msg_return_t mr = begin(&server, demux, max_size, rcv_name, options);
    if (mr != KERN_SUCCESS)
        return mr;
    mr = receive(&server);
    if (mr == MACH_MSG_SUCCESS)
        mr = answer(&server);
    end(&server);
    return mr;
}

mach_msg_return_t mach_msg_server(demux_t demux, mach_msg_size_t max_size, mach_port_t rcv_name,
                                  mach_msg_options_t options) {
    struct server server;
    mach_msg_return_t mr = begin(&server, demux, max_size, rcv_name, options);
    if (mr != KERN_SUCCESS)
        return mr;
    while ((mr = receive(&server)) == MACH_MSG_SUCCESS) {
        memset(server.reply, 0, sizeof *server.reply);
        mr = answer(&server);
        if (mr != MACH_MSG_SUCCESS)
            break;
    }
    end(&server);
    return mr;
}
