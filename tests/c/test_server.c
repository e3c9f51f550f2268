/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_msg_server and what MIG's output calls.
 */
#include "ports.h"

#include <pthread.h>

static mach_port_t insert_send(mach_port_t port) {
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    return port;
}

/* A request whose reply goes to `reply` by a send-once right. */
static void request(mach_port_t server, mach_port_t reply, int id) {
    mach_msg_header_t message = {
        .msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MAKE_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE),
        .msgh_size = sizeof message,
        .msgh_remote_port = server,
        .msgh_local_port = reply,
        .msgh_id = id,
    };
    CHECK_EQ(mach_msg(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof message, 0, 0, 0, 0),
             MACH_MSG_SUCCESS);
}

static kern_return_t result;

static boolean_t demux(mach_msg_header_t *in, mach_msg_header_t *out) {
    mig_reply_setup(in, out);
    out->msgh_remote_port = in->msgh_remote_port;
    out->msgh_bits = MACH_MSGH_BITS(MACH_MSGH_BITS_REMOTE(in->msgh_bits), 0);
    ((mig_reply_error_t *)(void *)out)->RetCode = result;
    return TRUE;
}

static mach_msg_return_t serve(mach_port_t server) {
    return mach_msg_server_once(demux, 64, server, MACH_RCV_TIMEOUT);
}

TEST(a_request_is_answered) {
    mach_port_t server = new_port(), reply = new_port();
    struct {
        mig_reply_error_t error;
        mach_msg_trailer_t trailer;
    } answer;
    result = KERN_NOT_FOUND;
    request(server, reply, 400);
    CHECK_EQ(serve(server), MACH_MSG_SUCCESS);
    CHECK_EQ(mach_msg(&answer.error.Head, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof answer, reply,
                      0, 0),
             MACH_MSG_SUCCESS);
    CHECK_EQ(answer.error.Head.msgh_id, 500);
    CHECK_EQ(answer.error.Head.msgh_size, 36);
    CHECK_EQ(answer.error.RetCode, KERN_NOT_FOUND);
    CHECK_MEM(&answer.error.NDR, &NDR_record, sizeof NDR_record);
    CHECK_EQ(serve(server), MACH_RCV_TIMED_OUT);
    destroy_port(server);
    destroy_port(reply);
}

TEST(a_routine_may_answer_not_at_all) {
    mach_port_t server = new_port(), reply = new_port();
    result = MIG_NO_REPLY;
    request(server, reply, 400);
    CHECK_EQ(serve(server), MACH_MSG_SUCCESS);
    check_empty(reply); /* the right to reply is the routine's: no send-once notification */
    destroy_port(server);
    destroy_port(reply);
}

TEST(a_client_that_died_does_not_stop_the_server) {
    mach_port_t server = new_port(), reply = new_port();
    result = KERN_SUCCESS;
    request(server, reply, 400);
    destroy_port(reply);
    CHECK_EQ(serve(server), MACH_MSG_SUCCESS);
    destroy_port(server);
}

TEST(a_large_request_fits_only_with_the_option) {
    mach_port_t server = new_port(), reply = new_port();
    result = KERN_SUCCESS;
    request(server, reply, 400);
    CHECK_EQ(mach_msg_server_once(demux, 16, server, MACH_RCV_TIMEOUT), MACH_RCV_TOO_LARGE);
    receive_from(reply, reply, MACH_NOTIFY_SEND_ONCE); /* the request was destroyed */
    request(server, reply, 401);
    CHECK_EQ(mach_msg_server_once(demux, 0, server, MACH_RCV_TIMEOUT | MACH_RCV_LARGE),
             MACH_MSG_SUCCESS);
    destroy_port(server);
    destroy_port(reply);
}

TEST(the_server_ends_when_its_port_does) {
    mach_port_t server = new_port(), reply = new_port();
    result = KERN_SUCCESS;
    for (int i = 0; i < 3; i++)
        request(server, reply, 400 + i);
    CHECK_EQ(mach_msg_server(demux, 64, server, MACH_RCV_TIMEOUT), MACH_RCV_TIMED_OUT);
    for (int i = 0; i < 3; i++) {
        union {
            mig_reply_error_t error;
            char room[64];
        } answer;
        CHECK_EQ(mach_msg(&answer.error.Head, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof answer,
                          reply, 0, 0),
                 MACH_MSG_SUCCESS);
        CHECK_EQ(answer.error.Head.msgh_id, 500 + i);
    }
    destroy_port(server);
    CHECK_EQ(mach_msg_server(demux, 64, server, 0), MACH_RCV_INVALID_NAME);
    destroy_port(reply);
}

static void *reply_port_of_thread(void *ret) {
    *(mach_port_t *)ret = mig_get_reply_port();
    return NULL;
}

TEST(a_thread_has_one_reply_port) {
    mach_port_type_t type;
    pthread_t thread;
    mach_port_t mine = mig_get_reply_port(), other = MACH_PORT_NULL;
    CHECK(mine != MACH_PORT_NULL);
    CHECK_EQ(mig_get_reply_port(), mine);
    mig_put_reply_port(mine);
    CHECK_EQ(mig_get_reply_port(), mine);
    CHECK_EQ(pthread_create(&thread, NULL, reply_port_of_thread, &other), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(other != mine && other != MACH_PORT_NULL);
    CHECK_EQ(mach_port_type(SELF, other, &type), KERN_INVALID_NAME);
    mig_dealloc_reply_port(mine);
    CHECK_EQ(mach_port_type(SELF, mine, &type), KERN_INVALID_NAME);
    CHECK(mig_get_reply_port() != mine);

    mach_port_t child_of = mig_get_reply_port();
    pid_t pid = fork();
    if (pid == 0) {
        mach_port_t own = mig_get_reply_port();
        CHECK_EQ(mach_port_type(SELF, own, &type), KERN_SUCCESS);
        _exit(0);
    }
    CHECK_CHILD(pid);
    CHECK_EQ(mig_get_reply_port(), child_of);
}

TEST(strings_and_memory_of_mig) {
    char text[8];
    vm_address_t address;
    memset(text, 'x', sizeof text);
    CHECK_EQ(mig_strncpy(text, "abc", 8), 4);
    CHECK_MEM(text, "abc\0xxxx", 8);
    CHECK_EQ(mig_strncpy_zerofill(text, "ab", 8), 3);
    CHECK_MEM(text, "ab\0\0\0\0\0\0", 8);
    CHECK_EQ(mig_strncpy(text, "0123456789", 8), 8);
    CHECK_MEM(text, "0123456", 8);
    mig_allocate(&address, 100);
    CHECK(address != 0);
    *(char *)address = 1;
    mig_deallocate(address, 100);
    mig_allocate(&address, ~(vm_size_t)0);
    CHECK_EQ(address, 0);
}

TEST(a_message_can_be_looked_at) {
    mach_port_t port = new_port();
    mach_port_seqno_t seqno = 0;
    mach_msg_size_t size;
    mach_msg_id_t id;
    mach_msg_audit_trailer_t trailer;
    mach_msg_type_number_t room = sizeof trailer;
    mach_msg_trailer_type_t type = MACH_RCV_TRAILER_TYPE(MACH_MSG_TRAILER_FORMAT_0) |
                                   MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT);
    char *at = (char *)&trailer;
    CHECK_EQ(mach_port_peek(SELF, port, type, &seqno, &size, &id, at, &room), KERN_FAILURE);
    send_id(port, 1);
    send_wire(port, 2);
    CHECK_EQ(mach_port_peek(SELF, port, type, &seqno, &size, &id, at, &room), KERN_SUCCESS);
    CHECK_EQ(id, 1);
    CHECK_EQ(size, 24 + 8);
    CHECK_EQ(room, sizeof trailer);
    CHECK_EQ(trailer.msgh_audit.val[5], getpid());
    seqno = 1;
    CHECK_EQ(mach_port_peek(SELF, port, type, &seqno, &size, &id, at, &room), KERN_SUCCESS);
    CHECK_EQ(id, 2);
    seqno = 2;
    CHECK_EQ(mach_port_peek(SELF, port, type, &seqno, &size, &id, at, &room), KERN_FAILURE);
    room = 8;
    CHECK_EQ(mach_port_peek(SELF, port, type, &seqno, &size, &id, at, &room), KERN_INVALID_VALUE);
    receive_from(port, port, 1);
    receive_from(port, port, 2);
    insert_send(port);
    destroy_port(port);
    room = sizeof trailer;
    CHECK_EQ(mach_port_peek(SELF, port, type, &seqno, &size, &id, at, &room), KERN_INVALID_NAME);
}

TEST(a_strict_guard_can_be_asserted) {
    mach_port_t port = new_port();
    mach_port_guard_info_t guard = {.mpgi_guard = 7};
    mach_port_info_t info = (mach_port_info_t)&guard;
    CHECK_EQ(mach_port_assert_attributes(SELF, port, MACH_PORT_GUARD_INFO, info, 1), KERN_FAILURE);
    CHECK_EQ(mach_port_assert_attributes(SELF, port, MACH_PORT_GUARD_INFO, info, 2),
             KERN_INVALID_ARGUMENT);
    CHECK_EQ(mach_port_guard(SELF, port, 7, TRUE), KERN_SUCCESS);
    CHECK_EQ(mach_port_assert_attributes(SELF, port, MACH_PORT_GUARD_INFO, info, 2), KERN_SUCCESS);
    CHECK_EQ(mach_port_assert_attributes(SELF, port, MACH_PORT_LIMITS_INFO, info, 2),
             KERN_INVALID_ARGUMENT);
    guard.mpgi_guard = 8;
    CHECK_EQ(mach_port_assert_attributes(SELF, port, MACH_PORT_GUARD_INFO, info, 2),
             KERN_INVALID_ARGUMENT);
    CHECK_EQ(mach_port_rename(SELF, port, UNUSED_NAME), MIG_BAD_ID);
    CHECK_EQ(mach_port_unguard(SELF, port, 7), KERN_SUCCESS);
    destroy_port(port);
}

CHECK_MAIN()
