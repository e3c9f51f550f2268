/* SPDX-License-Identifier: Apache-2.0 */
/* Mach's clock: types only, so far. Ticks times numer by denom are nanoseconds. */

#ifndef _MACH_MACH_TIME_H_
#define _MACH_MACH_TIME_H_

#include <stdint.h>

struct mach_timebase_info {
    uint32_t numer;
    uint32_t denom;
};
typedef struct mach_timebase_info *mach_timebase_info_t;
typedef struct mach_timebase_info mach_timebase_info_data_t;

#endif
