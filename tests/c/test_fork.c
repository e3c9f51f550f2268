/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Tasks that begin, become something else, or end at a bad moment; and signals in blocked calls.
 */
#include "tasks.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>

/* All that the calling task needs to be one. */
static void works(void) {
    mach_port_t port = new_port();
    send_id(port, 1);
    send_wire(port, 2);
    receive_from(port, port, 1);
    receive_from(port, port, 2);
    destroy_port(port);
}

static void *in_thread(void *(*run)(void *), void *argument) {
    pthread_t thread;
    void *result;
    CHECK_EQ(pthread_create(&thread, NULL, run, argument), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    return result;
}

/* ---- fork ------------------------------------------------------------------------------------ */

static unsigned names_of_a_new_task;

static void *fork_one(void *argument) {
    mach_port_t mine = *(mach_port_t *)argument;
    pid_t child = fork();
    if (child == 0) {
        mach_port_type_t type;
        CHECK_EQ(names_held(), names_of_a_new_task);
        CHECK_EQ(mach_port_type(SELF, mine, &type), KERN_INVALID_NAME);
        works();
        _exit(0);
    }
    CHECK_CHILD(child);
    return NULL;
}

TEST(a_thread_forks) {
    names_of_a_new_task = names_held();
    mach_port_t port = new_port();
    send_id(port, 1);
    in_thread(fork_one, &port);
    receive_from(port, port, 1);
    destroy_port(port);
    works();
}

static atomic_bool stop;

static void *churn(void *unused) {
    while (!stop)
        works();
    return unused;
}

static void *wait_for_one(void *argument) {
    struct message message;
    CHECK_EQ(receive(*(mach_port_t *)argument, &message, 20000), MACH_MSG_SUCCESS);
    return NULL;
}

TEST(a_fork_amid_busy_threads_leaves_the_child_no_locked_lock) {
    pthread_t busy[3], waiting;
    mach_port_t port = new_port();
    CHECK_EQ(pthread_create(&waiting, NULL, wait_for_one, &port), 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&busy[i], NULL, churn, NULL), 0);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            works();
            _exit(0);
        }
        CHECK_CHILD(child);
    }
    stop = true;
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_join(busy[i], NULL), 0);
    send_id(port, 1); /* who waited all the time is the parent's, and still waits */
    CHECK_EQ(pthread_join(waiting, NULL), 0);
    destroy_port(port);
}

TEST(messages_in_flight_are_the_parents) {
    mach_port_t port = new_port(), other = new_port();
    struct message message;
    send_id(port, 1);
    send_wire(port, 2);
    /* A receive right in flight, with a message of its own. */
    struct {
        mach_msg_header_t header;
        mach_msg_body_t body;
        mach_msg_port_descriptor_t right;
        mach_msg_trailer_t trailer;
    } moving = {
        .header = {.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSGH_BITS(MACH_MSG_TYPE_MAKE_SEND, 0),
                   .msgh_remote_port = port,
                   .msgh_size = sizeof moving - sizeof moving.trailer,
                   .msgh_id = 3},
        .body = {1},
        .right = {.name = other,
                  .disposition = MACH_MSG_TYPE_MOVE_RECEIVE,
                  .type = MACH_MSG_PORT_DESCRIPTOR}};
    send_wire(other, 4);
    CHECK_EQ(mach_msg(&moving.header, MACH_SEND_MSG, moving.header.msgh_size, 0, 0, 0, 0),
             MACH_MSG_SUCCESS);
    pid_t child = fork();
    if (child == 0) {
        CHECK_EQ(receive(port, &message, 0), MACH_RCV_INVALID_NAME);
        works();
        quick_exit(0);
    }
    CHECK_CHILD(child);
    receive_from(port, port, 1);
    receive_from(port, port, 2);
    CHECK_EQ(
        mach_msg(&moving.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof moving, port, 0, 0),
        MACH_MSG_SUCCESS);
    CHECK_EQ(moving.header.msgh_id, 3);
    receive_from(moving.right.name, moving.right.name, 4);
    destroy_port(moving.right.name);
    destroy_port(port);
}

/* ---- another task that goes ------------------------------------------------------------------ */

static mach_port_t its_right(mach_port_t port) {
    struct message message;
    CHECK_EQ(receive(port, &message, 20000), MACH_MSG_SUCCESS);
    CHECK(MACH_PORT_VALID(message.header.msgh_remote_port));
    return message.header.msgh_remote_port;
}

/* In the child: gives the parent a send right to a port of the child's. */
static mach_port_t introduce(const struct handed *handed) {
    mach_port_t there = take_over(handed), mine = new_port();
    mach_msg_header_t message = {
        .msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MOVE_SEND, MACH_MSG_TYPE_MAKE_SEND),
        .msgh_size = sizeof message,
        .msgh_remote_port = there,
        .msgh_local_port = mine};
    CHECK_EQ(mach_msg(&message, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0), MACH_MSG_SUCCESS);
    return mine;
}

static void ask_for_its_death(mach_port_t right, mach_port_t notify) {
    mach_port_t previous;
    CHECK_EQ(mach_port_request_notification(SELF, right, MACH_NOTIFY_DEAD_NAME, 0, notify,
                                            MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
             KERN_SUCCESS);
    CHECK_EQ(previous, MACH_PORT_NULL);
}

static void learn_of_its_death(mach_port_t right, mach_port_t notify) {
    mach_dead_name_notification_t told;
    CHECK_EQ(mach_msg(&told.not_header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0,
                      sizeof told + sizeof(mach_msg_trailer_t), notify, 20000, 0),
             MACH_MSG_SUCCESS);
    CHECK_EQ(told.not_header.msgh_id, MACH_NOTIFY_DEAD_NAME);
    CHECK_EQ(told.not_port, right);
    CHECK_EQ(mach_port_mod_refs(SELF, right, MACH_PORT_RIGHT_DEAD_NAME, -2), KERN_SUCCESS);
}

TEST(exec_ends_a_task_while_its_process_lives) {
    mach_port_t port = new_port(), notify = new_port();
    struct handed handed = hand_over(port);
    int pipe_fds[2];
    CHECK_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        char go;
        introduce(&handed);
        dup2(pipe_fds[0], 0);
        CHECK_EQ(read(0, &go, 1), 1);
        close(pipe_fds[1]);
        execlp("cat", "cat", NULL); /* until the pipe ends */
        _exit(1);
    }
    forget(&handed);
    mach_port_t right = its_right(port);
    ask_for_its_death(right, notify);
    check_empty(notify);
    CHECK_EQ(write(pipe_fds[1], "!", 1), 1);
    learn_of_its_death(right, notify);
    CHECK_EQ(kill(child, 0), 0);
    int status;
    CHECK_EQ(waitpid(child, &status, WNOHANG), 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    CHECK_CHILD(child);
    destroy_port(notify);
    destroy_port(port);
}

static atomic_uint received;

static void *receive_for_ever(void *argument) {
    struct message message;
    while (receive(*(mach_port_t *)argument, &message, 20000) == MACH_MSG_SUCCESS)
        received++;
    return NULL;
}

static void end_amid_a_receive(void (*end)(int)) {
    mach_port_t port = new_port(), notify = new_port();
    struct handed handed = hand_over(port);
    pid_t child = fork();
    if (child == 0) {
        pthread_t threads[2];
        mach_port_t mine = introduce(&handed);
        for (int i = 0; i < 2; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, receive_for_ever, &mine), 0);
        while (received < 100)
            sched_yield();
        alarm(20);
        end(0);
    }
    forget(&handed);
    mach_port_t right = its_right(port);
    ask_for_its_death(right, notify);
    for (;;) { /* until it is dead */
        mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                                     .msgh_size = sizeof message,
                                     .msgh_remote_port = right};
        mach_msg_return_t sent =
            mach_msg(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof message, 0, 0, 20000, 0);
        if (sent != MACH_MSG_SUCCESS) {
            CHECK_EQ(sent, MACH_SEND_INVALID_DEST);
            break;
        }
    }
    learn_of_its_death(right, notify);
    CHECK_CHILD(child);
    destroy_port(notify);
    destroy_port(port);
}

TEST(exit_amid_a_receive) {
    end_amid_a_receive(quick_exit);
    end_amid_a_receive(_exit);
}

/* ---- signals --------------------------------------------------------------------------------- */

static atomic_uint handled;

static void count_signal(int number) {
    (void)number;
    handled++;
}

static void handle_signals(void) {
    struct sigaction action = {.sa_handler = count_signal};
    CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
    handled = 0;
}

struct blocked {
    mach_port_t port;
    mach_msg_option_t option;
    unsigned timeout;
    mach_msg_return_t result;
    struct message message;
    atomic_bool done;
};

static void *call(void *argument) {
    struct blocked *blocked = argument;
    mach_msg_size_t size = blocked->option & MACH_SEND_MSG ? sizeof blocked->message.header : 0;
    blocked->result =
        mach_msg(&blocked->message.header, blocked->option, size, sizeof blocked->message,
                 blocked->option & MACH_RCV_MSG ? blocked->port : 0, blocked->timeout, 0);
    blocked->done = true;
    return NULL;
}

/*
 * Signals at least so many times; at most until the call has returned. Without waiting for each:
 * ThreadSanitizer keeps one that comes amid a handler until the thread's next call.
 */
static void signal_it(pthread_t thread, struct blocked *blocked, unsigned times) {
    while (!blocked->done && handled < times) {
        CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
        sched_yield();
    }
}

TEST(a_receive_that_may_be_interrupted) {
    struct blocked blocked = {.port = new_port(), .option = MACH_RCV_MSG | MACH_RCV_INTERRUPT};
    pthread_t thread;
    handle_signals();
    CHECK_EQ(pthread_create(&thread, NULL, call, &blocked), 0);
    signal_it(thread, &blocked, ~0u);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(blocked.result, MACH_RCV_INTERRUPTED);
    send_id(blocked.port, 1);
    receive_from(blocked.port, blocked.port, 1);
    destroy_port(blocked.port);
}

TEST(a_receive_that_goes_on_after_signals) {
    for (unsigned timed = 0; timed < 2; timed++) {
        struct blocked blocked = {.port = new_port(),
                                  .option = MACH_RCV_MSG | (timed ? MACH_RCV_TIMEOUT : 0),
                                  .timeout = 30000};
        pthread_t thread;
        handle_signals();
        CHECK_EQ(pthread_create(&thread, NULL, call, &blocked), 0);
        signal_it(thread, &blocked, 200);
        CHECK(!blocked.done);
        send_id(blocked.port, 7);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(blocked.result, MACH_MSG_SUCCESS);
        CHECK_EQ(blocked.message.header.msgh_id, 7);
        destroy_port(blocked.port);
    }
}

/* Signals do not stretch a time limit: it ends although they never do. */
TEST(a_time_limit_holds_under_signals) {
    struct blocked blocked = {
        .port = new_port(), .option = MACH_RCV_MSG | MACH_RCV_TIMEOUT, .timeout = 50};
    pthread_t thread;
    handle_signals();
    CHECK_EQ(pthread_create(&thread, NULL, call, &blocked), 0);
    signal_it(thread, &blocked, ~0u);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(blocked.result, MACH_RCV_TIMED_OUT);
    destroy_port(blocked.port);
}

static struct blocked blocked_send(mach_port_t port, mach_msg_option_t option) {
    return (struct blocked){
        .port = port,
        .option = MACH_SEND_MSG | option,
        .message = {.header = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MAKE_SEND, 0),
                               .msgh_size = sizeof(mach_msg_header_t),
                               .msgh_remote_port = port,
                               .msgh_id = 99}}};
}

static mach_port_t full_port(void) {
    mach_port_t port = new_port();
    set_limit(port, 1);
    send_id(port, 1);
    return port;
}

TEST(a_send_that_may_be_interrupted) {
    mach_port_t port = full_port();
    struct blocked blocked = blocked_send(port, MACH_SEND_INTERRUPT);
    pthread_t thread;
    handle_signals();
    CHECK_EQ(pthread_create(&thread, NULL, call, &blocked), 0);
    signal_it(thread, &blocked, ~0u);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(blocked.result, MACH_SEND_INTERRUPTED);
    receive_from(port, port, 1);
    check_empty(port);
    destroy_port(port);
}

TEST(a_send_that_goes_on_after_signals) {
    mach_port_t port = full_port();
    struct blocked blocked = blocked_send(port, 0);
    pthread_t thread;
    handle_signals();
    CHECK_EQ(pthread_create(&thread, NULL, call, &blocked), 0);
    signal_it(thread, &blocked, 200);
    CHECK(!blocked.done);
    receive_from(port, port, 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(blocked.result, MACH_MSG_SUCCESS);
    receive_from(port, port, 99);
    destroy_port(port);
}

TEST(a_send_to_another_task_under_signals) {
    mach_port_t port = new_port();
    struct handed handed = hand_over(port);
    int go[2];
    CHECK_EQ(pipe2(go, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        mach_port_t mine = introduce(&handed);
        struct message message;
        CHECK_EQ(read(go[0], &byte, 1), 1);
        for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT + 1; i++)
            CHECK_EQ(receive(mine, &message, 20000), MACH_MSG_SUCCESS);
        CHECK_EQ(message.header.msgh_id, 99);
        _exit(0);
    }
    forget(&handed);
    mach_port_t right = its_right(port);
    struct blocked blocked;
    pthread_t thread;
    handle_signals();
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT + 2; i++) {
        blocked = blocked_send(right, i <= MACH_PORT_QLIMIT_DEFAULT ? MACH_SEND_INTERRUPT : 0);
        blocked.message.header.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0);
        if (i < MACH_PORT_QLIMIT_DEFAULT) {
            call(&blocked);
            CHECK_EQ(blocked.result, MACH_MSG_SUCCESS);
            continue;
        }
        handled = 0;
        CHECK_EQ(pthread_create(&thread, NULL, call, &blocked), 0);
        signal_it(thread, &blocked, i == MACH_PORT_QLIMIT_DEFAULT ? ~0u : 200);
        if (i > MACH_PORT_QLIMIT_DEFAULT) {
            CHECK(!blocked.done);
            CHECK_EQ(write(go[1], "!", 1), 1);
        }
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(blocked.result, i == MACH_PORT_QLIMIT_DEFAULT ? MACH_SEND_INTERRUPTED : 0);
    }
    CHECK_CHILD(child);
    CHECK_EQ(mach_port_destroy(SELF, right), KERN_SUCCESS);
    close(go[0]);
    close(go[1]);
    destroy_port(port);
}

CHECK_MAIN()
