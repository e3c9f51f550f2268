/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other side of calculator.py in C: stubs as MIG makes them, written by hand.
 *
 *     calculator call     is a client of the service
 *     calculator serve    is the service
 *
 * `make -C examples/c` makes it.
 */

#include "calculator.h"

#include <mach/mach.h>
#include <mach/mig_errors.h>
#include <servers/bootstrap.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ALIGN(size) (((size) + 3u) & ~3u)

mach_port_name_t mach_reply_port(void); /* current macOS SDKs do not declare it */

/* Both ways the descriptors are these, and the counts are those of what they stand for. */
static int is_sums(const sums_request_t *message) {
    return message->msgh_body.msgh_descriptor_count == 2 &&
           message->numbers.type == MACH_MSG_OOL_DESCRIPTOR &&
           message->numbers.size == message->numbersCnt &&
           message->listeners.type == MACH_MSG_OOL_PORTS_DESCRIPTOR &&
           message->listeners.disposition == MACH_MSG_TYPE_MOVE_SEND &&
           message->listeners.count == message->listenersCnt;
}

/* ---- the client's stubs --------------------------------------------------------------------- */

static mach_port_t server, reply_port;

static kern_return_t wrong(message_t *message) {
    mach_msg_destroy(&message->Head);
    return MIG_TYPE_ERROR;
}

/* Send a request and receive its reply in the same place; one that is wrong is destroyed. */
static kern_return_t call(message_t *message, int id, size_t size, mach_msg_bits_t complex,
                          size_t reply_size) {
    message->Head.msgh_bits =
        MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE) | complex;
    message->Head.msgh_remote_port = server;
    message->Head.msgh_local_port = reply_port;
    message->Head.msgh_voucher_port = MACH_PORT_NULL;
    message->Head.msgh_id = id;
    kern_return_t code =
        mach_msg(&message->Head, MACH_SEND_MSG | MACH_RCV_MSG, (mach_msg_size_t)size,
                 sizeof *message, reply_port, MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
    if (code != MACH_MSG_SUCCESS)
        return code;
    if (message->Head.msgh_id == MACH_NOTIFY_SEND_ONCE)
        return MIG_SERVER_DIED;
    if (message->Head.msgh_id != id + 100) {
        mach_msg_destroy(&message->Head);
        return MIG_REPLY_MISMATCH;
    }
    int is_complex = (message->Head.msgh_bits & MACH_MSGH_BITS_COMPLEX) != 0;
    if (!is_complex && message->Head.msgh_size == sizeof(mig_reply_error_t) &&
        message->error.RetCode != KERN_SUCCESS)
        return message->error.RetCode;
    if (is_complex != (complex != 0) || (reply_size != 0 && message->Head.msgh_size != reply_size))
        return wrong(message);
    return KERN_SUCCESS;
}

static kern_return_t add(int8_t a, uint16_t b, int64_t c, int64_t *result) {
    message_t message = {.add = {.NDR = NDR_record, .a = a, .b = b, .c = c}};
    kern_return_t code = call(&message, ADD, sizeof(add_request_t), 0, sizeof(add_reply_t));
    *result = message.add_reply.result;
    return code;
}

static kern_return_t mean(const double *values, unsigned count, uint32_t scale, double *result) {
    message_t message = {.mean = {.NDR = NDR_record, .valuesCnt = count}};
    char *end = (char *)message.mean.values;
    memcpy(end, values, count * sizeof *values);
    end += count * sizeof *values;
    memcpy(end, &scale, sizeof scale);
    size_t size = (size_t)(end + sizeof scale - (char *)&message);
    kern_return_t code = call(&message, MEAN, size, 0, sizeof(mean_reply_t));
    memcpy(result, &message.mean_reply.result, sizeof *result);
    return code;
}

static kern_return_t greet(const char *name, const char *title, boolean_t loud, char *text,
                           int32_t *length) {
    message_t message = {.greet = {.NDR = NDR_record}};
    mig_strncpy(message.greet.name, name, sizeof message.greet.name);
    message.greet.titleCnt = (mach_msg_type_number_t)mig_strncpy(message.greet.title, title, 256);
    char *end = message.greet.title + ALIGN(message.greet.titleCnt);
    memcpy(end, &loud, sizeof loud);
    size_t size = (size_t)(end + sizeof loud - (char *)&message);
    kern_return_t code = call(&message, GREET, size, 0, 0);
    if (code != KERN_SUCCESS)
        return code;
    greet_reply_t *reply = &message.greet_reply;
    size_t least = sizeof *reply - 256;
    if (reply->textCnt > 256 || reply->Head.msgh_size != least + ALIGN(reply->textCnt) ||
        memchr(reply->text, '\0', reply->textCnt) == NULL)
        return MIG_TYPE_ERROR;
    memcpy(text, reply->text, reply->textCnt);
    memcpy(length, reply->text + ALIGN(reply->textCnt), sizeof *length);
    return KERN_SUCCESS;
}

static kern_return_t move(const point_t *triangle, point_t by, point_t *result) {
    message_t message = {.move = {.NDR = NDR_record, .by = by}};
    memcpy(message.move.triangle, triangle, sizeof message.move.triangle);
    kern_return_t code = call(&message, MOVE, sizeof(move_request_t), 0, sizeof(move_reply_t));
    memcpy(result, message.move_reply.result, sizeof message.move_reply.result);
    return code;
}

static kern_return_t join(mach_port_t listener, uint8_t first, mach_port_t *right,
                          uint8_t *following) {
    message_t message = {.join = {.msgh_body = {1},
                                  .listener = {.name = listener,
                                               .disposition = MACH_MSG_TYPE_MAKE_SEND,
                                               .type = MACH_MSG_PORT_DESCRIPTOR},
                                  .NDR = NDR_record,
                                  .first = first}};
    kern_return_t code =
        call(&message, JOIN, sizeof(join_request_t), MACH_MSGH_BITS_COMPLEX, sizeof(join_reply_t));
    if (code != KERN_SUCCESS)
        return code;
    if (message.join_reply.msgh_body.msgh_descriptor_count != 1 ||
        message.join_reply.listener.type != MACH_MSG_PORT_DESCRIPTOR ||
        message.join_reply.listener.disposition != MACH_MSG_TYPE_MOVE_SEND)
        return wrong(&message);
    *right = message.join_reply.listener.name;
    *following = message.join_reply.following;
    return KERN_SUCCESS;
}

/*
 * The server gets copies of the numbers and a send right made from each listener.
 * Ownership: all stays the caller's. What comes back in `ret` is the caller's as well, both arrays
 * to be vm_deallocate()d.
 */
static kern_return_t sums(int64_t *numbers, unsigned count, mach_port_t *listeners, unsigned ports,
                          sums_reply_t *ret) {
    unsigned size = count * (unsigned)sizeof *numbers;
    message_t message = {.sums = {.msgh_body = {2},
                                  .numbers = {.address = numbers,
                                              .size = size,
                                              .copy = MACH_MSG_VIRTUAL_COPY,
                                              .type = MACH_MSG_OOL_DESCRIPTOR},
                                  .listeners = {.address = listeners,
                                                .count = ports,
                                                .disposition = MACH_MSG_TYPE_MAKE_SEND,
                                                .type = MACH_MSG_OOL_PORTS_DESCRIPTOR},
                                  .NDR = NDR_record,
                                  .numbersCnt = size,
                                  .listenersCnt = ports}};
    kern_return_t code =
        call(&message, SUMS, sizeof(sums_request_t), MACH_MSGH_BITS_COMPLEX, sizeof(sums_reply_t));
    if (code != KERN_SUCCESS)
        return code;
    if (!is_sums(&message.sums) || message.sums.numbersCnt != size ||
        message.sums.listenersCnt != ports)
        return wrong(&message);
    *ret = message.sums;
    return KERN_SUCCESS;
}

static kern_return_t note(const char *text) {
    message_t message = {.note = {.NDR = NDR_record}};
    note_request_t *request = &message.note;
    request->textCnt = (mach_msg_type_number_t)mig_strncpy(request->text, text, 256);
    request->Head.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0);
    request->Head.msgh_remote_port = server;
    request->Head.msgh_id = NOTE;
    mach_msg_size_t size =
        (mach_msg_size_t)(offsetof(note_request_t, text) + ALIGN(request->textCnt));
    return mach_msg(&request->Head, MACH_SEND_MSG, size, 0, MACH_PORT_NULL, MACH_MSG_TIMEOUT_NONE,
                    MACH_PORT_NULL);
}

/* How many rights this task has names for. */
static int names(void) {
    mach_port_name_array_t all;
    mach_port_type_array_t types;
    mach_msg_type_number_t count, same;
    if (mach_port_names(mach_task_self(), &all, &count, &types, &same) != KERN_SUCCESS)
        return -1;
    vm_deallocate(mach_task_self(), (vm_address_t)all, count * sizeof *all);
    vm_deallocate(mach_task_self(), (vm_address_t)types, count * sizeof *types);
    return (int)count;
}

static void show_sums(void) {
    int64_t numbers[] = {1, 2, INT64_C(1) << 40};
    mach_port_t ports[2] = {MACH_PORT_NULL, MACH_PORT_NULL};
    sums_reply_t reply;
    int before = names();
    for (int i = 0; i < 2; i++)
        mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &ports[i]);
    kern_return_t code = sums(numbers, 3, ports, 2, &reply);
    printf("sums: %d", code);
    if (code == KERN_SUCCESS) {
        const int64_t *sum = reply.numbers.address;
        const mach_port_t *back = reply.listeners.address;
        printf(" %lld %lld %lld", (long long)sum[0], (long long)sum[1], (long long)sum[2]);
        printf(" %d", back[0] == ports[1] && back[1] == ports[0]);
        mach_msg_destroy(&reply.Head); /* the numbers, the array and the rights in it */
    }
    for (int i = 0; i < 2; i++)
        mach_port_mod_refs(mach_task_self(), ports[i], MACH_PORT_RIGHT_RECEIVE, -1);
    printf(" %d\n", names() - before);
}

static int be_client(void) {
    int64_t sum = 0;
    double result = 0;
    char text[256] = "";
    int32_t length = 0;
    uint8_t following = 0;
    mach_port_t right = MACH_PORT_NULL, listener;
    point_t corners[3] = {{0, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    point_t moved[3];

    if (bootstrap_look_up(bootstrap_port, SERVICE, &server) != KERN_SUCCESS)
        return 1;
    reply_port = mach_reply_port();
    printf("note: %d\n", note("a client in C"));
    printf("add: %d", add(-1, 40000, INT64_C(1) << 40, &sum));
    printf(" %lld\n", (long long)sum);
    printf("mean: %d", mean((double[]){1, 2, 6}, 3, 10, &result));
    printf(" %g\n", result);
    printf("mean of nothing: %d\n", mean(NULL, 0, 1, &result));
    printf("greet: %d", greet("Lovelace", "Countess", 1, text, &length));
    printf(" %s %d\n", text, length);
    printf("move: %d", move(corners, (point_t){1, 0.5, -0.5}, moved));
    printf(" %d %g %g\n", moved[2].layer, moved[2].x, moved[2].y);
    if (mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &listener) != KERN_SUCCESS)
        return 1;
    printf("join: %d", join(listener, 6, &right, &following));
    printf(" %d %d\n", following, right == listener);
    show_sums();
    message_t message = {.add = {.NDR = NDR_record}};
    printf("short: %d\n", call(&message, ADD, sizeof(add_request_t) - 4, 0, 0));
    message = (message_t){.add = {.NDR = NDR_record}};
    printf("unknown: %d\n", call(&message, NOTE + 1, sizeof(add_request_t), 0, 0));
    return 0;
}

/* ---- the server's stubs --------------------------------------------------------------------- */

static int fits(const message_t *in, int complex, size_t size) {
    return ((in->Head.msgh_bits & MACH_MSGH_BITS_COMPLEX) != 0) == complex &&
           in->Head.msgh_size == size;
}

/* Run the routine of a request; return its code and, for success, set the size of the reply. */
static kern_return_t serve(message_t *in, message_t *out, size_t *size) {
    *size = sizeof(mig_reply_error_t);
    switch (in->Head.msgh_id) {
    case ADD:
        if (!fits(in, 0, sizeof(add_request_t)))
            return MIG_BAD_ARGUMENTS;
        out->add_reply.result = in->add.a + in->add.b + in->add.c;
        *size = sizeof(add_reply_t);
        return KERN_SUCCESS;
    case MEAN: {
        unsigned count = in->mean.valuesCnt;
        size_t least = offsetof(mean_request_t, values) + sizeof(uint32_t);
        if (in->Head.msgh_size < least || count > 16 || !fits(in, 0, least + count * 8))
            return MIG_BAD_ARGUMENTS;
        if (count == 0)
            return KERN_INVALID_VALUE;
        uint32_t scale;
        double sum = 0, value;
        for (unsigned i = 0; i < count; i++) {
            memcpy(&value, (char *)in->mean.values + i * sizeof value, sizeof value);
            sum += value;
        }
        memcpy(&scale, (char *)in->mean.values + count * sizeof value, sizeof scale);
        sum = sum / count * scale;
        memcpy(&out->mean_reply.result, &sum, sizeof sum);
        *size = sizeof(mean_reply_t);
        return KERN_SUCCESS;
    }
    case GREET: {
        unsigned count = in->greet.titleCnt;
        size_t least = offsetof(greet_request_t, title) + sizeof(boolean_t);
        if (in->Head.msgh_size < least || count > 256 || !fits(in, 0, least + ALIGN(count)) ||
            memchr(in->greet.title, '\0', count) == NULL ||
            memchr(in->greet.name, '\0', sizeof in->greet.name) == NULL)
            return MIG_BAD_ARGUMENTS;
        greet_reply_t *reply = &out->greet_reply;
        int length = snprintf(reply->text, 256, "Good day, %s %s", in->greet.title, in->greet.name);
        reply->textCnt = (mach_msg_type_number_t)length + 1;
        char *end = reply->text + ALIGN(reply->textCnt);
        memcpy(end, &length, sizeof length);
        *size = (size_t)(end + sizeof length - (char *)reply);
        return KERN_SUCCESS;
    }
    case MOVE:
        if (!fits(in, 0, sizeof(move_request_t)))
            return MIG_BAD_ARGUMENTS;
        for (int i = 0; i < 3; i++) {
            point_t one = in->move.triangle[i], by = in->move.by;
            one = (point_t){(int16_t)(one.layer + by.layer), one.x + by.x, one.y + by.y};
            memcpy(&out->move_reply.result[i], &one, sizeof one);
        }
        *size = sizeof(move_reply_t);
        return KERN_SUCCESS;
    case JOIN:
        if (!fits(in, 1, sizeof(join_request_t)) || in->join.msgh_body.msgh_descriptor_count != 1)
            return MIG_BAD_ARGUMENTS;
        if (in->join.listener.type != MACH_MSG_PORT_DESCRIPTOR ||
            in->join.listener.disposition != MACH_MSG_TYPE_MOVE_SEND)
            return MIG_TYPE_ERROR;
        out->Head.msgh_bits |= MACH_MSGH_BITS_COMPLEX;
        out->join_reply.msgh_body.msgh_descriptor_count = 1;
        out->join_reply.listener = in->join.listener;
        out->join_reply.NDR = NDR_record;
        out->join_reply.following = (uint8_t)(in->join.first + 1);
        *size = sizeof(join_reply_t);
        return KERN_SUCCESS;
    case SUMS: {
        if (!fits(in, 1, sizeof(sums_request_t)) || in->sums.msgh_body.msgh_descriptor_count != 2)
            return MIG_BAD_ARGUMENTS;
        if (!is_sums(&in->sums))
            return MIG_TYPE_ERROR;
        unsigned count = in->sums.numbersCnt / sizeof(int64_t), ports = in->sums.listenersCnt;
        if (in->sums.numbersCnt > NUMBERS_MAX || ports > LISTENERS_MAX)
            return MIG_BAD_ARGUMENTS;
        if (in->sums.numbersCnt % sizeof(int64_t) != 0)
            return KERN_INVALID_VALUE;
        uint64_t *numbers = in->sums.numbers.address; /* unsigned, which may overflow */
        for (unsigned i = 1; i < count; i++)
            numbers[i] += numbers[i - 1];
        mach_port_t *listeners = in->sums.listeners.address;
        for (unsigned i = 0; i < ports / 2; i++) {
            mach_port_t one = listeners[i];
            listeners[i] = listeners[ports - 1 - i];
            listeners[ports - 1 - i] = one;
        }
        sums_reply_t *reply = &out->sums;
        reply->Head.msgh_bits |= MACH_MSGH_BITS_COMPLEX;
        reply->msgh_body = in->sums.msgh_body;
        reply->numbers = in->sums.numbers; /* they move: the pages, the array, the rights */
        reply->numbers.deallocate = TRUE;
        reply->listeners = in->sums.listeners;
        reply->listeners.deallocate = TRUE;
        reply->NDR = NDR_record;
        reply->numbersCnt = in->sums.numbersCnt;
        reply->listenersCnt = ports;
        *size = sizeof(sums_reply_t);
        return KERN_SUCCESS;
    }
    case NOTE: {
        unsigned count = in->note.textCnt;
        size_t least = offsetof(note_request_t, text);
        if (in->Head.msgh_size < least || count > 256 || !fits(in, 0, least + ALIGN(count)) ||
            memchr(in->note.text, '\0', count) == NULL)
            return MIG_BAD_ARGUMENTS;
        printf("server: noted '%s'\n", in->note.text);
        fflush(stdout);
        return MIG_NO_REPLY;
    }
    default:
        return MIG_BAD_ID;
    }
}

static int be_server(void) {
    mach_port_t port;
    if (bootstrap_check_in(bootstrap_port, SERVICE, &port) != KERN_SUCCESS)
        return 1;
    printf("server: ready\n");
    fflush(stdout);
    for (;;) {
        message_t in = {0}, out = {0};
        size_t size;
        if (mach_msg(&in.Head, MACH_RCV_MSG, 0, sizeof in, port, MACH_MSG_TIMEOUT_NONE,
                     MACH_PORT_NULL) != KERN_SUCCESS)
            return 1;
        out.Head.msgh_bits = MACH_MSGH_BITS(MACH_MSGH_BITS_REMOTE(in.Head.msgh_bits), 0);
        out.Head.msgh_remote_port = in.Head.msgh_remote_port;
        out.Head.msgh_id = in.Head.msgh_id + 100;
        out.error.NDR = NDR_record;
        kern_return_t code = serve(&in, &out, &size);
        if (code != KERN_SUCCESS) {
            in.Head.msgh_remote_port = MACH_PORT_NULL;
            mach_msg_destroy(&in.Head);
        }
        if (!(out.Head.msgh_bits & MACH_MSGH_BITS_COMPLEX))
            out.error.RetCode = code;
        if (code == MIG_NO_REPLY || out.Head.msgh_remote_port == MACH_PORT_NULL)
            continue;
        if (mach_msg(&out.Head, MACH_SEND_MSG | MACH_SEND_TIMEOUT, (mach_msg_size_t)size, 0,
                     MACH_PORT_NULL, 0, MACH_PORT_NULL) != KERN_SUCCESS)
            mach_msg_destroy(&out.Head);
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "call") == 0)
        return be_client();
    if (argc == 2 && strcmp(argv[1], "serve") == 0)
        return be_server();
    fprintf(stderr, "usage: calculator call | serve\n");
    return 2;
}
