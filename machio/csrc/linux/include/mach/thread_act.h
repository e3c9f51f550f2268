/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on a thread's port. */

#ifndef _MACH_THREAD_ACT_H_
#define _MACH_THREAD_ACT_H_

#include <mach/kern_return.h>
#include <mach/mach_types.h>
#include <mach/message.h>
#include <mach/thread_policy.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Checks its arguments and changes nothing: Linux schedules as it sees fit. Ownership: no right
 * moves. */
kern_return_t thread_policy_set(thread_act_t thread, thread_policy_flavor_t flavor,
                                thread_policy_t policy_info, mach_msg_type_number_t policy_infoCnt);

#ifdef __cplusplus
}
#endif

#endif
