/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The floor in C: round trips of SIZE bytes between two processes over a SOCK_SEQPACKET pair, with
 * nothing but sendmsg() and recvmsg(), for so many SECONDS. Prints how long they took, as JSON.
 *
 *     bare SECONDS SIZE
 */
#include "times.h"

#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char bytes[65536];
static size_t size;

static void out(int fd) {
    struct iovec iov = {bytes, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    MUST(sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)size);
}

static void in(int fd) {
    struct iovec iov = {bytes, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    MUST(recvmsg(fd, &msg, 0) == (ssize_t)size);
}

static void trip(void *fd) {
    out(*(int *)fd);
    in(*(int *)fd);
}

int main(int argc, char **argv) {
    int fds[2];
    MUST(argc == 3);
    size = (size_t)atol(argv[2]);
    MUST(size <= sizeof bytes && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) == 0);
    pid_t child = fork();
    MUST(child >= 0);
    while (child == 0) {
        in(fds[1]);
        out(fds[1]);
    }
    report(atof(argv[1]), LONG_MAX, trip, &fds[0]);
    MUST(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    return 0;
}
