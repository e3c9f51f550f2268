/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on the host port: types only, so far. */

#ifndef _MACH_MACH_HOST_H_
#define _MACH_MACH_HOST_H_

#include <mach/mach_types.h>
#include <mach/message.h>

#endif
