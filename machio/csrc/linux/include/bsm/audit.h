/* SPDX-License-Identifier: Apache-2.0 */
/* Audit identities: user, session, terminal. */

#ifndef _BSM_AUDIT_H
#define _BSM_AUDIT_H

#include <stdint.h>
#include <sys/types.h>

#define AU_IPv4 4
#define AU_IPv6 16

/* Set by nobody yet. */
#define AU_DEFAUDITID ((uid_t)(-1))
#define AU_DEFAUDITSID 0
#define AU_ASSIGN_ASID (-1)

typedef uid_t au_id_t;
typedef pid_t au_asid_t;
typedef uint16_t au_event_t;
typedef uint16_t au_emod_t;
typedef uint32_t au_class_t;

/* Terminals carry a 32-bit device number, as on macOS. */
struct au_tid {
    int32_t port;
    uint32_t machine;
};
typedef struct au_tid au_tid_t;

struct au_tid_addr {
    int32_t at_port;
    uint32_t at_type;
    uint32_t at_addr[4];
};
typedef struct au_tid_addr au_tid_addr_t;

struct au_mask {
    unsigned int am_success;
    unsigned int am_failure;
};
typedef struct au_mask au_mask_t;

struct auditinfo {
    au_id_t ai_auid;
    au_mask_t ai_mask;
    au_tid_t ai_termid;
    au_asid_t ai_asid;
};
typedef struct auditinfo auditinfo_t;

struct auditinfo_addr {
    au_id_t ai_auid;
    au_mask_t ai_mask;
    au_tid_addr_t ai_termid;
    au_asid_t ai_asid;
    uint64_t ai_flags;
};
typedef struct auditinfo_addr auditinfo_addr_t;

#ifdef __cplusplus
extern "C" {
#endif

/* The calling process: ai_auid and ai_asid as in its tokens. 0, or -1 and EOVERFLOW if length is
 * too small. */
int getaudit_addr(struct auditinfo_addr *auditinfo_addr, int length);

#ifdef __cplusplus
}
#endif

#endif
