/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The floor in C: COUNT round trips of SIZE bytes between two processes over a SOCK_SEQPACKET
 * pair, with nothing but sendmsg() and recvmsg(). Prints the median in nanoseconds.
 *
 *     bare COUNT SIZE
 */
#include "clock.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void out(int fd, char *bytes, size_t size) {
    struct iovec iov = {bytes, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    MUST(sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)size);
}

static void in(int fd, char *bytes, size_t size) {
    struct iovec iov = {bytes, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    MUST(recvmsg(fd, &msg, 0) == (ssize_t)size);
}

int main(int argc, char **argv) {
    MUST(argc == 3);
    long count = atol(argv[1]);
    size_t size = (size_t)atol(argv[2]);
    static char bytes[65536];
    int fds[2];
    MUST(size <= sizeof bytes && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds) == 0);
    pid_t child = fork();
    MUST(child >= 0);
    if (child == 0) {
        for (long i = -WARM_UP; i < count; i++) {
            in(fds[1], bytes, size);
            out(fds[1], bytes, size);
        }
        return 0;
    }
    int64_t *times = calloc((size_t)count, sizeof *times);
    MUST(times != NULL && count > 0);
    for (long i = -WARM_UP; i < count; i++) {
        int64_t start = now();
        out(fds[0], bytes, size);
        in(fds[0], bytes, size);
        if (i >= 0)
            times[i] = now() - start;
    }
    report(times, count);
    waitpid(child, NULL, 0);
    return 0;
}
