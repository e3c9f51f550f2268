/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Memory of machio_memory_allocate(): that it goes without being copied, what makes it be copied
 * all the same, and what a failed send leaves of it.
 */
#include "regions.h"

TEST(a_region_goes_as_it_is) {
    mach_port_t port = new_port();
    int files = check_fd_count();
    for (size_t size = 1; size <= (4 << 20) + 1; size = size * 3 + 1) {
        uint8_t *bytes = region(size);
        CHECK_FDS(files + 1);
        CHECK_EQ(count_maps(), 1);
        CHECK_EQ(bytes[size - 1], 0);
        goes(port, bytes, size, true);
        CHECK_FDS(files);
    }
    CHECK_EQ(count_maps(), 0);
    destroy_port(port);
}

TEST(the_bytes_arrive_and_the_rest_of_the_page_does_not) {
    mach_port_t port = new_port();
    const size_t size = 3 * vm_page_size + 100, whole = 4 * vm_page_size;
    uint8_t *bytes = region(size);
    fill(bytes, whole, 3);
    struct with_memory got,
        message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)size, true);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    receive_memory(port, &got, 1);
    const uint8_t *there = got.memory[0].address;
    is_filled(there, size, 3);
    for (size_t i = size; i < whole; i++)
        CHECK_EQ(there[i], 0);
    memset(got.memory[0].address, 1, size); /* it is the receiver's own */
    mach_msg_destroy(&got.header);
    destroy_port(port);
}

TEST(nothing_and_too_much) {
    mach_vm_address_t address = 1;
    int files = check_fd_count();
    CHECK_EQ(machio_memory_allocate(0, &address), KERN_SUCCESS);
    CHECK_EQ(address, 0);
    CHECK_EQ(vm_deallocate(SELF, 0, 0), KERN_SUCCESS);
    address = 7;
    CHECK_EQ(machio_memory_allocate(UINT64_MAX, &address), KERN_INVALID_ARGUMENT);
    CHECK_EQ(machio_memory_allocate(UINT64_MAX / 2 + 1, &address), KERN_RESOURCE_SHORTAGE);
    CHECK_EQ(machio_memory_allocate((mach_vm_size_t)1 << 60, &address), KERN_NO_SPACE);
    CHECK_EQ(address, 7);
    CHECK_FDS(files);
}

/* Only the first and the last page are touched. */
TEST(a_gigabyte_goes_as_it_is) {
    const size_t size = (size_t)1 << 30;
    mach_port_t port = new_port();
    uint8_t *bytes = region(size);
    bytes[0] = 1, bytes[size - 1] = 2;
    unsigned long file = file_at(bytes);
    struct with_memory got,
        message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)size, true);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    receive_memory(port, &got, 1);
    const uint8_t *there = got.memory[0].address;
    CHECK_EQ(there[0], 1);
    CHECK_EQ(there[size - 1], 2);
    CHECK_EQ(file_at(there), file);
    mach_msg_destroy(&got.header);
    destroy_port(port);
}

TEST(a_part_is_copied_and_so_is_what_stays) {
    const size_t page = vm_page_size;
    mach_port_t port = new_port();
    int files = check_fd_count();
    struct with_memory got, message;

    uint8_t *bytes = region(4 * page); /* kept */
    fill(bytes, 4 * page, 1);
    message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)(4 * page), false);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    memset(bytes, 0, 4 * page);
    receive_memory(port, &got, 1);
    is_filled(got.memory[0].address, 4 * page, 1);
    mach_msg_destroy(&got.header);
    goes(port, bytes, 4 * page, true); /* and still a region */

    bytes = region(4 * page); /* its first pages, its last, one in the middle */
    goes(port, bytes, page, false);
    CHECK_FDS(files);
    CHECK(is_mapped(bytes + page));
    goes(port, bytes + 3 * page, page - 1, false);
    goes(port, bytes + page, 2 * page, false);

    bytes = region(4 * page); /* it was one */
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)(bytes + page), page), KERN_SUCCESS);
    CHECK_FDS(files);
    bytes[0] = 5;
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)bytes, 4 * page), KERN_SUCCESS);

    bytes = region(page); /* something else lies there now */
    mach_vm_address_t address = (mach_vm_address_t)(uintptr_t)bytes;
    CHECK_EQ(mach_vm_allocate(SELF, &address, page, VM_FLAGS_FIXED | VM_FLAGS_OVERWRITE),
             KERN_SUCCESS);
    CHECK_FDS(files);
    CHECK_EQ(file_at(bytes), 0);
    free_pages(bytes, 1);
    destroy_port(port);
}

TEST(with_other_memory_in_the_message_it_is_copied) {
    const size_t page = vm_page_size;
    mach_port_t port = new_port();
    int files = check_fd_count();
    uint8_t *one = region(page), *two = region(2 * page);
    fill(one, page, 1);
    fill(two, 2 * page, 2);
    struct with_memory got,
        message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, one, (mach_msg_size_t)page, true);
    message.body.msgh_descriptor_count = 2;
    message.memory[1] = message.memory[0];
    message.memory[1].address = two, message.memory[1].size = (mach_msg_size_t)(2 * page);
    CHECK_EQ(send_now(&message, 2), MACH_MSG_SUCCESS);
    CHECK(!is_mapped(one) && !is_mapped(two));
    receive_memory(port, &got, 2);
    CHECK_FDS(files);
    is_filled(got.memory[0].address, page, 1);
    is_filled(got.memory[1].address, 2 * page, 2);
    mach_msg_destroy(&got.header);

    /* Empty pieces beside it cost nothing. */
    one = region(page);
    unsigned long file = file_at(one);
    message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, NULL, 0, false);
    message.body.msgh_descriptor_count = 3;
    message.memory[1] = message.memory[2] = message.memory[0];
    message.memory[1].address = one, message.memory[1].size = (mach_msg_size_t)page;
    message.memory[1].deallocate = 1;
    CHECK_EQ(send_now(&message, 3), MACH_MSG_SUCCESS);
    receive_memory(port, &got, 3);
    CHECK_EQ(file_at(got.memory[1].address), file);
    mach_msg_destroy(&got.header);
    CHECK_FDS(files);

    /* The names of an array are read through a file, and that is not this one. */
    mach_port_name_t name = port;
    one = region(page);
    fill(one, page, 3);
    message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, one, (mach_msg_size_t)page, true);
    message.body.msgh_descriptor_count = 2;
    mach_msg_ool_ports_descriptor_t array = {.address = &name,
                                             .count = 1,
                                             .disposition = MACH_MSG_TYPE_MAKE_SEND,
                                             .type = MACH_MSG_OOL_PORTS_DESCRIPTOR};
    memcpy(&message.memory[1], &array, sizeof array);
    CHECK_EQ(send_now(&message, 2), MACH_MSG_SUCCESS);
    receive_memory(port, &got, 2);
    is_filled(got.memory[0].address, page, 3);
    CHECK_EQ(*(mach_port_name_t *)got.memory[1].address, port);
    mach_msg_destroy(&got.header);
    CHECK_FDS(files);
    destroy_port(port);
}

TEST(a_timed_out_send_gives_it_back_as_a_region) {
    const size_t size = 2 * vm_page_size - 5;
    mach_port_t port = new_port();
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
        send_id(port, i);
    int files = check_fd_count();
    for (int copied = 0; copied < 2; copied++) {
        uint8_t *bytes = copied ? pages(2) : region(size);
        fill(bytes, size, 4);
        unsigned long file = file_at(bytes);
        struct with_memory message =
            carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)size, true);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(send_now(&message, 1), MACH_SEND_TIMED_OUT);
            is_filled(message.memory[0].address, size, 4);
            CHECK_EQ(message.memory[0].deallocate, 1);
            if (i == 0 && copied)
                file = file_at(message.memory[0].address);
            CHECK_EQ(file_at(message.memory[0].address), file);
        }
        fill(message.memory[0].address, size, 5); /* and can be written to */
        struct message plain;
        CHECK_EQ(receive(port, &plain, 0), MACH_MSG_SUCCESS);
        CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
        CHECK_FDS(files + 1);
        for (int i = 1; i < MACH_PORT_QLIMIT_DEFAULT; i++)
            CHECK_EQ(receive(port, &plain, 0), MACH_MSG_SUCCESS);
        struct with_memory got;
        receive_memory(port, &got, 1);
        CHECK_EQ(file_at(got.memory[0].address), file);
        is_filled(got.memory[0].address, size, 5);
        mach_msg_destroy(&got.header);
        CHECK_FDS(files);
        for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
            send_id(port, i);
    }

    /* What came back and is not sent again is freed like any memory. */
    struct with_memory message =
        carrying(port, MACH_MSG_TYPE_MAKE_SEND, region(size), (mach_msg_size_t)size, true);
    CHECK_EQ(send_now(&message, 1), MACH_SEND_TIMED_OUT);
    mach_msg_destroy(&message.header);
    CHECK_FDS(files);
    destroy_port(port);
}

static void *room_later(void *port) {
    struct message plain;
    for (bool blocked = false; !blocked; sched_yield()) {
        mio_lock();
        blocked = !mio_list_empty(&mio_space_lookup(*(mach_port_t *)port)->port->senders);
        mio_unlock();
    }
    CHECK_EQ(receive(*(mach_port_t *)port, &plain, 0), MACH_MSG_SUCCESS);
    return NULL;
}

TEST(a_blocked_send_goes_as_it_is_when_there_is_room) {
    const size_t size = vm_page_size;
    for (int wired = 0; wired < 2; wired++) {
        mach_port_t port = new_port();
        struct handed handed;
        for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
            send_id(port, i);
        if (wired)
            handed = hand_over(port);
        uint8_t *bytes = region(size);
        unsigned long file = file_at(bytes);
        struct with_memory got,
            message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)size, true);
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, room_later, &port), 0);
        CHECK_EQ(mach_msg(&message.header, MACH_SEND_MSG, size_of(1), 0, 0, 0, 0),
                 MACH_MSG_SUCCESS);
        pthread_join(thread, NULL);
        for (int i = 1; i < MACH_PORT_QLIMIT_DEFAULT; i++) {
            struct message plain;
            CHECK_EQ(receive(port, &plain, 0), MACH_MSG_SUCCESS);
        }
        receive_memory(port, &got, 1);
        CHECK_EQ(file_at(got.memory[0].address), file);
        mach_msg_destroy(&got.header);
        if (wired)
            forget(&handed);
        destroy_port(port);
    }
}

TEST(a_failure_before_the_rights_are_taken_leaves_it_and_one_after_destroys_it) {
    const size_t size = vm_page_size;
    mach_port_t port = new_port();
    int files = check_fd_count();
    struct {
        mach_msg_header_t header;
        mach_msg_body_t body;
        mach_msg_ool_descriptor_t memory;
        mach_msg_port_descriptor_t right;
    } message = {
        .header = {.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_MAKE_SEND},
        .body = {2},
        .memory = {.size = (mach_msg_size_t)size,
                   .deallocate = 1,
                   .copy = MACH_MSG_VIRTUAL_COPY,
                   .type = MACH_MSG_OOL_DESCRIPTOR},
        .right = {.name = UNUSED_NAME,
                  .disposition = MACH_MSG_TYPE_COPY_SEND,
                  .type = MACH_MSG_PORT_DESCRIPTOR},
    };
    uint8_t *bytes = region(size);
    unsigned long file = file_at(bytes);
    message.memory.address = bytes;
    fill(bytes, size, 6);
    CHECK_EQ(mach_msg(&message.header, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0),
             MACH_SEND_INVALID_DEST);
    is_filled(bytes, size, 6);
    CHECK_EQ(file_at(bytes), file);
    CHECK_FDS(files + 1);

    message.header.msgh_remote_port = port;
    CHECK_EQ(mach_msg(&message.header, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0),
             MACH_SEND_INVALID_RIGHT);
    CHECK(!is_mapped(bytes));
    CHECK_FDS(files);
    CHECK_EQ(mach_msg(&message.header, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0),
             MACH_SEND_INVALID_MEMORY); /* it is gone */
    check_empty(port);
    destroy_port(port);
}

TEST(to_a_dead_port_and_by_a_send_once_right) {
    mach_port_t port = new_port();
    int files = check_fd_count();
    mach_port_t once, send = port;
    mach_msg_type_name_t kind;
    CHECK_EQ(mach_port_extract_right(SELF, port, MACH_MSG_TYPE_MAKE_SEND_ONCE, &once, &kind),
             KERN_SUCCESS);
    uint8_t *bytes = region(100);
    unsigned long file = file_at(bytes);
    int kept = dup(last_file());
    struct with_memory got,
        message = carrying(once, MACH_MSG_TYPE_MOVE_SEND_ONCE, bytes, 100, true);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    CHECK(pwrite(kept, "x", 1, 0) < 0);
    close(kept);
    receive_memory(port, &got, 1);
    CHECK_EQ(file_at(got.memory[0].address), file);
    mach_msg_destroy(&got.header);

    CHECK_EQ(mach_port_insert_right(SELF, port, send, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    message = carrying(send, MACH_MSG_TYPE_COPY_SEND, region(100), 100, true);
    destroy_right(port, MACH_PORT_RIGHT_RECEIVE);
    CHECK_EQ(send_now(&message, 1), MACH_SEND_INVALID_DEST);
    CHECK_FDS(files + 1);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)message.memory[0].address, 100), KERN_SUCCESS);
    CHECK_FDS(files);
}

CHECK_MAIN()
