/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Regions: memory that can go into a message as it is, since it is a file already. The task maps
 * it shared and keeps the descriptor; a message unmaps it, takes the descriptor for its heap and
 * seals it, which the kernel refuses while anybody could still write to it.
 *
 * A region is forgotten as soon as any of it is unmapped. What is left then is memory like other.
 *
 * Guarded by mio_task.lock. Owns a descriptor for each region.
 */
#include "internal.h"

#include <machio_memory.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct region {
    struct region *next;
    uintptr_t address;
    size_t length;
    int fd;
};

static struct region *regions;

static struct region **find(const void *address, size_t length) {
    for (struct region **at = &regions; *at != NULL; at = &(*at)->next)
        if ((*at)->address == (uintptr_t)address && (*at)->length == length)
            return at;
    return NULL;
}

/* Takes it off the list. Returns its descriptor, which is the caller's. */
static int strike_off(struct region **at) {
    struct region *region = *at;
    int fd = region->fd;
    *at = region->next;
    free(region);
    return fd;
}

bool mio_region_is(const void *address, size_t length) {
    mio_lock();
    bool is = find(address, length) != NULL;
    mio_unlock();
    return is;
}

int mio_region_take(const void *address, size_t length) {
    struct region **at = find(address, length);
    if (at == NULL)
        return -1;
    munmap((void *)(*at)->address, length);
    return strike_off(at);
}

void mio_region_forget(uintptr_t address, size_t length) {
    for (struct region **at = &regions; *at != NULL;)
        if ((*at)->address < address + length && address < (*at)->address + (*at)->length)
            close(strike_off(at));
        else
            at = &(*at)->next;
}

void *mio_region_return(int *fd, size_t length) {
    struct region *region = malloc(sizeof *region);
    if (region == NULL)
        return NULL;
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (memory == MAP_FAILED) {
        free(region);
        return NULL;
    }
    *region = (struct region){regions, (uintptr_t)memory, length, *fd};
    regions = region;
    *fd = -1;
    return memory;
}

kern_return_t machio_memory_allocate(mach_vm_size_t size, mach_vm_address_t *address) {
    mach_vm_size_t length = mach_vm_round_page(size);
    if (length < size)
        return KERN_INVALID_ARGUMENT;
    if (size == 0) {
        *address = 0;
        return KERN_SUCCESS;
    }
    int fd = mio_memfd_new();
    if (fd < 0 || !mio_memfd_resize(fd, length)) {
        if (fd >= 0)
            close(fd);
        return KERN_RESOURCE_SHORTAGE;
    }
    mio_lock();
    void *memory = mio_region_return(&fd, (size_t)length);
    mio_unlock();
    if (memory == NULL) {
        close(fd);
        return KERN_NO_SPACE;
    }
    /* Where huge pages are allowed to files in memory, filling one is several times as fast. */
    madvise(memory, (size_t)length, MADV_HUGEPAGE);
    *address = (mach_vm_address_t)(uintptr_t)memory;
    return KERN_SUCCESS;
}

/* The child's view is private: it neither changes what the parent sends nor keeps it from going. */
void mio_regions_fork_child(void) {
    while (regions != NULL) {
        void *memory = (void *)regions->address;
        size_t length = regions->length;
        int fd = strike_off(&regions);
        if (mmap(memory, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) ==
            MAP_FAILED)
            mprotect(memory, length, PROT_READ);
        close(fd);
    }
}
