/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * A body from a peer says what its frame holds: as many rights, of the kinds that its descriptors
 * name, and as much out-of-line memory.
 *
 * No lock, nothing owned.
 */
#include "wire.h"

#include <string.h>

/* A file port's send right is a send right like any other. */
static uint8_t kind_at(const uint8_t *rights, unsigned i) {
    struct mio_wire_right record;
    memcpy(&record, rights + i * sizeof record, sizeof record);
    return record.kind == MIO_WIRE_FILE ? MIO_RIGHT_SEND : record.kind;
}

/* An array's elements are what its descriptor says, or nothing. */
static bool check_array(const uint8_t *rights, unsigned first,
                        const mach_msg_ool_ports_descriptor_t *array) {
    for (unsigned i = first; i < first + array->count; i++) {
        switch (kind_at(rights, i)) {
        case MIO_RIGHT_SEND:
            if (array->disposition != MACH_MSG_TYPE_PORT_SEND)
                return false;
            break;
        case MIO_RIGHT_ONCE:
            if (array->disposition != MACH_MSG_TYPE_PORT_SEND_ONCE)
                return false;
            break;
        case MIO_RIGHT_RECEIVE:
            if (array->disposition != MACH_MSG_TYPE_PORT_RECEIVE)
                return false;
            break;
        default:
            break;
        }
    }
    return true;
}

/* Each descriptor has the rights that it should have. */
static bool check_kinds(const uint8_t *rights, uint8_t *body) {
    unsigned right = 1, kind; /* number 0 is the reply right */
    mach_msg_descriptor_t *descriptor = mio_descriptor_first(body);
    for (unsigned i = mio_descriptor_count(body); i > 0; i--) {
        switch (descriptor->type.type) {
        case MACH_MSG_PORT_DESCRIPTOR:
            right++;
            break;
        case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
            kind = kind_at(rights, right++);
            if (kind == MIO_RIGHT_SEND || kind == MIO_RIGHT_ONCE)
                return false;
            break;
        case MACH_MSG_OOL_PORTS_DESCRIPTOR:
            if (!check_array(rights, right, &descriptor->ool_ports))
                return false;
            right += descriptor->ool_ports.count;
            break;
        default:
            break;
        }
        descriptor = mio_descriptor_next(descriptor);
    }
    return true;
}

bool mio_wire_check_body(const struct mio_wire_head *head, const uint8_t *rights, int heap,
                         uint8_t *body) {
    struct mio_layout layout = {0};
    if (head->flags & MIO_HEAD_COMPLEX &&
        mio_layout_of(body, head->size - sizeof(mach_msg_header_t), &layout) != MACH_MSG_SUCCESS)
        return false;
    if (layout.rights != head->nrights - 1u || (layout.heap > 0) != (heap >= 0) ||
        (layout.heap > 0 && !mio_memfd_is_sealed(heap, layout.heap)))
        return false;
    if (!(head->flags & MIO_HEAD_COMPLEX))
        return true;
    mio_descriptors_blank(body);
    return check_kinds(rights, body);
}
