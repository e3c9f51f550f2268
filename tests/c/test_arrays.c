/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arrays of ports out of line, guarded ports, and bodies that mix all descriptors.
 */
#include "arrays.h"

#include <sys/mman.h>

struct with_guarded {
    alignas(8) mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_guarded_port_descriptor_t port;
    mach_msg_max_trailer_t trailer;
};

#define GUARDED_SIZE ((mach_msg_size_t)offsetof(struct with_guarded, trailer))

static unsigned urefs(mach_port_name_t name, mach_port_right_t right) {
    mach_port_urefs_t count = 0;
    mach_port_get_refs(SELF, name, right, &count);
    return count;
}

TEST(an_array_of_each_disposition) {
    static const struct {
        mach_msg_type_name_t sent, received;
    } cases[] = {{MACH_MSG_TYPE_MAKE_SEND, 17},      {MACH_MSG_TYPE_COPY_SEND, 17},
                 {MACH_MSG_TYPE_MOVE_SEND, 17},      {MACH_MSG_TYPE_MAKE_SEND_ONCE, 18},
                 {MACH_MSG_TYPE_MOVE_SEND_ONCE, 18}, {MACH_MSG_TYPE_MOVE_RECEIVE, 16}};
    mach_port_t port = new_port();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mach_port_t ports[2] = {new_port(), new_port()};
        mach_port_name_t names[3] = {ports[0], MACH_PORT_NULL, ports[1]};
        for (int k = 0; k < 2; k++) {
            mach_msg_type_name_t type;
            if (cases[i].sent == MACH_MSG_TYPE_COPY_SEND ||
                cases[i].sent == MACH_MSG_TYPE_MOVE_SEND)
                CHECK_EQ(mach_port_insert_right(SELF, ports[k], ports[k], 20), KERN_SUCCESS);
            if (cases[i].sent == MACH_MSG_TYPE_MOVE_SEND_ONCE)
                CHECK_EQ(mach_port_extract_right(SELF, ports[k], 21, &names[2 * k], &type),
                         KERN_SUCCESS);
        }
        struct with_array message =
            carrying(port, MACH_MSG_TYPE_MAKE_SEND, names, 3, cases[i].sent);
        CHECK_EQ(send_now(&message.header, ARRAY_SIZE), MACH_MSG_SUCCESS);
        if (cases[i].sent == MACH_MSG_TYPE_MOVE_SEND_ONCE)
            CHECK_EQ(type_of(names[0]), 0);
        get(port, &message.header, ARRAY_SIZE, 0);
        const mach_port_name_t *got = message.array.address;
        CHECK_EQ(message.array.count, 3);
        CHECK_EQ(message.array.disposition, cases[i].received);
        CHECK_EQ(message.array.copy, MACH_MSG_VIRTUAL_COPY);
        CHECK_EQ(message.array.deallocate, 1);
        CHECK(got != names);
        CHECK_EQ(got[1], MACH_PORT_NULL);
        if (cases[i].received == 17) {
            CHECK_EQ(got[0], ports[0]);
            CHECK_EQ(got[2], ports[1]);
        } else if (cases[i].received == 18) {
            CHECK_EQ(type_of(got[0]), MACH_PORT_TYPE_SEND_ONCE);
        } else {
            CHECK_EQ(type_of(got[2]), MACH_PORT_TYPE_RECEIVE);
        }
        mach_port_name_t first = got[0];
        mach_msg_destroy(&message.header);
        CHECK(!is_mapped(got));
        if (cases[i].received == 16)
            CHECK_EQ(type_of(first), 0);
        for (int k = 0; k < 2 && cases[i].received != 16; k++)
            CHECK_EQ(mach_port_destroy(SELF, ports[k]), KERN_SUCCESS);
    }
    destroy_port(port);
}

TEST(arrays_that_are_wrong) {
    static mach_port_name_t names[MANY + 1];
    mach_port_t port = new_port();
    mach_port_name_t *pages =
        mmap(NULL, vm_page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct with_array message =
        carrying(port, MACH_MSG_TYPE_MAKE_SEND, names, MANY + 1, MACH_MSG_TYPE_COPY_SEND);
    CHECK_EQ(send_now(&message.header, ARRAY_SIZE), MACH_SEND_TOO_LARGE);
    message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, (void *)64, 4, MACH_MSG_TYPE_COPY_SEND);
    CHECK_EQ(send_now(&message.header, ARRAY_SIZE), MACH_SEND_INVALID_MEMORY);

    /* The first element's right is lost with the message, and so is the array. */
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    pages[0] = port;
    pages[1] = UNUSED_NAME;
    message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, pages, 2, MACH_MSG_TYPE_MOVE_SEND);
    message.array.deallocate = 1;
    CHECK_EQ(send_now(&message.header, ARRAY_SIZE), MACH_SEND_INVALID_RIGHT);
    CHECK(!is_mapped(pages));
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_RECEIVE);
    check_empty(port);

    message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, names, 0, MACH_MSG_TYPE_COPY_SEND);
    CHECK_EQ(send_now(&message.header, ARRAY_SIZE), MACH_MSG_SUCCESS);
    get(port, &message.header, ARRAY_SIZE, 0);
    CHECK(message.array.address == NULL);
    CHECK_EQ(message.array.count, 0);
    mach_msg_destroy(&message.header);
    destroy_port(port);
}

TEST(as_many_rights_as_there_may_be) {
    static mach_port_name_t names[MANY];
    mach_port_t port = new_port(), other = new_port();
    struct message none;
    CHECK_EQ(receive(port, &none, 1), MACH_RCV_TIMED_OUT); /* what the layer opens and keeps */
    int files = check_fd_count();
    for (unsigned i = 0; i < MANY; i++)
        names[i] = other;
    struct handed handed = hand_over(port);
    pid_t child = fork();
    if (child == 0) {
        mach_port_t there = take_over(&handed), own = new_port();
        for (unsigned i = 0; i < MANY; i++)
            names[i] = own;
        struct with_array message =
            carrying(there, MACH_MSG_TYPE_COPY_SEND, names, MANY, MACH_MSG_TYPE_MAKE_SEND);
        CHECK_EQ(send_now(&message.header, ARRAY_SIZE), MACH_MSG_SUCCESS);
        struct message answer;
        CHECK_EQ(receive(own, &answer, 10000), MACH_MSG_SUCCESS);
        _exit(0);
    }
    struct with_array got;
    get(port, &got.header, ARRAY_SIZE, 0);
    mach_port_name_t name = ((mach_port_name_t *)got.array.address)[0];
    CHECK_EQ(got.array.count, MANY);
    CHECK_EQ(urefs(name, MACH_PORT_RIGHT_SEND), MANY);
    mach_msg_header_t answer = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                                .msgh_remote_port = name};
    CHECK_EQ(send_now(&answer, sizeof answer), MACH_MSG_SUCCESS);
    mach_msg_destroy(&got.header);
    CHECK_EQ(type_of(name), 0);
    CHECK_CHILD(child);

    got = carrying(port, MACH_MSG_TYPE_MAKE_SEND, names, MANY, MACH_MSG_TYPE_MAKE_SEND);
    CHECK_EQ(send_now(&got.header, ARRAY_SIZE), MACH_MSG_SUCCESS);
    get(port, &got.header, ARRAY_SIZE, 0);
    CHECK_EQ(urefs(other, MACH_PORT_RIGHT_SEND), MANY);
    mach_msg_destroy(&got.header);
    forget(&handed);
    destroy_port(other);
    destroy_port(port);
    CHECK_FDS(files + 1); /* where taken credits go */
}

/* ---- guarded ports ------------------------------------------------------------------------------ */

static struct with_guarded guarded(mach_port_t dest, mach_port_t port, unsigned flags,
                                   mach_port_context_t context) {
    return (struct with_guarded){
        .header = complex_to(dest, MACH_MSG_TYPE_MAKE_SEND),
        .body = {1},
        .port = {.name = port,
                 .flags = flags,
                 .context = context,
                 .disposition = MACH_MSG_TYPE_MOVE_RECEIVE,
                 .type = MACH_MSG_GUARDED_PORT_DESCRIPTOR},
    };
}

TEST(a_guarded_port_is_guarded_by_the_buffer) {
    mach_port_t port = new_port(), moved = new_port();
    struct with_guarded message = guarded(port, moved, MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE, 7);
    CHECK_EQ(mach_port_guard(SELF, moved, 7, 0), KERN_SUCCESS);
    CHECK_EQ(send_now(&message.header, GUARDED_SIZE), MACH_MSG_SUCCESS);
    get(port, &message.header, GUARDED_SIZE, MACH_RCV_GUARDED_DESC);
    moved = message.port.name;
    CHECK_EQ(message.port.flags, MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE);
    CHECK_EQ(message.port.context, (uintptr_t)&message);
    CHECK_EQ(mach_port_mod_refs(SELF, moved, MACH_PORT_RIGHT_RECEIVE, -1), KERN_INVALID_RIGHT);
    struct with_guarded again =
        guarded(port, moved, MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE, message.port.context);
    CHECK_EQ(send_now(&again.header, GUARDED_SIZE), MACH_SEND_INVALID_RIGHT); /* immovable */
    CHECK_EQ(type_of(moved), MACH_PORT_TYPE_RECEIVE);
    mach_msg_destroy(&message.header);
    CHECK_EQ(type_of(moved), 0);
    destroy_port(port);
}

TEST(guards_that_do_not_fit) {
    mach_port_t port = new_port(), moved = new_port();
    struct with_guarded message = guarded(port, moved, MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND, 7);
    CHECK_EQ(send_now(&message.header, GUARDED_SIZE), MACH_SEND_INVALID_TYPE);
    message.port.flags = 0;
    CHECK_EQ(send_now(&message.header, GUARDED_SIZE), MACH_SEND_INVALID_TYPE);
    message.port.flags = 4;
    CHECK_EQ(send_now(&message.header, GUARDED_SIZE), MACH_SEND_INVALID_TYPE);
    message = guarded(port, moved, MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE, 7);
    CHECK_EQ(send_now(&message.header, GUARDED_SIZE), MACH_SEND_INVALID_RIGHT); /* unguarded */
    CHECK_EQ(mach_port_guard(SELF, moved, 8, 0), KERN_SUCCESS);
    CHECK_EQ(send_now(&message.header, GUARDED_SIZE), MACH_SEND_INVALID_RIGHT); /* another's */
    CHECK_EQ(mach_port_unguard(SELF, moved, 8), KERN_SUCCESS);
    CHECK_EQ(type_of(moved), MACH_PORT_TYPE_RECEIVE);

    /* A plain move of an unguarded port. */
    message = guarded(port, moved, MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND, 0);
    CHECK_EQ(send_now(&message.header, GUARDED_SIZE), MACH_MSG_SUCCESS);
    get(port, &message.header, GUARDED_SIZE, MACH_RCV_GUARDED_DESC);
    CHECK_EQ(message.port.flags, MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND);
    moved = message.port.name;

    /* A receiver that knows no guards gets nothing. */
    message = guarded(port, moved, MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND, 0);
    CHECK_EQ(send_now(&message.header, GUARDED_SIZE), MACH_MSG_SUCCESS);
    get(port, &message.header, GUARDED_SIZE, 0);
    CHECK_EQ(message.port.name, MACH_PORT_NULL);
    CHECK_EQ(message.port.context, 0);
    CHECK_EQ(type_of(moved), 0);
    destroy_port(port);
}

/* ---- all of them -------------------------------------------------------------------------------- */

struct mixed {
    alignas(8) mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t port;
    mach_msg_ool_descriptor_t memory;
    mach_msg_guarded_port_descriptor_t guarded;
    mach_msg_port_descriptor_t once;
    mach_msg_ool_ports_descriptor_t array;
    mach_msg_ool_descriptor_t more;
    uint32_t inline_bytes[3];
    mach_msg_max_trailer_t trailer;
};

#define MIXED_SIZE ((mach_msg_size_t)offsetof(struct mixed, trailer))

static struct mixed mixture(mach_port_t dest, mach_msg_type_name_t disposition, void *bytes,
                            mach_port_name_t *names) {
    return (struct mixed){
        .header = complex_to(dest, disposition),
        .body = {6},
        .port = {.name = new_port(), .disposition = 20, .type = MACH_MSG_PORT_DESCRIPTOR},
        .memory = {.address = bytes, .size = 5, .copy = 1, .type = MACH_MSG_OOL_DESCRIPTOR},
        .guarded = guarded(0, new_port(), 3, 0).port,
        .once = {.name = names[0], .disposition = 21, .type = MACH_MSG_PORT_DESCRIPTOR},
        .array = {.address = names,
                  .count = 2,
                  .disposition = 20,
                  .type = MACH_MSG_OOL_PORTS_DESCRIPTOR},
        .more = {.address = bytes, .size = 4100, .type = MACH_MSG_OOL_DESCRIPTOR},
        .inline_bytes = {1, 2, 3},
    };
}

static void check_mixture(mach_port_t port) {
    struct mixed got;
    get(port, &got.header, MIXED_SIZE, MACH_RCV_GUARDED_DESC);
    CHECK(type_of(got.port.name) & MACH_PORT_TYPE_SEND);
    CHECK_MEM(got.memory.address, "abcde", 5);
    CHECK(type_of(got.guarded.name) & MACH_PORT_TYPE_RECEIVE);
    CHECK_EQ(got.guarded.context, (uintptr_t)&got);
    CHECK_EQ(type_of(got.once.name), MACH_PORT_TYPE_SEND_ONCE);
    CHECK_EQ(got.array.count, 2);
    CHECK_EQ(((mach_port_name_t *)got.array.address)[1], MACH_PORT_DEAD);
    CHECK_MEM((uint8_t *)got.more.address + 4095, "z", 1);
    CHECK_EQ(got.more.deallocate, 0);
    CHECK_EQ(got.inline_bytes[2], 3);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)got.more.address, 4100), KERN_SUCCESS);
    mach_msg_destroy(&got.header);
    CHECK_EQ(type_of(got.once.name), 0);
    CHECK_EQ(type_of(got.guarded.name), 0);
}

TEST(all_descriptors_in_one_message) {
    static uint8_t bytes[4100] = "abcdefg";
    bytes[4095] = 'z';
    mach_port_t port = new_port();
    struct handed handed = hand_over(port);
    pid_t child = fork();
    mach_port_t there = child == 0 ? take_over(&handed) : port;
    mach_port_name_t names[2] = {new_port(), MACH_PORT_DEAD};
    struct mixed message = mixture(
        there, child == 0 ? MACH_MSG_TYPE_COPY_SEND : MACH_MSG_TYPE_MAKE_SEND, bytes, names);
    if (child == 0) {
        mach_port_t pipe[1];
        CHECK_EQ(send_now(&message.header, MIXED_SIZE), MACH_MSG_SUCCESS);
        pipe[0] = names[0];
        struct message last; /* its send-once right is dropped: the parent has looked */
        CHECK_EQ(receive(pipe[0], &last, 10000), MACH_MSG_SUCCESS);
        CHECK_EQ(last.header.msgh_id, MACH_NOTIFY_SEND_ONCE);
        _exit(0);
    }
    check_mixture(port);
    CHECK_CHILD(child);
    CHECK_EQ(send_now(&message.header, MIXED_SIZE), MACH_MSG_SUCCESS);
    check_mixture(port);
    CHECK_EQ(mach_port_destroy(SELF, message.port.name), KERN_SUCCESS);
    CHECK_EQ(mach_port_destroy(SELF, names[0]), KERN_SUCCESS);
    forget(&handed);
    destroy_port(port);
}

TEST(a_timed_out_send_gives_everything_back) {
    static uint8_t bytes[4100] = "abcdefg";
    mach_port_t port = new_port();
    mach_port_name_t names[2] = {new_port(), MACH_PORT_NULL};
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
        send_id(port, i);
    struct mixed message = mixture(port, MACH_MSG_TYPE_MAKE_SEND, bytes, names);
    mach_port_t ports[2] = {message.port.name, names[0]};
    CHECK_EQ(send_now(&message.header, MIXED_SIZE), MACH_SEND_TIMED_OUT);
    CHECK_EQ(message.port.disposition, MACH_MSG_TYPE_MOVE_SEND);
    CHECK_EQ(message.port.name, ports[0]);
    CHECK_MEM(message.memory.address, "abcde", 5);
    CHECK_EQ(message.guarded.context, (uintptr_t)&message);
    CHECK_EQ(message.once.disposition, MACH_MSG_TYPE_MOVE_SEND_ONCE);
    CHECK(message.array.address != names);
    CHECK_EQ(message.array.disposition, MACH_MSG_TYPE_MOVE_SEND);
    CHECK_EQ(message.array.deallocate, 1);
    CHECK_EQ(((mach_port_name_t *)message.array.address)[0], names[0]);

    /* It was given back guarded but not immovable: it can be sent again. */
    struct message plain;
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
        CHECK_EQ(receive(port, &plain, 0), MACH_MSG_SUCCESS);
    CHECK_EQ(send_now(&message.header, MIXED_SIZE), MACH_MSG_SUCCESS);
    struct mixed got;
    get(port, &got.header, MIXED_SIZE, 0);
    CHECK_EQ(got.guarded.name, MACH_PORT_NULL);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)got.more.address, 4100), KERN_SUCCESS);
    mach_msg_destroy(&got.header);
    for (int k = 0; k < 2; k++)
        CHECK_EQ(mach_port_destroy(SELF, ports[k]), KERN_SUCCESS);
    destroy_port(port);
}

CHECK_MAIN()
