/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Many tasks that wait for room in one queue: a place is for one of them, and wakes one.
 */
#include "kqueues.h"
#include "tasks.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

enum { TASKS = 16, EACH = 50, KILLED = 5 };

static pid_t tasks[TASKS];

/* ---- two ways of waiting --------------------------------------------------------------------- */

/* An event loop: it sleeps in an epoll of its own, in which is its kqueue. */
static struct {
    int epfd, kq;
    mach_port_t notify;
} loop = {.kq = -1};

static void open_loop(void) {
    if (loop.kq >= 0)
        return;
    loop.epfd = epoll_create1(EPOLL_CLOEXEC);
    loop.kq = kqueue();
    loop.notify = new_port();
    CHECK_EQ(change_port(loop.kq, loop.notify, EV_ADD | EV_CLEAR), 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint32_t)loop.kq};
    CHECK_EQ(epoll_ctl(loop.epfd, EPOLL_CTL_ADD, loop.kq, &event), 0);
}

static void request_room(mach_port_t there) {
    mach_port_t previous;
    CHECK_EQ(machio_request_room(there, loop.notify, loop.kq, loop.epfd, &previous), KERN_SUCCESS);
    CHECK_EQ(previous, MACH_PORT_NULL);
}

static void sleep_until_told(void) {
    struct epoll_event event;
    struct kevent64_s told;
    do {
        CHECK_EQ(epoll_wait(loop.epfd, &event, 1, -1), 1);
        CHECK_EQ(event.data.u64, loop.kq);
    } while (next(loop.kq, &told) == 0);
    CHECK_EQ(told.ident, loop.notify);
}

/* False: none has come. */
static bool is_notified(int id) {
    struct {
        mach_msg_header_t header;
        uint8_t rest[64];
    } message;
    if (mach_msg(&message.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof message, loop.notify,
                 0, 0) != MACH_MSG_SUCCESS)
        return false;
    CHECK_EQ(message.header.msgh_id, id);
    return true;
}

static void take_notification(int id) {
    CHECK(is_notified(id));
}

static void wait_in_loop(mach_port_t there, int id) {
    mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                                 .msgh_size = sizeof message,
                                 .msgh_remote_port = there,
                                 .msgh_id = id};
    mach_msg_return_t mr;
    open_loop();
    while ((mr = mach_msg(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof message, 0, 0, 0,
                          0)) == MACH_SEND_TIMED_OUT) {
        request_room(there);
        sleep_until_told();
        take_notification(MACH_NOTIFY_SEND_POSSIBLE);
    }
    CHECK_EQ(mr, MACH_MSG_SUCCESS);
}

/* A thread that blocks, and a loop. */
static const send_fn ways_to_wait[] = {send_copy, wait_in_loop};

/* ---- many ------------------------------------------------------------------------------------ */

/* Starts the tasks; the nth sends EACH messages with the id n, waiting for room as need be. */
static mach_port_t start(send_fn way) {
    mach_port_t port = new_port();
    set_limit(port, 1);
    struct handed handed = hand_over(port);
    for (int n = 0; n < TASKS; n++) {
        tasks[n] = fork();
        CHECK(tasks[n] >= 0);
        if (tasks[n] == 0) {
            mach_port_t there = take_over(&handed);
            for (int i = 0; i < EACH; i++)
                way(there, n);
            _exit(0);
        }
    }
    forget(&handed);
    return port;
}

static int receive_id(mach_port_t port) {
    struct message message;
    CHECK_EQ(receive(port, &message, 10000), MACH_MSG_SUCCESS);
    return message.header.msgh_id;
}

static void check_that_a_place_wakes_one(send_fn way) {
    struct rusage before, after;
    CHECK_EQ(getrusage(RUSAGE_CHILDREN, &before), 0);
    mach_port_t port = start(way);
    for (int i = 0; i < TASKS * EACH; i++)
        receive_id(port);
    for (int n = 0; n < TASKS; n++)
        CHECK_CHILD(tasks[n]);
    destroy_port(port);
    CHECK_EQ(getrusage(RUSAGE_CHILDREN, &after), 0);
    CHECK(after.ru_nvcsw - before.ru_nvcsw < 2 * TASKS * EACH); /* each sleeps once, seldom more */
}

TEST(a_place_in_the_queue_wakes_one_of_those_who_wait) {
    check_that_a_place_wakes_one(send_copy);
}

TEST(and_one_of_the_event_loops) {
    check_that_a_place_wakes_one(wait_in_loop);
}

TEST(who_is_killed_while_he_waits_takes_no_place_with_him) {
    for (size_t way = 0; way < sizeof ways_to_wait / sizeof *ways_to_wait; way++) {
        int received[TASKS] = {0}, left = (TASKS - KILLED) * EACH;
        mach_port_t port = start(ways_to_wait[way]);
        for (int i = 0; left > 0; i++) {
            int n = receive_id(port); /* which wakes somebody */
            received[n]++;
            left -= n >= KILLED;
            if (i % 20 == 19 && i / 20 < KILLED)
                CHECK_EQ(kill(tasks[i / 20], SIGKILL), 0);
        }
        for (int n = 0; n < TASKS; n++) {
            int status;
            CHECK_EQ(waitpid(tasks[n], &status, 0), tasks[n]);
            CHECK(n < KILLED ? received[n] <= EACH : status == 0 && received[n] == EACH);
        }
        destroy_port(port);
    }
}

/* ---- one after the other --------------------------------------------------------------------- */

/* Starts a task that has found the queue full, and is in line when this returns. */
static pid_t start_waiter(const struct handed *handed, bool ticks,
                          void (*then)(mach_port_t there)) {
    int line[2];
    char byte;
    CHECK_EQ(pipe(line), 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        mach_port_t there = take_over(handed);
        const struct itimerspec never = {0};
        open_loop();
        request_room(there);
        if (!ticks) /* else a waiter looks by himself in a second */
            CHECK_EQ(timerfd_settime(mio_task.tick, 0, &never, NULL), 0);
        CHECK_EQ(write(line[1], "", 1), 1);
        then(there);
        _exit(0);
    }
    close(line[1]);
    CHECK_EQ(read(line[0], &byte, 1), 1);
    close(line[0]);
    return pid;
}

static void send_when_told(mach_port_t there) {
    sleep_until_told();
    take_notification(MACH_NOTIFY_SEND_POSSIBLE);
    wait_in_loop(there, 2);
}

static void give_up_when_told(mach_port_t there) {
    struct epoll_event event;
    sleep_until_told();
    take_notification(MACH_NOTIFY_SEND_POSSIBLE);
    CHECK_EQ(epoll_wait(loop.epfd, &event, 1, 0), 0); /* who does not wait is not disturbed */
    machio_pass_room(there);
}

static void die_when_told(mach_port_t there) {
    (void)there;
    sleep_until_told();
}

static void give_up_untold(mach_port_t there) {
    mach_port_t previous;
    struct epoll_event event;
    CHECK_EQ(epoll_wait(loop.epfd, &event, 1, -1), 1); /* the turn has come, unknown to the layer */
    CHECK_EQ(mach_port_request_notification(SELF, there, MACH_NOTIFY_SEND_POSSIBLE, 0,
                                            MACH_PORT_NULL, MACH_MSG_TYPE_MAKE_SEND_ONCE,
                                            &previous),
             KERN_SUCCESS);
    machio_pass_room(there);
}

/* Of two who wait the first is told, and the second sends. */
static void check_the_second(bool ticks, void (*first_does)(mach_port_t there)) {
    mach_port_t port = new_port();
    set_limit(port, 1);
    struct handed handed = hand_over(port);
    send_id(port, 1);
    pid_t first = start_waiter(&handed, ticks, first_does);
    pid_t second = start_waiter(&handed, ticks, send_when_told);
    forget(&handed);
    CHECK_EQ(receive_id(port), 1);
    CHECK_EQ(receive_id(port), 2);
    CHECK_CHILD(first);
    CHECK_CHILD(second);
    destroy_port(port);
}

TEST(a_turn_that_is_not_wanted_any_more_is_passed_on) {
    check_the_second(false, give_up_when_told);
    check_the_second(false, give_up_untold);
}

TEST(who_dies_when_his_turn_has_come_holds_up_nobody) {
    check_the_second(true, die_when_told);
}

static void expect_death(mach_port_t there) {
    mach_port_type_t type;
    sleep_until_told();
    take_notification(MACH_NOTIFY_DEAD_NAME);
    CHECK_EQ(mach_port_type(SELF, there, &type), KERN_SUCCESS);
    CHECK(type & MACH_PORT_TYPE_DEAD_NAME);
}

TEST(the_death_of_the_port_is_told_to_all_loops) {
    mach_port_t port = new_port();
    set_limit(port, 1);
    struct handed handed = hand_over(port);
    send_id(port, 1);
    pid_t pids[3];
    for (int i = 0; i < 3; i++)
        pids[i] = start_waiter(&handed, false, expect_death);
    forget(&handed);
    destroy_port(port);
    for (int i = 0; i < 3; i++)
        CHECK_CHILD(pids[i]);
}

CHECK_MAIN()

/* ---- many queues ----------------------------------------------------------------------------- */

/* How many files an epoll watches. */
static int watched(int epfd) {
    char path[64], line[256];
    int count = 0;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", epfd);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        count += strncmp(line, "tfd:", 4) == 0;
    fclose(file);
    return count;
}

TEST(a_loop_that_waits_for_many_queues_looks_at_few_each_time_and_hears_of_all) {
    enum { QUEUES = 40, IN_TURN = 16 };
    mach_port_t ports[QUEUES];
    struct handed handed[QUEUES];
    int line[2];
    char byte;
    CHECK_EQ(pipe(line), 0);
    for (int i = 0; i < QUEUES; i++) {
        ports[i] = new_port();
        set_limit(ports[i], 1);
        handed[i] = hand_over(ports[i]);
        send_id(ports[i], i);
    }
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        open_loop();
        for (int i = 0; i < QUEUES; i++)
            request_room(take_over(&handed[i]));
        CHECK_EQ(watched(loop.epfd), 1 + IN_TURN);
        CHECK_EQ(write(line[1], "", 1), 1);
        for (int told = 0; told < QUEUES;) {
            sleep_until_told();
            while (is_notified(MACH_NOTIFY_SEND_POSSIBLE))
                told++;
        }
        CHECK_EQ(watched(loop.epfd), 1);
        _exit(0);
    }
    close(line[1]);
    CHECK_EQ(read(line[0], &byte, 1), 1);
    for (int i = 0; i < QUEUES; i++) {
        forget(&handed[i]);
        CHECK_EQ(receive_id(ports[i]), i);
    }
    CHECK_CHILD(pid);
    for (int i = 0; i < QUEUES; i++)
        destroy_port(ports[i]);
    close(line[0]);
}
