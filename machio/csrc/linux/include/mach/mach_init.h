/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ports a task has from the start. After fork() both variables hold the child's own; the
 * parent's names mean nothing there.
 */

#ifndef _MACH_INIT_
#define _MACH_INIT_

#include <mach/mach_traps.h>
#include <mach/mach_types.h>
#include <mach/vm_page_size.h>

#define NAME_SERVER_SLOT 0
#define ENVIRONMENT_SLOT 1
#define SERVICE_SLOT 2
#define MACH_PORTS_SLOTS_USED 3

#ifdef __cplusplus
extern "C" {
#endif

/* A send right to this task. Ownership: stays with the system, is not to be deallocated. */
extern mach_port_t mach_task_self_;
#define mach_task_self() mach_task_self_
#define current_task() mach_task_self()

/* A send right to the calling thread, dead when it ends. Ownership: the caller's, one reference
 * more. */
mach_port_t mach_thread_self(void);

/* A send right to the machine. Ownership: the caller's, one reference more. */
mach_port_t mach_host_self(void);

/* A send right to the bootstrap server, whom <servers/bootstrap.h> calls. Ownership: as
 * mach_task_self_. */
extern mach_port_t bootstrap_port;

/* Whether task names the calling task. Ownership: no right moves. */
boolean_t mach_task_is_self(task_name_t task);

#ifdef __cplusplus
}
#endif

#endif
