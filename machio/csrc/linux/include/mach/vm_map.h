/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory by pages, with pointer-sized addresses: what out-of-line data is allocated from and given
 * back to. See <mach/mach_vm.h> for the same with 64-bit addresses.
 */

#ifndef _MACH_VM_MAP_H_
#define _MACH_VM_MAP_H_

#include <mach/kern_return.h>
#include <mach/vm_statistics.h>
#include <mach/vm_types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Zero-filled memory, size rounded up to pages; size 0 gives address 0. Ownership: the caller's,
 * until vm_deallocate() or until it goes out in a message with deallocate set.
 */
kern_return_t vm_allocate(vm_map_t target_task, vm_address_t *address, vm_size_t size, int flags);

/* Removes every page that [address, address + size) touches; holes are no error. Ownership: gone.
 */
kern_return_t vm_deallocate(vm_map_t target_task, vm_address_t address, vm_size_t size);

#ifdef __cplusplus
}
#endif

#endif
