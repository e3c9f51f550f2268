/* SPDX-License-Identifier: Apache-2.0 */
/* That this file is there tells MIG's output that mig_strncpy_zerofill() is, too. */

#ifndef _MACH_MIG_STRNCPY_ZEROFILL_SUPPORT_H_
#define _MACH_MIG_STRNCPY_ZEROFILL_SUPPORT_H_

#endif
