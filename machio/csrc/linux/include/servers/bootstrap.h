/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bootstrap server: names for ports, so that tasks without a common right can find each other.
 *
 * The owner of a service checks it in and gets the receive right; a client looks it up and gets a
 * send right. The name lives as long as the port. A service may be created before it has an owner:
 * then messages wait for the check-in, and the name lives as long as the task that created it. bp
 * is bootstrap_port. Names are NUL-terminated and at most 127 characters long.
 */

#ifndef _BOOTSTRAP_H_
#define _BOOTSTRAP_H_

#include <mach/mach_init.h>
#include <mach/mach_types.h>
#include <mach/std_types.h>

#define BOOTSTRAP_MAX_NAME_LEN 128
#define BOOTSTRAP_MAX_CMD_LEN 512
#define BOOTSTRAP_MAX_LOOKUP_COUNT 20

typedef char name_t[BOOTSTRAP_MAX_NAME_LEN];
typedef char cmd_t[BOOTSTRAP_MAX_CMD_LEN];
typedef name_t *name_array_t;
typedef int bootstrap_status_t;
typedef bootstrap_status_t *bootstrap_status_array_t;

#define BOOTSTRAP_SUCCESS 0
#define BOOTSTRAP_NOT_PRIVILEGED 1100
#define BOOTSTRAP_NAME_IN_USE 1101
#define BOOTSTRAP_UNKNOWN_SERVICE 1102
#define BOOTSTRAP_SERVICE_ACTIVE 1103
#define BOOTSTRAP_BAD_COUNT 1104
#define BOOTSTRAP_NO_MEMORY 1105
#define BOOTSTRAP_NO_CHILDREN 1106

#define BOOTSTRAP_STATUS_INACTIVE 0
#define BOOTSTRAP_STATUS_ACTIVE 1
#define BOOTSTRAP_STATUS_ON_DEMAND 2

#ifdef __cplusplus
extern "C" {
#endif

/* A service name is a name_t; written as one, gcc would want 128 bytes of every literal. */

/* Takes the name. Ownership: *sp is a receive right of the caller's; nothing on failure. */
kern_return_t bootstrap_check_in(mach_port_t bp, const char *service_name, mach_port_t *sp);

/* Declares a service whose receive right the server keeps until somebody checks it in, and again
 * when that owner does not want it any more. Ownership: *sp is a send right of the caller's;
 * nothing on failure. */
kern_return_t bootstrap_create_service(mach_port_t bp, const char *service_name, mach_port_t *sp);

/* Gives the name to a port one has. MACH_PORT_NULL takes a name back that one has created and
 * nobody has checked in, and does nothing else. Ownership: sp stays the caller's, the server gets a
 * send right of its own. */
kern_return_t bootstrap_register(mach_port_t bp, char *service_name, mach_port_t sp);

/* Finds the port of a name. Ownership: *sp is a send right of the caller's, one reference more;
 * nothing on failure. */
kern_return_t bootstrap_look_up(mach_port_t bp, const char *service_name, mach_port_t *sp);

/* BOOTSTRAP_STATUS_ACTIVE: it has an owner; BOOTSTRAP_STATUS_ON_DEMAND: it was created, and its
 * messages wait for one. As with launchd, no service is BOOTSTRAP_STATUS_INACTIVE. Ownership: no
 * right moves. */
kern_return_t bootstrap_status(mach_port_t bp, const char *service_name,
                               bootstrap_status_t *service_active);

/* A code of these calls as text. Never NULL, static. */
const char *bootstrap_strerror(kern_return_t r);

#ifdef __cplusplus
}
#endif

#endif
