/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * faults.h - system calls that fail when told to.
 *
 * The functions here stand before the C library's in this program, the layer's calls included.
 * fault_arm() makes the nth call of one of them by this thread fail, once; fault_before() has
 * something else happen just before it, which then succeeds. fault_fired() tells whether it came
 * to that.
 */
#ifndef MACHIO_TESTS_FAULTS_H
#define MACHIO_TESTS_FAULTS_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

enum fault_call {
    FAULT_SOCKETPAIR,
    FAULT_PIPE2,
    FAULT_BIND,
    FAULT_OPEN,
    FAULT_EVENTFD,
    FAULT_EPOLL_CREATE1,
    FAULT_EPOLL_CTL,
    FAULT_EPOLL_WAIT,
    FAULT_TIMERFD_CREATE,
    FAULT_MEMFD_CREATE,
    FAULT_SENDMSG,
    FAULT_RECVMSG,
    FAULT_PPOLL,
    FAULT_POLL,
    FAULT_SPLICE,
    FAULT_PWRITEV2,
    FAULT_WRITE,
    FAULT_PREAD,
    FAULT_PWRITE,
    FAULT_FTRUNCATE,
    FAULT_SENDFILE,
    FAULT_SEAL, /* fcntl() to that end, which fails while somebody can write to the file */
    FAULT_DUP,  /* fcntl() again */
    FAULT_MMAP,
    FAULT_SOCKET,
    FAULT_CONNECT,
    FAULT_LISTEN,
    FAULT_OPENAT,
    FAULT_FLOCK,
    FAULT_CALLS
};

static _Thread_local struct {
    enum fault_call call;
    int error, countdown;
    void (*act)(void);
    bool fired;
} fault = {.call = FAULT_CALLS};

static inline void fault_arm(enum fault_call call, int error, int nth) {
    fault.call = call, fault.error = error, fault.countdown = nth, fault.fired = false;
    fault.act = NULL;
}

static inline void fault_before(enum fault_call call, int nth, void (*act)(void)) {
    fault_arm(call, 0, nth);
    fault.act = act;
}

static inline bool fault_fired(void) {
    fault.call = FAULT_CALLS;
    return fault.fired;
}

static inline bool fault_due(enum fault_call call) {
    if (fault.call != call || --fault.countdown != 0)
        return false;
    fault.call = FAULT_CALLS;
    fault.fired = true;
    if (fault.act != NULL) {
        fault.act();
        return false;
    }
    errno = fault.error;
    return true;
}

#define FAULT(CALL, TYPE, NAME, PARAMETERS, ARGUMENTS)               \
    TYPE NAME PARAMETERS {                                           \
        TYPE(*real) PARAMETERS;                                      \
        real = (__typeof__(real))(uintptr_t)dlsym(RTLD_NEXT, #NAME); \
        return fault_due(CALL) ? (TYPE) - 1 : real ARGUMENTS;        \
    }

FAULT(FAULT_SOCKETPAIR, int, socketpair, (int domain, int type, int protocol, int fds[2]),
      (domain, type, protocol, fds))
FAULT(FAULT_PIPE2, int, pipe2, (int fds[2], int flags), (fds, flags))
FAULT(FAULT_BIND, int, bind, (int fd, const struct sockaddr *name, socklen_t length),
      (fd, name, length))
FAULT(FAULT_EVENTFD, int, eventfd, (unsigned value, int flags), (value, flags))
FAULT(FAULT_EPOLL_CREATE1, int, epoll_create1, (int flags), (flags))
FAULT(FAULT_EPOLL_CTL, int, epoll_ctl, (int epfd, int op, int fd, struct epoll_event *event),
      (epfd, op, fd, event))
FAULT(FAULT_EPOLL_WAIT, int, epoll_wait,
      (int epfd, struct epoll_event *events, int count, int timeout),
      (epfd, events, count, timeout))
FAULT(FAULT_TIMERFD_CREATE, int, timerfd_create, (clockid_t clock, int flags), (clock, flags))
FAULT(FAULT_MEMFD_CREATE, int, memfd_create, (const char *name, unsigned flags), (name, flags))
FAULT(FAULT_SENDMSG, ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags),
      (fd, msg, flags))
FAULT(FAULT_PPOLL, int, ppoll,
      (struct pollfd * fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask),
      (fds, count, timeout, mask))
FAULT(FAULT_SPLICE, ssize_t, splice,
      (int in_fd, off_t *in_at, int out_fd, off_t *out_at, size_t length, unsigned flags),
      (in_fd, in_at, out_fd, out_at, length, flags))
FAULT(FAULT_PWRITEV2, ssize_t, pwritev2,
      (int fd, const struct iovec *iov, int count, off_t at, int flags),
      (fd, iov, count, at, flags))
FAULT(FAULT_WRITE, ssize_t, write, (int fd, const void *data, size_t length), (fd, data, length))
FAULT(FAULT_PREAD, ssize_t, pread, (int fd, void *data, size_t length, off_t at),
      (fd, data, length, at))

FAULT(FAULT_SOCKET, int, socket, (int domain, int type, int protocol), (domain, type, protocol))
FAULT(FAULT_CONNECT, int, connect, (int fd, const struct sockaddr *name, socklen_t length),
      (fd, name, length))
FAULT(FAULT_LISTEN, int, listen, (int fd, int backlog), (fd, backlog))
FAULT(FAULT_FLOCK, int, flock, (int fd, int operation), (fd, operation))
FAULT(FAULT_PWRITE, ssize_t, pwrite, (int fd, const void *data, size_t length, off_t at),
      (fd, data, length, at))
FAULT(FAULT_FTRUNCATE, int, ftruncate, (int fd, off_t length), (fd, length))
FAULT(FAULT_SENDFILE, ssize_t, sendfile, (int to, int from, off_t *at, size_t length),
      (to, from, at, length))

/* It is interrupted only if nothing is ready. */
int poll(struct pollfd *fds, nfds_t count, int timeout) {
    int (*real)(struct pollfd *, nfds_t, int);
    real = (__typeof__(real))(uintptr_t)dlsym(RTLD_NEXT, "poll");
    bool may = fault.call == FAULT_POLL && (fault.act != NULL || real(fds, count, 0) == 0);
    return may && fault_due(FAULT_POLL) ? -1 : real(fds, count, timeout);
}

/* A question without room for an answer (is the socket shut?) cannot fail for want of memory. */
ssize_t recvmsg(int fd, struct msghdr *msg, int flags) {
    ssize_t (*real)(int, struct msghdr *, int);
    real = (__typeof__(real))(uintptr_t)dlsym(RTLD_NEXT, "recvmsg");
    return msg->msg_iov != NULL && fault_due(FAULT_RECVMSG) ? -1 : real(fd, msg, flags);
}

int open(const char *path, int flags, ...) {
    int (*real)(const char *, int, ...) = (__typeof__(real))(uintptr_t)dlsym(RTLD_NEXT, "open");
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return fault_due(FAULT_OPEN) ? -1 : real(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    int (*real)(int, const char *, int, ...);
    real = (__typeof__(real))(uintptr_t)dlsym(RTLD_NEXT, "openat");
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return fault_due(FAULT_OPENAT) ? -1 : real(folder, path, flags, mode);
}

int fcntl(int fd, int command, ...) {
    int (*real)(int, int, ...) = (__typeof__(real))(uintptr_t)dlsym(RTLD_NEXT, "fcntl");
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    bool fails = (command == F_ADD_SEALS && fault_due(FAULT_SEAL)) ||
                 (command == F_DUPFD_CLOEXEC && fault_due(FAULT_DUP));
    return fails ? -1 : real(fd, command, argument);
}

/* Sanitizers map memory before they can be called, or can tell where a function is. */
__attribute__((no_sanitize("thread"))) void *mmap(void *address, size_t length, int protection,
                                                  int flags, int fd, off_t at) {
    if (fault.call == FAULT_MMAP && fault_due(FAULT_MMAP))
        return MAP_FAILED;
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, at);
}

#endif
