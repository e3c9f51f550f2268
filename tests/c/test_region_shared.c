/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Memory of machio_memory_allocate() that other processes have a hand on: nobody changes what was
 * sent afterwards.
 */
#include "regions.h"

TEST(a_forked_child_has_a_view_of_its_own) {
    const size_t size = 3 * vm_page_size;
    mach_port_t port = new_port();
    int files = check_fd_count(), told[2], asked[2];
    uint8_t *bytes = region(size), *kept = region(size);
    fill(bytes, size, 7);
    CHECK_EQ(pipe(told), 0);
    CHECK_EQ(pipe(asked), 0);
    pid_t child = fork();
    if (child == 0) {
        char c;
        CHECK_EQ(last_file(), -1);
        is_filled(bytes, size, 7);
        bytes[0] = 99, kept[0] = 99;
        CHECK_EQ(write(told[1], "c", 1), 1);
        CHECK_EQ(read(asked[0], &c, 1), 1); /* it was sent meanwhile */
        CHECK_EQ(bytes[0], 99);
        is_filled(bytes + vm_page_size, size - vm_page_size, 7 + vm_page_size * 7 + 1);
        mach_port_t own = new_port(); /* and memory it can send, as a copy */
        goes(own, bytes, size, false);
        CHECK_EQ(vm_deallocate(SELF, (vm_address_t)kept, size), KERN_SUCCESS);
        _exit(0);
    }
    char c;
    CHECK_EQ(read(told[0], &c, 1), 1);
    is_filled(bytes, size, 7);
    CHECK_EQ(kept[0], 0);
    unsigned long file = file_at(bytes);
    struct with_memory got,
        message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)size, true);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    CHECK_EQ(write(asked[1], "p", 1), 1);
    CHECK_CHILD(child);
    receive_memory(port, &got, 1);
    CHECK_EQ(file_at(got.memory[0].address), file); /* the child did not keep it from going */
    is_filled(got.memory[0].address, size, 7);
    mach_msg_destroy(&got.header);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)kept, size), KERN_SUCCESS);
    for (int i = 0; i < 2; i++)
        close(told[i]), close(asked[i]);
    CHECK_FDS(files);
    destroy_port(port);
}

/* A process that was made behind the C library's back still writes to the pages. */
TEST(what_somebody_can_write_to_is_copied) {
    const size_t size = 5 * vm_page_size - 9;
    mach_port_t port = new_port();
    int files = check_fd_count();
    uint8_t *bytes = region(size);
    fill(bytes, size, 8);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        for (;;)
            bytes[0]++;
    CHECK(child > 0);
    unsigned long file = file_at(bytes);
    struct with_memory got,
        message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)size, true);
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    CHECK(!is_mapped(bytes));
    receive_memory(port, &got, 1);
    const volatile uint8_t *there = got.memory[0].address;
    CHECK(file_at(got.memory[0].address) != file);
    uint8_t first = there[0];
    is_filled(got.memory[0].address + 1, vm_page_size - 1, 8 + 7);
    for (int i = 0; i < 1000000; i++)
        CHECK_EQ(there[0], first);
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    mach_msg_destroy(&got.header);
    CHECK_FDS(files);
    destroy_port(port);
}

TEST(its_sender_cannot_change_it_afterwards) {
    const size_t size = 2 * vm_page_size;
    mach_port_t port = new_port();
    int files = check_fd_count();
    struct handed handed = hand_over(port);
    int told[2];
    CHECK_EQ(pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
        mach_port_t there = take_over(&handed);
        uint8_t *bytes = region(size);
        fill(bytes, size, 9);
        int kept = dup(last_file()); /* by which it could */
        char path[64];
        CHECK(kept >= 0);
        struct with_memory message =
            carrying(there, MACH_MSG_TYPE_COPY_SEND, bytes, (mach_msg_size_t)size, true);
        CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
        CHECK(!is_mapped(bytes));
        CHECK(pwrite(kept, "x", 1, 0) < 0);
        CHECK(ftruncate(kept, 0) < 0);
        CHECK(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, kept, 0) == MAP_FAILED);
        snprintf(path, sizeof path, "/proc/self/fd/%d", kept);
        int again = open(path, O_RDWR);
        CHECK(again < 0 || write(again, "x", 1) < 0);
        CHECK_EQ(write(told[1], "c", 1), 1);
        _exit(0);
    }
    char c;
    CHECK_EQ(read(told[0], &c, 1), 1);
    CHECK_CHILD(child);
    struct with_memory got;
    receive_memory(port, &got, 1);
    is_filled(got.memory[0].address, size, 9);
    mach_msg_destroy(&got.header);
    forget(&handed);
    close(told[0]), close(told[1]);
    destroy_port(port);
    CHECK_FDS(files);
}

CHECK_MAIN()
