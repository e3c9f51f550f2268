/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that on macOS are traps into the kernel, as distinct from messages to the task port. */

#ifndef _MACH_MACH_TRAPS_H_
#define _MACH_MACH_TRAPS_H_

#include <mach/kern_return.h>
#include <mach/port.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A new receive right, or MACH_PORT_NULL. Ownership: the caller's, released with
 * mach_port_mod_refs(RECEIVE, -1). */
mach_port_name_t mach_reply_port(void);

/* The task port once more. Ownership: as mach_task_self(). */
mach_port_name_t task_self_trap(void);

/* The pid of the task that the send right t stands for, while it lives. Ownership: t stays the
 * caller's. */
kern_return_t pid_for_task(mach_port_name_t t, int *x);

#ifdef __cplusplus
}
#endif

#endif
