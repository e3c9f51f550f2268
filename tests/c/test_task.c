/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The task, its threads, its host: special and registered ports, fork, facts.
 */
#include "ports.h"

#include <bsm/libbsm.h>
#include <errno.h>
#include <mach/mach_time.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

static unsigned urefs(mach_port_t name) {
    mach_port_urefs_t count;
    CHECK_EQ(mach_port_get_refs(SELF, name, MACH_PORT_RIGHT_SEND, &count), KERN_SUCCESS);
    return count;
}

static mach_port_type_t type_of(mach_port_t name) {
    mach_port_type_t type = 0;
    return mach_port_type(SELF, name, &type) == KERN_SUCCESS ? type : MACH_PORT_TYPE_NONE;
}

static mach_port_t new_port_with_send(void) {
    mach_port_t port = new_port();
    CHECK_EQ(mach_port_insert_right(SELF, port, port, MACH_MSG_TYPE_MAKE_SEND), KERN_SUCCESS);
    return port;
}

static void check_registered(mach_port_t first, mach_port_t second) {
    mach_port_array_t ports;
    mach_msg_type_number_t count = 0;
    CHECK_EQ(mach_ports_lookup(SELF, &ports, &count), KERN_SUCCESS);
    CHECK_EQ(count, 3);
    CHECK_EQ(ports[0], first);
    CHECK_EQ(ports[1], second);
    CHECK_EQ(ports[2], MACH_PORT_NULL);
    CHECK_EQ(vm_deallocate(SELF, (vm_address_t)ports, count * sizeof *ports), KERN_SUCCESS);
}

TEST(ports_are_registered_and_looked_up) {
    mach_port_t port = new_port_with_send();
    mach_port_t ports[4] = {port, MACH_PORT_NULL, MACH_PORT_NULL, MACH_PORT_NULL};
    CHECK_EQ(mach_ports_register(SELF, ports, 4), KERN_INVALID_ARGUMENT);
    check_registered(MACH_PORT_NULL, MACH_PORT_NULL);
    CHECK_EQ(mach_ports_register(SELF, ports, 1), KERN_SUCCESS);
    CHECK_EQ(urefs(port), 1);
    check_registered(port, MACH_PORT_NULL);
    CHECK_EQ(urefs(port), 2);
    ports[1] = UNUSED_NAME;
    CHECK_EQ(mach_ports_register(SELF, ports, 2), MACH_SEND_INVALID_RIGHT);
    check_registered(port, MACH_PORT_NULL);
    CHECK_EQ(mach_ports_register(SELF, NULL, 0), KERN_SUCCESS);
    check_registered(MACH_PORT_NULL, MACH_PORT_NULL);
    destroy_port(port);
}

static void let_a_child_inherit(void) {
    mach_port_t port = new_port_with_send();
    mach_port_t ports[2] = {MACH_PORT_NULL, port};
    CHECK_EQ(mach_ports_register(SELF, ports, 2), KERN_SUCCESS);
    send_id(port, 1); /* in flight: stays the parent's */
    pid_t pid = fork();
    if (pid == 0) {
        mach_port_array_t inherited;
        mach_msg_type_number_t count;
        CHECK_EQ(type_of(port), MACH_PORT_TYPE_NONE);
        CHECK_EQ(mach_ports_lookup(SELF, &inherited, &count), KERN_SUCCESS);
        CHECK_EQ(inherited[0], MACH_PORT_NULL);
        CHECK_EQ(type_of(inherited[1]), MACH_PORT_TYPE_SEND);
        send_copy(inherited[1], 2);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            CHECK_EQ(mach_ports_lookup(SELF, &inherited, &count), KERN_SUCCESS);
            send_copy(inherited[1], 3);
            _exit(0);
        }
        CHECK_CHILD(grandchild);
        _exit(0);
    }
    CHECK_CHILD(pid);
    for (int id = 1; id <= 3; id++)
        receive_from(port, port, id);
    check_empty(port);
    CHECK_EQ(mach_ports_register(SELF, NULL, 0), KERN_SUCCESS);

    /* Nobody holds a send right but the name, and then nobody at all. */
    mach_port_t previous;
    CHECK_EQ(mach_port_request_notification(SELF, port, MACH_NOTIFY_NO_SENDERS, 0, port,
                                            MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
             KERN_SUCCESS);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    struct {
        mach_no_senders_notification_t body;
        char room[64];
    } gone;
    CHECK_EQ(mach_msg(&gone.body.not_header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof gone, port,
                      1000, 0),
             MACH_MSG_SUCCESS);
    CHECK_EQ(gone.body.not_header.msgh_id, MACH_NOTIFY_NO_SENDERS);
    destroy_port(port);
}

TEST(a_child_inherits_registered_ports) {
    let_a_child_inherit(); /* it opens what the layer keeps, too */
    int fds = check_fd_count();
    let_a_child_inherit();
    CHECK_EQ(check_fd_count(), fds);
}

TEST(special_ports) {
    mach_port_t port = new_port_with_send(), other = new_port_with_send(), got;
    unsigned before = urefs(bootstrap_port);
    CHECK_EQ(task_get_special_port(SELF, 99, &got), KERN_INVALID_ARGUMENT);
    CHECK_EQ(task_set_special_port(SELF, 99, port), KERN_INVALID_ARGUMENT);
    CHECK_EQ(task_get_bootstrap_port(SELF, &got), KERN_SUCCESS);
    CHECK_EQ(got, bootstrap_port);
    CHECK_EQ(urefs(bootstrap_port), before + 1);
    CHECK_EQ(task_get_special_port(SELF, TASK_ACCESS_PORT, &got), KERN_SUCCESS);
    CHECK_EQ(got, MACH_PORT_NULL);
    CHECK_EQ(task_set_special_port(SELF, TASK_ACCESS_PORT, port), KERN_SUCCESS);
    CHECK_EQ(task_set_special_port(SELF, TASK_ACCESS_PORT, other), KERN_NO_ACCESS);
    CHECK_EQ(task_get_special_port(SELF, TASK_ACCESS_PORT, &got), KERN_SUCCESS);
    CHECK_EQ(got, port);
    CHECK_EQ(task_set_special_port(SELF, TASK_KERNEL_PORT, port), KERN_NO_ACCESS);
    CHECK_EQ(task_set_special_port(SELF, TASK_HOST_PORT, port), KERN_NO_ACCESS);
    CHECK_EQ(task_get_special_port(SELF, TASK_KERNEL_PORT, &got), KERN_SUCCESS);
    CHECK_EQ(got, SELF);
    CHECK_EQ(task_get_special_port(SELF, TASK_HOST_PORT, &got), KERN_SUCCESS);
    CHECK_EQ(got, mach_host_self());
    CHECK_EQ(task_set_bootstrap_port(SELF, UNUSED_NAME), MACH_SEND_INVALID_RIGHT);
    CHECK_EQ(task_get_special_port(port, TASK_BOOTSTRAP_PORT, &got), MACH_SEND_INVALID_DEST);
}

TEST(a_child_inherits_the_bootstrap_port_that_was_set) {
    mach_port_t mine = new_port_with_send(), original = bootstrap_port, got;
    CHECK_EQ(task_set_bootstrap_port(SELF, mine), KERN_SUCCESS);
    CHECK_EQ(bootstrap_port, original);
    CHECK_EQ(task_get_bootstrap_port(SELF, &got), KERN_SUCCESS);
    CHECK_EQ(got, mine);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(task_get_bootstrap_port(SELF, &got), KERN_SUCCESS);
        CHECK_EQ(got, bootstrap_port);
        send_copy(bootstrap_port, 4);
        _exit(0);
    }
    CHECK_CHILD(pid);
    receive_from(mine, mine, 4);
    CHECK_EQ(task_set_bootstrap_port(SELF, original), KERN_SUCCESS);
    pid = fork();
    if (pid == 0) {
        CHECK_EQ(task_get_bootstrap_port(SELF, &got), KERN_SUCCESS);
        CHECK_EQ(got, bootstrap_port);
        mio_lock();
        CHECK_EQ(mio_space_lookup(got)->port, mio_task.bootstrap);
        mio_unlock();
        _exit(0);
    }
    CHECK_CHILD(pid);
    destroy_port(mine);
}

TEST(facts_of_the_task) {
    audit_token_t token;
    security_token_t security;
    mach_task_basic_info_data_t basic;
    struct auditinfo_addr audit;
    mach_msg_type_number_t count = TASK_AUDIT_TOKEN_COUNT - 1;
    CHECK_EQ(task_info(SELF, TASK_AUDIT_TOKEN, (task_info_t)&token, &count), KERN_INVALID_ARGUMENT);
    count = TASK_AUDIT_TOKEN_COUNT + 1;
    CHECK_EQ(task_info(SELF, TASK_AUDIT_TOKEN, (task_info_t)&token, &count), KERN_SUCCESS);
    CHECK_EQ(count, TASK_AUDIT_TOKEN_COUNT);
    CHECK_EQ(audit_token_to_pid(token), getpid());
    CHECK_EQ(audit_token_to_euid(token), geteuid());
    count = TASK_SECURITY_TOKEN_COUNT;
    CHECK_EQ(task_info(SELF, TASK_SECURITY_TOKEN, (task_info_t)&security, &count), KERN_SUCCESS);
    CHECK_EQ(security.val[0], getuid());
    count = MACH_TASK_BASIC_INFO_COUNT;
    CHECK_EQ(task_info(SELF, MACH_TASK_BASIC_INFO, (task_info_t)&basic, &count), KERN_SUCCESS);
    CHECK(basic.resident_size > 0 && basic.virtual_size >= basic.resident_size);
    CHECK(basic.resident_size_max >= basic.resident_size);
    CHECK_EQ(task_info(SELF, 4711, (task_info_t)&basic, &count), KERN_INVALID_ARGUMENT);
    CHECK_EQ(task_info(MACH_PORT_NULL, TASK_AUDIT_TOKEN, (task_info_t)&token, &count),
             MACH_SEND_INVALID_DEST);
    CHECK_EQ(getaudit_addr(&audit, sizeof audit), 0);
    CHECK_EQ(audit.ai_auid, audit_token_to_auid(token));
    CHECK_EQ(audit.ai_asid, audit_token_to_asid(token));
    CHECK_EQ(getaudit_addr(&audit, sizeof audit - 1), -1);
    CHECK_EQ(errno, EOVERFLOW);
}

TEST(facts_of_another_task) {
    mach_port_t port = new_port_with_send();
    audit_token_t token;
    mach_task_basic_info_data_t basic;
    mach_msg_type_number_t count = TASK_AUDIT_TOKEN_COUNT;
    int go[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, go), 0);
    CHECK_EQ(mach_ports_register(SELF, &port, 1), KERN_SUCCESS);
    pid_t pid = fork();
    if (pid == 0) {
        mach_port_array_t inherited;
        char end;
        close(go[0]);
        CHECK_EQ(mach_ports_lookup(SELF, &inherited, &count), KERN_SUCCESS);
        mach_msg_header_t message = {
            .msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_COPY_SEND),
            .msgh_size = sizeof message,
            .msgh_remote_port = inherited[0],
            .msgh_local_port = SELF};
        CHECK_EQ(mach_msg_send(&message), MACH_MSG_SUCCESS);
        CHECK_EQ(read(go[1], &end, 1), 0);
        _exit(0);
    }
    close(go[1]);
    struct message message;
    CHECK_EQ(receive(port, &message, 10000), MACH_MSG_SUCCESS);
    mach_port_t task = message.header.msgh_remote_port;
    CHECK_EQ(task_info(task, TASK_AUDIT_TOKEN, (task_info_t)&token, &count), KERN_SUCCESS);
    CHECK_EQ(audit_token_to_pid(token), pid);
    count = MACH_TASK_BASIC_INFO_COUNT;
    CHECK_EQ(task_info(task, MACH_TASK_BASIC_INFO, (task_info_t)&basic, &count), KERN_SUCCESS);
    CHECK(basic.resident_size > 0);
    close(go[0]);
    CHECK_CHILD(pid);
    CHECK_EQ(task_info(task, MACH_TASK_BASIC_INFO, (task_info_t)&basic, &count),
             MACH_SEND_INVALID_DEST);
    CHECK_EQ(mach_ports_register(SELF, NULL, 0), KERN_SUCCESS);
    destroy_port(port);
}

TEST(guard_behaviour_is_kept_and_inherited) {
    task_exc_guard_behavior_t behavior = 1;
    CHECK_EQ(task_get_exc_guard_behavior(SELF, &behavior), KERN_SUCCESS);
    CHECK_EQ(behavior, TASK_EXC_GUARD_NONE);
    CHECK_EQ(task_set_exc_guard_behavior(SELF, 0x1000), KERN_INVALID_VALUE);
    CHECK_EQ(task_set_exc_guard_behavior(SELF, TASK_EXC_GUARD_MP_ALL), KERN_SUCCESS);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(task_get_exc_guard_behavior(SELF, &behavior), KERN_SUCCESS);
        CHECK_EQ(behavior, TASK_EXC_GUARD_MP_ALL);
        _exit(0);
    }
    CHECK_CHILD(pid);
}

static uint64_t thread_id(pthread_t thread) {
    uint64_t id = 0;
    CHECK_EQ(pthread_threadid_np(thread, &id), 0);
    return id;
}

static void *thread_port(void *ret) {
    *(mach_port_t *)ret = mach_thread_self();
    CHECK_EQ(*(mach_port_t *)ret, pthread_mach_thread_np(pthread_self()));
    CHECK_EQ(thread_id(0), thread_id(pthread_self()));
    CHECK(thread_id(0) != (uint64_t)getpid());
    return NULL;
}

TEST(threads_have_ports) {
    mach_port_t mine = mach_thread_self(), other = MACH_PORT_NULL;
    unsigned before = urefs(mine);
    pthread_t thread;
    thread_precedence_policy_data_t policy = {0};
    CHECK_EQ(thread_id(pthread_self()), getpid());
    CHECK_EQ(thread_id(0), getpid());
    CHECK_EQ(pthread_threadid_np(pthread_self(), NULL), EINVAL);
    CHECK_EQ(mach_thread_self(), mine);
    CHECK_EQ(urefs(mine), before + 1);
    CHECK_EQ(pthread_mach_thread_np(pthread_self()), mine);
    CHECK_EQ(urefs(mine), before + 1);
    CHECK_EQ(thread_policy_set(mine, THREAD_PRECEDENCE_POLICY, (thread_policy_t)&policy, 1),
             KERN_SUCCESS);
    CHECK_EQ(thread_policy_set(mine, THREAD_PRECEDENCE_POLICY, (thread_policy_t)&policy, 0),
             KERN_INVALID_ARGUMENT);
    CHECK_EQ(thread_policy_set(mine, 77, (thread_policy_t)&policy, 1), KERN_INVALID_ARGUMENT);
    CHECK_EQ(thread_policy_set(SELF, THREAD_PRECEDENCE_POLICY, (thread_policy_t)&policy, 1),
             MACH_SEND_INVALID_DEST);
    CHECK_EQ(pthread_create(&thread, NULL, thread_port, &other), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(other != mine);
    CHECK_EQ(type_of(other), MACH_PORT_TYPE_DEAD_NAME);
    send_copy(mine, 1); /* the kernel's, so to say: nobody receives it, and it does not pile up */
    mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                                 .msgh_remote_port = mine};
    for (int i = 0; i < 20; i++) {
        message.msgh_size = sizeof message;
        CHECK_EQ(mach_msg(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof message, 0, 0, 0, 0),
                 MACH_MSG_SUCCESS);
    }
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(type_of(mach_thread_self()), MACH_PORT_TYPE_SEND);
        _exit(0);
    }
    CHECK_CHILD(pid);
}

TEST(the_host_and_its_clock) {
    struct host_basic_info info;
    struct mach_timebase_info base;
    mach_msg_type_number_t count = HOST_BASIC_INFO_COUNT;
    mach_port_t host = mach_host_self();
    CHECK_EQ(urefs(host), 1);
    CHECK_EQ(mach_host_self(), host);
    CHECK_EQ(urefs(host), 2);
    CHECK_EQ(host_info(host, HOST_BASIC_INFO, (host_info_t)&info, &count), KERN_SUCCESS);
    CHECK_EQ(count, HOST_BASIC_INFO_COUNT);
    CHECK(info.avail_cpus >= 1 && info.max_mem > 0);
    CHECK_EQ(host_info(SELF, HOST_BASIC_INFO, (host_info_t)&info, &count), MACH_SEND_INVALID_DEST);
    CHECK_EQ(host_info(host, 99, (host_info_t)&info, &count), KERN_INVALID_ARGUMENT);
    count = 1;
    CHECK_EQ(host_info(host, HOST_BASIC_INFO, (host_info_t)&info, &count), KERN_FAILURE);
    CHECK_EQ(mach_timebase_info(&base), KERN_SUCCESS);
    CHECK(base.numer > 0 && base.denom > 0);
    uint64_t first = mach_absolute_time();
    CHECK(first > 0 && mach_absolute_time() >= first);
}

CHECK_MAIN()
