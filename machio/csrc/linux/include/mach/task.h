/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on a task port. */

#ifndef _MACH_TASK_H_
#define _MACH_TASK_H_

#include <mach/kern_return.h>
#include <mach/mach_types.h>
#include <mach/task_special_ports.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A send right to the task's TASK_*_PORT, MACH_PORT_NULL if it has none. Ownership: the caller's,
 * one reference more; nothing on failure.
 */
kern_return_t task_get_special_port(task_inspect_t task, int which_port, mach_port_t *special_port);

#ifdef __cplusplus
}
#endif

#endif
