/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_msg in one task: what is checked, what a failed send leaves behind, waiting, limits.
 */
#include "ports.h"

#include <pthread.h>

struct with_port {
    mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t port;
    mach_msg_max_trailer_t trailer;
};

#define WITH_PORT_SIZE ((mach_msg_size_t)offsetof(struct with_port, trailer))

static mach_port_t new_pair(void) {
    mach_port_t port = new_port();
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    return port;
}

static unsigned send_refs(mach_port_t name) {
    mach_port_urefs_t count;
    CHECK_EQ(mach_port_get_refs(SELF, name, MACH_PORT_RIGHT_SEND, &count), KERN_SUCCESS);
    return count;
}

static mach_msg_header_t plain(mach_port_t dest, unsigned bits, int id) {
    return (mach_msg_header_t){.msgh_bits = bits, .msgh_remote_port = dest, .msgh_id = id};
}

static mach_msg_return_t send_now(mach_msg_header_t *message, mach_msg_size_t size) {
    return mach_msg(message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, size, 0, 0, 0, 0);
}

static struct with_port carrying(mach_port_t dest, mach_port_t right,
                                 mach_msg_type_name_t disposition) {
    return (struct with_port){
        .header = {.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                   .msgh_remote_port = dest,
                   .msgh_id = 5},
        .body = {.msgh_descriptor_count = 1},
        .port = {.name = right, .disposition = disposition, .type = MACH_MSG_PORT_DESCRIPTOR},
    };
}

static void receive_port(mach_port_t from, struct with_port *ret) {
    CHECK_EQ(mach_msg(&ret->header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof *ret, from, 0, 0),
             MACH_MSG_SUCCESS);
    CHECK_EQ(ret->header.msgh_size, WITH_PORT_SIZE);
}

TEST(bad_messages_are_refused_before_anything_is_taken) {
    mach_port_t port = new_pair();
    mach_msg_header_t message = plain(port, MACH_MSG_TYPE_COPY_SEND, 1);
    struct with_port complex = carrying(port, port, MACH_MSG_TYPE_MOVE_SEND);
    CHECK_EQ(send_now(&message, 20), MACH_SEND_MSG_TOO_SMALL);
    CHECK_EQ(send_now(&message, 26), MACH_SEND_MSG_TOO_SMALL);
    CHECK_EQ(send_now(&message, 50331584), MACH_SEND_TOO_LARGE);
    CHECK_EQ(send_now(&complex.header, 28), MACH_SEND_MSG_TOO_SMALL);
    complex.port.type = 9;
    CHECK_EQ(send_now(&complex.header, WITH_PORT_SIZE), MACH_SEND_INVALID_TYPE);
    message.msgh_bits = MACH_MSG_TYPE_MOVE_RECEIVE;
    CHECK_EQ(send_now(&message, sizeof message), MACH_SEND_INVALID_HEADER);
    message = plain(port, MACH_MSG_TYPE_COPY_SEND, 1);
    message.msgh_local_port = port;
    CHECK_EQ(send_now(&message, sizeof message), MACH_SEND_INVALID_HEADER);
    message.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    message.msgh_local_port = UNUSED_NAME;
    CHECK_EQ(send_now(&message, sizeof message), MACH_SEND_INVALID_REPLY);
    message = plain(MACH_PORT_NULL, MACH_MSG_TYPE_COPY_SEND, 1);
    CHECK_EQ(send_now(&message, sizeof message), MACH_SEND_INVALID_DEST);
    CHECK_EQ(send_refs(port), 1);
    check_empty(port);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

TEST(a_message_arrives_with_its_bits_turned_round) {
    mach_port_t port = new_pair(), reply = new_port();
    struct message message = {0};
    message.header =
        plain(port, MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE), 77);
    message.header.msgh_local_port = reply;
    CHECK_EQ(send_now(&message.header, sizeof message.header), MACH_MSG_SUCCESS);
    memset(&message, 0xee, sizeof message);
    CHECK_EQ(receive(port, &message, 0), MACH_MSG_SUCCESS);
    CHECK_EQ(message.header.msgh_bits, 0x1112);
    CHECK_EQ(message.header.msgh_size, 24);
    CHECK_EQ(message.header.msgh_id, 77);
    CHECK_EQ(message.header.msgh_local_port, port);
    CHECK(message.header.msgh_remote_port != reply);
    CHECK_EQ(message.trailer.msgh_trailer_size, 8);
    mach_msg_destroy(&message.header);
    receive_from(reply, reply, MACH_NOTIFY_SEND_ONCE);
    destroy_port(reply);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

TEST(the_audit_trailer_tells_the_sender) {
    mach_port_t port = new_port();
    struct {
        mach_msg_header_t header;
        mach_msg_audit_trailer_t trailer;
        uint32_t untouched;
    } message = {.untouched = 0xabababab};
    for (int wire = 0; wire < 2; wire++) {
        (wire ? send_wire : send_id)(port, 1);
        CHECK_EQ(mach_msg(&message.header,
                          MACH_RCV_MSG | MACH_RCV_TIMEOUT |
                              MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT),
                          0, sizeof message, port, 0, 0),
                 MACH_MSG_SUCCESS);
        CHECK_EQ(message.trailer.msgh_trailer_size, sizeof message.trailer);
        CHECK_EQ(message.trailer.msgh_seqno, wire);
        CHECK_EQ(message.trailer.msgh_sender.val[0], getuid());
        CHECK_EQ(message.trailer.msgh_audit.val[5], getpid());
        CHECK_EQ(message.untouched, 0xabababab);
    }
    destroy_port(port);
}

TEST(the_queue_limit_holds_and_a_send_once_right_passes_it) {
    mach_port_t port = new_pair();
    mach_msg_header_t message;
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
        send_id(port, i);
    message = plain(port, MACH_MSG_TYPE_COPY_SEND, 9);
    CHECK_EQ(send_now(&message, sizeof message), MACH_SEND_TIMED_OUT);
    CHECK_EQ(message.msgh_bits, MACH_MSG_TYPE_MOVE_SEND); /* handed back as a right that moves */
    CHECK_EQ(send_refs(port), 2);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    message = plain(port, MACH_MSG_TYPE_MAKE_SEND_ONCE, 10);
    CHECK_EQ(send_now(&message, sizeof message), MACH_MSG_SUCCESS);
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
        receive_from(port, port, i);
    receive_from(port, port, 10);
    check_empty(port);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

TEST(a_send_that_times_out_gives_every_right_back) {
    mach_port_t port = new_pair(), cargo = new_port(), reply = new_port();
    set_limit(port, 0);
    struct with_port message = carrying(port, cargo, MACH_MSG_TYPE_MOVE_RECEIVE);
    message.header.msgh_bits |= MACH_MSGH_BITS(0, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    message.header.msgh_local_port = reply;
    CHECK_EQ(
        mach_msg(&message.header, MACH_SEND_MSG | MACH_SEND_TIMEOUT, WITH_PORT_SIZE, 0, 0, 20, 0),
        MACH_SEND_TIMED_OUT);
    CHECK_EQ(message.header.msgh_bits, 0x80001211);
    CHECK_EQ(message.header.msgh_size, WITH_PORT_SIZE);
    CHECK(message.port.name != cargo);
    CHECK_EQ(message.port.disposition, MACH_MSG_TYPE_MOVE_RECEIVE);
    check_empty(reply);
    set_limit(port, 1); /* and the buffer can be sent as it is */
    CHECK_EQ(send_now(&message.header, WITH_PORT_SIZE), MACH_MSG_SUCCESS);
    CHECK_EQ(send_refs(port), 1);
    struct with_port received;
    receive_port(port, &received);
    mach_msg_destroy(&received.header);
    receive_from(reply, reply, MACH_NOTIFY_SEND_ONCE);
    destroy_port(reply);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

TEST(a_bad_right_in_the_body_destroys_what_was_taken) {
    mach_port_t port = new_pair(), reply = new_port();
    struct with_port message = carrying(port, UNUSED_NAME, MACH_MSG_TYPE_COPY_SEND);
    message.header.msgh_bits |= MACH_MSGH_BITS(0, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    message.header.msgh_local_port = reply;
    CHECK_EQ(send_now(&message.header, WITH_PORT_SIZE), MACH_SEND_INVALID_RIGHT);
    receive_from(reply, reply, MACH_NOTIFY_SEND_ONCE);
    CHECK_EQ(send_refs(port), 1);
    check_empty(port);
    destroy_port(reply);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

TEST(a_receive_right_takes_its_queue_along) {
    mach_port_t port = new_pair(), cargo = new_pair();
    send_id(cargo, 41);
    send_wire(cargo, 42);
    struct with_port message = carrying(port, cargo, MACH_MSG_TYPE_MOVE_RECEIVE);
    CHECK_EQ(send_now(&message.header, WITH_PORT_SIZE), MACH_MSG_SUCCESS);
    struct message none;
    CHECK_EQ(receive(cargo, &none, 0), MACH_RCV_INVALID_NAME);
    struct with_port received;
    receive_port(port, &received);
    CHECK_EQ(received.port.name, cargo); /* where the send right stayed */
    receive_from(cargo, cargo, 41);
    receive_from(cargo, cargo, 42);
    CHECK_EQ(mach_port_destroy(SELF, cargo), KERN_SUCCESS);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

TEST(a_receive_right_in_its_own_queue_dies) {
    mach_port_t port = new_pair();
    struct with_port message = carrying(port, port, MACH_MSG_TYPE_MOVE_RECEIVE);
    mach_port_type_t type;
    CHECK_EQ(send_now(&message.header, WITH_PORT_SIZE), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_port_type(SELF, port, &type), KERN_SUCCESS);
    CHECK_EQ(type, MACH_PORT_TYPE_DEAD_NAME);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
}

TEST(a_chain_of_ports_in_queues_is_destroyed_without_recursion) {
    mach_port_t first = new_pair(), port = first;
    for (int i = 0; i < 20000; i++) { /* each port lies in the queue of the next */
        mach_port_t next = new_pair();
        struct with_port message = carrying(next, port, MACH_MSG_TYPE_MOVE_RECEIVE);
        CHECK_EQ(send_now(&message.header, WITH_PORT_SIZE), MACH_MSG_SUCCESS);
        CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
        port = next;
    }
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

TEST(too_large_a_message_is_told_or_lost) {
    mach_port_t port = new_port();
    struct message message = {0};
    for (int wire = 0; wire < 2; wire++) {
        send_fn send = wire ? send_wire : send_id;
        send(port, 1);
        CHECK_EQ(
            mach_msg(&message.header,
                     MACH_RCV_MSG | MACH_RCV_TIMEOUT | MACH_RCV_LARGE | MACH_RCV_LARGE_IDENTITY, 0,
                     31, port, 0, 0),
            MACH_RCV_TOO_LARGE);
        CHECK_EQ(message.header.msgh_size, 24);
        CHECK_EQ(message.header.msgh_local_port, port);
        send(port, 2);
        receive_from(port, port, 1);
        CHECK_EQ(mach_msg(&message.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, 31, port, 0, 0),
                 MACH_RCV_TOO_LARGE);
        CHECK_EQ(message.header.msgh_id, 2);
        check_empty(port);
    }
    destroy_port(port);
}

TEST(large_bodies_arrive_whole) {
    enum { SIZE = 1 << 20 };
    mach_port_t port = new_pair();
    uint8_t *out = malloc(SIZE), *in = malloc(SIZE + 8);
    for (int i = 0; i < SIZE; i++)
        out[i] = (uint8_t)(i * 7 + (i >> 8));
    mach_msg_header_t head = plain(port, MACH_MSG_TYPE_COPY_SEND, 3);
    memcpy(out, &head, sizeof head);
    CHECK_EQ(send_now((mach_msg_header_t *)(void *)out, SIZE), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_msg((mach_msg_header_t *)(void *)in, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, SIZE + 8,
                      port, 0, 0),
             MACH_MSG_SUCCESS);
    CHECK_MEM(in + sizeof head, out + sizeof head, SIZE - sizeof head);
    free(in);
    free(out);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

struct blocked {
    mach_port_t port;
    mach_msg_return_t result;
};

static void *block_in_send(void *argument) {
    struct blocked *blocked = argument;
    mach_msg_header_t message = plain(blocked->port, MACH_MSG_TYPE_MAKE_SEND, 50);
    blocked->result = mach_msg(&message, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0);
    return NULL;
}

static void *block_in_receive(void *argument) {
    struct blocked *blocked = argument;
    struct message message;
    blocked->result =
        mach_msg(&message.header, MACH_RCV_MSG, 0, sizeof message, blocked->port, 0, 0);
    return NULL;
}

/* Until the thread waits: the port's list of waiters tells. */
static void until_blocked(mach_port_t name, bool sender) {
    for (;;) {
        mio_lock();
        struct mio_port *port = mio_space_lookup(name)->port;
        bool there = !mio_list_empty(sender ? &port->senders : &port->receivers);
        mio_unlock();
        if (there)
            return;
        usleep(100);
    }
}

TEST(a_blocked_sender_is_released_by_a_receive) {
    for (int wire = 0; wire < 2; wire++) {
        struct blocked blocked = {.port = new_port(), .result = -1};
        pthread_t thread;
        set_limit(blocked.port, 1);
        send_id(blocked.port, 1);
        if (wire) {
            mio_lock();
            CHECK_EQ(mio_channel_open(mio_space_lookup(blocked.port)->port), KERN_SUCCESS);
            mio_unlock();
        }
        CHECK_EQ(pthread_create(&thread, NULL, block_in_send, &blocked), 0);
        until_blocked(blocked.port, true);
        receive_from(blocked.port, blocked.port, 1);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(blocked.result, MACH_MSG_SUCCESS);
        receive_from(blocked.port, blocked.port, 50);
        destroy_port(blocked.port);
    }
}

TEST(a_blocked_sender_succeeds_when_the_port_dies) {
    struct blocked blocked = {.port = new_port(), .result = -1};
    pthread_t thread;
    set_limit(blocked.port, 0);
    CHECK_EQ(pthread_create(&thread, NULL, block_in_send, &blocked), 0);
    until_blocked(blocked.port, true);
    destroy_port(blocked.port);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(blocked.result, MACH_MSG_SUCCESS);
}

TEST(a_blocked_receiver_is_woken_by_message_and_by_death) {
    for (int how = 0; how < 3; how++) {
        struct blocked blocked = {.port = new_port(), .result = -1};
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, block_in_receive, &blocked), 0);
        until_blocked(blocked.port, false);
        if (how == 0)
            send_id(blocked.port, 1);
        else if (how == 1)
            send_wire(blocked.port, 1);
        else
            destroy_port(blocked.port);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(blocked.result, how < 2 ? MACH_MSG_SUCCESS : MACH_RCV_PORT_CHANGED);
        if (how < 2)
            destroy_port(blocked.port);
    }
}

TEST(many_senders_one_receiver_nothing_lost) {
    enum { THREADS = 4, EACH = 500 };
    struct blocked blocked[THREADS];
    pthread_t threads[THREADS];
    mach_port_t port = new_port();
    for (int round = 0; round < EACH / 100; round++) {
        for (int i = 0; i < THREADS; i++) {
            blocked[i] = (struct blocked){.port = port, .result = -1};
            CHECK_EQ(pthread_create(&threads[i], NULL, block_in_send, &blocked[i]), 0);
        }
        for (int i = 0; i < THREADS; i++)
            receive_from(port, port, 50);
        for (int i = 0; i < THREADS; i++) {
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
            CHECK_EQ(blocked[i].result, MACH_MSG_SUCCESS);
        }
    }
    check_empty(port);
    destroy_port(port);
}

CHECK_MAIN()
