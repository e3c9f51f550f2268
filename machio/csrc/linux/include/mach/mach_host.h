/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on the host port. */

#ifndef _MACH_MACH_HOST_H_
#define _MACH_MACH_HOST_H_

#include <mach/host_info.h>
#include <mach/kern_return.h>
#include <mach/mach_types.h>
#include <mach/message.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The machine's HOST_BASIC_INFO; the count goes in as room and comes out as size. Ownership: no
 * right moves. */
kern_return_t host_info(host_t host, host_flavor_t flavor, host_info_t host_info_out,
                        mach_msg_type_number_t *host_info_outCnt);

#ifdef __cplusplus
}
#endif

#endif
