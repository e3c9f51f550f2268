/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What mig generates compiles as it is, and works: mig/ has a subsystem, both sides, in the shape
 * of its output. Its user side calls its server side, which another thread serves.
 */
#include "ports.h"

#include <pthread.h>

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

kern_return_t do_mean(mach_port_t port, values_t values, mach_msg_type_number_t count, int *mean) {
    CHECK_EQ(port, server);
    *mean = 0;
    for (unsigned i = 0; i < count; i++)
        *mean += values[i];
    *mean /= (int)count;
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

kern_return_t do_note(mach_port_t port, text_t text) {
    CHECK_EQ(port, server);
    noted += (int)strlen(text);
    return KERN_SUCCESS;
}

static void *serve(void *unused) {
    mach_msg_return_t ended = mach_msg_server(arith_server, 4096, server, 0);
    CHECK(ended == MACH_RCV_PORT_CHANGED || ended == MACH_RCV_INVALID_NAME);
    return unused;
}

/* ---- the tests ------------------------------------------------------------------------------------ */

static pthread_t start(void) {
    pthread_t thread;
    server = new_port();
    CHECK_EQ(mach_port_insert_right(SELF, server, server, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    CHECK_EQ(pthread_create(&thread, NULL, serve, NULL), 0);
    return thread;
}

static void stop(pthread_t thread) {
    destroy_port(server);
    CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(values_and_errors_come_back) {
    pthread_t thread = start();
    int sum, average, values[17] = {3, 4, 8};
    CHECK_EQ(add(server, 2, 3, &sum), KERN_SUCCESS);
    CHECK_EQ(sum, 5);
    CHECK_EQ(add(server, 2, 0, &sum), KERN_FAILURE);
    CHECK_EQ(mean(server, values, 3, &average), KERN_SUCCESS);
    CHECK_EQ(average, 5);
    CHECK_EQ(mean(server, values, 16, &average), KERN_SUCCESS);
    CHECK_EQ(mean(server, values, 17, &average), MIG_ARRAY_TOO_LARGE);
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

TEST(a_simple_routine_waits_for_nobody) {
    pthread_t thread = start();
    text_t text = "four";
    int sum;
    CHECK_EQ(note(server, text), KERN_SUCCESS);
    memset(text, 'x', sizeof text); /* it has no end: cut */
    CHECK_EQ(note(server, text), KERN_SUCCESS);
    CHECK_EQ(add(server, 1, 1, &sum), KERN_SUCCESS);
    CHECK_EQ(noted, 4 + 127);
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
