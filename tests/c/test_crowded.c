/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Many tasks that wait for room in one queue: a place is for one of them, and wakes one.
 */
#include "tasks.h"

#include <signal.h>

enum { TASKS = 16, EACH = 50, KILLED = 5 };

static pid_t tasks[TASKS];

/* Starts the tasks; the nth sends EACH messages with the id n, waiting for room as need be. */
static mach_port_t start(void) {
    mach_port_t port = new_port();
    set_limit(port, 1);
    struct handed handed = hand_over(port);
    for (int n = 0; n < TASKS; n++) {
        tasks[n] = fork();
        CHECK(tasks[n] >= 0);
        if (tasks[n] == 0) {
            mach_port_t there = take_over(&handed);
            mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                                         .msgh_size = sizeof message,
                                         .msgh_remote_port = there,
                                         .msgh_id = n};
            for (int i = 0; i < EACH; i++)
                CHECK_EQ(mach_msg(&message, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0),
                         MACH_MSG_SUCCESS);
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

TEST(a_place_in_the_queue_wakes_one_of_those_who_wait) {
    mach_port_t port = start();
    for (int i = 0; i < TASKS * EACH; i++)
        receive_id(port);
    for (int n = 0; n < TASKS; n++)
        CHECK_CHILD(tasks[n]);
    destroy_port(port);
    struct rusage usage;
    CHECK_EQ(getrusage(RUSAGE_CHILDREN, &usage), 0);
    CHECK(usage.ru_nvcsw < 2 * TASKS * EACH); /* each sleeps once, and seldom more */
}

TEST(who_is_killed_while_he_waits_takes_no_place_with_him) {
    int received[TASKS] = {0}, left = (TASKS - KILLED) * EACH;
    mach_port_t port = start();
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

CHECK_MAIN()
