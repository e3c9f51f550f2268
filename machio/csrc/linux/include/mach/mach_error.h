/* SPDX-License-Identifier: Apache-2.0 */
/* Error numbers as text. */

#ifndef _MACH_ERROR_
#define _MACH_ERROR_

#include <mach/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Name and meaning of a KERN_, MACH_SEND_, MACH_RCV_, MIG_ or BOOTSTRAP_ code. Never NULL; static
 * and constant. */
char *mach_error_string(mach_error_t error_value);

/* Writes str and the code's text to stderr. */
void mach_error(const char *str, mach_error_t error_value);

#ifdef __cplusplus
}
#endif

#endif
