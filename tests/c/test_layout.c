/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes, offsets and values of the Mach headers against those of macOS (64-bit, little-endian).
 *
 * All but the bit-fields is decided when this file compiles. Linked with the library or not, the
 * program tells by its exit status whether descriptors lie byte for byte as they should, and
 * NDR_record if it is there.
 */

#include "layout.h"

#include "descriptors.h"

/* Scalars. */
SIZE(natural_t, 4);
UNSIGNED(natural_t);
SIZE(integer_t, 4);
SIGNED(integer_t);
SIZE(mach_port_t, 4);
UNSIGNED(mach_port_t);
SIZE(mach_port_name_t, 4);
UNSIGNED(mach_port_name_t);
SIZE(mach_port_right_t, 4);
UNSIGNED(mach_port_right_t);
SIZE(mach_port_type_t, 4);
UNSIGNED(mach_port_type_t);
SIZE(mach_port_urefs_t, 4);
UNSIGNED(mach_port_urefs_t);
SIZE(mach_port_delta_t, 4);
SIGNED(mach_port_delta_t);
SIZE(mach_port_seqno_t, 4);
SIZE(mach_port_mscount_t, 4);
SIZE(mach_port_msgcount_t, 4);
SIZE(mach_port_rights_t, 4);
SIZE(mach_port_flavor_t, 4);
SIGNED(mach_port_flavor_t);
SIZE(mach_port_context_t, 8);
UNSIGNED(mach_port_context_t);
SIZE(mach_msg_bits_t, 4);
UNSIGNED(mach_msg_bits_t);
SIZE(mach_msg_size_t, 4);
UNSIGNED(mach_msg_size_t);
SIZE(mach_msg_timeout_t, 4);
UNSIGNED(mach_msg_timeout_t);
SIZE(mach_msg_id_t, 4);
SIGNED(mach_msg_id_t);
SIZE(mach_msg_option_t, 4);
SIGNED(mach_msg_option_t);
SIZE(mach_msg_options_t, 4);
SIGNED(mach_msg_options_t);
SIZE(mach_msg_type_name_t, 4);
UNSIGNED(mach_msg_type_name_t);
SIZE(mach_msg_copy_options_t, 4);
SIZE(mach_msg_descriptor_type_t, 4);
SIZE(mach_msg_guard_flags_t, 4);
SIZE(mach_msg_type_number_t, 4);
UNSIGNED(mach_msg_type_number_t);
SIZE(mach_msg_trailer_type_t, 4);
SIZE(mach_msg_trailer_size_t, 4);
SIZE(kern_return_t, 4);
SIGNED(kern_return_t);
SIZE(mach_msg_return_t, 4);
SIGNED(mach_msg_return_t);
SIZE(boolean_t, 4);
SIZE(vm_address_t, 8);
SIZE(vm_size_t, 8);
SIZE(pointer_t, 8);
UNSIGNED(pointer_t); /* an integer */
SIZE(vm_task_entry_t, 4);
SIZE(thread_state_t, 8);
SIZE(thread_state_flavor_t, 4);
SIZE(mach_vm_address_t, 8);
SIZE(mach_vm_size_t, 8);

/* S-001: messages and descriptors. */
SIZE(mach_msg_header_t, 24);
AT(mach_msg_header_t, msgh_bits, 0);
AT(mach_msg_header_t, msgh_size, 4);
AT(mach_msg_header_t, msgh_remote_port, 8);
AT(mach_msg_header_t, msgh_local_port, 12);
AT(mach_msg_header_t, msgh_voucher_port, 16);
AT(mach_msg_header_t, msgh_reserved, 16);
AT(mach_msg_header_t, msgh_id, 20);
SIZE(mach_msg_body_t, 4);
SIZE(mach_msg_base_t, 28);
AT(mach_msg_base_t, header, 0);
AT(mach_msg_base_t, body, 24);
SIZE(mach_msg_type_descriptor_t, 12);
SIZE(mach_msg_port_descriptor_t, 12);
AT(mach_msg_port_descriptor_t, name, 0);
AT(mach_msg_port_descriptor_t, pad1, 4);
SIZE(mach_msg_ool_descriptor_t, 16);
AT(mach_msg_ool_descriptor_t, address, 0);
AT(mach_msg_ool_descriptor_t, size, 12);
SIZE(mach_msg_ool_ports_descriptor_t, 16);
AT(mach_msg_ool_ports_descriptor_t, address, 0);
AT(mach_msg_ool_ports_descriptor_t, count, 12);
SIZE(mach_msg_guarded_port_descriptor_t, 16);
AT(mach_msg_guarded_port_descriptor_t, context, 0);
AT(mach_msg_guarded_port_descriptor_t, name, 12);
SIZE(mach_msg_descriptor_t, 16);
static_assert(_Alignof(mach_msg_descriptor_t) == 4, "descriptors are packed to 4");
SIZE(mach_msg_empty_send_t, 24);
SIZE(mach_msg_empty_rcv_t, 32);
SIZE(mach_msg_empty_t, 32);

/* S-002: trailers. */
SIZE(mach_msg_trailer_t, 8);
SIZE(mach_msg_seqno_trailer_t, 12);
AT(mach_msg_seqno_trailer_t, msgh_seqno, 8);
SIZE(mach_msg_security_trailer_t, 20);
SIZE(mach_msg_format_0_trailer_t, 20);
AT(mach_msg_security_trailer_t, msgh_sender, 12);
SIZE(mach_msg_audit_trailer_t, 52);
AT(mach_msg_audit_trailer_t, msgh_audit, 20);
SIZE(mach_msg_context_trailer_t, 60);
AT(mach_msg_context_trailer_t, msgh_context, 52);
SIZE(mach_msg_mac_trailer_t, 68);
SIZE(mach_msg_max_trailer_t, 68);
AT(mach_msg_mac_trailer_t, msgh_ad, 60);
AT(mach_msg_mac_trailer_t, msgh_labels, 64);
SIZE(security_token_t, 8);
SIZE(audit_token_t, 32);
IS(MAX_TRAILER_SIZE, 68);
IS(MACH_MSG_TRAILER_MINIMUM_SIZE, 8);
IS(MACH_MSG_TRAILER_FORMAT_0, 0);
IS(MACH_MSG_TRAILER_FORMAT_0_SIZE, 20);

/* S-003: ports. */
SIZE(mach_port_status_t, 40);
AT(mach_port_status_t, mps_pset, 0);
AT(mach_port_status_t, mps_seqno, 4);
AT(mach_port_status_t, mps_mscount, 8);
AT(mach_port_status_t, mps_qlimit, 12);
AT(mach_port_status_t, mps_msgcount, 16);
AT(mach_port_status_t, mps_sorights, 20);
AT(mach_port_status_t, mps_srights, 24);
AT(mach_port_status_t, mps_pdrequest, 28);
AT(mach_port_status_t, mps_nsrequest, 32);
AT(mach_port_status_t, mps_flags, 36);
SIZE(mach_port_limits_t, 4);
SIZE(mach_port_info_ext_t, 68);
AT(mach_port_info_ext_t, mpie_boost_cnt, 40);
AT(mach_port_info_ext_t, reserved, 44);
SIZE(mach_port_guard_info_t, 8);
SIZE(mach_port_qos_t, 8);
AT(mach_port_qos_t, len, 4);
SIZE(mach_port_options_t, 24);
AT(mach_port_options_t, flags, 0);
AT(mach_port_options_t, mpl, 4);
AT(mach_port_options_t, reserved, 8);
AT(mach_port_options_t, service_port_name, 8);

/* S-004: events and MIG. */
SIZE(struct kevent, 32);
AT(struct kevent, ident, 0);
AT(struct kevent, filter, 8);
AT(struct kevent, flags, 10);
AT(struct kevent, fflags, 12);
AT(struct kevent, data, 16);
AT(struct kevent, udata, 24);
SIZE(struct kevent64_s, 48);
AT(struct kevent64_s, ident, 0);
AT(struct kevent64_s, filter, 8);
AT(struct kevent64_s, flags, 10);
AT(struct kevent64_s, fflags, 12);
AT(struct kevent64_s, data, 16);
AT(struct kevent64_s, udata, 24);
AT(struct kevent64_s, ext, 32);
SIZE(NDR_record_t, 8);
AT(NDR_record_t, int_rep, 4);
AT(NDR_record_t, char_rep, 5);
AT(NDR_record_t, float_rep, 6);
SIZE(mig_reply_error_t, 36);
AT(mig_reply_error_t, NDR, 24);
AT(mig_reply_error_t, RetCode, 32);
SIZE(struct mig_subsystem, 72);
AT(struct mig_subsystem, start, 8);
AT(struct mig_subsystem, maxsize, 16);
AT(struct mig_subsystem, routine, 32);
SIZE(struct routine_descriptor, 40);
IS(__MigTypeCheck, 1);
IS(__MigPackStructs, 1);

/* Notifications, with the trailer of format 0. */
SIZE(mach_port_deleted_notification_t, 36 + 20);
SIZE(mach_send_possible_notification_t, 36 + 20);
SIZE(mach_port_destroyed_notification_t, 40 + 20);
SIZE(mach_no_senders_notification_t, 36 + 20);
SIZE(mach_send_once_notification_t, 24 + 20);
SIZE(mach_dead_name_notification_t, 36 + 20);
AT(mach_no_senders_notification_t, not_count, 32);
AT(mach_dead_name_notification_t, not_port, 32);
AT(mach_port_destroyed_notification_t, not_port, 28);
IS(MACH_NOTIFY_FIRST, 64);
IS(MACH_NOTIFY_PORT_DELETED, 65);
IS(MACH_NOTIFY_SEND_POSSIBLE, 66);
IS(MACH_NOTIFY_PORT_DESTROYED, 69);
IS(MACH_NOTIFY_NO_SENDERS, 70);
IS(MACH_NOTIFY_SEND_ONCE, 71);
IS(MACH_NOTIFY_DEAD_NAME, 72);
IS(MACH_NOTIFY_LAST, 77);

/* S-007: msgh_bits. */
IS(MACH_MSGH_BITS(19, 21), 0x1513);
IS(MACH_MSGH_BITS_LOCAL(0x1513), 21);
IS(MACH_MSGH_BITS_REMOTE(0x1513), 19);
IS(MACH_MSGH_BITS_VOUCHER(0x111513), 17);
IS(MACH_MSGH_BITS_SET_PORTS(0x33, 0x35, 0x31), 0x111513);
IS(MACH_MSGH_BITS_SET(19, 21, 17, 0x801f1f1fU), 0x80111513U);
IS(MACH_MSGH_BITS_PORTS(0xffffffffU), 0x1f1f1f);
IS(MACH_MSGH_BITS_OTHER(0xffffffffU), 0xffe0e0e0U);
IS(MACH_MSGH_BITS_HAS_REMOTE(19), 1);
IS(MACH_MSGH_BITS_HAS_LOCAL(19), 0);
IS(MACH_MSGH_BITS_HAS_VOUCHER(19), 0);
IS(MACH_MSGH_BITS_IS_COMPLEX(0x80000013U), 1);
IS(MACH_MSGH_BITS_ZERO, 0);
IS(MACH_MSGH_BITS_REMOTE_MASK, 0x1f);
IS(MACH_MSGH_BITS_LOCAL_MASK, 0x1f00);
IS(MACH_MSGH_BITS_VOUCHER_MASK, 0x1f0000);
IS(MACH_MSGH_BITS_PORTS_MASK, 0x1f1f1f);
IS(MACH_MSGH_BITS_COMPLEX, 0x80000000U);
IS(MACH_MSGH_BITS_USER, 0x801f1f1fU);
IS(MACH_MSGH_BITS_RAISEIMP, 0x20000000);
IS(MACH_MSGH_BITS_IMPHOLDASRT, 0x10000000);
IS(MACH_MSGH_BITS_USED, 0xb01f1f1fU);

/* S-008: trailers asked for. */
IS(REQUESTED_TRAILER_SIZE(0), 8);
IS(REQUESTED_TRAILER_SIZE(MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_SEQNO)), 12);
IS(REQUESTED_TRAILER_SIZE(MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_SENDER)), 20);
IS(REQUESTED_TRAILER_SIZE(MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT)), 52);
IS(REQUESTED_TRAILER_SIZE(MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_CTX)), 60);
IS(REQUESTED_TRAILER_SIZE(MACH_RCV_TRAILER_ELEMENTS(5)), 68);
IS(REQUESTED_TRAILER_SIZE(MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AV)), 68);
IS(REQUESTED_TRAILER_SIZE(MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_LABELS)), 68);
IS(MACH_RCV_TRAILER_NULL, 0);
IS(MACH_RCV_TRAILER_SEQNO, 1);
IS(MACH_RCV_TRAILER_SENDER, 2);
IS(MACH_RCV_TRAILER_AUDIT, 3);
IS(MACH_RCV_TRAILER_CTX, 4);
IS(MACH_RCV_TRAILER_AV, 7);
IS(MACH_RCV_TRAILER_LABELS, 8);
IS(MACH_RCV_TRAILER_MASK, 0x0f000000);
IS(MACH_RCV_TRAILER_TYPE(1), 0x10000000);
IS(MACH_RCV_TRAILER_ELEMENTS(3), 0x03000000);
IS(GET_RCV_ELEMENTS(0x13000002), 3);

/* Dispositions. */
IS(MACH_MSG_TYPE_PORT_NONE, 0);
IS(MACH_MSG_TYPE_PORT_NAME, 15);
IS(MACH_MSG_TYPE_MOVE_RECEIVE, 16);
IS(MACH_MSG_TYPE_MOVE_SEND, 17);
IS(MACH_MSG_TYPE_MOVE_SEND_ONCE, 18);
IS(MACH_MSG_TYPE_COPY_SEND, 19);
IS(MACH_MSG_TYPE_MAKE_SEND, 20);
IS(MACH_MSG_TYPE_MAKE_SEND_ONCE, 21);
IS(MACH_MSG_TYPE_COPY_RECEIVE, 22);
IS(MACH_MSG_TYPE_LAST, 22);
IS(MACH_MSG_TYPE_DISPOSE_RECEIVE, 24);
IS(MACH_MSG_TYPE_DISPOSE_SEND, 25);
IS(MACH_MSG_TYPE_DISPOSE_SEND_ONCE, 26);
IS(MACH_MSG_TYPE_PORT_RECEIVE, 16);
IS(MACH_MSG_TYPE_PORT_SEND, 17);
IS(MACH_MSG_TYPE_PORT_SEND_ONCE, 18);
IS(MACH_MSG_TYPE_POLYMORPHIC, 0xffffffffU);
IS(MACH_MSG_TYPE_PORT_ANY(16) && MACH_MSG_TYPE_PORT_ANY(21) && !MACH_MSG_TYPE_PORT_ANY(22), 1);
IS(MACH_MSG_TYPE_PORT_ANY_SEND(17) && MACH_MSG_TYPE_PORT_ANY_SEND(21) &&
       !MACH_MSG_TYPE_PORT_ANY_SEND(16),
   1);
IS(MACH_MSG_TYPE_PORT_ANY_SEND_ONCE(18) && MACH_MSG_TYPE_PORT_ANY_SEND_ONCE(21), 1);
IS(MACH_MSG_TYPE_PORT_ANY_SEND_ONCE(17) || MACH_MSG_TYPE_PORT_ANY_SEND_ONCE(19), 0);
IS(MACH_MSG_TYPE_PORT_ANY_RIGHT(16) && MACH_MSG_TYPE_PORT_ANY_RIGHT(18) &&
       !MACH_MSG_TYPE_PORT_ANY_RIGHT(19),
   1);

/* Rights, types, limits. */
IS(MACH_PORT_NULL, 0);
IS(MACH_PORT_DEAD, 0xffffffffU);
IS(MACH_PORT_VALID(1) && !MACH_PORT_VALID(0) && !MACH_PORT_VALID(0xffffffffU), 1);
IS(MACH_PORT_RIGHT_SEND, 0);
IS(MACH_PORT_TYPE_SEND, 0x00010000);
IS(MACH_PORT_RIGHT_RECEIVE, 1);
IS(MACH_PORT_TYPE_RECEIVE, 0x00020000);
IS(MACH_PORT_RIGHT_SEND_ONCE, 2);
IS(MACH_PORT_TYPE_SEND_ONCE, 0x00040000);
IS(MACH_PORT_RIGHT_PORT_SET, 3);
IS(MACH_PORT_TYPE_PORT_SET, 0x00080000);
IS(MACH_PORT_RIGHT_DEAD_NAME, 4);
IS(MACH_PORT_TYPE_DEAD_NAME, 0x00100000);
IS(MACH_PORT_RIGHT_LABELH, 5);
IS(MACH_PORT_TYPE_LABELH, 0x00200000);
IS(MACH_PORT_RIGHT_NUMBER, 6);
IS(MACH_PORT_TYPE_NONE, 0);
IS(MACH_PORT_TYPE_SEND_RECEIVE, 0x30000);
IS(MACH_PORT_TYPE_SEND_RIGHTS, 0x50000);
IS(MACH_PORT_TYPE_PORT_RIGHTS, 0x70000);
IS(MACH_PORT_TYPE_PORT_OR_DEAD, 0x170000);
IS(MACH_PORT_TYPE_ALL_RIGHTS, 0x1f0000);
IS(MACH_PORT_TYPE_DNREQUEST, 0x80000000);
IS(MACH_PORT_TYPE_SPREQUEST, 0x40000000);
IS(MACH_PORT_TYPE_SPREQUEST_DELAYED, 0x20000000);
IS(MACH_PORT_QLIMIT_ZERO, 0);
IS(MACH_PORT_QLIMIT_MIN, 0);
IS(MACH_PORT_QLIMIT_BASIC, 5);
IS(MACH_PORT_QLIMIT_DEFAULT, 5);
IS(MACH_PORT_QLIMIT_SMALL, 16);
IS(MACH_PORT_QLIMIT_LARGE, 1024);
IS(MACH_PORT_QLIMIT_MAX, 1024);
IS(MACH_PORT_QLIMIT_KERNEL, 65534);
IS(MACH_PORT_SRIGHTS_NONE, 0);
IS(MACH_PORT_SRIGHTS_PRESENT, 1);
IS(MACH_PORT_STATUS_FLAG_TEMPOWNER, 0x01);
IS(MACH_PORT_STATUS_FLAG_GUARDED, 0x02);
IS(MACH_PORT_STATUS_FLAG_STRICT_GUARD, 0x04);
IS(MACH_PORT_STATUS_FLAG_IMP_DONATION, 0x08);
IS(MACH_PORT_STATUS_FLAG_REVIVE, 0x10);
IS(MACH_PORT_STATUS_FLAG_TASKPTR, 0x20);
IS(MACH_PORT_STATUS_FLAG_GUARD_IMMOVABLE_RECEIVE, 0x40);
IS(MACH_PORT_STATUS_FLAG_NO_GRANT, 0x80);

/* Bound only if the library is linked in. */
extern NDR_record_t NDR_record __attribute__((weak));

/* S-005: where the bit-fields are, written by member and read as bytes and by accessor. */
static int bytes_are(const void *descriptor, int b8, int b9, int b10, int b11) {
    const unsigned char *b = (const unsigned char *)descriptor;

    return b[8] == b8 && b[9] == b9 && b[10] == b10 && b[11] == b11;
}

static int test_port_descriptor(void) {
    mach_msg_port_descriptor_t d = {.name = 0x103, .disposition = MACH_MSG_TYPE_MOVE_SEND};

    d.type = MACH_MSG_PORT_DESCRIPTOR;
    return bytes_are(&d, 0, 0, 17, 0) && machio_descriptor_type(&d) == MACH_MSG_PORT_DESCRIPTOR &&
           machio_descriptor_disposition(&d) == MACH_MSG_TYPE_MOVE_SEND &&
           machio_descriptor_size(&d) == 12;
}

static int test_ool_descriptor(void) {
    mach_msg_ool_descriptor_t d = {
        .deallocate = 1, .copy = MACH_MSG_VIRTUAL_COPY, .type = MACH_MSG_OOL_DESCRIPTOR};

    if (!bytes_are(&d, 1, 1, 0, 1) || !machio_descriptor_deallocate(&d) ||
        machio_descriptor_copy(&d) != 1 || machio_descriptor_size(&d) != 16)
        return 0;
    machio_descriptor_set_deallocate(&d, 0);
    machio_descriptor_set_copy(&d, MACH_MSG_PHYSICAL_COPY);
    machio_descriptor_set_type(&d, MACH_MSG_OOL_VOLATILE_DESCRIPTOR);
    return !d.deallocate && d.copy == MACH_MSG_PHYSICAL_COPY &&
           d.type == MACH_MSG_OOL_VOLATILE_DESCRIPTOR && machio_descriptor_size(&d) == 16;
}

static int test_ool_ports_descriptor(void) {
    mach_msg_ool_ports_descriptor_t d = {.copy = MACH_MSG_VIRTUAL_COPY,
                                         .disposition = MACH_MSG_TYPE_COPY_SEND,
                                         .type = MACH_MSG_OOL_PORTS_DESCRIPTOR};

    if (!bytes_are(&d, 0, 1, 19, 2) || machio_descriptor_disposition(&d) != 19)
        return 0;
    machio_descriptor_set_disposition(&d, MACH_MSG_TYPE_MAKE_SEND);
    return bytes_are(&d, 0, 1, 20, 2) && machio_descriptor_size(&d) == 16;
}

static int test_guarded_port_descriptor(void) {
    mach_msg_guarded_port_descriptor_t d = {.flags = 0x0203, .disposition = 16, .type = 4};

    if (!bytes_are(&d, 3, 2, 16, 4) || machio_descriptor_flags(&d) != 0x0203)
        return 0;
    machio_descriptor_set_flags(&d, MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE);
    return bytes_are(&d, 1, 0, 16, 4) && machio_descriptor_size(&d) == 16;
}

static int test_type_descriptor(void) {
    mach_msg_type_descriptor_t d = {.type = 0xee};

    return bytes_are(&d, 0, 0, 0, 0xee) && machio_descriptor_size(&d) == 0;
}

static int test_qos(void) {
    mach_port_qos_t qos = {.prealloc = 1};
    uint32_t word;

    memcpy(&word, &qos, sizeof(word));
    return word == 2;
}

/* S-006 */
static int test_ndr_record(void) {
    static const unsigned char expected[8] = {0, 0, 0, 0, 1, 0, 0, 0};

    return &NDR_record == NULL || memcmp(&NDR_record, expected, sizeof(expected)) == 0;
}

int main(void) {
    int ok = test_port_descriptor() && test_ool_descriptor() && test_ool_ports_descriptor() &&
             test_guarded_port_descriptor() && test_type_descriptor() && test_qos() &&
             test_ndr_record();

    return ok ? 0 : 1;
}
