/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Requests and notifications in one task.
 */
#include "ports.h"

struct notification {
    mach_msg_header_t header;
    NDR_record_t ndr;
    uint32_t word;
    mach_msg_audit_trailer_t trailer;
};

static mach_port_t new_pair(void) {
    mach_port_t port = new_port();
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    return port;
}

static kern_return_t request(mach_port_t name, int id, unsigned sync, mach_port_t notify,
                             mach_port_t *previous) {
    return mach_port_request_notification(SELF, name, id, sync, notify,
                                          MACH_MSG_TYPE_MAKE_SEND_ONCE, previous);
}

static void arm(mach_port_t name, int id, unsigned sync, mach_port_t notify) {
    mach_port_t previous = 1;
    CHECK_EQ(request(name, id, sync, notify, &previous), KERN_SUCCESS);
    CHECK_EQ(previous, MACH_PORT_NULL);
}

static void expect(mach_port_t notify, int id, uint32_t word) {
    struct notification message;
    CHECK_EQ(mach_msg(&message.header,
                      MACH_RCV_MSG | MACH_RCV_TIMEOUT |
                          MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT),
                      0, sizeof message, notify, 0, 0),
             MACH_MSG_SUCCESS);
    CHECK_EQ(message.header.msgh_id, id);
    CHECK_EQ(message.header.msgh_bits, 0x1200);
    CHECK_EQ(message.header.msgh_size, 36);
    CHECK_EQ(message.word, word);
    CHECK_EQ(message.trailer.msgh_sender.val[0], 0);
    CHECK_EQ(message.trailer.msgh_sender.val[1], 1);
    for (int i = 0; i < 8; i++)
        CHECK_EQ(message.trailer.msgh_audit.val[i], 0);
}

static unsigned dead_refs(mach_port_t name) {
    mach_port_urefs_t count;
    CHECK_EQ(mach_port_get_refs(SELF, name, MACH_PORT_RIGHT_DEAD_NAME, &count), KERN_SUCCESS);
    return count;
}

TEST(a_dead_name_is_told_and_gains_a_reference) {
    mach_port_t port = new_pair(), notify = new_port();
    mach_port_type_t type;
    arm(port, MACH_NOTIFY_DEAD_NAME, 0, notify);
    CHECK_EQ(mach_port_type(SELF, port, &type), KERN_SUCCESS);
    CHECK_EQ(type, MACH_PORT_TYPE_SEND_RECEIVE | MACH_PORT_TYPE_DNREQUEST);
    destroy_port(port);
    expect(notify, MACH_NOTIFY_DEAD_NAME, port);
    CHECK_EQ(dead_refs(port), 2);
    check_empty(notify);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
    destroy_port(notify);
}

TEST(a_freed_name_is_told_as_deleted) {
    mach_port_t port = new_port(), notify = new_port(), once, type;
    CHECK_EQ(mach_port_extract_right(SELF, port, MACH_MSG_TYPE_MAKE_SEND_ONCE, &once, &type),
             KERN_SUCCESS);
    arm(once, MACH_NOTIFY_DEAD_NAME, 0, notify);
    CHECK_EQ(mach_port_deallocate(SELF, once), KERN_SUCCESS);
    receive_from(port, port, MACH_NOTIFY_SEND_ONCE);
    expect(notify, MACH_NOTIFY_PORT_DELETED, once);
    destroy_port(port);
    destroy_port(notify);
}

TEST(no_senders_is_told_once_and_with_the_count) {
    mach_port_t port = new_port(), notify = new_port(), previous;
    arm(port, MACH_NOTIFY_NO_SENDERS, 1, notify); /* not yet: none was made */
    check_empty(notify);
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_COPY_SEND), KERN_SUCCESS);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    check_empty(notify);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    expect(notify, MACH_NOTIFY_NO_SENDERS, 1);
    arm(port, MACH_NOTIFY_NO_SENDERS, 0, notify); /* at once: there is none */
    expect(notify, MACH_NOTIFY_NO_SENDERS, 1);
    arm(port, MACH_NOTIFY_NO_SENDERS, 2, notify);
    CHECK_EQ(request(port, MACH_NOTIFY_NO_SENDERS, 2, MACH_PORT_NULL, &previous), KERN_SUCCESS);
    CHECK(MACH_PORT_VALID(previous));
    CHECK_EQ(mach_port_deallocate(SELF, previous), KERN_SUCCESS);
    receive_from(notify, notify, MACH_NOTIFY_SEND_ONCE);
    destroy_port(port);
    destroy_port(notify);
}

TEST(a_queued_message_is_a_sender) {
    mach_port_t port = new_pair(), notify = new_port();
    mach_msg_header_t message = {.msgh_bits = MACH_MSG_TYPE_COPY_SEND, .msgh_remote_port = port};
    arm(port, MACH_NOTIFY_NO_SENDERS, 0, notify);
    CHECK_EQ(mach_msg(&message, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    check_empty(notify);
    receive_from(port, port, 0);
    expect(notify, MACH_NOTIFY_NO_SENDERS, 1);
    destroy_port(port);
    destroy_port(notify);
}

TEST(senders_through_the_kernel_count_as_well) {
    mach_port_t port = new_port(), notify = new_port();
    mach_msg_type_number_t count = MACH_PORT_RECEIVE_STATUS_COUNT;
    mach_port_status_t status;
    send_wire(port, 1); /* wires the port; its credit pipe has a reader now: a sender elsewhere */
    arm(port, MACH_NOTIFY_NO_SENDERS, 1, notify);
    check_empty(notify);
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    check_empty(notify);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    check_empty(notify); /* the wire's message is yet to be received */
    CHECK_EQ(mach_port_get_attributes(SELF, port, MACH_PORT_RECEIVE_STATUS,
                                      (mach_port_info_t)&status, &count),
             KERN_SUCCESS);
    CHECK_EQ(status.mps_nsrequest, 1);
    receive_from(port, port, 1);
    expect(notify, MACH_NOTIFY_NO_SENDERS, 1);
    destroy_port(port);
    destroy_port(notify);
}

TEST(room_is_told_when_asked_for) {
    for (int wire = 0; wire < 2; wire++) {
        mach_port_t port = new_pair(), notify = new_port();
        if (wire) {
            send_wire(port, 0);
            receive_from(port, port, 0);
        }
        arm(port, MACH_NOTIFY_SEND_POSSIBLE, 1, notify);
        expect(notify, MACH_NOTIFY_SEND_POSSIBLE, port);
        mach_msg_header_t message;
        arm(port, MACH_NOTIFY_SEND_POSSIBLE, 0, notify);
        mach_msg_return_t mr;
        do {
            message =
                (mach_msg_header_t){.msgh_bits = MACH_MSG_TYPE_COPY_SEND, .msgh_remote_port = port};
            mr = mach_msg(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT | MACH_SEND_NOTIFY,
                          sizeof message, 0, 0, 0, 0);
        } while (mr == MACH_MSG_SUCCESS);
        CHECK_EQ(mr, MACH_SEND_TIMED_OUT);
        CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
        check_empty(notify);
        receive_from(port, port, 0);
        expect(notify, MACH_NOTIFY_SEND_POSSIBLE, port);
        receive_from(port, port, 0);
        check_empty(notify);
        CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
        destroy_port(notify);
    }
}

TEST(a_destroyed_port_can_go_to_its_heir) {
    mach_port_t port = new_pair(), notify = new_port(), previous;
    struct {
        mach_msg_base_t base;
        mach_msg_port_descriptor_t port;
        mach_msg_trailer_t trailer;
    } message;
    arm(port, MACH_NOTIFY_PORT_DESTROYED, 0, notify);
    CHECK_EQ(request(port, MACH_NOTIFY_PORT_DESTROYED, 0, notify, &previous), KERN_FAILURE);
    receive_from(notify, notify, MACH_NOTIFY_SEND_ONCE);
    send_id(port, 6);
    destroy_port(port);
    CHECK_EQ(mach_msg(&message.base.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof message,
                      notify, 0, 0),
             MACH_MSG_SUCCESS);
    CHECK_EQ(message.base.header.msgh_id, MACH_NOTIFY_PORT_DESTROYED);
    CHECK_EQ(message.base.header.msgh_bits, 0x80001200);
    CHECK_EQ(message.port.name, port);
    CHECK_EQ(message.port.disposition, MACH_MSG_TYPE_PORT_RECEIVE);
    receive_from(port, port, 6);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
    destroy_port(notify);
}

TEST(a_refused_request_drops_its_right) {
    mach_port_t port = new_pair(), notify = new_port(), previous;
    CHECK_EQ(request(port, 99, 0, notify, &previous), KERN_INVALID_VALUE);
    receive_from(notify, notify, MACH_NOTIFY_SEND_ONCE);
    CHECK_EQ(request(UNUSED_NAME, MACH_NOTIFY_DEAD_NAME, 0, notify, &previous), KERN_INVALID_NAME);
    receive_from(notify, notify, MACH_NOTIFY_SEND_ONCE);
    CHECK_EQ(request(port, MACH_NOTIFY_DEAD_NAME, 0, MACH_PORT_DEAD, &previous),
             KERN_INVALID_CAPABILITY);
    CHECK_EQ(request(port, MACH_NOTIFY_DEAD_NAME, 0, MACH_PORT_NULL, &previous), KERN_SUCCESS);
    CHECK_EQ(previous, MACH_PORT_NULL);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
    destroy_port(notify);
}

TEST(a_port_that_dies_drops_the_replies_in_its_queue) {
    mach_port_t port = new_pair(), reply = new_port();
    for (int i = 0; i < 3; i++) {
        mach_msg_header_t message = {
            .msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE),
            .msgh_remote_port = port,
            .msgh_local_port = reply};
        CHECK_EQ(mach_msg(&message, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0), MACH_MSG_SUCCESS);
    }
    arm(port, MACH_NOTIFY_DEAD_NAME, 0, reply);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
    for (int i = 0; i < 3; i++)
        receive_from(reply, reply, MACH_NOTIFY_SEND_ONCE);
    expect(reply, MACH_NOTIFY_PORT_DELETED, port);
    check_empty(reply);
    destroy_port(reply);
}

CHECK_MAIN()
