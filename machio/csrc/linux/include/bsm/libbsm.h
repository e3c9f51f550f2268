/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who sent a message: readers of the audit_token_t in a mach_msg_audit_trailer_t. The token is
 * copied, no right moves.
 *
 * An all-zero token is a notification of the system. A pid can be used again after its process is
 * gone; pid and pidversion together cannot.
 */

#ifndef _LIBBSM_H_
#define _LIBBSM_H_

#include <bsm/audit.h>
#include <mach/message.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

uid_t audit_token_to_auid(audit_token_t atoken);
uid_t audit_token_to_euid(audit_token_t atoken);
gid_t audit_token_to_egid(audit_token_t atoken);
uid_t audit_token_to_ruid(audit_token_t atoken);
gid_t audit_token_to_rgid(audit_token_t atoken);
pid_t audit_token_to_pid(audit_token_t atoken);
au_asid_t audit_token_to_asid(audit_token_t atoken);
int audit_token_to_pidversion(audit_token_t atoken);

/* All at once; every pointer may be NULL. There is no terminal in the token: *tidp is zeroed. */
void audit_token_to_au32(audit_token_t atoken, uid_t *auidp, uid_t *euidp, gid_t *egidp,
                         uid_t *ruidp, gid_t *rgidp, pid_t *pidp, au_asid_t *asidp, au_tid_t *tidp);

#ifdef __cplusplus
}
#endif

#endif
