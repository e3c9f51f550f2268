/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Reading an audit token: libbsm's functions. A token of this system holds what the kernel attests
 * of a sender, its pid, uid and gid; the session is 0, the pid version is 1 (trailer.c).
 * macOS's build compiles this file too, so as not to need libbsm.
 */
#include <bsm/libbsm.h>

#include <stddef.h>

enum { AUID, EUID, EGID, RUID, RGID, PID, ASID, PIDVERSION };

uid_t audit_token_to_auid(audit_token_t token) {
    return token.val[AUID];
}

uid_t audit_token_to_euid(audit_token_t token) {
    return token.val[EUID];
}

gid_t audit_token_to_egid(audit_token_t token) {
    return token.val[EGID];
}

uid_t audit_token_to_ruid(audit_token_t token) {
    return token.val[RUID];
}

gid_t audit_token_to_rgid(audit_token_t token) {
    return token.val[RGID];
}

pid_t audit_token_to_pid(audit_token_t token) {
    return (pid_t)token.val[PID];
}

au_asid_t audit_token_to_asid(audit_token_t token) {
    return (au_asid_t)token.val[ASID];
}

int audit_token_to_pidversion(audit_token_t token) {
    return (int)token.val[PIDVERSION];
}

void audit_token_to_au32(audit_token_t token, uid_t *auid, uid_t *euid, gid_t *egid, uid_t *ruid,
                         gid_t *rgid, pid_t *pid, au_asid_t *asid, au_tid_t *tid) {
    if (auid != NULL)
        *auid = token.val[AUID];
    if (euid != NULL)
        *euid = token.val[EUID];
    if (egid != NULL)
        *egid = token.val[EGID];
    if (ruid != NULL)
        *ruid = token.val[RUID];
    if (rgid != NULL)
        *rgid = token.val[RGID];
    if (pid != NULL)
        *pid = (pid_t)token.val[PID];
    if (asid != NULL)
        *asid = (au_asid_t)token.val[ASID];
    if (tid != NULL)
        tid->port = (dev_t)token.val[PIDVERSION];
}
