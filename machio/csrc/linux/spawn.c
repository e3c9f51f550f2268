/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Starts a command that shares nothing with this process: the bootstrap server.
 *
 * The process may have threads, SIGCHLD handlers and children of its own, so neither fork() nor
 * posix_spawn() will do. fork() runs the handlers of pthread_atfork, this layer's among them, and
 * leaves SIGCHLD behind. A bare clone without an exit signal does neither: no handler runs, no
 * SIGCHLD is sent, and the child is seen only by a waitpid() that asks for it with __WALL. It
 * makes the grandchild and ends at once; the grandchild is init's and becomes the command.
 *
 * Between clone and exec only system calls are made. All signals are blocked there until every
 * handler is gone. Whether exec worked is told by a close-on-exec pipe: end of file, or an errno.
 *
 * The pid for LISTEN_PID is not known before, so the grandchild writes it into its own copy of
 * the environment.
 */
#include "rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Descriptors below this one are given away in the new process. */
enum { LISTENER = 3, REPORT = 4, PLAIN = 16 };

/* fork() without handlers and, no flag being set, without an exit signal. */
static pid_t bare_fork(void) {
    return (pid_t)syscall(SYS_clone, 0ul, 0ul, 0ul, 0ul, 0ul);
}

static void default_signals(void) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++)
        sigaction(number, &action, NULL);
}

static void write_pid(char *digits) {
    pid_t pid = getpid();
    char reversed[10];
    unsigned count = 0;
    do
        reversed[count++] = (char)('0' + pid % 10);
    while ((pid /= 10) > 0);
    while (count > 0)
        *digits++ = reversed[--count];
    *digits = '\0';
}

/* Puts every descriptor in its place and closes all others. False: errno says why. */
static bool arrange_files(const struct mio_spawn *spawn, int report) {
    /* Out of the way first: any of them may sit where another has to go. */
    int listener = fcntl(spawn->listener, F_DUPFD, PLAIN);
    int log = fcntl(spawn->log, F_DUPFD, PLAIN);
    int directory = fcntl(spawn->directory, F_DUPFD, PLAIN);
    report = fcntl(report, F_DUPFD, PLAIN);
    int null = open("/dev/null", O_RDWR);
    if (listener < 0 || log < 0 || directory < 0 || report < 0 || null < 0)
        return false;
    null = fcntl(null, F_DUPFD, PLAIN);
    if (null < 0 || fchdir(directory) < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
        dup2(log, 2) < 0 || dup2(listener, LISTENER) < 0 || dup3(report, REPORT, O_CLOEXEC) < 0)
        return false;
#ifdef SYS_close_range
    if (syscall(SYS_close_range, REPORT + 1u, ~0u, 0u) == 0)
        return true;
#endif
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > 1u << 20)
        limit.rlim_cur = 1u << 20;
    for (int fd = REPORT + 1; fd < (int)limit.rlim_cur; fd++)
        close(fd);
    return true;
}

/* The grandchild. */
static _Noreturn void become(const struct mio_spawn *spawn, int report) {
    sigset_t none;
    int failure;

    default_signals();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(077);
    write_pid(spawn->pid_digits);
    if (arrange_files(spawn, report)) {
        report = REPORT;
        execve(spawn->argv[0], (char *const *)(uintptr_t)spawn->argv, spawn->envp);
    }
    failure = errno;
    (void)!write(report, &failure, sizeof failure);
    _exit(127);
}

int mio_spawn(const struct mio_spawn *spawn, int64_t deadline) {
    sigset_t all, before;
    int report[2], status = 0, failure = 0;
    ssize_t got;

    if (pipe2(report, O_CLOEXEC) < 0)
        return errno;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = bare_fork();
    if (child == 0) {
        setsid();
        pid_t grandchild = bare_fork();
        if (grandchild == 0)
            become(spawn, report[1]);
        _exit(grandchild < 0 ? errno : 0);
    }
    if (child < 0)
        failure = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (child > 0) {
        while (waitpid(child, &status, __WALL) < 0 && errno == EINTR)
            continue;
        if (WIFEXITED(status))
            failure = WEXITSTATUS(status);
    }
    /* A program without close-on-exec hygiene may hold the pipe: hence the time limit. */
    struct pollfd fd = {.fd = report[0], .events = POLLIN};
    while (failure == 0) {
        int64_t left = deadline - mio_rendezvous_clock();
        int ready = poll(&fd, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0)
            failure = ETIMEDOUT;
        break;
    }
    if (failure == 0) {
        do
            got = read(report[0], &failure, sizeof failure);
        while (got < 0 && errno == EINTR);
        if (got != sizeof failure)
            failure = 0;
    }
    close(report[0]);
    return failure;
}
