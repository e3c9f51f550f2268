/* SPDX-License-Identifier: Apache-2.0 */
/* What MIG's output is written against: types of stubs, tables of routines, and the switches it is
 * compiled with. */

#ifndef _MACH_MIG_H_
#define _MACH_MIG_H_

#include <mach/kern_return.h>
#include <mach/message.h>
#include <mach/port.h>
#include <mach/vm_types.h>
#include <stdint.h>

#ifndef __MigTypeCheck
#define __MigTypeCheck 1
#endif
#define __MigPackStructs 1

/* What MIG declares its own functions with, unless told otherwise. They see one message, and one
 * pointer into it, through types that gcc takes to be about different memory: so none of them is
 * looked into from another. clang does as MIG expects. */
#ifdef __has_attribute
#if __has_attribute(__noipa__) && !defined(mig_internal)
#define mig_internal static __attribute__((__noipa__, __unused__))
#endif
/* The word by which MIG's output asks whether mig_strncpy_zerofill() is there. */
#if !__has_attribute(weak_import)
#define weak_import weak
#endif
#endif

/* Unpacks a request, calls the routine, packs the reply. */
typedef void (*mig_stub_routine_t)(mach_msg_header_t *InHeadP, mach_msg_header_t *OutHeadP);
typedef mig_stub_routine_t mig_routine_t;

/* Finds the stub for a request, NULL if the subsystem does not know its id. */
typedef mig_routine_t (*mig_server_routine_t)(mach_msg_header_t *InHeadP);

/* Any routine that does the work; cast to its real type before it is called. */
typedef kern_return_t (*mig_impl_routine_t)(void);

typedef mach_msg_type_descriptor_t routine_arg_descriptor;
typedef mach_msg_type_descriptor_t *routine_arg_descriptor_t;
typedef mach_msg_type_descriptor_t *mig_routine_arg_descriptor_t;

#define MIG_ROUTINE_ARG_DESCRIPTOR_NULL ((mig_routine_arg_descriptor_t)0)

struct routine_descriptor {
    mig_impl_routine_t impl_routine;
    mig_stub_routine_t stub_routine;
    unsigned int argc;        /* argument words */
    unsigned int descr_count; /* descriptors of a complex request */
    routine_arg_descriptor_t arg_descr;
    unsigned int max_reply_msg;
};
typedef struct routine_descriptor *routine_descriptor_t;
typedef struct routine_descriptor mig_routine_descriptor;
typedef mig_routine_descriptor *mig_routine_descriptor_t;

#define MIG_ROUTINE_DESCRIPTOR_NULL ((mig_routine_descriptor_t)0)

typedef struct mig_subsystem {
    mig_server_routine_t server;
    mach_msg_id_t start; /* the first id */
    mach_msg_id_t end;   /* the last id and one */
    mach_msg_size_t maxsize;
    vm_address_t reserved;
    mig_routine_descriptor routine[1];
} *mig_subsystem_t;

#define MIG_SUBSYSTEM_NULL ((mig_subsystem_t)0)

typedef struct mig_symtab {
    char *ms_routine_name;
    int ms_routine_number;
    void (*ms_routine)(void);
} mig_symtab_t;

#define MIG_SERVER_ROUTINE

#ifdef __cplusplus
extern "C" {
#endif

/* The thread's own reply port. Ownership: the library's, for as long as the thread lives. */
mach_port_t mig_get_reply_port(void);

/* Destroys the thread's reply port, after a reply that cannot be trusted to stay away. Ownership:
 * its receive right is gone; of any other reply_port, one reference. */
void mig_dealloc_reply_port(mach_port_t reply_port);

/* The reply port is not needed for now. Ownership: no right moves. */
void mig_put_reply_port(mach_port_t reply_port);

/* The header and NDR of an error reply to request; RetCode is the caller's to set. Ownership: the
 * right in request->msgh_local_port is now in reply. */
void mig_reply_setup(mach_msg_header_t *request, mach_msg_header_t *reply);

/* vm_allocate() and vm_deallocate() that tell of failure by address 0. */
void mig_allocate(vm_address_t *addr_p, vm_size_t size);
void mig_deallocate(vm_address_t addr, vm_size_t size);

/* Copies at most len - 1 characters and a NUL; how many bytes that were, the NUL counted. */
int mig_strncpy(char *dest, const char *src, int len);

/* The same, and the rest of dest, len bytes in all, is zeroed. */
int mig_strncpy_zerofill(char *dest, const char *src, int len);

#ifdef __cplusplus
}
#endif

#endif
