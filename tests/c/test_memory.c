/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Out-of-line memory: in one task and between two, whole, empty, huge, given up or kept; what a
 * failed send leaves; what a hostile peer's file does.
 */
#include "pages.h"

#include <fcntl.h>

TEST(memory_is_a_snapshot_of_the_senders) {
    mach_port_t port = new_port();
    int files = check_fd_count();
    uint8_t *bytes = pages(2);
    fill(bytes, 5000, 1);
    struct with_memory message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes + 3, 4990, false);
    fill(bytes + 3, 4990, 1);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    memset(bytes, 0, 5000);
    struct with_memory got;
    receive_memory(port, &got, 1);
    CHECK_EQ(got.memory[0].size, 4990);
    CHECK_EQ(got.memory[0].copy, MACH_MSG_VIRTUAL_COPY);
    CHECK_EQ(got.memory[0].deallocate, 1);
    CHECK_EQ(got.memory[0].type, MACH_MSG_OOL_DESCRIPTOR);
    is_filled(got.memory[0].address, 4990, 1);
    memset(got.memory[0].address, 9, 4990); /* it is the receiver's own */
    CHECK_EQ(bytes[3], 0);
    mach_msg_destroy(&got.header);
    CHECK(!is_mapped(got.memory[0].address));
    CHECK(is_mapped(bytes));
    free_pages(bytes, 2);
    CHECK_FDS(files);
    destroy_port(port);
}

TEST(a_physical_copy_stays_when_its_message_is_destroyed) {
    mach_port_t port = new_port();
    uint8_t *bytes = pages(1);
    fill(bytes, 100, 2);
    struct with_memory message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, 100, true), got;
    message.memory[0].copy = MACH_MSG_PHYSICAL_COPY;
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    CHECK(!is_mapped(bytes));
    receive_memory(port, &got, 1);
    CHECK_EQ(got.memory[0].copy, MACH_MSG_PHYSICAL_COPY);
    CHECK_EQ(got.memory[0].deallocate, 0);
    mach_msg_destroy(&got.header);
    is_filled(got.memory[0].address, 100, 2);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)got.memory[0].address, 100), KERN_SUCCESS);
    CHECK(!is_mapped(got.memory[0].address));
    destroy_port(port);
}

TEST(empty_and_volatile_memory_and_several_pieces) {
    mach_port_t port = new_port();
    int files = check_fd_count();
    uint8_t *bytes = pages(3);
    fill(bytes, 3 * vm_page_size, 3);
    struct with_memory message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, 1, false), got;
    message.body.msgh_descriptor_count = 3;
    message.memory[1] = (mach_msg_ool_descriptor_t){
        .address = bytes, .deallocate = 1, .copy = 1, .type = MACH_MSG_OOL_DESCRIPTOR};
    message.memory[2] = (mach_msg_ool_descriptor_t){
        .address = bytes, .size = 9000, .copy = 1, .type = MACH_MSG_OOL_VOLATILE_DESCRIPTOR};
    CHECK_EQ(send_now(&message, 3), MACH_MSG_SUCCESS);
    CHECK(is_mapped(bytes));
    receive_memory(port, &got, 3);
    is_filled(got.memory[0].address, 1, 3);
    CHECK(got.memory[1].address == NULL);
    CHECK_EQ(got.memory[1].size, 0);
    CHECK_EQ(got.memory[2].type, MACH_MSG_OOL_VOLATILE_DESCRIPTOR);
    is_filled(got.memory[2].address, 9000, 3);
    /* Any whole pages of it can go. */
    uint8_t *second = (uint8_t *)got.memory[2].address + vm_page_size;
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)second, 256), KERN_SUCCESS);
    CHECK(!is_mapped(second));
    is_filled(got.memory[2].address, vm_page_size, 3);
    mach_msg_destroy(&got.header);
    CHECK(is_mapped(got.memory[2].address)); /* volatile memory is skipped */
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)got.memory[2].address, 9000), KERN_SUCCESS);
    free_pages(bytes, 3);
    CHECK_FDS(files);
    destroy_port(port);
}

TEST(what_cannot_be_read_destroys_the_message) {
    mach_port_t port = new_port(), reply = new_port();
    int files = check_fd_count();
    struct with_memory message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, (void *)64, 100, false);
    message.header.msgh_bits |= MACH_MSGH_BITS(0, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    message.header.msgh_local_port = reply;
    struct with_memory before = message;
    CHECK_EQ(send_now(&message, 1), MACH_SEND_INVALID_MEMORY);
    CHECK_MEM(&message, &before, sizeof message);
    check_empty(port);
    receive_from(reply, reply, MACH_NOTIFY_SEND_ONCE);

    /* Half of it is there. */
    uint8_t *bytes = pages(2);
    free_pages(bytes + vm_page_size, 1);
    message =
        carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes + 10, (mach_msg_size_t)vm_page_size, false);
    CHECK_EQ(send_now(&message, 1), MACH_SEND_INVALID_MEMORY);

    /* Nothing that was wrong before the rights were taken costs any memory. */
    message = carrying(0, MACH_MSG_TYPE_COPY_SEND, bytes, 10, true);
    CHECK_EQ(send_now(&message, 1), MACH_SEND_INVALID_DEST);
    message.memory[0].copy = MACH_MSG_ALLOCATE;
    CHECK_EQ(send_now(&message, 1), MACH_SEND_INVALID_TYPE);
    CHECK(is_mapped(bytes));

    /* The same memory cannot be given up twice. */
    message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, 10, true);
    message.body.msgh_descriptor_count = 2;
    message.memory[1] = message.memory[0];
    CHECK_EQ(send_now(&message, 2), MACH_SEND_INVALID_MEMORY);
    CHECK(!is_mapped(bytes));
    CHECK_FDS(files);
    destroy_port(port);
    destroy_port(reply);
}

TEST(a_timed_out_send_gives_memory_back_elsewhere) {
    mach_port_t port = new_port();
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
        send_id(port, i);
    uint8_t *bytes = pages(1);
    fill(bytes, 300, 4);
    struct with_memory message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, 300, false);
    CHECK_EQ(send_now(&message, 1), MACH_SEND_TIMED_OUT);
    CHECK(message.memory[0].address != bytes);
    CHECK_EQ(message.memory[0].deallocate, 1);
    is_filled(message.memory[0].address, 300, 4);
    is_filled(bytes, 300, 4);

    /* As it is now it can be sent again. */
    void *copy = message.memory[0].address;
    struct message plain;
    CHECK_EQ(receive(port, &plain, 0), MACH_MSG_SUCCESS);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    CHECK(!is_mapped(copy));
    free_pages(bytes, 1);
    destroy_port(port);
}

TEST(memory_between_two_tasks) {
    const size_t megabyte = 1 << 20;
    mach_port_t port = new_port();
    int files = check_fd_count();
    struct handed handed = hand_over(port);
    pid_t child = fork();
    if (child == 0) {
        mach_port_t there = take_over(&handed);
        uint8_t *bytes = pages(megabyte / vm_page_size);
        fill(bytes, megabyte, 5);
        struct with_memory message = carrying(there, MACH_MSG_TYPE_COPY_SEND, bytes, 77, false);
        message.body.msgh_descriptor_count = 2;
        message.memory[1] = (mach_msg_ool_descriptor_t){.address = bytes,
                                                        .size = (mach_msg_size_t)megabyte,
                                                        .copy = 1,
                                                        .deallocate = 1,
                                                        .type = MACH_MSG_OOL_DESCRIPTOR};
        CHECK_EQ(send_now(&message, 2), MACH_MSG_SUCCESS);
        CHECK(!is_mapped(bytes));
        _exit(0);
    }
    CHECK_CHILD(child);
    struct with_memory got;
    receive_memory(port, &got, 2);
    is_filled(got.memory[0].address, 77, 5);
    is_filled(got.memory[1].address, megabyte, 5);
    mach_msg_destroy(&got.header);
    forget(&handed);
    mio_lock();
    CHECK(!mio_port_has_senders(mio_space_lookup(port)->port));
    mio_unlock();
    CHECK_FDS(files + 3); /* the port's own: rx, tx, cw */
    destroy_port(port);
}

/* Only the first and the last page are touched: a gigabyte need not be there twice. */
TEST(a_gigabyte) {
    const size_t size = (size_t)1 << 30, n = size / vm_page_size;
    mach_port_t port = new_port();
    uint8_t *bytes = pages(n);
    bytes[0] = 1, bytes[size - 1] = 2;
    struct with_memory message =
        carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)size, true);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    struct with_memory got;
    receive_memory(port, &got, 1);
    const uint8_t *there = got.memory[0].address;
    CHECK_EQ(got.memory[0].size, size);
    CHECK_EQ(there[0], 1);
    CHECK_EQ(there[size / 2], 0);
    CHECK_EQ(there[size - 1], 2);
    mach_msg_destroy(&got.header);
    destroy_port(port);
}

/* ---- a hostile peer --------------------------------------------------------------------------- */

struct crafted {
    struct mio_wire_head head;
    struct mio_wire_right reply;
    mach_msg_body_t body;
    mach_msg_ool_descriptor_t memory;
};

static struct crafted craft(mach_msg_size_t size) {
    return (struct crafted){
        .head = {.magic = MIO_WIRE_MAGIC,
                 .version = MIO_WIRE_VERSION,
                 .kind = MIO_FRAME_MESSAGE,
                 .flags = MIO_HEAD_COMPLEX | MIO_HEAD_NO_CREDIT | MIO_HEAD_HEAP,
                 .size = size_of(1),
                 .id = 9,
                 .nrights = 1,
                 .nfds = 1},
        .reply = {.fd = {0xffff, 0xffff, 0xffff}},
        .body = {1},
        .memory = {.size = size, .copy = 1, .type = MACH_MSG_OOL_DESCRIPTOR},
    };
}

static int sealed_file(size_t size, int seals) {
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, (off_t)size), 0);
    CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

/* Sends the frame to the port with the file; the file is closed here. */
static void attack(const struct handed *port, const struct crafted *frame, int fd) {
    CHECK(fd >= 0);
    CHECK_EQ(mio_wire_transmit(port->tx, frame, sizeof *frame, &fd, frame->head.nfds), MIO_WIRE_OK);
    close(fd);
}

TEST(a_file_that_could_change_is_no_memory) {
    mach_port_t port = new_port();
    struct handed handed = hand_over(port);
    size_t page = vm_page_size;
    int files = check_fd_count();
    struct crafted frame = craft(100);

    attack(&handed, &frame, sealed_file(page, ALL_SEALS & ~F_SEAL_WRITE));
    attack(&handed, &frame, sealed_file(page, ALL_SEALS & ~F_SEAL_SHRINK));
    attack(&handed, &frame, sealed_file(page, ALL_SEALS & ~F_SEAL_GROW));
    attack(&handed, &frame, sealed_file(0, ALL_SEALS));
    attack(&handed, &frame, sealed_file(page - 1, ALL_SEALS));
    attack(&handed, &frame, sealed_file(2 * page, ALL_SEALS));
    attack(&handed, &frame, open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    attack(&handed, &frame, dup(handed.cr));
    check_empty(port);

    frame.memory.copy = 2;
    attack(&handed, &frame, sealed_file(page, ALL_SEALS));
    frame = craft(100);
    frame.memory.type = 9;
    attack(&handed, &frame, sealed_file(page, ALL_SEALS));
    frame = craft(0); /* a file for nothing */
    attack(&handed, &frame, sealed_file(page, ALL_SEALS));
    frame = craft(100); /* nothing for a file */
    frame.head.flags &= (uint8_t)~MIO_HEAD_HEAP;
    attack(&handed, &frame, sealed_file(page, ALL_SEALS));
    frame.head.nfds = 0;
    attack(&handed, &frame, sealed_file(page, ALL_SEALS));
    frame = craft(100);
    frame.body.msgh_descriptor_count = 2;
    attack(&handed, &frame, sealed_file(2 * page, ALL_SEALS));
    frame.body.msgh_descriptor_count = UINT32_MAX;
    attack(&handed, &frame, sealed_file(2 * page, ALL_SEALS));
    check_empty(port);
    for (int i = 0; i < 5000 && check_fd_count() != files; i++)
        usleep(1000); /* a file that may be slow to close has a thread of its own */
    CHECK_FDS(files);

    /* What it says of addresses and of what to deallocate is not believed. */
    frame = craft(100);
    frame.memory.address = (void *)&frame;
    frame.memory.deallocate = 0;
    attack(&handed, &frame, sealed_file(page, ALL_SEALS));
    struct with_memory got;
    receive_memory(port, &got, 1);
    CHECK(got.memory[0].address != &frame);
    CHECK_EQ(got.memory[0].deallocate, 1);
    mach_msg_destroy(&got.header);
    CHECK_FDS(files);
    forget(&handed);
    destroy_port(port);
}

CHECK_MAIN()
