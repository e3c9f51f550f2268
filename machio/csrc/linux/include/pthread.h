/* SPDX-License-Identifier: Apache-2.0 */
/* The system's <pthread.h>, and what macOS has in it besides. */

#ifndef MACHIO_PTHREAD_H
#define MACHIO_PTHREAD_H

#pragma GCC system_header /* include_next is the compiler's own */
#include_next <pthread.h>

#include <mach/port.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The thread's port, MACH_PORT_NULL if there is none. Ownership: no right moves, the name is the
 * library's. */
mach_port_t pthread_mach_thread_np(pthread_t thread);

/* The thread's number in the whole system, the caller's own for 0. Returns 0, EINVAL without room
 * for it, or ESRCH if the thread has ended. */
int pthread_threadid_np(pthread_t thread, uint64_t *thread_id);

#ifdef __cplusplus
}
#endif

#endif
