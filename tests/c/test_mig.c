/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What mig generates compiles as it is, and works: mig/ has a subsystem, both sides, in the shape
 * of its output. Its user side calls its server side, which another thread serves.
 */
#include "ports.h"

#include <bsm/libbsm.h>
#include <pthread.h>
#include <unistd.h>

#include "mig/arithUser.c"

#undef msgh_request_port
#undef msgh_reply_port

#include "mig/arithServer.c"

#undef msgh_request_port
#undef msgh_reply_port

static mach_port_t server;
static int noted; /* written by the server's thread, read after a call that came later */

/* ---- the server's functions -------------------------------------------------------------------- */

kern_return_t do_add(mach_port_t port, int a, int b, int *sum) {
    CHECK_EQ(port, server);
    *sum = a + b;
    return b == 0 ? KERN_FAILURE : KERN_SUCCESS;
}

/* A value without a weight counts once. */
kern_return_t do_mean(mach_port_t port, values_t values, mach_msg_type_number_t count,
                      values_t weights, mach_msg_type_number_t weights_count, int *mean) {
    CHECK_EQ(port, server);
    int sum = 0, weight = 0;
    for (unsigned i = 0; i < count; i++) {
        int times = i < weights_count ? weights[i] : 1;
        sum += times * values[i];
        weight += times;
    }
    *mean = sum / weight;
    return KERN_SUCCESS;
}

/* Ownership: the memory and the right are this function's on success, the reply's memory the
 * caller's.
 */
kern_return_t do_keep(mach_port_t port, vm_offset_t data, mach_msg_type_number_t size,
                      mach_port_t back, vm_offset_t *twice, mach_msg_type_number_t *twice_size) {
    CHECK_EQ(port, server);
    CHECK_EQ(vm_allocate(SELF, twice, 2 * size, VM_FLAGS_ANYWHERE), KERN_SUCCESS);
    char *made; /* `twice` points into a message, at a multiple of 4 */
    memcpy(&made, twice, sizeof made);
    memcpy(made, (void *)data, size);
    memcpy(made + size, (void *)data, size);
    *twice_size = 2 * size;
    mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MOVE_SEND, 0),
                                 .msgh_size = sizeof message,
                                 .msgh_remote_port = back,
                                 .msgh_id = (mach_msg_id_t)size};
    CHECK_EQ(mach_msg_send(&message), MACH_MSG_SUCCESS);
    return vm_deallocate(SELF, data, size);
}

kern_return_t do_note(mach_port_t port, text_t text, audit_token_t token) {
    CHECK_EQ(port, server);
    CHECK_EQ(audit_token_to_pid(token), getpid());
    size_t length = strlen(text);
    for (size_t i = length + 1; i % 4 != 0; i++)
        CHECK_EQ(text[i], 0); /* nothing of the caller's stack goes along */
    noted += (int)length;
    return KERN_SUCCESS;
}

static void *serve(void *options) {
    mach_msg_return_t ended =
        mach_msg_server(arith_server, 4096, server, *(const mach_msg_options_t *)options);
    CHECK(ended == MACH_RCV_PORT_CHANGED || ended == MACH_RCV_INVALID_NAME);
    return NULL;
}

/* ---- the tests ------------------------------------------------------------------------------------ */

static pthread_t start_thread(void *(*function)(void *), const void *argument) {
    pthread_t thread;
    server = new_port();
    CHECK_EQ(mach_port_insert_right(SELF, server, server, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    CHECK_EQ(pthread_create(&thread, NULL, function, (void *)(uintptr_t)argument), 0);
    return thread;
}

static pthread_t start(void) {
    static const mach_msg_options_t with_token = MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT);
    return start_thread(serve, &with_token);
}

static void stop(pthread_t thread) {
    destroy_port(server);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(values_and_errors_come_back) {
    pthread_t thread = start();
    int sum, average, values[17] = {3, 4, 8}, weights[17] = {2, 7};
    CHECK_EQ(add(server, 2, 3, &sum), KERN_SUCCESS);
    CHECK_EQ(sum, 5);
    CHECK_EQ(add(server, 2, 0, &sum), KERN_FAILURE);
    CHECK_EQ(mean(server, values, 3, weights, 0, &average), KERN_SUCCESS);
    CHECK_EQ(average, 5);
    CHECK_EQ(mean(server, values, 16, weights, 2, &average), KERN_SUCCESS);
    CHECK_EQ(average, (2 * 3 + 7 * 4 + 8) / (2 + 7 + 14));
    CHECK_EQ(mean(server, values, 16, weights, 16, &average), KERN_SUCCESS);
    CHECK_EQ(average, (2 * 3 + 7 * 4) / 9);
    CHECK_EQ(mean(server, values, 17, weights, 0, &average), MIG_ARRAY_TOO_LARGE);
    CHECK_EQ(mean(server, values, 0, weights, 17, &average), MIG_ARRAY_TOO_LARGE);
    stop(thread);
    CHECK_EQ(add(server, 2, 3, &sum), MACH_SEND_INVALID_DEST);
}

TEST(memory_goes_out_of_line_and_a_right_in_any_way) {
    pthread_t thread = start();
    const mach_msg_type_name_t ways[] = {MACH_MSG_TYPE_MAKE_SEND, MACH_MSG_TYPE_COPY_SEND,
                                         MACH_MSG_TYPE_MOVE_SEND};
    mach_port_t back = new_port();
    static char data[70000];
    for (unsigned i = 0; i < 3; i++) {
        vm_offset_t twice;
        mach_msg_type_number_t size;
        if (ways[i] == MACH_MSG_TYPE_COPY_SEND)
            CHECK_EQ(mach_port_insert_right(SELF, back, back, MACH_MSG_TYPE_MAKE_SEND),
                     KERN_SUCCESS);
        memset(data, (int)i, sizeof data);
        CHECK_EQ(keep(server, (vm_offset_t)data, sizeof data, back, ways[i], &twice, &size),
                 KERN_SUCCESS);
        CHECK_EQ(size, 2 * sizeof data);
        CHECK_MEM((char *)twice + sizeof data, data, sizeof data);
        CHECK_EQ(vm_deallocate(SELF, twice, size), KERN_SUCCESS);
        receive_from(back, back, sizeof data);
    }
    destroy_port(back);
    stop(thread);
}

__attribute__((noinline)) static void leave_secrets(void) {
    volatile char secrets[4096];
    for (size_t i = 0; i < sizeof secrets; i++)
        secrets[i] = 's';
}

TEST(a_simple_routine_waits_for_nobody) {
    pthread_t thread = start();
    text_t text = "four";
    int sum;
    leave_secrets();
    CHECK_EQ(note(server, text), KERN_SUCCESS);
    memset(text, 'x', sizeof text); /* it has no end: cut */
    CHECK_EQ(note(server, text), KERN_SUCCESS);
    CHECK_EQ(add(server, 1, 1, &sum), KERN_SUCCESS);
    CHECK_EQ(noted, 4 + 127);
    stop(thread);
}

TEST(a_token_that_did_not_arrive_is_missed) {
    static const mach_msg_options_t none = 0;
    pthread_t thread = start_thread(serve, &none);
    text_t text = "four";
    int sum;
    CHECK_EQ(note(server, text), KERN_SUCCESS);
    CHECK_EQ(add(server, 1, 1, &sum), KERN_SUCCESS);
    CHECK_EQ(noted, 0);
    stop(thread);
}

/* What a server answers to a header and some bytes. */
static kern_return_t answer_to(mach_msg_id_t id, mach_msg_size_t size, mach_msg_id_t *ret_id) {
    union {
        mach_msg_header_t header;
        uint8_t bytes[512];
        mig_reply_error_t error;
    } message = {.header = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND,
                                                        MACH_MSG_TYPE_MAKE_SEND_ONCE),
                            .msgh_remote_port = server,
                            .msgh_local_port = mig_get_reply_port(),
                            .msgh_id = id}};
    CHECK_EQ(mach_msg(&message.header, MACH_SEND_MSG | MACH_RCV_MSG, size, sizeof message,
                      message.header.msgh_local_port, 0, MACH_PORT_NULL),
             MACH_MSG_SUCCESS);
    CHECK_EQ(message.header.msgh_size, sizeof(mig_reply_error_t));
    *ret_id = message.header.msgh_id;
    return message.error.RetCode;
}

TEST(what_no_user_side_sends_is_refused) {
    pthread_t thread = start();
    mach_msg_id_t id;
    for (mach_msg_id_t what = 499; what <= 504; what++) {
        bool known = what >= 500 && what < 504;
        CHECK_EQ(answer_to(what, 32, &id), known ? MIG_BAD_ARGUMENTS : MIG_BAD_ID);
        CHECK_EQ(id, what + 100);
    }
    CHECK_EQ(answer_to(500, sizeof(__Request__add_t) + 4, &id), MIG_BAD_ARGUMENTS);
    stop(thread);
}

/* What a server should not answer: each brings a right or memory. */
struct answer {
    mach_msg_id_t id;          /* 0: none at all */
    mach_msg_type_name_t back; /* of a port where a reply has none */
    mach_msg_size_t size, extra;
};

static void *answer_once(void *argument) {
    const struct answer *wrong = argument;
    struct {
        mach_msg_header_t header;
        uint8_t bytes[512];
    } request;
    CHECK_EQ(mach_msg(&request.header, MACH_RCV_MSG, 0, sizeof request, server, 0, 0),
             MACH_MSG_SUCCESS);
    union {
        __Reply__keep_t keep;
        __Reply__add_t add;
    } reply = {.add = {.NDR = NDR_record}};
    mach_msg_header_t *header = &reply.add.Head;
    if (wrong->id == 602)
        reply.keep = (__Reply__keep_t){
            .Head.msgh_bits = MACH_MSGH_BITS_COMPLEX,
            .msgh_body = {1},
            .twice = {.address = &reply, .size = sizeof reply, .type = MACH_MSG_OOL_DESCRIPTOR},
            .twiceCnt = sizeof reply + wrong->extra};
    header->msgh_bits |= MACH_MSGH_BITS(MACH_MSG_TYPE_MOVE_SEND_ONCE, wrong->back);
    header->msgh_remote_port = request.header.msgh_remote_port;
    header->msgh_local_port = wrong->back ? server : MACH_PORT_NULL;
    header->msgh_id = wrong->id;
    header->msgh_size = wrong->size;
    request.header.msgh_remote_port = wrong->id ? MACH_PORT_NULL : header->msgh_remote_port;
    if (wrong->id)
        CHECK_EQ(mach_msg_send(header), MACH_MSG_SUCCESS);
    mach_msg_destroy(&request.header);
    return NULL;
}

/* Ownership: the user side destroys an answer that is none, with what it brought. */
TEST(what_no_server_side_answers_is_destroyed) {
    const struct {
        struct answer answer;
        kern_return_t code;
    } answers[] = {
        {{0, 0, 0, 0}, MIG_SERVER_DIED},
        {{601, 0, sizeof(__Reply__add_t), 0}, MIG_REPLY_MISMATCH},
        {{601, MACH_MSG_TYPE_MAKE_SEND, sizeof(__Reply__add_t), 0}, MIG_REPLY_MISMATCH},
        {{600, MACH_MSG_TYPE_MAKE_SEND, sizeof(__Reply__add_t), 0}, MIG_TYPE_ERROR},
        {{600, MACH_MSG_TYPE_MAKE_SEND_ONCE, sizeof(__Reply__add_t), 0}, MIG_TYPE_ERROR},
        {{600, 0, sizeof(mig_reply_error_t), 0}, MIG_TYPE_ERROR},
        {{600, 0, sizeof(__Reply__add_t), 0}, KERN_SUCCESS},
        {{602, 0, sizeof(__Reply__keep_t), 1}, MIG_TYPE_ERROR},
        {{602, MACH_MSG_TYPE_MAKE_SEND, sizeof(__Reply__keep_t), 0}, MIG_TYPE_ERROR},
        {{602, 0, sizeof(__Reply__keep_t), 0}, KERN_SUCCESS},
    };
    mig_get_reply_port();
    for (unsigned i = 0; i < sizeof answers / sizeof *answers; i++) {
        pthread_t thread = start_thread(answer_once, &answers[i].answer);
        mach_port_urefs_t before, after;
        unsigned all = names_held();
        int sum;
        CHECK_EQ(mach_port_get_refs(SELF, server, MACH_PORT_RIGHT_SEND, &before), KERN_SUCCESS);
        if (answers[i].answer.id == 602) {
            vm_offset_t twice;
            mach_msg_type_number_t size;
            CHECK_EQ(
                keep(server, (vm_offset_t) "", 1, server, MACH_MSG_TYPE_COPY_SEND, &twice, &size),
                answers[i].code);
            if (answers[i].code == KERN_SUCCESS)
                CHECK_EQ(vm_deallocate(SELF, twice, size), KERN_SUCCESS);
        } else {
            CHECK_EQ(add(server, 1, 1, &sum), answers[i].code);
        }
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(mach_port_get_refs(SELF, server, MACH_PORT_RIGHT_SEND, &after), KERN_SUCCESS);
        CHECK_EQ(after, before);
        CHECK_EQ(names_held(), all);
        destroy_port(server);
    }
}

TEST(the_subsystem_tells_its_routines) {
    mach_msg_header_t header = {.msgh_id = 503};
    CHECK(arith_server_routine(&header) == do_arith_subsystem.routine[3].stub_routine);
    header.msgh_id = 504;
    CHECK(arith_server_routine(&header) == NULL);
    CHECK(do_arith_subsystem.server == arith_server_routine);
    CHECK_EQ(do_arith_subsystem.end - do_arith_subsystem.start, arith_MSG_COUNT);
    CHECK_EQ(do_arith_subsystem.maxsize, sizeof(__Reply__keep_t));
    const struct {
        const char *name;
        int id;
    } names[] = {subsystem_to_name_map_arith};
    CHECK_EQ(names[3].id, 503);
}

CHECK_MAIN()
