/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * tasks.h - a second task for the C tests: a forked child that has a send right to a port here.
 *
 * A child starts without rights, so the port's descriptors are handed to it as they are, and come
 * in through the layer's own front door: as a frame with a right in it.
 */
#ifndef MACHIO_TESTS_TASKS_H
#define MACHIO_TESTS_TASKS_H

#include "frames.h"
#include "ports.h"

#include "wire.h"

/* Copies of a port's sending socket and credit pipe, which a forked child keeps. */
struct handed {
    int tx, cr;
};

__attribute__((unused)) static struct handed hand_over(mach_port_t name) {
    mio_lock();
    struct mio_port *port = mio_space_lookup(name)->port;
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    CHECK_EQ(mio_channel_open_cr(port), KERN_SUCCESS);
    struct handed handed = {.tx = dup(port->tx), .cr = dup(port->cr.fd)};
    mio_channel_trim(port);
    mio_unlock();
    CHECK(handed.tx >= 0 && handed.cr >= 0);
    return handed;
}

__attribute__((unused)) static void forget(const struct handed *handed) {
    close(handed->tx);
    close(handed->cr);
}

/* In the child: the name of a send right to the port. Consumes the copies. */
__attribute__((unused)) static mach_port_t take_over(const struct handed *handed) {
    struct {
        struct mio_wire_head head;
        struct mio_wire_right rights[2];
        mach_msg_body_t body;
        mach_msg_port_descriptor_t port;
    } frame = {
        .head = {.magic = MIO_WIRE_MAGIC,
                 .version = MIO_WIRE_VERSION,
                 .kind = MIO_FRAME_MESSAGE,
                 .flags = MIO_HEAD_COMPLEX,
                 .size = sizeof(mach_msg_base_t) + sizeof frame.port,
                 .nrights = 2,
                 .nfds = 2},
        .rights = {{.fd = {0xffff, 0xffff, 0xffff}},
                   {.kind = MIO_RIGHT_SEND, .fd = {0, 1, 0xffff}}},
        .body = {1},
    };
    const int fds[] = {handed->tx, handed->cr};
    int pair[2];
    unsigned kind, flags;
    mach_port_name_t name;
    struct mio_kmsg *kmsg = NULL;
    mio_lock();
    CHECK_EQ(mio_pair(pair), 0);
    CHECK_EQ(mio_wire_transmit(pair[0], &frame, sizeof frame, fds, 2), MIO_WIRE_OK);
    CHECK_EQ(mio_wire_receive(pair[1], &kmsg, &kind, &flags), MIO_WIRE_OK);
    CHECK(kmsg != NULL);
    CHECK_EQ(mio_right_copyout(&kmsg->rights[0], &name), KERN_SUCCESS);
    mio_kmsg_free(kmsg);
    mio_unlock();
    close(pair[0]);
    close(pair[1]);
    forget(handed);
    return name;
}

/* ---- send-once rights ---------------------------------------------------------------------- */

/* A new send-once right to the port leaves this task: the descriptor that its holder has. */
__attribute__((unused)) static int lend_once(mach_port_t name) {
    int pair[2];
    mio_lock();
    struct mio_once *once = mio_once_new(mio_space_lookup(name)->port);
    struct mio_kmsg *kmsg = mio_kmsg_new(sizeof(mach_msg_header_t), 0);
    CHECK(once != NULL && kmsg != NULL);
    kmsg->reply = (struct mio_right){
        .kind = MIO_RIGHT_ONCE, .disposition = MACH_MSG_TYPE_PORT_SEND_ONCE, .once = once};
    CHECK_EQ(mio_pair(pair), 0);
    CHECK_EQ(mio_wire_send(pair[0], kmsg, 0), MIO_WIRE_OK);
    mio_kmsg_free(kmsg);
    mio_unlock();
    int held = take_descriptor(pair[1]);
    close(pair[0]);
    close(pair[1]);
    return held;
}

/* What its holder does: the message, and the right is gone. */
__attribute__((unused)) static void use_once(int held, int id) {
    struct mio_kmsg *kmsg = mio_kmsg_new(sizeof(mach_msg_header_t), 0);
    CHECK(kmsg != NULL);
    kmsg->id = id;
    mio_lock();
    CHECK_EQ(mio_wire_send(held, kmsg, MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT), MIO_WIRE_OK);
    mio_kmsg_free(kmsg);
    mio_unlock();
    close(held);
}

#endif
