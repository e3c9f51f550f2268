/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls on the port rights of a task, which is mach_task_self().
 *
 * A name that should denote a receive right and denotes something else is KERN_INVALID_RIGHT; one
 * that denotes nothing, or a dead name, is KERN_INVALID_NAME. Where an Ownership line says nothing
 * of failure, all rights are then as before the call.
 */

#ifndef _mach_port_user_
#define _mach_port_user_

#include <mach/kern_return.h>
#include <mach/mach_types.h>
#include <mach/message.h>
#include <mach/mig_errors.h>
#include <mach/ndr.h>
#include <mach/notify.h>
#include <mach/port.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every name of the task and its types. Ownership: two arrays for the caller to vm_deallocate(); no
 * right moves. */
kern_return_t mach_port_names(ipc_space_t task, mach_port_name_array_t *names,
                              mach_msg_type_number_t *namesCnt, mach_port_type_array_t *types,
                              mach_msg_type_number_t *typesCnt);

/* Which rights the name denotes, MACH_PORT_TYPE_*. Ownership: no right moves. */
kern_return_t mach_port_type(ipc_space_t task, mach_port_name_t name, mach_port_type_t *ptype);

/* A new receive right, port set or dead name under a name of the caller's choice. Ownership: the
 * caller's. */
kern_return_t mach_port_allocate_name(ipc_space_t task, mach_port_right_t right,
                                      mach_port_name_t name);

/* A new receive right, port set or dead name. Ownership: the caller's. */
kern_return_t mach_port_allocate(ipc_space_t task, mach_port_right_t right, mach_port_name_t *name);

/*
 * The same with conditions: a name of the caller's choice (qos->name, in *name; only
 * mach_port_allocate_full() takes it) or a message kept ready for the kernel (qos->prealloc,
 * without effect). proto must be MACH_PORT_NULL. Ownership: the caller's.
 */
kern_return_t mach_port_allocate_qos(ipc_space_t task, mach_port_right_t right,
                                     mach_port_qos_t *qos, mach_port_name_t *name);
kern_return_t mach_port_allocate_full(ipc_space_t task, mach_port_right_t right, mach_port_t proto,
                                      mach_port_qos_t *qos, mach_port_name_t *name);

/* Drops all that the name denotes. Ownership: everything under the name is gone; a guarded receive
 * right is refused. */
kern_return_t mach_port_destroy(ipc_space_t task, mach_port_name_t name);

/* Drops one reference to a send right, send-once right or dead name. Ownership: that reference is
 * gone. */
kern_return_t mach_port_deallocate(ipc_space_t task, mach_port_name_t name);

/* How many references to that right the name has, 0 if none. Ownership: no right moves. */
kern_return_t mach_port_get_refs(ipc_space_t task, mach_port_name_t name, mach_port_right_t right,
                                 mach_port_urefs_t *refs);

/* Adds delta references to that right; RECEIVE and -1 destroy the port. Ownership: |delta| more or
 * fewer. */
kern_return_t mach_port_mod_refs(ipc_space_t task, mach_port_name_t name, mach_port_right_t right,
                                 mach_port_delta_t delta);

/* Sets the make-send count of a receive right. Ownership: no right moves. */
kern_return_t mach_port_set_mscount(ipc_space_t task, mach_port_name_t name,
                                    mach_port_mscount_t mscount);

/* The members of a port set. Ownership: an array for the caller to vm_deallocate(); no right moves.
 */
kern_return_t mach_port_get_set_status(ipc_space_read_t task, mach_port_name_t name,
                                       mach_port_name_array_t *members,
                                       mach_msg_type_number_t *membersCnt);

/* Takes member out of every set and puts it into after, if not MACH_PORT_NULL. Ownership: no right
 * moves. */
kern_return_t mach_port_move_member(ipc_space_t task, mach_port_name_t member,
                                    mach_port_name_t after);

/*
 * Asks for a message to notify when the event msgid (MACH_NOTIFY_*) happens to name; notify
 * MACH_PORT_NULL cancels.
 *
 * Ownership: on success the system has a send-once right made of notify by notifyPoly, and the
 * caller has the one that was registered before, or MACH_PORT_NULL, in *previous. On failure once
 * notify was accepted, the send-once right is destroyed, so a send-once notification arrives there.
 */
kern_return_t mach_port_request_notification(ipc_space_t task, mach_port_name_t name,
                                             mach_msg_id_t msgid, mach_port_mscount_t sync,
                                             mach_port_t notify, mach_msg_type_name_t notifyPoly,
                                             mach_port_t *previous);

/* Puts the right made of poly by polyPoly under name. Ownership: name's holder has it; a MOVE takes
 * it from poly. */
kern_return_t mach_port_insert_right(ipc_space_t task, mach_port_name_t name, mach_port_t poly,
                                     mach_msg_type_name_t polyPoly);

/* Takes or makes a right of name by msgt_name. Ownership: *poly is the caller's; a MOVE takes it
 * from name. */
kern_return_t mach_port_extract_right(ipc_space_t task, mach_port_name_t name,
                                      mach_msg_type_name_t msgt_name, mach_port_t *poly,
                                      mach_msg_type_name_t *polyPoly);

/* Sets the number that the next message received gets. Ownership: no right moves. */
kern_return_t mach_port_set_seqno(ipc_space_t task, mach_port_name_t name, mach_port_seqno_t seqno);

/* Reads an attribute; the count goes in as room and comes out as size. Ownership: no right moves.
 */
kern_return_t mach_port_get_attributes(ipc_space_read_t task, mach_port_name_t name,
                                       mach_port_flavor_t flavor, mach_port_info_t port_info_out,
                                       mach_msg_type_number_t *port_info_outCnt);

/* Sets an attribute. Ownership: no right moves. */
kern_return_t mach_port_set_attributes(ipc_space_t task, mach_port_name_t name,
                                       mach_port_flavor_t flavor, mach_port_info_t port_info,
                                       mach_msg_type_number_t port_infoCnt);

/* KERN_SUCCESS if flavor, MACH_PORT_GUARD_INFO, is as given: a strict guard. Ownership: no right
 * moves. */
kern_return_t mach_port_assert_attributes(ipc_space_t task, mach_port_name_t name,
                                          mach_port_flavor_t flavor, mach_port_info_t info,
                                          mach_msg_type_number_t infoCnt);

/* Names cannot be changed: MIG_BAD_ID, as on macOS. Ownership: no right moves. */
kern_return_t mach_port_rename(ipc_space_t task, mach_port_name_t old_name,
                               mach_port_name_t new_name);

/*
 * Tells of a message that is queued, the one with number *request_seqnop, or the next one for 0.
 * The trailer of trailer_type goes to trailer_infop, whose room *trailer_infopCnt is. Ownership: no
 * right moves, the message stays queued.
 */
kern_return_t mach_port_peek(ipc_space_t task, mach_port_name_t name,
                             mach_msg_trailer_type_t trailer_type,
                             mach_port_seqno_t *request_seqnop, mach_msg_size_t *msg_sizep,
                             mach_msg_id_t *msg_idp, mach_msg_trailer_info_t trailer_infop,
                             mach_msg_type_number_t *trailer_infopCnt);

/* How many send rights there are, one per holding task and one per right in a message. Ownership:
 * no right moves. */
kern_return_t mach_port_get_srights(ipc_space_t task, mach_port_name_t name,
                                    mach_port_rights_t *srights);

/* Which of the kernel's objects a send or receive right stands for: 0, or 2 for a task. Ownership:
 * no right moves. */
kern_return_t mach_port_kobject(ipc_space_read_t task, mach_port_name_t name,
                                natural_t *object_type, mach_vm_address_t *object_addr);

/* Adds a receive right to one more port set. Ownership: no right moves. */
kern_return_t mach_port_insert_member(ipc_space_t task, mach_port_name_t name,
                                      mach_port_name_t pset);

/* Takes a receive right out of a port set. Ownership: no right moves. */
kern_return_t mach_port_extract_member(ipc_space_t task, mach_port_name_t name,
                                       mach_port_name_t pset);

/* The word the owner attached to a receive right; 0 if it is strictly guarded. Ownership: no right
 * moves. */
kern_return_t mach_port_get_context(ipc_space_read_t task, mach_port_name_t name,
                                    mach_port_context_t *context);

/* Attaches a word to a receive right. Ownership: no right moves. */
kern_return_t mach_port_set_context(ipc_space_t task, mach_port_name_t name,
                                    mach_port_context_t context);

/* A new receive right as options want it, MPO_*. Ownership: the caller's, with a send right if
 * asked for. */
kern_return_t mach_port_construct(ipc_space_t task, mach_port_options_ptr_t options,
                                  mach_port_context_t context, mach_port_name_t *name);

/* Destroys a receive right, guarded or not, and srdelta (0 or less) send references. Ownership:
 * those are gone. */
kern_return_t mach_port_destruct(ipc_space_t task, mach_port_name_t name, mach_port_delta_t srdelta,
                                 mach_port_context_t guard);

/* Guards a receive right, so that only who knows the guard can destroy it. Ownership: no right
 * moves. */
kern_return_t mach_port_guard(ipc_space_t task, mach_port_name_t name, mach_port_context_t guard,
                              boolean_t strict);

/* Takes the guard off. Ownership: no right moves. */
kern_return_t mach_port_unguard(ipc_space_t task, mach_port_name_t name, mach_port_context_t guard);

/* mach_port_guard() with MPG_* flags. Ownership: no right moves. */
kern_return_t mach_port_guard_with_flags(ipc_space_t task, mach_port_name_t name,
                                         mach_port_context_t guard, uint64_t flags);

/* Puts another guard in place of one that is not strict. Ownership: no right moves. */
kern_return_t mach_port_swap_guard(ipc_space_t task, mach_port_name_t name,
                                   mach_port_context_t old_guard, mach_port_context_t new_guard);

#ifdef __cplusplus
}
#endif

#endif
