/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * ports.h - short words for the C tests: make a port, send it a number, receive it.
 *
 * A message is sent in two ways that must not differ for the receiver: send_id() as this task
 * does, which keeps it in memory, and send_wire() as another task would, through a socket.
 */
#ifndef MACHIO_TESTS_PORTS_H
#define MACHIO_TESTS_PORTS_H

#include "check.h"

#include <mach/mach.h>
#include <sys/mman.h>

#include "internal.h"

#define UNUSED_NAME 0x00aaaa03 /* never handed out */

typedef void (*send_fn)(mach_port_t port, int id);

#define SELF mach_task_self()

struct message {
    mach_msg_header_t header;
    mach_msg_trailer_t trailer;
};

__attribute__((unused)) static mach_port_t allocate(mach_port_right_t right) {
    mach_port_t name;
    CHECK_EQ(mach_port_allocate(SELF, right, &name), KERN_SUCCESS);
    return name;
}

__attribute__((unused)) static mach_port_t new_port(void) {
    return allocate(MACH_PORT_RIGHT_RECEIVE);
}

__attribute__((unused)) static mach_port_t new_set(void) {
    return allocate(MACH_PORT_RIGHT_PORT_SET);
}

__attribute__((unused)) static void destroy_right(mach_port_t name, mach_port_right_t right) {
    CHECK_EQ(mach_port_mod_refs(SELF, name, right, -1), KERN_SUCCESS);
}

__attribute__((unused)) static void destroy_port(mach_port_t name) {
    destroy_right(name, MACH_PORT_RIGHT_RECEIVE);
}

__attribute__((unused)) static void destroy_set(mach_port_t name) {
    destroy_right(name, MACH_PORT_RIGHT_PORT_SET);
}

__attribute__((unused)) static void set_limit(mach_port_t port, unsigned limit) {
    mach_port_limits_t limits = {.mpl_qlimit = limit};
    CHECK_EQ(mach_port_set_attributes(SELF, port, MACH_PORT_LIMITS_INFO, (mach_port_info_t)&limits,
                                      MACH_PORT_LIMITS_INFO_COUNT),
             KERN_SUCCESS);
}

/* By a send right; blocks while the queue is full. */
__attribute__((unused)) static void send_copy(mach_port_t port, int id) {
    mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                                 .msgh_size = sizeof message,
                                 .msgh_remote_port = port,
                                 .msgh_id = id};
    CHECK_EQ(mach_msg(&message, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0), MACH_MSG_SUCCESS);
}

__attribute__((unused)) static void send_id(mach_port_t port, int id) {
    mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MAKE_SEND, 0),
                                 .msgh_size = sizeof message,
                                 .msgh_remote_port = port,
                                 .msgh_id = id};
    CHECK_EQ(mach_msg(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof message, 0, 0, 0, 0),
             MACH_MSG_SUCCESS);
}

/* What another task would do: a message through the port's socket. */
__attribute__((unused)) static void send_wire(mach_port_t name, int id) {
    mio_lock();
    struct mio_port *port = mio_space_lookup(name)->port;
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    struct mio_kmsg *kmsg = mio_kmsg_new(sizeof(mach_msg_header_t), 0);
    CHECK(kmsg != NULL);
    kmsg->id = id;
    CHECK_EQ(mio_wire_send(port->tx, kmsg, MIO_FRAME_NO_CREDIT), MIO_WIRE_OK);
    mio_kmsg_free(kmsg);
    mio_unlock();
}

__attribute__((unused)) static mach_msg_return_t receive(mach_port_t name, struct message *message,
                                                         unsigned timeout) {
    return mach_msg(&message->header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof *message, name,
                    timeout, 0);
}

__attribute__((unused)) static void receive_from(mach_port_t name, mach_port_t member, int id) {
    struct message message;
    CHECK_EQ(receive(name, &message, 1000), MACH_MSG_SUCCESS);
    CHECK_EQ(message.header.msgh_id, id);
    CHECK_EQ(message.header.msgh_local_port, member);
}

__attribute__((unused)) static void check_empty(mach_port_t name) {
    struct message message;
    CHECK_EQ(receive(name, &message, 0), MACH_RCV_TIMED_OUT);
}

/* How many names this task has. */
__attribute__((unused)) static unsigned names_held(void) {
    mach_port_name_array_t names;
    mach_port_type_array_t types;
    mach_msg_type_number_t count, type_count;
    CHECK_EQ(mach_port_names(SELF, &names, &count, &types, &type_count), KERN_SUCCESS);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)names, count * sizeof *names), KERN_SUCCESS);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)types, type_count * sizeof *types), KERN_SUCCESS);
    return count;
}

__attribute__((unused)) static bool is_mapped(const void *address) {
    unsigned char resident; /* valgrind lets this question about any address pass */
    return mincore((void *)(uintptr_t)mach_vm_trunc_page((uintptr_t)address), vm_page_size,
                   &resident) == 0;
}

#endif
