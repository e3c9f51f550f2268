/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Messages between Python and mach_msg(): in one call what would be many from there. The same on
 * both systems.
 */
#include "shim.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

mach_msg_return_t machio_send(mach_msg_header_t *buffer, mach_msg_bits_t bits, mach_port_t remote,
                              mach_port_t local, mach_msg_id_t id, const char *payload,
                              mach_msg_size_t size, mach_msg_option_t option,
                              mach_msg_timeout_t timeout) {
    mach_msg_size_t padded = (size + 3) & ~(mach_msg_size_t)3;
    uint32_t *body = (uint32_t *)(buffer + 1);
    *buffer = (mach_msg_header_t){
        .msgh_bits = bits,
        .msgh_size = (mach_msg_size_t)sizeof *buffer + padded,
        .msgh_remote_port = remote,
        .msgh_local_port = local,
        .msgh_id = id,
    };
    if (padded > 0)
        body[padded / 4 - 1] = 0;
    memcpy(body, payload, size);
    return mach_msg(buffer, option, buffer->msgh_size, 0, MACH_PORT_NULL, timeout, MACH_PORT_NULL);
}

struct notification {
    mach_msg_header_t header;
    NDR_record_t ndr;
    uint32_t word;
    mach_msg_audit_trailer_t trailer;
};

static bool is_from_system(const struct notification *message) {
    const char *end = (const char *)message + message->header.msgh_size;
    mach_msg_audit_trailer_t trailer;
    const audit_token_t nobody = {{0}};
    memcpy(&trailer, end, sizeof trailer);
    return !(message->header.msgh_bits & MACH_MSGH_BITS_COMPLEX) &&
           memcmp(&trailer.msgh_audit, &nobody, sizeof nobody) == 0;
}

int machio_notifications(mach_port_name_t name, uint64_t *words, int count) {
    /* Without MACH_RCV_LARGE: what is too large for a notification is destroyed unread. */
    const mach_msg_option_t option =
        MACH_RCV_MSG | MACH_RCV_TIMEOUT | MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT);
    struct notification message;
    mach_msg_return_t mr = MACH_MSG_SUCCESS;
    int n = 0;
    while (n < count && mr != MACHIO_RECEIVED_LAST) {
        mr = machio_receive_now(&message.header, option, sizeof message, name);
        if (mr == MACH_RCV_TOO_LARGE)
            continue;
        if (mr != MACH_MSG_SUCCESS && mr != MACHIO_RECEIVED_LAST)
            break;
        if (!is_from_system(&message)) {
            mach_msg_destroy(&message.header);
            continue;
        }
        bool has_word = message.header.msgh_size >= offsetof(struct notification, trailer);
        words[n++] =
            (uint64_t)(uint32_t)message.header.msgh_id << 32 | (has_word ? message.word : 0);
    }
    return n;
}
