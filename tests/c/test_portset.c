/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Port sets and page memory: the rules of mach_port_*_member, receiving from sets, vm_allocate.
 */
#include "ports.h"

#include <mach/mach_vm.h>
#include <mach/vm_map.h>
#include <mach/vm_page_size.h>

#include <pthread.h>
#include <sched.h>

static unsigned set_count(mach_port_t port) {
    mach_port_status_t status;
    mach_msg_type_number_t count = MACH_PORT_RECEIVE_STATUS_COUNT;
    CHECK_EQ(mach_port_get_attributes(SELF, port, MACH_PORT_RECEIVE_STATUS,
                                      (mach_port_info_t)&status, &count),
             KERN_SUCCESS);
    return status.mps_pset;
}

static void check_members(mach_port_t set, unsigned expected, const mach_port_t *names) {
    mach_port_name_array_t members;
    mach_msg_type_number_t count;
    CHECK_EQ(mach_port_get_set_status(SELF, set, &members, &count), KERN_SUCCESS);
    CHECK_EQ(count, expected);
    if (count == 0) {
        CHECK(members == NULL);
        return;
    }
    CHECK_MEM(members, names, count * sizeof *names);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)members, count * sizeof *members), KERN_SUCCESS);
}

/* ---- membership ------------------------------------------------------------------------------ */

TEST(move_member) {
    mach_port_t port = new_port(), set = new_set();
    CHECK_EQ(mach_port_move_member(SELF, port, set), KERN_SUCCESS);
    CHECK_EQ(set_count(port), 1);
    check_members(set, 1, &port);
    CHECK_EQ(mach_port_move_member(SELF, port, set), KERN_SUCCESS);
    CHECK_EQ(mach_port_move_member(SELF, port, MACH_PORT_NULL), KERN_SUCCESS);
    CHECK_EQ(set_count(port), 0);
    CHECK_EQ(mach_port_move_member(SELF, port, MACH_PORT_NULL), KERN_NOT_IN_SET);
    check_members(set, 0, NULL);
    destroy_set(set);
    destroy_port(port);
}

TEST(insert_and_extract_member) {
    mach_port_t port = new_port(), a = new_set(), b = new_set(), c = new_set();
    CHECK_EQ(mach_port_insert_member(SELF, port, a), KERN_SUCCESS);
    CHECK_EQ(mach_port_insert_member(SELF, port, a), KERN_ALREADY_IN_SET);
    CHECK_EQ(mach_port_insert_member(SELF, port, b), KERN_SUCCESS);
    CHECK_EQ(mach_port_extract_member(SELF, port, c), KERN_NOT_IN_SET);
    CHECK_EQ(mach_port_move_member(SELF, port, b), KERN_SUCCESS);
    check_members(a, 0, NULL);
    check_members(b, 1, &port);
    CHECK_EQ(mach_port_extract_member(SELF, port, b), KERN_SUCCESS);
    CHECK_EQ(mach_port_extract_member(SELF, port, b), KERN_NOT_IN_SET);
    destroy_set(a);
    destroy_set(b);
    destroy_set(c);
    destroy_port(port);
}

TEST(member_errors) {
    mach_port_t port = new_port(), set = new_set(), other = new_set(), dead;
    mach_port_name_array_t array;
    mach_msg_type_number_t count;
    CHECK_EQ(mach_port_allocate(SELF, MACH_PORT_RIGHT_DEAD_NAME, &dead), KERN_SUCCESS);

    CHECK_EQ(mach_port_move_member(SELF, MACH_PORT_NULL, set), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_move_member(SELF, MACH_PORT_DEAD, set), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_move_member(SELF, port, MACH_PORT_DEAD), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_move_member(SELF, set, other), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_move_member(SELF, port, port), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_move_member(SELF, port, UNUSED_NAME), KERN_INVALID_NAME);
    CHECK_EQ(mach_port_move_member(SELF, UNUSED_NAME, set), KERN_INVALID_NAME);
    CHECK_EQ(mach_port_move_member(SELF, UNUSED_NAME, MACH_PORT_NULL), KERN_INVALID_NAME);
    CHECK_EQ(mach_port_move_member(SELF, dead, MACH_PORT_NULL), KERN_INVALID_NAME);
    CHECK_EQ(mach_port_move_member(SELF, set, MACH_PORT_NULL), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_move_member(SELF, dead, set), KERN_INVALID_RIGHT);

    CHECK_EQ(mach_port_insert_member(SELF, port, MACH_PORT_NULL), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_insert_member(SELF, MACH_PORT_NULL, set), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_insert_member(SELF, port, UNUSED_NAME), KERN_INVALID_NAME);
    CHECK_EQ(mach_port_insert_member(SELF, dead, set), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_insert_member(SELF, port, dead), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_insert_member(MACH_PORT_NULL, port, set), MACH_SEND_INVALID_DEST);
    CHECK_EQ(mach_port_extract_member(SELF, port, MACH_PORT_DEAD), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_extract_member(SELF, UNUSED_NAME, set), KERN_INVALID_NAME);

    count = 77;
    CHECK_EQ(mach_port_get_set_status(SELF, port, &array, &count), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_get_set_status(SELF, MACH_PORT_NULL, &array, &count), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_get_set_status(SELF, MACH_PORT_DEAD, &array, &count), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_get_set_status(SELF, UNUSED_NAME, &array, &count), KERN_INVALID_NAME);
    CHECK_EQ(mach_port_get_set_status(SELF, dead, &array, &count), KERN_INVALID_NAME);
    CHECK_EQ(count, 77);
    destroy_set(set);
    destroy_set(other);
    destroy_port(port);
}

TEST(members_are_sorted) {
    enum { N = 1500 };
    static mach_port_t ports[N], shuffled[N];
    mach_port_t set = new_set();
    mach_port_name_array_t members;
    mach_msg_type_number_t count;
    for (unsigned i = 0; i < N; i++)
        ports[i] = new_port();
    for (unsigned i = 0; i < N; i++)
        shuffled[i] = ports[i * 7 % N];
    for (unsigned i = 0; i < N; i++)
        CHECK_EQ(mach_port_insert_member(SELF, shuffled[i], set), KERN_SUCCESS);
    CHECK_EQ(mach_port_get_set_status(SELF, set, &members, &count), KERN_SUCCESS);
    CHECK_EQ(count, N);
    for (unsigned i = 1; i < N; i++)
        CHECK(members[i - 1] < members[i]);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)members, count * sizeof *members), KERN_SUCCESS);
    destroy_port(ports[17]);
    CHECK_EQ(mach_port_get_set_status(SELF, set, &members, &count), KERN_SUCCESS);
    CHECK_EQ(count, N - 1);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)members, 1), KERN_SUCCESS);
    destroy_set(set);
    for (unsigned i = 0; i < N; i++)
        if (i != 17)
            destroy_port(ports[i]);
}

/* ---- receiving ------------------------------------------------------------------------------- */

TEST(receive_from_a_set) {
    mach_port_t port = new_port(), set = new_set();
    CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
    check_empty(set);
    send_id(port, 1);
    send_id(port, 2);
    receive_from(set, port, 1);
    receive_from(port, port, 2);
    check_empty(set);
    send_wire(port, 3);
    send_wire(port, 4);
    receive_from(set, port, 3);
    receive_from(port, port, 4);
    check_empty(set);
    destroy_set(set);
    destroy_port(port);
}

TEST(members_alternate) {
    for (int wire = 0; wire < 2; wire++) {
        mach_port_t a = new_port(), b = new_port(), set = new_set(), last = 0;
        struct message message;
        CHECK_EQ(mach_port_insert_member(SELF, a, set), KERN_SUCCESS);
        CHECK_EQ(mach_port_insert_member(SELF, b, set), KERN_SUCCESS);
        for (int i = 0; i < 2; i++)
            (wire ? send_wire : send_id)(a, i);
        for (int i = 0; i < 2; i++)
            (wire ? send_wire : send_id)(b, i);
        for (int i = 0; i < 4; i++) {
            CHECK_EQ(receive(set, &message, 0), MACH_MSG_SUCCESS);
            CHECK(message.header.msgh_local_port != last);
            CHECK_EQ(message.header.msgh_id, i / 2);
            last = message.header.msgh_local_port;
        }
        check_empty(set);
        destroy_set(set);
        destroy_port(a);
        destroy_port(b);
    }
}

TEST(ports_outlive_their_set) {
    int fds = check_fd_count();
    mach_port_t port = new_port(), set = new_set();
    CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
    check_empty(set);
    send_id(port, 1);
    destroy_set(set);
    CHECK_EQ(set_count(port), 0);
    receive_from(port, port, 1);
    destroy_port(port);
    CHECK_FDS(fds);
}

TEST(messages_queued_before) {
    for (int wire = 0; wire < 2; wire++) {
        mach_port_t port = new_port(), first = new_set(), second = new_set();
        check_empty(first);
        check_empty(second);
        (wire ? send_wire : send_id)(port, 5);
        CHECK_EQ(mach_port_insert_member(SELF, port, first), KERN_SUCCESS);
        CHECK_EQ(mach_port_move_member(SELF, port, second), KERN_SUCCESS);
        check_empty(first);
        receive_from(second, port, 5);
        (wire ? send_wire : send_id)(port, 6);
        CHECK_EQ(mach_port_extract_member(SELF, port, second), KERN_SUCCESS);
        check_empty(second);
        receive_from(port, port, 6);
        destroy_set(first);
        destroy_set(second);
        destroy_port(port);
    }
}

/* A port that becomes reachable for others while it is in a set. */
TEST(wired_while_a_member) {
    mach_port_t port = new_port(), set = new_set();
    CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
    check_empty(set);
    send_wire(port, 7);
    receive_from(set, port, 7);
    check_empty(set);
    destroy_port(port);
    check_empty(set);
    destroy_set(set);
}

/* ---- threads --------------------------------------------------------------------------------- */

struct blocked {
    pthread_t thread;
    mach_port_t name;
    mach_msg_return_t result;
    struct message message;
};

static void *block(void *argument) {
    struct blocked *blocked = argument;
    blocked->result = mach_msg(&blocked->message.header, MACH_RCV_MSG, 0, sizeof blocked->message,
                               blocked->name, 0, 0);
    return NULL;
}

static unsigned count_waiters(mach_port_t set) {
    unsigned count = 0;
    mio_lock();
    MIO_EACH(item, &mio_space_lookup(set)->set->receivers)
        count++;
    mio_unlock();
    return count;
}

static void start_blocked(struct blocked *blocked, mach_port_t set) {
    unsigned before = count_waiters(set);
    blocked->name = set;
    CHECK_EQ(pthread_create(&blocked->thread, NULL, block, blocked), 0);
    while (count_waiters(set) == before)
        sched_yield();
}

static void finish_blocked(struct blocked *blocked) {
    CHECK_EQ(pthread_join(blocked->thread, NULL), 0);
}

TEST(destroying_the_set_wakes) {
    struct blocked blocked[3];
    mach_port_t port = new_port(), set = new_set();
    CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
    for (unsigned i = 0; i < 3; i++)
        start_blocked(&blocked[i], set);
    destroy_set(set);
    for (unsigned i = 0; i < 3; i++) {
        finish_blocked(&blocked[i]);
        CHECK_EQ(blocked[i].result, MACH_RCV_PORT_CHANGED);
    }
    destroy_port(port);
}

TEST(members_that_leave_do_not_wake) {
    struct blocked blocked;
    mach_port_t a = new_port(), b = new_port(), c = new_port(), set = new_set();
    CHECK_EQ(mach_port_insert_member(SELF, a, set), KERN_SUCCESS);
    CHECK_EQ(mach_port_insert_member(SELF, b, set), KERN_SUCCESS);
    CHECK_EQ(mach_port_insert_member(SELF, c, set), KERN_SUCCESS);
    start_blocked(&blocked, set);
    destroy_port(a);
    CHECK_EQ(mach_port_extract_member(SELF, b, set), KERN_SUCCESS);
    send_id(c, 8);
    finish_blocked(&blocked);
    CHECK_EQ(blocked.result, MACH_MSG_SUCCESS);
    CHECK_EQ(blocked.message.header.msgh_id, 8);
    destroy_set(set);
    destroy_port(b);
    destroy_port(c);
}

TEST(adding_a_port_with_messages_wakes) {
    for (int wire = 0; wire < 2; wire++) {
        struct blocked blocked;
        mach_port_t port = new_port(), set = new_set();
        (wire ? send_wire : send_id)(port, 9);
        start_blocked(&blocked, set);
        CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
        finish_blocked(&blocked);
        CHECK_EQ(blocked.result, MACH_MSG_SUCCESS);
        CHECK_EQ(blocked.message.header.msgh_local_port, port);
        destroy_set(set);
        destroy_port(port);
    }
}

TEST(a_message_to_a_member_wakes) {
    for (int wire = 0; wire < 2; wire++) {
        struct blocked blocked;
        mach_port_t port = new_port(), set = new_set();
        CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
        start_blocked(&blocked, set);
        (wire ? send_wire : send_id)(port, 9);
        finish_blocked(&blocked);
        CHECK_EQ(blocked.result, MACH_MSG_SUCCESS);
        destroy_set(set);
        destroy_port(port);
    }
}

/* The child's closing must not take the parent's sockets out of the parent's epolls. */
TEST(a_fork_does_not_disturb_sets) {
    int fds = check_fd_count();
    mach_port_t port = new_port(), set = new_set();
    CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
    send_wire(port, 1);
    receive_from(set, port, 1);
    pid_t child = fork();
    if (child == 0) {
        CHECK(check_fd_count() <= fds);
        mach_port_name_array_t members;
        mach_msg_type_number_t count;
        CHECK(mach_port_get_set_status(SELF, set, &members, &count) != KERN_SUCCESS);
        set = new_set();
        check_empty(set);
        _exit(0);
    }
    CHECK_CHILD(child);
    send_wire(port, 2);
    receive_from(set, port, 2);
    destroy_set(set);
    destroy_port(port);
}

/* ---- memory ---------------------------------------------------------------------------------- */

TEST(vm_allocate_gives_zeroed_pages) {
    vm_address_t address = 0;
    CHECK_EQ(vm_allocate(SELF, &address, 100, VM_FLAGS_ANYWHERE | (int)VM_MAKE_TAG(100)),
             KERN_SUCCESS);
    CHECK(address != 0 && address % vm_page_size == 0);
    for (vm_size_t i = 0; i < vm_page_size; i++)
        CHECK_EQ(((unsigned char *)address)[i], 0);
    ((unsigned char *)address)[vm_page_size - 1] = 1;
    CHECK_EQ(vm_deallocate(SELF, address + 7, 1), KERN_SUCCESS);
    CHECK_EQ(vm_deallocate(SELF, address, vm_page_size), KERN_SUCCESS); /* holes do not matter */

    vm_address_t fixed = address + 5;
    CHECK_EQ(vm_allocate(SELF, &fixed, vm_page_size, VM_FLAGS_FIXED), KERN_SUCCESS);
    CHECK_EQ(fixed, address);
    CHECK_EQ(vm_allocate(SELF, &fixed, vm_page_size, VM_FLAGS_FIXED), KERN_NO_SPACE);
    *(char *)fixed = 1;
    CHECK_EQ(vm_allocate(SELF, &fixed, vm_page_size, VM_FLAGS_FIXED | VM_FLAGS_OVERWRITE),
             KERN_SUCCESS);
    CHECK_EQ(*(char *)fixed, 0);
    CHECK_EQ(vm_deallocate(SELF, fixed, vm_page_size), KERN_SUCCESS);
}

TEST(vm_allocate_errors) {
    vm_address_t address = 5;
    mach_vm_address_t wide = 5;
    CHECK_EQ(vm_allocate(SELF, &address, 1, 0x800), KERN_INVALID_ARGUMENT);
    CHECK_EQ(vm_allocate(MACH_PORT_NULL, &address, 1, VM_FLAGS_ANYWHERE), MACH_SEND_INVALID_DEST);
    CHECK_EQ(vm_allocate(SELF, &address, ~(vm_size_t)0, VM_FLAGS_ANYWHERE), KERN_INVALID_ARGUMENT);
    CHECK_EQ(vm_allocate(SELF, &address, (vm_size_t)1 << 62, VM_FLAGS_ANYWHERE), KERN_NO_SPACE);
    CHECK_EQ(address, 5);
    CHECK_EQ(vm_allocate(SELF, &address, 1, VM_FLAGS_FIXED), KERN_INVALID_ADDRESS);
    CHECK_EQ(vm_allocate(SELF, &address, 0, VM_FLAGS_ANYWHERE), KERN_SUCCESS);
    CHECK_EQ(address, 0);
    CHECK_EQ(mach_vm_allocate(SELF, &wide, 0, VM_FLAGS_ANYWHERE), KERN_SUCCESS);
    CHECK_EQ(wide, 0);
    CHECK_EQ(vm_deallocate(SELF, 0, 0), KERN_SUCCESS);
    CHECK_EQ(mach_vm_deallocate(SELF, ~(mach_vm_address_t)0, 2), KERN_INVALID_ARGUMENT);
}

CHECK_MAIN()
