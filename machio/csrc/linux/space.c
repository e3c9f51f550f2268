/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The name table. A name is (index << 8) | generation, as XNU makes them: the low two bits are
 * set, an index that is used again gets the next generation, and the index freed last is the
 * first to be handed out. Entries live in chunks that never move, so a pointer to an entry stays
 * good until its name is freed. Guarded by mio_task.lock; owns no descriptors.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define INDEX(name) ((name) >> 8)
#define GEN(name) ((uint8_t)((name) & 0xff))
#define MAKE(index, gen) (((mach_port_name_t)(index) << 8) | (gen))
#define GEN_STEP 4
#define GEN_BEFORE_1ST 0xff /* the next one is 0x03 */

static struct mio_entry *entry_at(uint32_t index) {
    return &mio_task.chunks[index / MIO_CHUNK][index % MIO_CHUNK];
}

/* Makes indices up to and including `index` exist, the lowest first in line. */
static kern_return_t grow(uint32_t index) {
    uint32_t start = mio_task.table_size ? mio_task.table_size : 1;
    uint32_t end = (index / MIO_CHUNK + 1) * MIO_CHUNK;

    for (uint32_t c = mio_task.table_size / MIO_CHUNK; c < end / MIO_CHUNK; c++) {
        if (mio_task.chunks[c] == NULL)
            mio_task.chunks[c] = calloc(MIO_CHUNK, sizeof(struct mio_entry));
        if (mio_task.chunks[c] == NULL)
            return KERN_RESOURCE_SHORTAGE;
    }
    uint32_t head = mio_task.free_head;
    for (uint32_t i = end; i-- > start;) {
        struct mio_entry *entry = entry_at(i);
        entry->gen = GEN_BEFORE_1ST;
        entry->next_free = head;
        head = i;
    }
    mio_task.free_head = head;
    mio_task.table_size = end;
    return KERN_SUCCESS;
}

struct mio_entry *mio_space_lookup(mach_port_name_t name) {
    uint32_t index = INDEX(name);
    if (index == 0 || index >= mio_task.table_size)
        return NULL;
    struct mio_entry *entry = entry_at(index);
    return entry->type != MACH_PORT_TYPE_NONE && entry->gen == GEN(name) ? entry : NULL;
}

static void claim(struct mio_entry *entry, uint8_t gen) {
    memset(entry, 0, sizeof *entry);
    entry->gen = gen;
}

kern_return_t mio_space_alloc(mach_port_name_t *ret_name, struct mio_entry **ret_entry) {
    if (mio_task.free_head == 0) {
        if (mio_task.table_size == MIO_CHUNKS * MIO_CHUNK)
            return KERN_NO_SPACE;
        kern_return_t kr = grow(mio_task.table_size);
        if (kr != KERN_SUCCESS)
            return kr;
    }
    uint32_t index = mio_task.free_head;
    struct mio_entry *entry = entry_at(index);
    mio_task.free_head = entry->next_free;
    claim(entry, (uint8_t)(entry->gen + GEN_STEP));
    *ret_name = MAKE(index, entry->gen);
    *ret_entry = entry;
    return KERN_SUCCESS;
}

kern_return_t mio_space_alloc_name(mach_port_name_t name, struct mio_entry **ret_entry) {
    uint32_t index = INDEX(name);
    if (!MACH_PORT_VALID(name))
        return KERN_INVALID_VALUE;
    if (index >= MIO_CHUNKS * MIO_CHUNK)
        return KERN_NO_SPACE;
    if ((name & 3) != 3)
        return KERN_INVALID_VALUE;
    if (index == 0)
        return KERN_FAILURE;
    if (index >= mio_task.table_size) {
        kern_return_t kr = grow(index);
        if (kr != KERN_SUCCESS)
            return kr;
    }
    struct mio_entry *entry = entry_at(index);
    if (entry->type != MACH_PORT_TYPE_NONE)
        return entry->gen == GEN(name) ? KERN_NAME_EXISTS : KERN_FAILURE;

    uint32_t *link = &mio_task.free_head;
    while (*link != index)
        link = &entry_at(*link)->next_free;
    *link = entry->next_free;
    claim(entry, GEN(name));
    *ret_entry = entry;
    return KERN_SUCCESS;
}

void mio_space_free(mach_port_name_t name) {
    struct mio_entry *entry = entry_at(INDEX(name));
    claim(entry, entry->gen);
    entry->next_free = mio_task.free_head;
    mio_task.free_head = INDEX(name);
}

mach_port_name_t mio_space_next(uint32_t *cursor, struct mio_entry **ret_entry) {
    for (uint32_t i = *cursor ? *cursor : 1; i < mio_task.table_size; i++) {
        struct mio_entry *entry = entry_at(i);
        if (entry->type == MACH_PORT_TYPE_NONE)
            continue;
        *cursor = i + 1;
        *ret_entry = entry;
        return MAKE(i, entry->gen);
    }
    return MACH_PORT_NULL;
}
