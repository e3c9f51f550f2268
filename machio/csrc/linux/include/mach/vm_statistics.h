/* SPDX-License-Identifier: Apache-2.0 */
/* Flags of vm_allocate() and mach_vm_allocate(). */

#ifndef _MACH_VM_STATISTICS_H_
#define _MACH_VM_STATISTICS_H_

#include <stdbool.h>
#include <stdint.h>

#define VM_FLAGS_FIXED 0x00000000    /* at the address given, rounded down to a page */
#define VM_FLAGS_ANYWHERE 0x00000001 /* wherever there is room */
#define VM_FLAGS_PURGABLE 0x00000002
#define VM_FLAGS_4GB_CHUNK 0x00000004
#define VM_FLAGS_RANDOM_ADDR 0x00000008
#define VM_FLAGS_NO_CACHE 0x00000010
#define VM_FLAGS_OVERWRITE 0x00004000
#define VM_FLAGS_SUPERPAGE_MASK 0x00070000
#define VM_FLAGS_RETURN_DATA_ADDR 0x00100000
#define VM_FLAGS_ALIAS_MASK 0xff000000

/* What the memory is for, which tools on a Mac show; on Linux nobody asks. */
#define VM_MAKE_TAG(tag) ((tag) << 24)
#define VM_MEMORY_MALLOC 1
#define VM_MEMORY_MACH_MSG 20
#define VM_MEMORY_STACK 30
#define VM_MEMORY_GUARD 31
#define VM_MEMORY_APPLICATION_SPECIFIC_1 240
#define VM_MEMORY_APPLICATION_SPECIFIC_16 255

#endif
