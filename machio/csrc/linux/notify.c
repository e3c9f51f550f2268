/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Notifications: what they look like and how they reach the port that asked for them. Who fires
 * them is elsewhere: right.c, port.c and release.c for what this task does, notice.c for what it
 * learns of others, request.c for requests on names.
 *
 * Guarded by mio_task.lock; owns no descriptors.
 */
#include "internal.h"

#include <string.h>

static struct mio_kmsg *notification(mach_msg_id_t id, mach_msg_size_t size, unsigned nrights) {
    struct mio_kmsg *kmsg = mio_kmsg_new(size, nrights);
    if (kmsg == NULL)
        return NULL;
    kmsg->id = id;
    kmsg->sender.kernel = true;
    kmsg->complex = nrights > 0;
    return kmsg;
}

static struct mio_kmsg *notification_word(mach_msg_id_t id, uint32_t word, uint64_t when) {
    mach_msg_size_t size = sizeof(mach_msg_header_t) + sizeof(NDR_record_t) + sizeof word;
    struct mio_kmsg *kmsg = notification(id, size, 0);
    if (kmsg != NULL) {
        kmsg->stamp = when;
        memcpy(kmsg->body, &NDR_record, sizeof NDR_record);
        memcpy(kmsg->body + sizeof NDR_record, &word, sizeof word);
    }
    return kmsg;
}

/* Ownership: consumes both; false: nobody is there any more, the kmsg is still the caller's. */
static bool deliver(struct mio_once *notify, struct mio_kmsg *kmsg) {
    if (notify->state == MIO_ONCE_LOCAL) {
        kmsg->dest = (struct mio_right){
            .kind = MIO_RIGHT_ONCE, .disposition = MACH_MSG_TYPE_PORT_SEND_ONCE, .once = notify};
        mio_port_enqueue(notify->home, kmsg);
        return true;
    }
    bool sent =
        !mio_once_is_dead(notify) &&
        mio_wire_send(notify->source.fd, kmsg, MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT) == MIO_WIRE_OK;
    mio_once_free(notify);
    if (sent)
        mio_kmsg_free(kmsg);
    return sent;
}

static void deliver_or_drop(struct mio_once *notify, struct mio_kmsg *kmsg) {
    if (kmsg == NULL)
        mio_once_free(notify);
    else if (!deliver(notify, kmsg))
        mio_kmsg_destroy(kmsg);
}

void mio_notify_name(struct mio_once *notify, mach_msg_id_t id, mach_port_name_t name,
                     uint64_t when) {
    if (notify != NULL)
        deliver_or_drop(notify, notification_word(id, name, when));
}

void mio_notify_count(struct mio_once *notify, mach_msg_id_t id, natural_t count, uint64_t when) {
    if (notify != NULL)
        deliver_or_drop(notify, notification_word(id, count, when));
}

struct mio_kmsg *mio_notify_send_once_kmsg(struct mio_once *once) {
    struct mio_kmsg *kmsg = notification(MACH_NOTIFY_SEND_ONCE, sizeof(mach_msg_header_t), 0);
    if (kmsg != NULL)
        kmsg->dest = (struct mio_right){
            .kind = MIO_RIGHT_ONCE, .disposition = MACH_MSG_TYPE_PORT_SEND_ONCE, .once = once};
    return kmsg;
}

void mio_notify_send_once(struct mio_once *once) {
    deliver_or_drop(once, notification(MACH_NOTIFY_SEND_ONCE, sizeof(mach_msg_header_t), 0));
}

bool mio_notify_port_destroyed(struct mio_once *notify, struct mio_port *port) {
    mach_msg_size_t size = sizeof(mach_msg_base_t) + sizeof(mach_msg_port_descriptor_t);
    struct mio_kmsg *kmsg = NULL;
    if (notify->state != MIO_ONCE_LOCAL || !mio_port_travels_in(port, notify->home))
        kmsg = notification(MACH_NOTIFY_PORT_DESTROYED, size, 1);
    if (kmsg == NULL) { /* no memory, or the right would lie in its own queue for ever */
        mio_once_free(notify);
        return false;
    }
    mach_msg_body_t count = {.msgh_descriptor_count = 1};
    mach_msg_port_descriptor_t descriptor = {.disposition = MACH_MSG_TYPE_PORT_RECEIVE,
                                             .type = MACH_MSG_PORT_DESCRIPTOR};
    memcpy(kmsg->body, &count, sizeof count);
    memcpy(kmsg->body + sizeof count, &descriptor, sizeof descriptor);
    kmsg->rights[0] = (struct mio_right){
        .kind = MIO_RIGHT_RECEIVE, .disposition = MACH_MSG_TYPE_PORT_RECEIVE, .port = port};
    if (deliver(notify, kmsg))
        return true;
    kmsg->rights[0].kind = MIO_RIGHT_NULL;
    mio_kmsg_destroy(kmsg);
    return false;
}
