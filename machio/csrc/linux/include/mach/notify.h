/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notifications: what the system sends to the send-once right of a
 * mach_port_request_notification(), or to a send-once right that was never used. The structures end
 * in the trailer of format 0; a receive may ask for another one.
 */

#ifndef _MACH_NOTIFY_H_
#define _MACH_NOTIFY_H_

#include <mach/message.h>
#include <mach/ndr.h>
#include <mach/port.h>

#define MACH_NOTIFY_FIRST 0100
#define MACH_NOTIFY_PORT_DELETED (MACH_NOTIFY_FIRST + 001)  /* the name is gone, the port lives */
#define MACH_NOTIFY_SEND_POSSIBLE (MACH_NOTIFY_FIRST + 002) /* the queue has room again */
#define MACH_NOTIFY_PORT_DESTROYED \
    (MACH_NOTIFY_FIRST + 005) /* here is the receive right that would have died */
#define MACH_NOTIFY_NO_SENDERS (MACH_NOTIFY_FIRST + 006) /* nobody holds a send right any more */
#define MACH_NOTIFY_SEND_ONCE (MACH_NOTIFY_FIRST + 007)  /* a send-once right was dropped unused */
#define MACH_NOTIFY_DEAD_NAME \
    (MACH_NOTIFY_FIRST + 010) /* the port died; the name has one more reference */
#define MACH_NOTIFY_LAST (MACH_NOTIFY_FIRST + 015)

typedef mach_port_t notify_port_t;

typedef struct {
    mach_msg_header_t not_header;
    NDR_record_t NDR;
    mach_port_name_t not_port;
    mach_msg_format_0_trailer_t trailer;
} mach_port_deleted_notification_t;

typedef struct {
    mach_msg_header_t not_header;
    NDR_record_t NDR;
    mach_port_name_t not_port;
    mach_msg_format_0_trailer_t trailer;
} mach_send_possible_notification_t;

typedef struct {
    mach_msg_header_t not_header;
    mach_msg_body_t not_body;
    mach_msg_port_descriptor_t not_port;
    mach_msg_format_0_trailer_t trailer;
} mach_port_destroyed_notification_t;

typedef struct {
    mach_msg_header_t not_header;
    NDR_record_t NDR;
    mach_msg_type_number_t not_count; /* the make-send count */
    mach_msg_format_0_trailer_t trailer;
} mach_no_senders_notification_t;

typedef struct {
    mach_msg_header_t not_header;
    mach_msg_format_0_trailer_t trailer;
} mach_send_once_notification_t;

typedef struct {
    mach_msg_header_t not_header;
    NDR_record_t NDR;
    mach_port_name_t not_port;
    mach_msg_format_0_trailer_t trailer;
} mach_dead_name_notification_t;

#endif
