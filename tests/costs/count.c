/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Counts what a program does between its first two SIGUSR1, which it sends to itself and which do
 * not reach it: system calls, or with -i the instructions of its own. Of the thread that does so
 * alone; what other processes do is not counted. Needs no tool but ptrace().
 *
 *     count [-i] COMMAND [ARGUMENT...]
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void go_on(pid_t pid, enum __ptrace_request how, int signal_number) {
    if (ptrace(how, pid, NULL, (void *)(long)signal_number) != 0)
        die("ptrace");
}

/* The next stop of the program, or its end. */
static int wait_for(pid_t pid) {
    int status;
    if (waitpid(pid, &status, 0) != pid)
        die("waitpid");
    return status;
}

static void tracee(char **command) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        die("ptrace is not allowed here");
    raise(SIGSTOP);
    execvp(command[0], command);
    die(command[0]);
}

int main(int argc, char **argv) {
    int steps = argc > 1 && strcmp(argv[1], "-i") == 0;
    if (argc < 2 + steps)
        return 2;
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0)
        tracee(argv + 1 + steps);

    enum __ptrace_request counting = steps ? PTRACE_SINGLESTEP : PTRACE_SYSCALL;
    int marks = 0;
    long stops = 0;
    int status = wait_for(pid);
    if (!WIFSTOPPED(status))
        return 1;
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(long)PTRACE_O_TRACESYSGOOD) != 0)
        die("ptrace");
    go_on(pid, PTRACE_CONT, 0);
    while (WIFSTOPPED(status = wait_for(pid))) {
        int reason = WSTOPSIG(status), signal_number = 0;
        if (reason == SIGUSR1)
            marks++;
        else if (reason == (SIGTRAP | 0x80) || reason == SIGTRAP)
            stops += marks == 1;
        else
            signal_number = reason;
        go_on(pid, marks == 1 ? counting : PTRACE_CONT, signal_number);
    }
    if (marks != 2 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "the program came to %d marks, status %x\n", marks, (unsigned)status);
        return 1;
    }
    printf("%ld\n", steps ? stops : stops / 2);
    return 0;
}
