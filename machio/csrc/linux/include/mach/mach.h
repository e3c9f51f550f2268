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
#include <mach/thread_act.h>
#include <mach/thread_policy.h>
#include <mach/vm_map.h>
#include <mach/vm_param.h>
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

/*
 * Receives requests of up to max_size bytes from rcv_name, a port or set, has demux fill a reply
 * for each, and sends it; until a receive fails, which is returned. A RetCode of MIG_NO_REPLY sends
 * nothing; another but KERN_SUCCESS destroys the request. Ownership: the rights in a request are
 * demux's, those in a reply are gone with it, sent or not.
 */
mach_msg_return_t mach_msg_server(boolean_t (*demux)(mach_msg_header_t *, mach_msg_header_t *),
                                  mach_msg_size_t max_size, mach_port_t rcv_name,
                                  mach_msg_options_t options);

/* The same for one request. */
mach_msg_return_t mach_msg_server_once(boolean_t (*demux)(mach_msg_header_t *, mach_msg_header_t *),
                                       mach_msg_size_t max_size, mach_port_t rcv_name,
                                       mach_msg_options_t options);

#ifdef __cplusplus
}
#endif

#endif
