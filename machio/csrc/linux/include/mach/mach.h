/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of Mach in one include: types, ports, messages, notifications, tasks, memory, MIG. What needs
 * an include of its own: <mach/mach_vm.h>, <mach/mach_time.h>, <servers/bootstrap.h>,
 * <sys/event.h>, <bsm/libbsm.h>.
 */

#ifndef _MACH_H_
#define _MACH_H_

#include <mach/mach_error.h>
#include <mach/mach_host.h>
#include <mach/mach_init.h>
#include <mach/mach_port.h>
#include <mach/mach_traps.h>
#include <mach/mach_types.h>
#include <mach/message.h>
#include <mach/mig.h>
#include <mach/mig_errors.h>
#include <mach/ndr.h>
#include <mach/notify.h>
#include <mach/std_types.h>
#include <mach/task.h>
#include <mach/thread_policy.h>
#include <mach/vm_map.h>
#include <mach/vm_page_size.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sends msg, msgh_size bytes of it, and waits for room. Ownership: as mach_msg(). */
mach_msg_return_t mach_msg_send(mach_msg_header_t *msg);

/* Receives from msgh_local_port into msg, which has room for msgh_size bytes. Ownership: as
 * mach_msg(). */
mach_msg_return_t mach_msg_receive(mach_msg_header_t *msg);

/*
 * Releases every right and all out-of-line memory of a received or not yet sent message, but not
 * the right in msgh_local_port. Ownership: all of it is gone afterwards; the buffer itself stays
 * the caller's.
 */
void mach_msg_destroy(mach_msg_header_t *msg);

#ifdef __cplusplus
}
#endif

#endif
