/* SPDX-License-Identifier: Apache-2.0 */
/* The size of a page, known at run time only, and rounding to it. */

#ifndef _VM_PAGE_SIZE_H_
#define _VM_PAGE_SIZE_H_

#include <mach/vm_types.h>

#ifdef __cplusplus
extern "C" {
#endif

extern vm_size_t vm_page_size;

#ifdef __cplusplus
}
#endif

#define vm_page_mask (vm_page_size - 1)
#define trunc_page(x) ((x) & ~vm_page_mask)
#define round_page(x) trunc_page((x) + vm_page_mask)
#define mach_vm_trunc_page(x) ((mach_vm_offset_t)(x) & ~((mach_vm_offset_t)vm_page_mask))
#define mach_vm_round_page(x) mach_vm_trunc_page((mach_vm_offset_t)(x) + vm_page_mask)

#endif
