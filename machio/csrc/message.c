/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Messages between Python and mach_msg(): in one call what would be many from there. The same on
 * both systems.
 */
#include "shim.h"

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
