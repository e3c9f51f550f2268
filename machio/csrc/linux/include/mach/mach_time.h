/* SPDX-License-Identifier: Apache-2.0 */
/* Mach's clock, which stands while the machine sleeps. Ticks times numer by denom are nanoseconds.
 */

#ifndef _MACH_MACH_TIME_H_
#define _MACH_MACH_TIME_H_

#include <mach/kern_return.h>
#include <stdint.h>

struct mach_timebase_info {
    uint32_t numer;
    uint32_t denom;
};
typedef struct mach_timebase_info *mach_timebase_info_t;
typedef struct mach_timebase_info mach_timebase_info_data_t;

#ifdef __cplusplus
extern "C" {
#endif

/* Ticks since some moment of the past. */
uint64_t mach_absolute_time(void);

/* What a tick is. */
kern_return_t mach_timebase_info(mach_timebase_info_t info);

#ifdef __cplusplus
}
#endif

#endif
