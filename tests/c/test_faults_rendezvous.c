/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each system call fails in turn while a task looks for the bootstrap server, becomes it, or starts
 * one: what comes is a code with a sentence, nothing is left open, and then the same succeeds.
 */
#include "faults.h"

#include "rendezvous_peer.h"

static const struct {
    enum fault_call call;
    int errors[4];
} FAULTS[] = {
    {FAULT_OPEN, {EMFILE, ENFILE, ENOMEM}},
    {FAULT_OPENAT, {EMFILE, ENFILE, ENOMEM}},
    {FAULT_SOCKET, {EMFILE, ENFILE, ENOBUFS}},
    {FAULT_SOCKETPAIR, {EMFILE, ENFILE}},
    {FAULT_PIPE2, {EMFILE, ENFILE}},
    {FAULT_CONNECT, {ECONNREFUSED, ENOENT, ENOMEM}},
    {FAULT_BIND, {ENOMEM, EADDRINUSE}},
    {FAULT_LISTEN, {EADDRINUSE}},
    {FAULT_FLOCK, {EINTR, ENOLCK}},
    {FAULT_POLL, {EINTR}},
};

/* Plays the scene, which tells whether it came to what it was to come to. */
static int fail_in_turn(bool (*scene)(void)) {
    int fired = 0, files = check_fd_count();
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
        for (int e = 0; e < 4 && FAULTS[i].errors[e] != 0; e++) {
            for (int nth = 1;; nth++) {
                fault_arm(FAULTS[i].call, FAULTS[i].errors[e], nth);
                if (getenv("FAULTS_TRACE")) /* which one it is that the test ends with */
                    fprintf(stderr, "call %d, error %d, time %d\n", FAULTS[i].call,
                            FAULTS[i].errors[e], nth);
                bool done = scene();
                bool failed = fault_fired();
                CHECK(done || failed);
                CHECK_FDS(files);
                CHECK(scene());
                CHECK_FDS(files);
                if (!failed)
                    break;
                fired++;
            }
        }
    }
    return fired;
}

/* Whether it succeeded; a failure has a sentence. */
static bool judge(kern_return_t result) {
    if (result == KERN_SUCCESS)
        return true;
    CHECK(result == KERN_FAILURE || result == KERN_RESOURCE_SHORTAGE);
    CHECK(machio_last_error() != NULL && machio_last_error()[0] != '\0');
    return false;
}

static bool find_server(void) {
    return judge(try_to_connect(false));
}

TEST(a_server_is_found_or_not) {
    int listener;
    use_directory();
    CHECK_EQ(machio_bootstrap_listen(&listener), KERN_SUCCESS);
    CHECK(fail_in_turn(find_server) >= 4);
    close(listener);
}

static bool become_server(void) {
    int listener = -1;
    bool done = judge(machio_bootstrap_listen(&listener));
    CHECK_EQ(listener >= 0, done);
    if (done)
        close(listener);
    return done;
}

TEST(a_task_becomes_the_server_or_not) {
    use_directory();
    CHECK(fail_in_turn(become_server) >= 6);
}

/* A command that cannot be run is what it is to come to: whether it came so far. */
static bool start_server(void) {
    CHECK(!judge(try_to_connect(true)));
    CHECK_EQ(waitpid(-1, NULL, WNOHANG | __WALL), -1); /* no child is left */
    return strstr(machio_last_error(), "/not/there") != NULL;
}

TEST(a_server_is_started_or_not) {
    const char *const command[] = {"/not/there", NULL};
    use_directory();
    CHECK_EQ(machio_set_bootstrap_command(command), KERN_SUCCESS);
    CHECK(fail_in_turn(start_server) >= 6);
}

CHECK_MAIN()
