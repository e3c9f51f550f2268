/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The audit identity of the calling process.
 */
#include "internal.h"

#include <bsm/libbsm.h>

#include <errno.h>

/* The calling process as its own tokens tell of it; it has no terminal. */
int getaudit_addr(struct auditinfo_addr *info, int length) {
    struct mio_sender self;
    if (length < (int)sizeof *info) {
        errno = EOVERFLOW;
        return -1;
    }
    mio_task_sender(&self);
    audit_token_t token = mio_audit_token(&self);
    *info = (struct auditinfo_addr){
        .ai_auid = audit_token_to_auid(token),
        .ai_termid = {.at_type = AU_IPv4},
        .ai_asid = audit_token_to_asid(token),
    };
    return 0;
}
