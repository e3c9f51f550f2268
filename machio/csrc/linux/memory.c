/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Memory by pages: where out-of-line data comes from and goes back to. vm_allocate() is mmap(),
 * vm_deallocate() munmap(), which is right for mapped memfds (received out-of-line data) too;
 * only regions have to be told of it.
 *
 * Takes the lock for that alone, and has no descriptors: the kernel keeps the address space.
 */
#include "internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What XNU lets a program ask for; what has no meaning here is accepted and does nothing. */
#define KNOWN_FLAGS                                                                      \
    (VM_FLAGS_ANYWHERE | VM_FLAGS_PURGABLE | VM_FLAGS_4GB_CHUNK | VM_FLAGS_RANDOM_ADDR | \
     VM_FLAGS_NO_CACHE | VM_FLAGS_OVERWRITE | VM_FLAGS_SUPERPAGE_MASK | VM_FLAGS_ALIAS_MASK)

vm_size_t vm_page_size = 4096;

__attribute__((constructor)) static void read_page_size(void) {
    long size = sysconf(_SC_PAGESIZE);
    if (size > 0)
        vm_page_size = (vm_size_t)size;
}

static bool is_self(vm_map_t task) {
    return task != MACH_PORT_NULL && task == mach_task_self();
}

static void forget(uintptr_t address, size_t length) {
    mio_lock();
    mio_region_forget(address, length);
    mio_unlock();
}

kern_return_t mach_vm_allocate(vm_map_t target, mach_vm_address_t *address, mach_vm_size_t size,
                               int flags) {
    uintptr_t wanted = 0;
    int how = MAP_PRIVATE | MAP_ANONYMOUS;

    if (!is_self(target))
        return MACH_SEND_INVALID_DEST;
    if ((unsigned)flags & ~(unsigned)KNOWN_FLAGS)
        return KERN_INVALID_ARGUMENT;
    if (size == 0) {
        *address = 0;
        return KERN_SUCCESS;
    }
    mach_vm_size_t rounded = mach_vm_round_page(size);
    if (rounded < size)
        return KERN_INVALID_ARGUMENT;
    if (!(flags & VM_FLAGS_ANYWHERE)) {
        wanted = (uintptr_t)mach_vm_trunc_page(*address);
        how |= flags & VM_FLAGS_OVERWRITE ? MAP_FIXED : MAP_FIXED_NOREPLACE;
        if (wanted == 0)
            return KERN_INVALID_ADDRESS;
        if (flags & VM_FLAGS_OVERWRITE)
            forget(wanted, (size_t)rounded);
    }
    void *memory = mmap((void *)wanted, (size_t)rounded, PROT_READ | PROT_WRITE, how, -1, 0);
    if (memory == MAP_FAILED) {
        if (flags & VM_FLAGS_ANYWHERE || errno == EEXIST)
            return KERN_NO_SPACE;
        return errno == EAGAIN ? KERN_RESOURCE_SHORTAGE : KERN_INVALID_ADDRESS;
    }
    if (wanted != 0 && (uintptr_t)memory != wanted) {
        munmap(memory, (size_t)rounded); /* a kernel before 4.17 took the address for a hint */
        return KERN_NO_SPACE;
    }
    *address = (mach_vm_address_t)(uintptr_t)memory;
    return KERN_SUCCESS;
}

kern_return_t mach_vm_deallocate(vm_map_t target, mach_vm_address_t address, mach_vm_size_t size) {
    if (!is_self(target))
        return MACH_SEND_INVALID_DEST;
    if (size == 0)
        return KERN_SUCCESS;
    if (address + size < address)
        return KERN_INVALID_ARGUMENT;
    mach_vm_address_t first = mach_vm_trunc_page(address);
    mach_vm_address_t end = mach_vm_round_page(address + size);
    if (end < first)
        return KERN_INVALID_ARGUMENT;
    forget((uintptr_t)first, (size_t)(end - first));
    if (munmap((void *)(uintptr_t)first, (size_t)(end - first)) == 0)
        return KERN_SUCCESS;
    return errno == ENOMEM ? KERN_RESOURCE_SHORTAGE : KERN_INVALID_ARGUMENT;
}

kern_return_t vm_allocate(vm_map_t target_task, vm_address_t *address, vm_size_t size, int flags) {
    mach_vm_address_t wide = 0;
    memcpy(&wide, address, sizeof *address); /* MIG's is in a message, at any multiple of 4 */
    kern_return_t kr = mach_vm_allocate(target_task, &wide, size, flags);
    if (kr == KERN_SUCCESS)
        memcpy(address, &wide, sizeof *address);
    return kr;
}

kern_return_t vm_deallocate(vm_map_t target_task, vm_address_t address, vm_size_t size) {
    return mach_vm_deallocate(target_task, address, size);
}
