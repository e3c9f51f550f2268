/* SPDX-License-Identifier: Apache-2.0 */
/* The type of a thread's registers. Linux gives no access to them: programs only hand them on. */

#ifndef _MACH_THREAD_STATUS_H_
#define _MACH_THREAD_STATUS_H_

#include <mach/vm_types.h>

typedef natural_t *thread_state_t; /* an array; the flavor tells how long */

typedef int thread_state_flavor_t;
typedef thread_state_flavor_t *thread_state_flavor_array_t;

#endif
