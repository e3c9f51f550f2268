/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The integers everything else is made of, and the types of addresses and sizes.
 *
 * natural_t and integer_t have four bytes also where a pointer has eight.
 */

#ifndef _MACH_VM_TYPES_H_
#define _MACH_VM_TYPES_H_

#include <stddef.h>
#include <stdint.h>

typedef unsigned int natural_t;
typedef int integer_t;

typedef uintptr_t vm_offset_t;
typedef uintptr_t vm_address_t;
typedef uintptr_t vm_size_t;
typedef vm_offset_t pointer_t; /* MIG's output adds to it */

typedef uint64_t mach_vm_address_t;
typedef uint64_t mach_vm_offset_t;
typedef uint64_t mach_vm_size_t;

/* A task port seen as an address space: a mach_port_t, spelled out because port.h needs this file.
 */
typedef natural_t vm_map_t;
typedef natural_t vm_map_read_t;
typedef natural_t vm_map_inspect_t;

#define VM_MAP_NULL ((vm_map_t)0)

#endif
