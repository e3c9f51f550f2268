/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bit-fields of message descriptors, by function.
 *
 * Type, disposition, copy and flags of a descriptor are bit-fields, which cffi cannot take from the
 * compiler. They lie in the word at offset 8 of every descriptor: flags in its lower half, or
 * deallocate and copy in its two lower bytes, then disposition, then type. Any descriptor will do,
 * wherever it lies; the caller knows which fields its type has. The same text on both systems,
 * 64-bit and little-endian.
 */

#ifndef MACHIO_DESCRIPTORS_H
#define MACHIO_DESCRIPTORS_H

#include <mach/message.h>
#include <stdint.h>
#include <string.h>

static inline unsigned int machio_descriptor_bits(const void *descriptor, unsigned int shift,
                                                  unsigned int mask) {
    uint32_t word;

    memcpy(&word, (const char *)descriptor + 8, sizeof(word));
    return word >> shift & mask;
}

static inline void machio_descriptor_set_bits(void *descriptor, unsigned int shift,
                                              unsigned int mask, unsigned int value) {
    uint32_t word;

    memcpy(&word, (char *)descriptor + 8, sizeof(word));
    word = (word & ~(mask << shift)) | (value & mask) << shift;
    memcpy((char *)descriptor + 8, &word, sizeof(word));
}

static inline mach_msg_descriptor_type_t machio_descriptor_type(const void *descriptor) {
    return machio_descriptor_bits(descriptor, 24, 0xff);
}

static inline void machio_descriptor_set_type(void *descriptor, mach_msg_descriptor_type_t type) {
    machio_descriptor_set_bits(descriptor, 24, 0xff, type);
}

/* Of a port, ports or guarded port descriptor. */
static inline mach_msg_type_name_t machio_descriptor_disposition(const void *descriptor) {
    return machio_descriptor_bits(descriptor, 16, 0xff);
}

static inline void machio_descriptor_set_disposition(void *descriptor,
                                                     mach_msg_type_name_t disposition) {
    machio_descriptor_set_bits(descriptor, 16, 0xff, disposition);
}

/* Of an out-of-line descriptor, memory or ports. */
static inline mach_msg_copy_options_t machio_descriptor_copy(const void *descriptor) {
    return machio_descriptor_bits(descriptor, 8, 0xff);
}

static inline void machio_descriptor_set_copy(void *descriptor, mach_msg_copy_options_t copy) {
    machio_descriptor_set_bits(descriptor, 8, 0xff, copy);
}

static inline int machio_descriptor_deallocate(const void *descriptor) {
    return machio_descriptor_bits(descriptor, 0, 0xff) != 0;
}

static inline void machio_descriptor_set_deallocate(void *descriptor, int deallocate) {
    machio_descriptor_set_bits(descriptor, 0, 0xff, deallocate != 0);
}

/* Of a guarded port descriptor. */
static inline mach_msg_guard_flags_t machio_descriptor_flags(const void *descriptor) {
    return machio_descriptor_bits(descriptor, 0, 0xffff);
}

static inline void machio_descriptor_set_flags(void *descriptor, mach_msg_guard_flags_t flags) {
    machio_descriptor_set_bits(descriptor, 0, 0xffff, flags);
}

/* Where the next descriptor begins: 12 or 16 bytes on; 0 for an unknown type. */
static inline mach_msg_size_t machio_descriptor_size(const void *descriptor) {
    switch (machio_descriptor_type(descriptor)) {
    case MACH_MSG_PORT_DESCRIPTOR:
        return sizeof(mach_msg_port_descriptor_t);
    case MACH_MSG_OOL_DESCRIPTOR:
    case MACH_MSG_OOL_VOLATILE_DESCRIPTOR:
        return sizeof(mach_msg_ool_descriptor_t);
    case MACH_MSG_OOL_PORTS_DESCRIPTOR:
        return sizeof(mach_msg_ool_ports_descriptor_t);
    case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
        return sizeof(mach_msg_guarded_port_descriptor_t);
    default:
        return 0;
    }
}

#endif
