/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The welcome: the one message that a bootstrap server sends over a connection, and a task takes
 * from there. Its reply right is a send right to the server's port; both close the connection then.
 *
 * Locks: each function says which.
 */
#include "internal.h"
#include "rendezvous.h"

/* ---- the task's side; with the lock held --------------------------------------------------- */

/* What makes a welcome. Ownership: the kmsg is consumed; on success *ret_right is the caller's. */
static bool is_welcome(struct mio_kmsg *kmsg, struct mio_right *ret_right) {
    bool good =
        kmsg->id == MIO_BOOTSTRAP_WELCOME && !kmsg->complex && kmsg->reply.kind == MIO_RIGHT_SEND &&
        kmsg->reply.port->kind == MIO_PORT_BOOTSTRAP && kmsg->reply.port->state == MIO_PORT_REMOTE;
    if (good) {
        *ret_right = kmsg->reply;
        kmsg->reply.kind = MIO_RIGHT_NULL;
    }
    mio_kmsg_destroy(kmsg);
    return good;
}

kern_return_t mio_welcome_take(int fd, struct mio_right *ret_right) {
    struct mio_kmsg *kmsg = NULL;
    unsigned kind = 0, flags = 0;

    switch (mio_wire_receive(fd, &kmsg, &kind, &flags)) {
    case MIO_WIRE_OK:
        if (kmsg != NULL && is_welcome(kmsg, ret_right))
            return KERN_SUCCESS;
        break;
    case MIO_WIRE_FULL:
        return MACH_RCV_TIMED_OUT;
    case MIO_WIRE_GONE:
        return KERN_ABORTED;
    case MIO_WIRE_SHORTAGE:
        mio_say("too many open files to take the bootstrap server's right; raise ulimit -n");
        return KERN_RESOURCE_SHORTAGE;
    }
    mio_say("what listens as the bootstrap server speaks another protocol; stop it");
    return KERN_FAILURE;
}

/* ---- the server's side; without the lock --------------------------------------------------- */

/*
 * Sends a client that has just connected a send right to the port. Ownership: the connection and
 * the receive right under the name stay the caller's.
 */
kern_return_t machio_bootstrap_welcome(int client, mach_port_name_t name) {
    mio_say(NULL);
    mio_lock();
    struct mio_entry *entry = mio_space_lookup(name);
    kern_return_t result = entry == NULL ? KERN_INVALID_NAME : KERN_SUCCESS;
    struct mio_kmsg *kmsg = NULL;
    if (result == KERN_SUCCESS && !(entry->type & MACH_PORT_TYPE_RECEIVE))
        result = KERN_INVALID_RIGHT;
    if (result == KERN_SUCCESS) {
        if (entry->port->cookie == 0)
            entry->port->kind = MIO_PORT_BOOTSTRAP; /* seen by whoever gets a right to it */
        kmsg = mio_kmsg_new(sizeof(mach_msg_header_t), 0);
        if (kmsg == NULL)
            result = KERN_RESOURCE_SHORTAGE;
    }
    if (result == KERN_SUCCESS) {
        kmsg->id = MIO_BOOTSTRAP_WELCOME;
        result = mio_right_copyin(name, MACH_MSG_TYPE_MAKE_SEND, &kmsg->reply);
    }
    if (result == KERN_SUCCESS) {
        switch (mio_wire_send(client, kmsg, MIO_FRAME_NO_CREDIT)) {
        case MIO_WIRE_OK:
            break;
        case MIO_WIRE_SHORTAGE:
            result = KERN_RESOURCE_SHORTAGE;
            break;
        case MIO_WIRE_FULL:
        case MIO_WIRE_GONE:
            result = KERN_ABORTED;
            break;
        }
    }
    if (kmsg != NULL)
        mio_kmsg_destroy(kmsg);
    mio_unlock();
    return result;
}
