/* SPDX-License-Identifier: Apache-2.0 */
/* Pages: see <mach/vm_page_size.h>. */

#ifndef _MACH_VM_PARAM_H_
#define _MACH_VM_PARAM_H_

#include <mach/vm_page_size.h>
#include <mach/vm_types.h>

#endif
