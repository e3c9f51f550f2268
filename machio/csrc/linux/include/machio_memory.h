/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is meant to travel: not one of Mach's calls, but it only saves Mach some copying.
 *
 * A message copies its out-of-line memory once, into a file that its receiver maps. Memory from
 * machio_memory_allocate() is such a file from the start. It goes as it is, no byte copied, in a
 * message whose only out-of-line descriptor that has any names all of it and has deallocate set:
 *
 *     mach_vm_address_t frame;
 *     machio_memory_allocate(size, &frame);
 *     ...
 *     descriptor.address = (void *)frame, descriptor.size = size, descriptor.deallocate = 1;
 *     mach_msg(...);
 *
 * Everything else may be done with it that is done with memory of mach_vm_allocate(), and on macOS,
 * whose kernel moves pages of any memory, it is just that. On Linux it takes a descriptor while the
 * task has it, and a forked child sees it through a view of its own: what the child writes stays
 * with the child, what the parent writes later may or may not show there.
 */

#ifndef MACHIO_MEMORY_H
#define MACHIO_MEMORY_H

#include <mach/mach.h>

/*
 * Pages of zeros. Ownership: they are the caller's, and go by vm_deallocate(), by mach_msg(), and
 * no other way. KERN_INVALID_ARGUMENT: too large; KERN_NO_SPACE; KERN_RESOURCE_SHORTAGE.
 */
kern_return_t machio_memory_allocate(mach_vm_size_t size, mach_vm_address_t *address);

#endif
