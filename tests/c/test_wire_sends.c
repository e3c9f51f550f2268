/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Sends to rights whose ports are elsewhere. Whether a port lives is asked only when a send did not
 * succeed, unless the message takes rights along: nothing of that may be seen.
 */
#include "wire_peer.h"

#include <errno.h>
#include <mach/notify.h>

#define SELF mach_task_self()

static struct foreign peer; /* the other task's port */
static int once_rx;         /* the other task's end of the send-once right */
static mach_port_t port, once, reply;

/* Names for a send right and a send-once right that another task sent; a port of this task. */
static void set_up(unsigned credits) {
    struct raw raw = raw_complex(2);
    int pair[2];
    begin();
    make_foreign(&peer);
    CHECK_EQ(write(peer.cw, "xxxxx", credits), credits);
    CHECK_EQ(mio_pair(pair), 0);
    shutdown(pair[0], SHUT_RD);
    mio_pair_receiver(once_rx = pair[1]);
    raw.rights[1] = raw_send_right(&raw, &peer);
    raw.rights[2] = (struct mio_wire_right){.kind = MIO_RIGHT_ONCE,
                                            .fd = {raw_fd(&raw, pair[0]), 0xffff, 0xffff}};
    transmit(out, &raw);
    close(pair[0]);
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_EQ(mio_right_copyout(&kmsg->rights[0], &port), KERN_SUCCESS);
    CHECK_EQ(mio_right_copyout(&kmsg->rights[1], &once), KERN_SUCCESS);
    mio_kmsg_free(kmsg);
    mio_unlock();
    CHECK_EQ(mach_port_allocate(SELF, MACH_PORT_RIGHT_RECEIVE, &reply), KERN_SUCCESS);
}

static void tear_down(void) {
    mach_port_deallocate(SELF, port);
    mach_port_deallocate(SELF, once);
    CHECK_EQ(mach_port_mod_refs(SELF, reply, MACH_PORT_RIGHT_RECEIVE, -1), KERN_SUCCESS);
    mio_lock();
    close_foreign(&peer);
    if (once_rx >= 0)
        close(once_rx);
    end();
}

/* Closes the peer's half of its port, as its death does. */
static void die(void) {
    close(peer.cw);
    close(peer.rx);
    peer.cw = peer.rx = -1;
}

static mach_port_t carried;    /* in its body */
static mach_msg_header_t sent; /* what the sender finds in its buffer afterwards */

static mach_msg_return_t send_to(mach_port_t to, mach_msg_type_name_t to_type,
                                 mach_msg_type_name_t reply_type) {
    sent = (mach_msg_header_t){
        .msgh_bits = MACH_MSGH_BITS(to_type, reply_type),
        .msgh_size = sizeof sent,
        .msgh_remote_port = to,
        .msgh_local_port = reply_type != 0 ? reply : MACH_PORT_NULL,
        .msgh_id = 9,
    };
    return mach_msg(&sent, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof sent, 0, 0, 0, 0);
}

static void is_dead_name(mach_port_t name) {
    mach_port_type_t type;
    mach_port_urefs_t urefs;
    CHECK_EQ(mach_port_type(SELF, name, &type), KERN_SUCCESS);
    CHECK_EQ(type, MACH_PORT_TYPE_DEAD_NAME);
    CHECK_EQ(mach_port_get_refs(SELF, name, MACH_PORT_RIGHT_DEAD_NAME, &urefs), KERN_SUCCESS);
    CHECK_EQ(urefs, 1);
}

/* The header is as it was, no send-once right was made, and so none was dropped. */
static void nothing_was_taken(mach_port_t dest) {
    struct mach_port_status status;
    struct {
        mach_msg_header_t header;
        mach_msg_trailer_t trailer;
    } told;
    mach_msg_type_number_t count = MACH_PORT_RECEIVE_STATUS_COUNT;
    CHECK_EQ(sent.msgh_remote_port, dest);
    CHECK_EQ(sent.msgh_id, 9);
    CHECK_EQ(mach_port_get_attributes(SELF, reply, MACH_PORT_RECEIVE_STATUS,
                                      (mach_port_info_t)&status, &count),
             KERN_SUCCESS);
    CHECK_EQ(status.mps_sorights, 0);
    CHECK_EQ(mach_msg(&told.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof told, reply, 0, 0),
             MACH_RCV_TIMED_OUT);
}

TEST(a_dead_port_is_no_destination_whatever_its_queue) {
    for (unsigned credits = 0; credits < 6; credits += 5) {
        for (int with_reply = 0; with_reply < 2; with_reply++) {
            set_up(credits);
            die();
            CHECK_EQ(send_to(port, MACH_MSG_TYPE_COPY_SEND,
                             with_reply ? MACH_MSG_TYPE_MAKE_SEND_ONCE : 0),
                     MACH_SEND_INVALID_DEST);
            nothing_was_taken(port);
            is_dead_name(port);
            tear_down();
        }
    }
}

TEST(a_dead_port_takes_no_reference) {
    mach_port_urefs_t urefs;
    for (int shut = 0; shut < 2; shut++) {
        set_up(5);
        CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, 2), KERN_SUCCESS);
        CHECK_EQ(send_to(port, MACH_MSG_TYPE_MOVE_SEND, 0), MACH_MSG_SUCCESS);
        if (shut)
            shutdown(peer.tx, SHUT_RDWR);
        else
            die();
        CHECK_EQ(send_to(port, MACH_MSG_TYPE_MOVE_SEND, 0), MACH_SEND_INVALID_DEST);
        nothing_was_taken(port);
        mach_port_right_t right = shut ? MACH_PORT_RIGHT_SEND : MACH_PORT_RIGHT_DEAD_NAME;
        CHECK_EQ(mach_port_get_refs(SELF, port, right, &urefs), KERN_SUCCESS);
        CHECK_EQ(urefs, 2);
        mach_port_deallocate(SELF, port);
        tear_down();
    }
}

TEST(a_port_that_was_shut_down_is_no_destination_but_lives) {
    for (unsigned credits = 0; credits < 6; credits += 5) {
        mach_port_urefs_t urefs;
        set_up(credits);
        shutdown(peer.tx, SHUT_RDWR);
        CHECK_EQ(send_to(port, MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE),
                 MACH_SEND_INVALID_DEST);
        nothing_was_taken(port);
        CHECK_EQ(mach_port_get_refs(SELF, port, MACH_PORT_RIGHT_SEND, &urefs), KERN_SUCCESS);
        CHECK_EQ(urefs, 1);
        tear_down();
    }
}

TEST(a_full_queue_is_full_only_if_its_port_lives) {
    mach_port_urefs_t urefs;
    set_up(0);
    CHECK_EQ(send_to(port, MACH_MSG_TYPE_COPY_SEND, 0), MACH_SEND_TIMED_OUT);
    CHECK_EQ(sent.msgh_bits, MACH_MSGH_BITS(MACH_MSG_TYPE_MOVE_SEND, 0));
    CHECK_EQ(mach_port_get_refs(SELF, port, MACH_PORT_RIGHT_SEND, &urefs), KERN_SUCCESS);
    CHECK_EQ(urefs, 2); /* the pseudo-receive's */
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, -1), KERN_SUCCESS);
    CHECK_EQ(write(peer.cw, "x", 1), 1);
    CHECK_EQ(send_to(port, MACH_MSG_TYPE_COPY_SEND, 0), MACH_MSG_SUCCESS);
    CHECK_EQ(send_to(port, MACH_MSG_TYPE_COPY_SEND, 0), MACH_SEND_TIMED_OUT);
    mach_port_deallocate(SELF, port);
    tear_down();
}

TEST(a_request_on_a_dead_port_is_told_by_the_send) {
    struct {
        mach_dead_name_notification_t note;
        mach_msg_trailer_t trailer;
    } told;
    mach_port_t previous;
    mach_port_urefs_t urefs;
    set_up(5);
    CHECK_EQ(mach_port_request_notification(SELF, port, MACH_NOTIFY_DEAD_NAME, 0, reply,
                                            MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
             KERN_SUCCESS);
    die();
    CHECK_EQ(send_to(port, MACH_MSG_TYPE_COPY_SEND, 0), MACH_SEND_INVALID_DEST);
    CHECK_EQ(mach_port_get_refs(SELF, port, MACH_PORT_RIGHT_DEAD_NAME, &urefs), KERN_SUCCESS);
    CHECK_EQ(urefs, 2); /* the notification's */
    CHECK_EQ(mach_msg(&told.note.not_header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof told, reply,
                      0, 0),
             MACH_MSG_SUCCESS);
    CHECK_EQ(told.note.not_port, port);
    mach_port_deallocate(SELF, port);
    tear_down();
}

TEST(a_dead_send_once_right_stays_as_a_dead_name) {
    set_up(0);
    close(once_rx);
    once_rx = -1;
    CHECK_EQ(send_to(once, MACH_MSG_TYPE_MOVE_SEND_ONCE, MACH_MSG_TYPE_MAKE_SEND_ONCE),
             MACH_SEND_INVALID_DEST);
    nothing_was_taken(once);
    is_dead_name(once);
    tear_down();
}

TEST(a_request_on_a_dead_send_once_right_is_told_by_the_send) {
    mach_port_t previous;
    mach_port_urefs_t urefs;
    set_up(0);
    CHECK_EQ(mach_port_request_notification(SELF, once, MACH_NOTIFY_DEAD_NAME, 0, reply,
                                            MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
             KERN_SUCCESS);
    close(once_rx);
    once_rx = -1;
    CHECK_EQ(send_to(once, MACH_MSG_TYPE_MOVE_SEND_ONCE, 0), MACH_SEND_INVALID_DEST);
    CHECK_EQ(mach_port_get_refs(SELF, once, MACH_PORT_RIGHT_DEAD_NAME, &urefs), KERN_SUCCESS);
    CHECK_EQ(urefs, 2);
    mach_port_deallocate(SELF, once);
    tear_down();
}

/* A hostile holder filled the socket: nobody takes what is sent there, but the right is used up. */
TEST(a_send_once_right_that_is_full_is_used_up) {
    mach_port_type_t type;
    set_up(0);
    mio_lock();
    int tx = mio_space_lookup(once)->once->source.fd;
    while (send(tx, "x", 1, MSG_DONTWAIT) == 1)
        ;
    mio_unlock();
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(send_to(once, MACH_MSG_TYPE_MOVE_SEND_ONCE, 0), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_port_type(SELF, once, &type), KERN_INVALID_NAME);
    tear_down();
}

/* ---- rights that are taken along ---------------------------------------------------------- */

static mach_msg_return_t carry_to(mach_port_t to, mach_port_t right, mach_msg_type_name_t how) {
    struct {
        mach_msg_base_t base;
        mach_msg_port_descriptor_t port;
    } message = {
        .base.header = {.msgh_bits =
                            MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0) | MACH_MSGH_BITS_COMPLEX,
                        .msgh_size = sizeof message,
                        .msgh_remote_port = to},
        .base.body.msgh_descriptor_count = 1,
        .port = {.name = right, .disposition = how, .type = MACH_MSG_PORT_DESCRIPTOR},
    };
    mach_msg_return_t mr = mach_msg(&message.base.header, MACH_SEND_MSG | MACH_SEND_TIMEOUT,
                                    sizeof message, 0, 0, 0, 0);
    carried = message.port.name;
    return mr;
}

/* A right to another port of the peer, which dies at once. */
static mach_port_t a_right_that_died(void) {
    struct raw raw = raw_complex(1);
    struct foreign other;
    mach_port_t name;
    mio_lock();
    make_foreign(&other);
    raw.rights[1] = raw_send_right(&raw, &other);
    transmit(out, &raw);
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_EQ(mio_right_copyout(&kmsg->rights[0], &name), KERN_SUCCESS);
    mio_kmsg_free(kmsg);
    close_foreign(&other);
    mio_unlock();
    return name;
}

TEST(a_right_that_died_arrives_dead) {
    mach_port_type_t type;
    set_up(5);
    mach_port_t right = a_right_that_died();
    CHECK_EQ(carry_to(port, right, MACH_MSG_TYPE_MOVE_SEND), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_port_type(SELF, right, &type), KERN_INVALID_NAME);
    mio_lock();
    struct mio_kmsg *kmsg = receive_message(peer.rx);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_DEAD);
    CHECK_EQ(kmsg->rights[0].disposition, MACH_MSG_TYPE_PORT_SEND);
    mio_kmsg_destroy(kmsg);
    mio_unlock();
    right = a_right_that_died();
    CHECK_EQ(carry_to(port, right, MACH_MSG_TYPE_COPY_SEND), MACH_MSG_SUCCESS);
    is_dead_name(right);
    mach_port_deallocate(SELF, right);
    close(once_rx);
    once_rx = -1;
    CHECK_EQ(carry_to(port, once, MACH_MSG_TYPE_MOVE_SEND_ONCE), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_port_type(SELF, once, &type), KERN_INVALID_NAME);
    tear_down();
}

TEST(a_right_that_died_comes_back_dead) {
    mach_port_type_t type;
    set_up(0);
    mach_port_t right = a_right_that_died();
    CHECK_EQ(carry_to(port, right, MACH_MSG_TYPE_MOVE_SEND), MACH_SEND_TIMED_OUT);
    CHECK_EQ(carried, MACH_PORT_DEAD);
    CHECK_EQ(mach_port_type(SELF, right, &type), KERN_INVALID_NAME);
    mach_port_deallocate(SELF, port);
    tear_down();
}

/* For a dead name every disposition of a send or a send-once right will do. */
TEST(a_right_that_died_is_a_dead_name) {
    mach_port_type_t type;
    set_up(5);
    mach_port_t right = a_right_that_died();
    CHECK_EQ(carry_to(port, right, MACH_MSG_TYPE_MOVE_SEND_ONCE), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_port_type(SELF, right, &type), KERN_INVALID_NAME);
    close(once_rx);
    once_rx = -1;
    CHECK_EQ(carry_to(port, once, MACH_MSG_TYPE_COPY_SEND), MACH_MSG_SUCCESS);
    is_dead_name(once);
    tear_down();
}

TEST(a_right_that_died_is_dropped_as_one_that_lives) {
    mach_port_type_t type;
    set_up(5);
    mach_port_t right = a_right_that_died();
    CHECK_EQ(mach_port_deallocate(SELF, right), KERN_SUCCESS);
    CHECK_EQ(mach_port_type(SELF, right, &type), KERN_INVALID_NAME);
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, 1), KERN_SUCCESS);
    die();
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    is_dead_name(port);
    tear_down();
}

/* Its death is told first, and brings a reference that outlives the one that is dropped. */
TEST(whose_death_is_to_be_told_is_asked_before_it_is_dropped) {
    mach_port_t previous;
    set_up(5);
    CHECK_EQ(mach_port_request_notification(SELF, port, MACH_NOTIFY_DEAD_NAME, 0, reply,
                                            MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
             KERN_SUCCESS);
    die();
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    is_dead_name(port);
    tear_down();
}

/* ---- what comes back ---------------------------------------------------------------------- */

/* A receive that follows a request waits before it looks: what the wait tells is of both. */
TEST(of_two_answers_that_are_there_the_older_comes_first) {
    CHECK(mio_thread_fd() >= 0); /* made at the first wait, and kept */
    for (int once_first = 0; once_first < 2; once_first++) {
        struct {
            mach_msg_header_t header;
            uint32_t body[2];
            mach_msg_trailer_t trailer;
        } answer;
        set_up(5);
        mio_lock();
        struct mio_port *home = mio_space_lookup(reply)->port;
        struct mio_kmsg *kmsg = message(0, 0);
        CHECK_EQ(mio_channel_open(home), KERN_SUCCESS);
        kmsg->reply = once_right(home);
        send_ok(out, kmsg, 0);
        int end_of_once = take_descriptor(in);
        for (int i = 0; i < 2; i++) {
            bool by_once = once_first == (i == 0);
            send_ok(by_once ? end_of_once : home->tx, message(i, 0), MIO_FRAME_NO_CREDIT);
        }
        close(end_of_once);
        mio_unlock();
        for (int i = 0; i < 2; i++) {
            answer.header = (mach_msg_header_t){
                .msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                .msgh_size = sizeof answer.header,
                .msgh_remote_port = port,
            };
            CHECK_EQ(mach_msg(&answer.header, MACH_SEND_MSG | MACH_RCV_MSG, sizeof answer.header,
                              sizeof answer, reply, 0, 0),
                     MACH_MSG_SUCCESS);
            CHECK_EQ(answer.header.msgh_id, i);
        }
        tear_down();
    }
}

CHECK_MAIN()
