/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What a body's descriptors stand for, on its way into a message and out of it.
 *
 * Out-of-line memory is copied once, by its sender, into one file for the whole message, each
 * piece at the beginning of a page; the file is sealed, and whoever receives the message maps it
 * privately, which copies a page when it is written to. Within one task it is the same. A region
 * (region.c) that is all the memory of a message is that file already, and is not copied.
 *
 * Because a gigabyte takes its time, memory is read before the lock is taken and before anything
 * is decided (gather); what could not be read counts when its descriptor's turn comes. The file is
 * sealed last: a message that finds no room gives it back as a region, to be sent again.
 *
 * Guarded by mio_task.lock, gathering and sealing apart. Owns the file until the message does.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- memory ---------------------------------------------------------------------------------- */

/* Where memory is to be read from, and how much of it. */
static const void *source_of(const mach_msg_descriptor_t *descriptor, size_t *ret_size) {
    switch (descriptor->type.type) {
    case MACH_MSG_OOL_DESCRIPTOR:
    case MACH_MSG_OOL_VOLATILE_DESCRIPTOR:
        *ret_size = descriptor->out_of_line.size;
        return descriptor->out_of_line.address;
    case MACH_MSG_OOL_PORTS_DESCRIPTOR:
        *ret_size = descriptor->ool_ports.count * sizeof(mach_port_name_t);
        return descriptor->ool_ports.address;
    default:
        *ret_size = 0;
        return NULL;
    }
}

/* One piece into the file; an array of names through it, for a bad address is no signal then. */
static kern_return_t gather_one(mach_msg_descriptor_t *descriptor, uint64_t heap_size,
                                uint64_t *offset, mach_port_name_t **names,
                                struct mio_gathered *gathered) {
    size_t size;
    const void *from = source_of(descriptor, &size);
    bool is_array = descriptor->type.type == MACH_MSG_OOL_PORTS_DESCRIPTOR;
    if (size == 0)
        return KERN_SUCCESS;
    if (gathered->heap < 0 && (gathered->heap = mio_memfd_new()) < 0)
        return KERN_RESOURCE_SHORTAGE;
    uint64_t at = is_array ? heap_size : *offset;
    kern_return_t kr = mio_memfd_write(gathered->heap, from, size, at);
    if (kr != KERN_SUCCESS)
        return kr;
    if (!is_array) {
        *offset += round_page(size);
        return KERN_SUCCESS;
    }
    if (!mio_memfd_read(gathered->heap, *names, size, at))
        return KERN_RESOURCE_SHORTAGE;
    *names += size / sizeof **names;
    return KERN_SUCCESS;
}

/* Whether a message's memory is one region, and goes with it. */
static bool is_region(void *body, const struct mio_layout *layout) {
    mach_msg_descriptor_t *descriptor = mio_descriptor_first(body);
    size_t size;
    if (layout->heap == 0 || layout->arrays > 0)
        return false;
    while (source_of(descriptor, &size), size == 0)
        descriptor = mio_descriptor_next(descriptor);
    const mach_msg_ool_descriptor_t *memory = &descriptor->out_of_line;
    return memory->deallocate && round_page((uint64_t)memory->size) == layout->heap &&
           mio_region_is(memory->address, (size_t)layout->heap);
}

bool mio_gather(void *body, const struct mio_layout *layout, struct mio_gathered *ret) {
    uint64_t offset = 0;
    *ret = (struct mio_gathered){.heap = -1, .size = layout->heap, .failed = layout->descriptors};
    if (is_region(body, layout)) {
        ret->region = true;
        return true;
    }
    if (layout->arrays > 0 && (ret->names = malloc(layout->arrays * sizeof *ret->names)) == NULL)
        return false;
    mach_port_name_t *names = ret->names;
    mach_msg_descriptor_t *descriptor = layout->descriptors > 0 ? mio_descriptor_first(body) : NULL;
    for (unsigned i = 0; i < layout->descriptors; i++) {
        ret->why = gather_one(descriptor, layout->heap, &offset, &names, ret);
        if (ret->why != KERN_SUCCESS) {
            ret->failed = i;
            break;
        }
        descriptor = mio_descriptor_next(descriptor);
    }
    if (ret->heap >= 0 && (layout->heap == 0 || ret->why != KERN_SUCCESS)) {
        close(ret->heap);
        ret->heap = -1;
    } else if (ret->heap >= 0 && !mio_memfd_resize(ret->heap, layout->heap)) {
        ret->failed = 0; /* no message goes without its memory */
        ret->why = KERN_RESOURCE_SHORTAGE;
    }
    return true;
}

void mio_gathered_free(struct mio_gathered *gathered) {
    if (gathered->heap >= 0)
        close(gathered->heap);
    gathered->heap = -1;
    free(gathered->names);
    gathered->names = NULL;
}

/* *ret: pages of the receiver's own. 0, or what was short. */
static mach_msg_return_t map(int fd, uint64_t offset, size_t size, void **ret) {
    *ret = NULL;
    if (size == 0)
        return 0;
    int how = fd >= 0 ? MAP_PRIVATE : MAP_PRIVATE | MAP_ANONYMOUS;
    void *memory =
        mmap(NULL, round_page(size), PROT_READ | PROT_WRITE, how, fd, fd >= 0 ? (off_t)offset : 0);
    if (memory == MAP_FAILED)
        return errno == ENOMEM ? MACH_MSG_VM_SPACE : MACH_MSG_VM_KERNEL;
    *ret = memory;
    return 0;
}

/* ---- into a message -------------------------------------------------------------------------- */

struct taking {
    struct mio_kmsg *kmsg;
    unsigned right;                /* rights taken so far */
    const mach_port_name_t *names; /* of the arrays that are to come */
    bool region;                   /* see mio_gathered */
    bool deallocated;              /* memory of an earlier descriptor is gone */
};

static mach_msg_return_t take_right(struct taking *taking, mach_port_name_t name,
                                    mach_msg_type_name_t disposition) {
    kern_return_t kr =
        mio_right_copyin_unasked(name, disposition, &taking->kmsg->rights[taking->right++]);
    return kr == KERN_SUCCESS             ? MACH_MSG_SUCCESS
           : kr == KERN_RESOURCE_SHORTAGE ? MACH_SEND_NO_BUFFER
                                          : MACH_SEND_INVALID_RIGHT;
}

static mach_msg_return_t take_guarded(struct taking *taking,
                                      const mach_msg_guarded_port_descriptor_t *guarded) {
    struct mio_entry *entry = mio_entry_get(guarded->name);
    if (entry != NULL && entry->type & MACH_PORT_TYPE_RECEIVE) {
        const struct mio_port *port = entry->port;
        bool unguarded = !port->guarded && guarded->context == 0 &&
                         guarded->flags & MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND;
        if (!unguarded && (!port->guarded || port->context != guarded->context))
            return MACH_SEND_INVALID_RIGHT;
    }
    return take_right(taking, guarded->name, guarded->disposition);
}

/* The sender's own memory goes, if it said so. KERN_INVALID_ADDRESS: it went before. */
static mach_msg_return_t give_up(struct taking *taking, const void *address, size_t size,
                                 bool deallocate) {
    uintptr_t first = mach_vm_trunc_page((uintptr_t)address);
    size_t length = (size_t)(round_page((uintptr_t)address + size) - first);
    if (size == 0)
        return MACH_MSG_SUCCESS;
    if (taking->deallocated && msync((void *)first, length, MS_ASYNC) != 0)
        return MACH_SEND_INVALID_MEMORY;
    if (deallocate) {
        mio_region_forget(first, length);
        munmap((void *)first, length);
        taking->deallocated = true;
    }
    return MACH_MSG_SUCCESS;
}

static mach_msg_return_t take_array(struct taking *taking, mach_msg_ool_ports_descriptor_t *array) {
    mach_msg_return_t mr =
        give_up(taking, array->address, array->count * sizeof *taking->names, array->deallocate);
    for (unsigned i = 0; i < array->count && mr == MACH_MSG_SUCCESS; i++)
        mr = take_right(taking, taking->names[i], array->disposition);
    taking->names += array->count;
    array->disposition = (uint8_t)mio_received_as(array->disposition);
    array->copy = MACH_MSG_VIRTUAL_COPY;
    array->deallocate = 1;
    return mr;
}

/* All of a region becomes the heap; what lies behind `size` is not sent. */
static mach_msg_return_t take_region(struct mio_kmsg *kmsg, const void *address, size_t size) {
    static const char zeros[1 << 16];
    size_t rest = (size_t)kmsg->unsealed - size;
    kmsg->heap = mio_region_take(address, (size_t)kmsg->unsealed);
    if (kmsg->heap < 0) /* another thread was faster */
        return MACH_SEND_INVALID_MEMORY;
    if (rest > 0 && mio_memfd_write(kmsg->heap, zeros, rest, size) != KERN_SUCCESS)
        return MACH_MSG_VM_KERNEL;
    return MACH_MSG_SUCCESS;
}

static mach_msg_return_t take_descriptor(struct taking *taking, mach_msg_descriptor_t *descriptor) {
    mach_msg_ool_descriptor_t *memory = &descriptor->out_of_line;
    switch (descriptor->type.type) {
    case MACH_MSG_PORT_DESCRIPTOR:
        return take_right(taking, descriptor->port.name, descriptor->port.disposition);
    case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
        return take_guarded(taking, &descriptor->guarded_port);
    case MACH_MSG_OOL_PORTS_DESCRIPTOR:
        return take_array(taking, &descriptor->ool_ports);
    default:
        if (taking->region && memory->size > 0)
            return take_region(taking->kmsg, memory->address, memory->size);
        return give_up(taking, memory->address, memory->size, memory->deallocate);
    }
}

mach_msg_return_t mio_body_take(const void *body, struct mio_gathered *gathered,
                                struct mio_kmsg *kmsg) {
    struct taking taking = {.kmsg = kmsg, .names = gathered->names, .region = gathered->region};
    mach_msg_return_t mr = MACH_MSG_SUCCESS;
    memcpy(kmsg->body, body, kmsg->size - sizeof(mach_msg_header_t));
    kmsg->heap = gathered->heap;
    kmsg->unsealed = gathered->size;
    gathered->heap = -1;
    if (!kmsg->complex)
        return MACH_MSG_SUCCESS;
    mach_msg_descriptor_t *descriptor = mio_descriptor_first(kmsg->body);
    unsigned count = mio_descriptor_count(kmsg->body);
    for (unsigned i = 0; i < count && mr == MACH_MSG_SUCCESS; i++) {
        if (i == gathered->failed)
            return gathered->why == KERN_INVALID_ADDRESS ? MACH_SEND_INVALID_MEMORY
                                                         : MACH_MSG_VM_KERNEL;
        mr = take_descriptor(&taking, descriptor);
        descriptor = mio_descriptor_next(descriptor);
    }
    return mr;
}

bool mio_body_seal(struct mio_kmsg *kmsg) {
    if (!mio_memfd_seal(kmsg->heap)) { /* somebody has it mapped: a child that was cloned, say */
        int copy = mio_memfd_sealed_copy(kmsg->heap, kmsg->unsealed);
        if (copy < 0)
            return false;
        close(kmsg->heap);
        kmsg->heap = copy;
    }
    kmsg->unsealed = 0;
    return true;
}

/* ---- out of a message ------------------------------------------------------------------------ */

struct giving {
    struct mio_kmsg *kmsg;
    enum mio_giving how;
    mach_port_context_t guard; /* the address of the buffer */
    struct mio_right *right;   /* the next one */
    uint64_t offset;           /* of the next piece of memory */
};

mach_msg_return_t mio_right_give(struct mio_right *right, mach_port_name_t *ret_name) {
    kern_return_t kr = mio_right_copyout(right, ret_name);
    if (kr == KERN_SUCCESS)
        return 0;
    mio_right_destroy(right);
    *ret_name = MACH_PORT_NULL;
    return kr == KERN_NO_SPACE ? MACH_MSG_IPC_SPACE : MACH_MSG_IPC_KERNEL;
}

static mach_msg_return_t give_port(struct giving *giving, mach_msg_port_descriptor_t *descriptor) {
    mach_port_name_t name;
    descriptor->disposition = (uint8_t)giving->right->disposition;
    mach_msg_return_t trouble = mio_right_give(giving->right++, &name);
    descriptor->name = name;
    return trouble;
}

static mach_msg_return_t give_guarded(struct giving *giving,
                                      mach_msg_guarded_port_descriptor_t *guarded) {
    struct mio_right *right = giving->right++;
    mach_port_name_t name = MACH_PORT_NULL;
    guarded->context = 0;
    guarded->name = MACH_PORT_NULL;
    guarded->disposition = (uint8_t)right->disposition;
    if (giving->how == MIO_GIVE) { /* the receiver did not say that it knows of guards */
        mio_right_destroy(right);
        return 0;
    }
    bool guard =
        right->kind == MIO_RIGHT_RECEIVE && guarded->flags & MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE;
    mach_msg_return_t trouble = mio_right_give(right, &name);
    guarded->name = name;
    if (guard && trouble == 0) {
        struct mio_port *port = mio_space_lookup(name)->port;
        port->guarded = true;
        port->context = guarded->context = giving->guard;
        port->immovable = giving->how == MIO_GIVE_GUARDED;
        guarded->flags = MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE;
    }
    return trouble;
}

static mach_msg_return_t give_array(struct giving *giving, mach_msg_ool_ports_descriptor_t *array) {
    void *memory;
    mach_msg_return_t trouble = map(-1, 0, array->count * sizeof(mach_port_name_t), &memory);
    mach_port_name_t *names = memory;
    for (unsigned i = 0; i < array->count; i++, giving->right++) {
        if (names != NULL)
            trouble |= mio_right_give(giving->right, &names[i]);
        else
            mio_right_destroy(giving->right);
    }
    array->address = memory;
    array->copy = MACH_MSG_VIRTUAL_COPY;
    array->deallocate = 1;
    if (memory == NULL)
        array->count = 0;
    return trouble;
}

static mach_msg_return_t give_memory(struct giving *giving, mach_msg_ool_descriptor_t *descriptor) {
    struct mio_kmsg *kmsg = giving->kmsg;
    mach_msg_return_t trouble = 0;
    void *memory = NULL;
    if (descriptor->size > 0 && round_page((uint64_t)descriptor->size) == kmsg->unsealed)
        memory = mio_region_return(&kmsg->heap, (size_t)kmsg->unsealed); /* all there is */
    if (memory == NULL)
        trouble = map(kmsg->heap, giving->offset, descriptor->size, &memory);
    giving->offset += round_page((uint64_t)descriptor->size);
    descriptor->address = memory;
    descriptor->deallocate = descriptor->copy == MACH_MSG_VIRTUAL_COPY;
    if (memory == NULL)
        descriptor->size = 0;
    return trouble;
}

mach_msg_return_t mio_body_give(struct mio_kmsg *kmsg, mach_msg_header_t *msg,
                                enum mio_giving how) {
    struct giving giving = {.kmsg = kmsg,
                            .how = how,
                            .guard = (mach_port_context_t)(uintptr_t)msg,
                            .right = kmsg->rights};
    mach_msg_return_t trouble = 0;
    void *body = msg + 1;
    memcpy(body, kmsg->body, kmsg->size - sizeof *msg);
    if (!kmsg->complex)
        return 0;
    mach_msg_descriptor_t *descriptor = mio_descriptor_first(body);
    for (unsigned i = mio_descriptor_count(body); i > 0; i--) {
        switch (descriptor->type.type) {
        case MACH_MSG_PORT_DESCRIPTOR:
            trouble |= give_port(&giving, &descriptor->port);
            break;
        case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
            trouble |= give_guarded(&giving, &descriptor->guarded_port);
            break;
        case MACH_MSG_OOL_PORTS_DESCRIPTOR:
            trouble |= give_array(&giving, &descriptor->ool_ports);
            break;
        default:
            trouble |= give_memory(&giving, &descriptor->out_of_line);
        }
        descriptor = mio_descriptor_next(descriptor);
    }
    return trouble;
}
