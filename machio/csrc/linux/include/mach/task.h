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

/*
 * Sets one of the task's TASK_*_PORT; bootstrap_port does not follow. KERN_NO_ACCESS for those
 * that the system keeps. A forked child inherits the bootstrap and the access port. Ownership: the
 * task has a send right of its own, special_port stays the caller's.
 */
kern_return_t task_set_special_port(task_t task, int which_port, mach_port_t special_port);

/* Facts of a task, its own or another's: <mach/task_info.h>. The count goes in as room and comes
 * out as size. Ownership: no right moves. */
kern_return_t task_info(task_name_t target_task, task_flavor_t flavor, task_info_t task_info_out,
                        mach_msg_type_number_t *task_info_outCnt);

/* What guard exceptions are to do; there are none here. Ownership: no right moves. */
kern_return_t task_get_exc_guard_behavior(task_inspect_t task, task_exc_guard_behavior_t *behavior);
kern_return_t task_set_exc_guard_behavior(task_t task, task_exc_guard_behavior_t behavior);

/*
 * Registers up to TASK_PORT_REGISTER_MAX send rights, which replace the ones before and which a
 * forked child inherits. Ownership: the task has send rights of its own, the caller's stay.
 */
kern_return_t mach_ports_register(task_t target_task, mach_port_array_t init_port_set,
                                  mach_msg_type_number_t init_port_setCnt);

/* Those ports, always TASK_PORT_REGISTER_MAX. Ownership: the array, to be vm_deallocate()d, and a
 * reference for each right in it are the caller's. */
kern_return_t mach_ports_lookup(task_t target_task, mach_port_array_t *init_port_set,
                                mach_msg_type_number_t *init_port_setCnt);

#ifdef __cplusplus
}
#endif

#endif
