/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Names, rights and user references in one task.
 */
#include "ports.h"

#include <pthread.h>

static mach_port_t new_port_with_send(void) {
    mach_port_t port = new_port();
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    return port;
}

static mach_port_t extract(mach_port_t port, mach_msg_type_name_t disposition) {
    mach_port_t name;
    mach_msg_type_name_t type;
    CHECK_EQ(mach_port_extract_right(SELF, port, disposition, &name, &type), KERN_SUCCESS);
    return name;
}

static unsigned refs(mach_port_t name, mach_port_right_t right) {
    mach_port_urefs_t count;
    CHECK_EQ(mach_port_get_refs(SELF, name, right, &count), KERN_SUCCESS);
    return count;
}

static mach_port_type_t type_of(mach_port_t name) {
    mach_port_type_t type = 0;
    kern_return_t kr = mach_port_type(SELF, name, &type);
    return kr == KERN_SUCCESS ? type : MACH_PORT_TYPE_NONE;
}

static mach_port_status_t status_of(mach_port_t port) {
    mach_port_status_t status;
    mach_msg_type_number_t count = MACH_PORT_RECEIVE_STATUS_COUNT;
    CHECK_EQ(mach_port_get_attributes(SELF, port, MACH_PORT_RECEIVE_STATUS,
                                      (mach_port_info_t)&status, &count),
             KERN_SUCCESS);
    return status;
}

TEST(a_fresh_port_has_its_receive_right_and_nothing_else) {
    int fds = check_fd_count();
    mach_port_t port = new_port();
    CHECK_EQ(port & 3, 3);
    CHECK(port >= 0x100);
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_RECEIVE);
    CHECK_EQ(refs(port, MACH_PORT_RIGHT_RECEIVE), 1);
    CHECK_EQ(refs(port, MACH_PORT_RIGHT_SEND), 0);
    CHECK_EQ(status_of(port).mps_qlimit, MACH_PORT_QLIMIT_DEFAULT);
    CHECK_FDS(fds);
    destroy_port(port);
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_NONE);
}

TEST(a_freed_name_does_not_come_back_at_once) {
    mach_port_t old = new_port();
    destroy_port(old);
    mach_port_t next = new_port();
    CHECK(next != old);
    CHECK_EQ(type_of(old), MACH_PORT_TYPE_NONE);
    destroy_port(next);
}

TEST(chosen_names_are_checked) {
    CHECK_EQ(mach_port_allocate_name(SELF, MACH_PORT_RIGHT_RECEIVE, 0x7b), KERN_FAILURE);
    CHECK_EQ(mach_port_allocate_name(SELF, MACH_PORT_RIGHT_RECEIVE, 0x7a), KERN_INVALID_VALUE);
    CHECK_EQ(mach_port_allocate_name(SELF, MACH_PORT_RIGHT_RECEIVE, 0x10003), KERN_SUCCESS);
    CHECK_EQ(type_of(0x10003), MACH_PORT_TYPE_RECEIVE);
    CHECK_EQ(mach_port_allocate_name(SELF, MACH_PORT_RIGHT_RECEIVE, 0x10003), KERN_NAME_EXISTS);
    CHECK_EQ(mach_port_allocate_name(SELF, MACH_PORT_RIGHT_RECEIVE, 0x10007), KERN_FAILURE);
    for (int i = 0; i < 600; i++) /* the table grows around it */
        CHECK(new_port() != 0x10003);
    destroy_port(0x10003);
}

TEST(send_references_are_counted_under_one_name) {
    mach_port_t port = new_port_with_send();
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_SEND_RECEIVE);
    CHECK_EQ(extract(port, MACH_MSG_TYPE_COPY_SEND), port);
    CHECK_EQ(extract(port, MACH_MSG_TYPE_MAKE_SEND), port);
    CHECK_EQ(refs(port, MACH_PORT_RIGHT_SEND), 3);
    CHECK_EQ(status_of(port).mps_mscount, 2);
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, -4), KERN_INVALID_VALUE);
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, -3), KERN_SUCCESS);
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_RECEIVE);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_INVALID_RIGHT);
    destroy_port(port);
}

TEST(the_maximum_of_references_sticks) {
    mach_port_t port = new_port_with_send();
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, 70000), KERN_INVALID_VALUE);
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, 65533), KERN_SUCCESS);
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, 100), KERN_SUCCESS);
    CHECK_EQ(refs(port, MACH_PORT_RIGHT_SEND), 65535);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    CHECK_EQ(refs(port, MACH_PORT_RIGHT_SEND), 65535);
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, -65535), KERN_SUCCESS);
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_RECEIVE);
    destroy_port(port);
}

TEST(send_once_rights_have_a_name_each_and_end_in_a_notification) {
    mach_port_t port = new_port();
    mach_port_t first = extract(port, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    mach_port_t second = extract(port, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    CHECK(first != second);
    CHECK_EQ(status_of(port).mps_sorights, 2);
    CHECK_EQ(mach_port_deallocate(SELF, first), KERN_SUCCESS);
    receive_from(port, port, MACH_NOTIFY_SEND_ONCE);
    CHECK_EQ(status_of(port).mps_sorights, 1);
    destroy_port(port);
    CHECK_EQ(type_of(second), MACH_PORT_TYPE_DEAD_NAME);
    CHECK_EQ(mach_port_deallocate(SELF, second), KERN_SUCCESS);
}

TEST(a_dead_port_leaves_dead_names) {
    mach_port_t port = new_port_with_send();
    CHECK_EQ(extract(port, MACH_MSG_TYPE_COPY_SEND), port);
    destroy_port(port);
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_DEAD_NAME);
    CHECK_EQ(refs(port, MACH_PORT_RIGHT_DEAD_NAME), 2);
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_SEND, -1), KERN_INVALID_RIGHT);
    CHECK_EQ(extract(port, MACH_MSG_TYPE_MOVE_SEND), MACH_PORT_DEAD);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_NONE);
}

TEST(inserting_under_another_name) {
    mach_port_t port = new_port_with_send(), other = new_port();
    CHECK_EQ(mach_port_insert_right(SELF, 123, port, MACH_MSG_TYPE_MAKE_SEND), KERN_FAILURE);
    CHECK_EQ(mach_port_insert_right(SELF, 122, port, MACH_MSG_TYPE_MAKE_SEND), KERN_INVALID_VALUE);
    CHECK_EQ(mach_port_insert_right(SELF, other, port, MACH_MSG_TYPE_MAKE_SEND), KERN_RIGHT_EXISTS);
    CHECK_EQ(mach_port_insert_right(SELF, 0x50003, port, MACH_MSG_TYPE_MAKE_SEND_ONCE),
             KERN_SUCCESS);
    CHECK_EQ(type_of(0x50003), MACH_PORT_TYPE_SEND_ONCE);
    CHECK_EQ(mach_port_insert_right(SELF, other, port, MACH_MSG_TYPE_MAKE_SEND_ONCE),
             KERN_NAME_EXISTS);
    receive_from(port, port, MACH_NOTIFY_SEND_ONCE);
    CHECK_EQ(mach_port_insert_right(SELF, 0x50103, other, MACH_MSG_TYPE_MOVE_RECEIVE),
             KERN_SUCCESS);
    CHECK_EQ(type_of(other), MACH_PORT_TYPE_NONE);
    CHECK_EQ(type_of(0x50103), MACH_PORT_TYPE_RECEIVE);
    destroy_port(0x50103);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
    CHECK_EQ(type_of(0x50003), MACH_PORT_TYPE_DEAD_NAME);
    CHECK_EQ(mach_port_deallocate(SELF, 0x50003), KERN_SUCCESS);
}

TEST(construct_and_destruct_with_a_guard) {
    mach_port_options_t options = {.flags = MPO_CONTEXT_AS_GUARD | MPO_STRICT |
                                            MPO_INSERT_SEND_RIGHT | MPO_QLIMIT,
                                   .mpl = {.mpl_qlimit = 1024}};
    mach_port_t port;
    mach_port_context_t context = 1;
    CHECK_EQ(mach_port_construct(SELF, &options, 7, &port), KERN_SUCCESS);
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_SEND_RECEIVE);
    CHECK_EQ(status_of(port).mps_flags,
             MACH_PORT_STATUS_FLAG_GUARDED | MACH_PORT_STATUS_FLAG_STRICT_GUARD);
    CHECK_EQ(mach_port_get_context(SELF, port, &context), KERN_SUCCESS);
    CHECK_EQ(context, 0);
    CHECK_EQ(mach_port_mod_refs(SELF, port, MACH_PORT_RIGHT_RECEIVE, -1), KERN_INVALID_RIGHT);
    CHECK_EQ(mach_port_destruct(SELF, port, 0, 8), KERN_INVALID_ARGUMENT);
    CHECK_EQ(mach_port_destruct(SELF, port, -2, 7), KERN_INVALID_VALUE);
    CHECK_EQ(mach_port_destruct(SELF, port, -1, 7), KERN_SUCCESS);
    CHECK_EQ(type_of(port), MACH_PORT_TYPE_NONE);
    options.mpl.mpl_qlimit = 1025;
    CHECK_EQ(mach_port_construct(SELF, &options, 7, &port), KERN_INVALID_VALUE);
}

TEST(no_other_task_is_a_task) {
    mach_port_t port = new_port();
    CHECK_EQ(mach_port_allocate(port, MACH_PORT_RIGHT_RECEIVE, &port), MACH_SEND_INVALID_DEST);
    CHECK_EQ(mach_port_deallocate(MACH_PORT_NULL, port), MACH_SEND_INVALID_DEST);
    CHECK(mach_task_is_self(SELF));
    CHECK(!mach_task_is_self(port));
    CHECK_EQ(task_self_trap(), SELF);
    CHECK_EQ(mach_port_deallocate(SELF, SELF), KERN_SUCCESS);
    destroy_port(port);
}

TEST(names_lists_every_name) {
    mach_port_t port = new_port(), set = new_set();
    mach_port_name_array_t names;
    mach_port_type_array_t types;
    mach_msg_type_number_t count, type_count;
    int seen = 0;
    CHECK_EQ(mach_port_names(SELF, &names, &count, &types, &type_count), KERN_SUCCESS);
    CHECK_EQ(count, type_count);
    for (unsigned i = 0; i < count; i++)
        seen += (names[i] == port && types[i] == MACH_PORT_TYPE_RECEIVE) +
                (names[i] == set && types[i] == MACH_PORT_TYPE_PORT_SET);
    CHECK_EQ(seen, 2);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)names, count * sizeof *names), KERN_SUCCESS);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)types, count * sizeof *types), KERN_SUCCESS);
    destroy_port(port);
    destroy_set(set);
}

TEST(a_hundred_thousand_ports_need_no_file) {
    int fds = check_fd_count();
    enum { COUNT = 100000 };
    mach_port_t *ports = malloc(COUNT * sizeof *ports);
    for (int i = 0; i < COUNT; i++)
        ports[i] = new_port();
    CHECK_FDS(fds);
    for (int i = 0; i < COUNT; i++)
        destroy_port(ports[i]);
    free(ports);
    CHECK_FDS(fds);
}

TEST(a_forked_child_is_a_new_task) {
    mach_port_t port = new_port_with_send(), parent_self = SELF;
    send_wire(port, 1);
    int fds = check_fd_count();
    pid_t child = fork();
    if (child == 0) {
        CHECK_EQ(type_of(port), MACH_PORT_TYPE_NONE);
        CHECK_EQ(type_of(SELF), MACH_PORT_TYPE_SEND);
        CHECK_EQ(parent_self, SELF);
        CHECK_EQ(type_of(bootstrap_port), MACH_PORT_TYPE_SEND);
        CHECK(check_fd_count() < fds);
        mach_port_t own = new_port_with_send();
        send_wire(own, 2);
        receive_from(own, own, 2);
        CHECK_EQ(mach_port_destroy(SELF, own), KERN_SUCCESS);
        int pid;
        CHECK_EQ(pid_for_task(SELF, &pid), KERN_SUCCESS);
        CHECK_EQ(pid, getpid());
        _exit(0);
    }
    CHECK_CHILD(child);
    receive_from(port, port, 1); /* the child took nothing of it */
    send_wire(port, 3);
    receive_from(port, port, 3);
    CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
}

static void *churn(void *unused) {
    for (int i = 0; i < 2000; i++) {
        mach_port_t port = new_port_with_send();
        send_id(port, i);
        receive_from(port, port, i);
        CHECK_EQ(mach_port_destroy(SELF, port), KERN_SUCCESS);
    }
    return unused;
}

TEST(many_threads_make_and_destroy) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, churn, NULL), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

CHECK_MAIN()
