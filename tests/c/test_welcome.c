/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What a bootstrap server gives who comes to it: the welcome, and the port that keeps its name.
 */
#include "rendezvous_peer.h"

/* A server that welcomes whoever comes, until it is killed; ready when this returns. */
static pid_t fork_server(void) {
    int listener, crashed;
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct pollfd waiting = {.fd = listener, .events = POLLIN};
        mach_port_name_t port;
        CHECK_EQ(machio_bootstrap_claim(&crashed), KERN_SUCCESS);
        CHECK_EQ(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port), 0);
        CHECK_EQ(mio_bootstrap_ensure(true), KERN_NOT_SUPPORTED);
        for (;;) {
            poll(&waiting, 1, -1);
            int client = accept(listener, NULL, NULL);
            CHECK_EQ(machio_bootstrap_welcome(client, port), KERN_SUCCESS);
            close(client);
        }
    }
    close(listener);
    return pid;
}

static void kill_server(pid_t pid) {
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static bool is_pending(void) {
    mio_lock();
    bool pending = mio_bootstrap_pending(bootstrap_port);
    mio_unlock();
    return pending;
}

TEST(the_bootstrap_port_keeps_its_name_over_servers) {
    mach_port_t name = bootstrap_port, same;
    mach_port_type_t type;
    mach_port_urefs_t urefs;
    int fds;

    use_directory();
    CHECK(MACH_PORT_VALID(name));
    CHECK(is_pending());
    for (int i = 0; i < 3; i++) {
        pid_t server = fork_server();
        fds = check_fd_count();
        CHECK_EQ(mio_bootstrap_ensure(true), KERN_SUCCESS);
        CHECK(!is_pending());
        CHECK_EQ(check_fd_count(), fds + 2); /* tx, cr */
        CHECK_EQ(mio_bootstrap_ensure(true), KERN_SUCCESS);
        CHECK_EQ(bootstrap_port, name);
        kill_server(server);
        CHECK(is_pending());
        CHECK_EQ(mach_port_type(mach_task_self(), name, &type), KERN_SUCCESS);
        CHECK_EQ(type, MACH_PORT_TYPE_SEND);
        CHECK_FDS(fds);
    }
    CHECK_EQ(task_get_special_port(mach_task_self(), TASK_BOOTSTRAP_PORT, &same), KERN_SUCCESS);
    CHECK_EQ(same, name);
    CHECK_EQ(mach_port_get_refs(mach_task_self(), name, MACH_PORT_RIGHT_SEND, &urefs), 0);
    CHECK_EQ(urefs, 2);
}

/* A server that listens, and is stopped: it welcomes nobody before `SIGCONT`. */
static pid_t fork_stopped_server(void) {
    pid_t server = fork_server();
    CHECK_EQ(kill(server, SIGSTOP), 0);
    CHECK_EQ(waitpid(server, NULL, WUNTRACED), server);
    return server;
}

static void await(int fd) {
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&waiting, 1, 20000), 1);
}

static unsigned count_connections(void) {
    mio_lock();
    unsigned count = mio_bootstrap_connection();
    mio_unlock();
    return count;
}

TEST(a_task_connects_in_two_halves) {
    int fd, fds;

    use_directory();
    CHECK_EQ(machio_bootstrap_knock(&fd), KERN_FAILURE);
    pid_t server = fork_stopped_server();
    fds = check_fd_count();
    CHECK_EQ(machio_bootstrap_knock(&fd), KERN_SUCCESS);
    CHECK_EQ(machio_bootstrap_enter(fd), MACH_RCV_TIMED_OUT);
    CHECK(is_pending());
    CHECK_EQ(kill(server, SIGCONT), 0);
    await(fd);
    CHECK_EQ(machio_bootstrap_enter(fd), KERN_SUCCESS);
    CHECK(!is_pending());
    close(fd);
    CHECK_FDS(fds + 2); /* tx, cr */
    kill_server(server);
    CHECK(is_pending());
    CHECK_FDS(fds);
}

TEST(who_enters_second_finds_the_connection_as_it_is) {
    int first, second, fds;

    use_directory();
    pid_t server = fork_server();
    fds = check_fd_count();
    CHECK_EQ(machio_bootstrap_knock(&first), KERN_SUCCESS);
    CHECK_EQ(machio_bootstrap_knock(&second), KERN_SUCCESS);
    await(first), await(second);
    CHECK_EQ(machio_bootstrap_enter(first), KERN_SUCCESS);
    unsigned count = count_connections();
    CHECK_EQ(machio_bootstrap_enter(second), KERN_SUCCESS);
    CHECK_EQ(count_connections(), count);
    close(first), close(second);
    CHECK_FDS(fds + 2);
    kill_server(server);
}

/* Another server is to know the names before anything else, and telling it waits. */
TEST(a_task_with_names_does_not_enter) {
    struct mio_bootstrap_request request = {.id = MIO_BOOTSTRAP_REGISTER, .name = "name"};
    int fd, fds;

    use_directory();
    pid_t server = fork_server();
    CHECK_EQ(machio_bootstrap_knock(&fd), KERN_SUCCESS);
    CHECK_EQ(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &request.port), 0);
    mio_lock();
    CHECK(mio_bootstrap_remember(&request));
    mio_unlock();
    fds = check_fd_count();
    await(fd);
    CHECK_EQ(machio_bootstrap_enter(fd), KERN_NOT_SUPPORTED);
    CHECK(is_pending());
    CHECK_EQ(machio_bootstrap_knock(&fd), KERN_NOT_SUPPORTED);
    CHECK_FDS(fds);
    kill_server(server);
}

TEST(who_is_not_welcome_is_told) {
    const char nonsense[] = "good day";
    int listener, fd;

    use_directory();
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(machio_bootstrap_knock(&fd), KERN_SUCCESS);
        int client = accept(listener, NULL, NULL);
        CHECK(client >= 0);
        if (i == 1)
            CHECK_EQ(write(client, nonsense, sizeof nonsense), sizeof nonsense);
        close(client);
        CHECK_EQ(machio_bootstrap_enter(fd), i == 0 ? KERN_ABORTED : KERN_FAILURE);
        close(fd);
    }
    check_sentence("another protocol");
    CHECK(is_pending());
    close(listener);
}

static void *ensure(void *result) {
    *(kern_return_t *)result = mio_bootstrap_ensure(true);
    return NULL;
}

TEST(threads_at_once_connect_once) {
    enum { MANY = 16 };
    pthread_t threads[MANY];
    kern_return_t results[MANY];
    int fds;

    use_directory();
    pid_t server = fork_server();
    fds = check_fd_count();
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, ensure, &results[i]), 0);
    for (int i = 0; i < MANY; i++) {
        pthread_join(threads[i], NULL);
        CHECK_EQ(results[i], KERN_SUCCESS);
    }
    CHECK_FDS(fds + 2);
    kill_server(server);
}

/* A port to which another task sends its bootstrap port's right. */
struct carrier {
    mach_msg_header_t head;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t right;
};

static void send_bootstrap_port(mach_port_t to) {
    struct carrier message = {
        .head = {.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                 .msgh_remote_port = to,
                 .msgh_id = 5},
        .body = {.msgh_descriptor_count = 1},
        .right = {.name = bootstrap_port,
                  .disposition = MACH_MSG_TYPE_COPY_SEND,
                  .type = MACH_MSG_PORT_DESCRIPTOR},
    };
    CHECK_EQ(mach_msg(&message.head, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0), 0);
}

TEST(anothers_bootstrap_port_is_ones_own) {
    mach_port_name_t port;
    mach_port_urefs_t urefs;
    mach_msg_type_name_t disposition;
    struct {
        struct carrier carrier;
        char trailer[128];
    } got;
    int pair[2];

    use_directory();
    pid_t server = fork_server();
    CHECK_EQ(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port), 0);
    (void)disposition;
    /* The child gets a right to the port over a connection of its own, in a welcome. */
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct mio_kmsg *kmsg = NULL;
        struct pollfd waiting = {.fd = pair[1], .events = POLLIN};
        unsigned kind, flags;
        mach_port_name_t to;
        mio_pair_receiver(pair[1]);
        CHECK_EQ(write(pair[1], "", 1), 1);
        poll(&waiting, 1, -1);
        mio_lock();
        CHECK_EQ(mio_wire_receive(pair[1], &kmsg, &kind, &flags), MIO_WIRE_OK);
        CHECK(kmsg != NULL);
        CHECK_EQ(mio_right_copyout(&kmsg->reply, &to), KERN_SUCCESS);
        mio_kmsg_destroy(kmsg);
        mio_unlock();
        send_bootstrap_port(to);
        _exit(0);
    }
    CHECK_EQ(read(pair[0], got.trailer, 1), 1);
    mio_lock();
    struct mio_kmsg *kmsg = mio_kmsg_new(sizeof(mach_msg_header_t), 0);
    CHECK_EQ(mio_right_copyin(port, MACH_MSG_TYPE_MAKE_SEND, &kmsg->reply), KERN_SUCCESS);
    CHECK_EQ(mio_wire_send(pair[0], kmsg, MIO_FRAME_NO_CREDIT), MIO_WIRE_OK);
    mio_kmsg_destroy(kmsg);
    mio_unlock();

    /* This task is not connected yet: the message on its way holds the port before. */
    CHECK(is_pending());
    CHECK_EQ(mach_msg(&got.carrier.head, MACH_RCV_MSG, 0, sizeof got, port, 0, 0), 0);
    CHECK_CHILD(child);
    CHECK_EQ(got.carrier.head.msgh_id, 5);
    CHECK_EQ(got.carrier.right.name, bootstrap_port);
    CHECK(!is_pending());
    CHECK_EQ(mach_port_get_refs(mach_task_self(), bootstrap_port, MACH_PORT_RIGHT_SEND, &urefs), 0);
    CHECK_EQ(urefs, 2);
    kill_server(server);
    CHECK(is_pending());
    close(pair[0]);
    close(pair[1]);
}

TEST(a_forked_child_connects_anew) {
    use_directory();
    pid_t server = fork_server();
    CHECK_EQ(mio_bootstrap_ensure(true), KERN_SUCCESS);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(is_pending());
        CHECK_EQ(mio_bootstrap_ensure(true), KERN_SUCCESS);
        CHECK(!is_pending());
        _exit(0);
    }
    CHECK_CHILD(child);
    CHECK(!is_pending());
    kill_server(server);
}

TEST(a_null_port_is_no_bootstrap_server) {
    mach_port_t port = 9;
    use_directory();
    CHECK_EQ(bootstrap_look_up(MACH_PORT_NULL, "name", &port), MACH_SEND_INVALID_DEST);
    CHECK_EQ(bootstrap_check_in(MACH_PORT_DEAD, "name", &port), MACH_SEND_INVALID_DEST);
    CHECK_EQ(port, 9);
    CHECK_EQ(bootstrap_register(bootstrap_port, "name", MACH_PORT_NULL), BOOTSTRAP_SUCCESS);
}

CHECK_MAIN()
