/* SPDX-License-Identifier: Apache-2.0 */
/* Pages: see <mach/vm_page_size.h>. */

#ifndef _MACH_VM_PARAM_H_
#define _MACH_VM_PARAM_H_

#include <mach/vm_page_size.h>
#include <mach/vm_types.h>

#ifndef PAGE_SIZE /* some C libraries have it */
#define PAGE_SIZE vm_page_size
#endif
#ifndef PAGE_MASK
#define PAGE_MASK vm_page_mask
#endif

#endif
