/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * arrays.h - messages with an array of ports out of line.
 */
#ifndef MACHIO_TESTS_ARRAYS_H
#define MACHIO_TESTS_ARRAYS_H

#include "tasks.h"

#include <stdalign.h>

#define MANY 16383u /* as many rights as one message may carry */

struct with_array {
    alignas(8) mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_ool_ports_descriptor_t array;
    mach_msg_max_trailer_t trailer;
};

#define ARRAY_SIZE ((mach_msg_size_t)offsetof(struct with_array, trailer))

__attribute__((unused)) static mach_msg_header_t complex_to(mach_port_t dest,
                                                            mach_msg_type_name_t disposition) {
    return (mach_msg_header_t){.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSGH_BITS(disposition, 0),
                               .msgh_remote_port = dest,
                               .msgh_id = 3};
}

__attribute__((unused)) static struct with_array carrying(mach_port_t dest,
                                                          mach_msg_type_name_t dest_disposition,
                                                          mach_port_name_t *names, unsigned count,
                                                          mach_msg_type_name_t disposition) {
    return (struct with_array){
        .header = complex_to(dest, dest_disposition),
        .body = {1},
        .array = {.address = names,
                  .count = count,
                  .disposition = disposition,
                  .type = MACH_MSG_OOL_PORTS_DESCRIPTOR},
    };
}

__attribute__((unused)) static mach_msg_return_t send_now(mach_msg_header_t *message,
                                                          mach_msg_size_t size) {
    return mach_msg(message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, size, 0, 0, 0, 0);
}

__attribute__((unused)) static void get(mach_port_t port, mach_msg_header_t *message,
                                        mach_msg_size_t size, int options) {
    CHECK_EQ(mach_msg(message, MACH_RCV_MSG | MACH_RCV_TIMEOUT | options, 0,
                      size + (mach_msg_size_t)sizeof(mach_msg_max_trailer_t), port, 30000, 0),
             MACH_MSG_SUCCESS);
    CHECK_EQ(message->msgh_size, size);
}

__attribute__((unused)) static mach_port_type_t type_of(mach_port_name_t name) {
    mach_port_type_t type = 0;
    mach_port_type(SELF, name, &type);
    return type;
}

#endif
