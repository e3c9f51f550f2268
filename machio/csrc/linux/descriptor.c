/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The descriptors at the beginning of a complex body, as far as they are bytes: they are walked
 * one by one, for they are 12 or 16 bytes long, and checked alike when a program sends them and
 * when a peer did.
 *
 * No lock, no descriptors of files.
 */
#include "internal.h"

#include <string.h>

#define SHORTEST sizeof(mach_msg_type_descriptor_t)
#define PORTS_MAX 16383u        /* rights in one message's descriptors */
#define PHYSICAL_SMALL 32768u   /* copies up to that size do not count ... */
#define PHYSICAL_TOTAL 7340032u /* ... towards this */
#define KERNEL_PORT_SIZE UINT64_C(8)

size_t mio_descriptor_size(const mach_msg_descriptor_t *descriptor) {
    switch (descriptor->type.type) {
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

mach_msg_descriptor_t *mio_descriptor_first(void *body) {
    return (void *)((char *)body + sizeof(mach_msg_body_t));
}

mach_msg_descriptor_t *mio_descriptor_next(mach_msg_descriptor_t *descriptor) {
    return (void *)((char *)descriptor + mio_descriptor_size(descriptor));
}

unsigned mio_descriptor_count(const void *body) {
    return ((const mach_msg_body_t *)body)->msgh_descriptor_count;
}

static mach_msg_return_t check_sizes(const void *body, size_t size) {
    const char *at = (const char *)body + sizeof(mach_msg_body_t);
    size_t left = size - sizeof(mach_msg_body_t);
    for (unsigned i = 0; i < mio_descriptor_count(body); i++) {
        if (left < SHORTEST)
            return MACH_SEND_MSG_TOO_SMALL;
        size_t own = mio_descriptor_size((const mach_msg_descriptor_t *)(const void *)at);
        if (own == 0)
            return MACH_SEND_INVALID_TYPE;
        if (own > left)
            return MACH_SEND_MSG_TOO_SMALL;
        at += own;
        left -= own;
    }
    return MACH_MSG_SUCCESS;
}

static bool is_guard_valid(const mach_msg_guarded_port_descriptor_t *guarded) {
    return guarded->disposition == MACH_MSG_TYPE_MOVE_RECEIVE && guarded->flags != 0 &&
           guarded->flags <= MACH_MSG_GUARD_FLAGS_MASK &&
           (!(guarded->flags & MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND) || guarded->context == 0);
}

mach_msg_return_t mio_layout_of(const void *body, size_t size, struct mio_layout *ret) {
    uint64_t rights = 0, physical = 0;
    *ret = (struct mio_layout){0};
    if (size < sizeof(mach_msg_body_t) ||
        mio_descriptor_count(body) > (size - sizeof(mach_msg_body_t)) / SHORTEST)
        return MACH_SEND_MSG_TOO_SMALL;
    mach_msg_return_t mr = check_sizes(body, size);
    if (mr != MACH_MSG_SUCCESS)
        return mr;
    ret->descriptors = mio_descriptor_count(body);
    mach_msg_descriptor_t *descriptor = mio_descriptor_first((void *)(uintptr_t)body);
    for (unsigned i = 0; i < ret->descriptors; i++, descriptor = mio_descriptor_next(descriptor)) {
        const mach_msg_ool_descriptor_t *memory = &descriptor->out_of_line;
        switch (descriptor->type.type) {
        case MACH_MSG_PORT_DESCRIPTOR:
            rights++;
            break;
        case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
            if (!is_guard_valid(&descriptor->guarded_port))
                return MACH_SEND_INVALID_TYPE;
            rights++;
            break;
        case MACH_MSG_OOL_PORTS_DESCRIPTOR:
            rights += descriptor->ool_ports.count;
            ret->arrays += descriptor->ool_ports.count;
            break;
        default:
            if (memory->copy != MACH_MSG_PHYSICAL_COPY && memory->copy != MACH_MSG_VIRTUAL_COPY)
                return MACH_SEND_INVALID_TYPE;
            if (memory->copy == MACH_MSG_PHYSICAL_COPY && memory->size > PHYSICAL_SMALL)
                physical += mach_vm_round_page((mach_vm_size_t)memory->size);
            ret->heap += mach_vm_round_page((mach_vm_size_t)memory->size);
        }
        if (rights > UINT32_MAX)
            return MACH_SEND_TOO_LARGE;
    }
    if (rights > PORTS_MAX)
        return MACH_SEND_TOO_LARGE;
    if (physical > 0 && physical + KERNEL_PORT_SIZE * rights > PHYSICAL_TOTAL)
        return MACH_MSG_VM_KERNEL;
    ret->rights = (unsigned)rights;
    return MACH_MSG_SUCCESS;
}

void mio_descriptors_blank(void *body) {
    mach_msg_descriptor_t *descriptor = mio_descriptor_first(body);
    for (unsigned i = mio_descriptor_count(body); i > 0;
         i--, descriptor = mio_descriptor_next(descriptor)) {
        switch (descriptor->type.type) {
        case MACH_MSG_PORT_DESCRIPTOR:
            descriptor->port.name = MACH_PORT_NULL;
            break;
        case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
            descriptor->guarded_port.context = 0;
            descriptor->guarded_port.name = MACH_PORT_NULL;
            break;
        case MACH_MSG_OOL_PORTS_DESCRIPTOR:
            descriptor->ool_ports.address = NULL;
            break;
        default:
            descriptor->out_of_line.address = NULL;
        }
    }
}
