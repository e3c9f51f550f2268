/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Who sent a message, as its receiver reads it: trailers and audit tokens. No lock, owns nothing.
 */
#include "internal.h"

#include <string.h>

audit_token_t mio_audit_token(const struct mio_sender *sender) {
    if (sender->kernel)
        return (audit_token_t){{0}};
    /* Root of another pid namespace has pid 0 too: a pid version keeps the token from zero. */
    return (audit_token_t){{sender->uid, sender->uid, sender->gid, sender->uid, sender->gid,
                            (unsigned)sender->pid, 0, 1}};
}

security_token_t mio_security_token(const struct mio_sender *sender) {
    if (sender->kernel)
        return (security_token_t){{0, 1}};
    return (security_token_t){{sender->uid, sender->gid}};
}

void mio_trailer_write(void *at, mach_msg_size_t size, mach_port_seqno_t seqno,
                       const struct mio_sender *sender, mach_port_context_t context) {
    mach_msg_mac_trailer_t trailer;
    memset(&trailer, 0, sizeof trailer);
    trailer.msgh_trailer_type = MACH_MSG_TRAILER_FORMAT_0;
    trailer.msgh_trailer_size = size;
    trailer.msgh_seqno = seqno;
    trailer.msgh_sender = mio_security_token(sender);
    trailer.msgh_audit = mio_audit_token(sender);
    trailer.msgh_context = context;
    memcpy(at, &trailer, size);
}
