/* SPDX-License-Identifier: Apache-2.0 */
/* Memory by pages, with 64-bit addresses: otherwise as <mach/vm_map.h>. */

#ifndef _MACH_MACH_VM_H_
#define _MACH_MACH_VM_H_

#include <mach/kern_return.h>
#include <mach/vm_statistics.h>
#include <mach/vm_types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* As vm_allocate(). Ownership: the caller's. */
kern_return_t mach_vm_allocate(vm_map_t target, mach_vm_address_t *address, mach_vm_size_t size,
                               int flags);

/* As vm_deallocate(). Ownership: gone. */
kern_return_t mach_vm_deallocate(vm_map_t target, mach_vm_address_t address, mach_vm_size_t size);

#ifdef __cplusplus
}
#endif

#endif
