/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * pages.h - messages with out-of-line memory for the C tests, and pages to fill them from.
 */
#ifndef MACHIO_TESTS_PAGES_H
#define MACHIO_TESTS_PAGES_H

#include "tasks.h"

#include <stdalign.h>
#include <sys/mman.h>

#define PIECES 3

struct with_memory {
    alignas(8) mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_ool_descriptor_t memory[PIECES];
    mach_msg_max_trailer_t trailer;
};

__attribute__((unused)) static mach_msg_size_t size_of(unsigned pieces) {
    return (mach_msg_size_t)(offsetof(struct with_memory, memory) +
                             pieces * sizeof(mach_msg_ool_descriptor_t));
}

__attribute__((unused)) static struct with_memory carrying(mach_port_t dest,
                                                           mach_msg_type_name_t disposition,
                                                           void *address, mach_msg_size_t size,
                                                           bool deallocate) {
    return (struct with_memory){
        .header = {.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSGH_BITS(disposition, 0),
                   .msgh_remote_port = dest,
                   .msgh_id = 9},
        .body = {1},
        .memory = {{.address = address,
                    .size = size,
                    .deallocate = deallocate,
                    .copy = MACH_MSG_VIRTUAL_COPY,
                    .type = MACH_MSG_OOL_DESCRIPTOR}},
    };
}

__attribute__((unused)) static mach_msg_return_t send_now(struct with_memory *message,
                                                          unsigned pieces) {
    return mach_msg(&message->header, MACH_SEND_MSG | MACH_SEND_TIMEOUT, size_of(pieces), 0, 0, 0,
                    0);
}

__attribute__((unused)) static void receive_memory(mach_port_t port, struct with_memory *ret,
                                                   unsigned pieces) {
    CHECK_EQ(
        mach_msg(&ret->header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof *ret, port, 10000, 0),
        MACH_MSG_SUCCESS);
    CHECK_EQ(ret->header.msgh_size, size_of(pieces));
    CHECK_EQ(ret->body.msgh_descriptor_count, pieces);
}

__attribute__((unused)) static uint8_t *pages(size_t n) {
    vm_address_t address;
    CHECK_EQ(vm_allocate(SELF, &address, n * vm_page_size, VM_FLAGS_ANYWHERE), KERN_SUCCESS);
    return (uint8_t *)address;
}

__attribute__((unused)) static void free_pages(void *address, size_t n) {
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)address, n * vm_page_size), KERN_SUCCESS);
}

__attribute__((unused)) static void fill(uint8_t *bytes, size_t size, unsigned seed) {
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(seed + i * 7 + (i >> 12));
}

__attribute__((unused)) static void is_filled(const uint8_t *bytes, size_t size, unsigned seed) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != (uint8_t)(seed + i * 7 + (i >> 12)))
            CHECK_EQ(i, size);
}

#endif
