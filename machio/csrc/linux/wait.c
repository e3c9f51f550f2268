/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Blocked threads. A thread that waits polls its own eventfd, by which the task wakes it, and the
 * descriptors that the kernel wakes it by. The eventfd is made at the thread's first wait and
 * closed when the thread ends.
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static pthread_key_t thread_fd_key;
static pthread_once_t thread_fd_once = PTHREAD_ONCE_INIT;
static _Thread_local int thread_fd = -1;
static _Thread_local pid_t thread_fd_owner;

static void close_thread_fd(void *unused) {
    (void)unused;
    if (thread_fd >= 0 && thread_fd_owner == getpid())
        close(thread_fd);
    thread_fd = -1;
}

static void make_key(void) {
    pthread_key_create(&thread_fd_key, close_thread_fd);
}

int mio_thread_fd(void) {
    if (thread_fd < 0) {
        pthread_once(&thread_fd_once, make_key);
        thread_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        thread_fd_owner = getpid();
        pthread_setspecific(thread_fd_key, &thread_fd);
    }
    return thread_fd;
}

void mio_thread_fork_child(void) {
    if (thread_fd >= 0)
        close(thread_fd);
    thread_fd = -1;
}

void mio_wake(struct mio_waiter *waiter) {
    if (waiter->woken)
        return;
    waiter->woken = true;
    uint64_t one = 1;
    ssize_t n = write(waiter->fd, &one, sizeof one);
    (void)n;
}

static int64_t monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct mio_deadline mio_deadline_in(mach_msg_timeout_t ms) {
    return (struct mio_deadline){.at = monotonic() + (int64_t)ms * 1000000};
}

struct mio_deadline mio_deadline_never(void) {
    return (struct mio_deadline){.never = true};
}

struct mio_deadline mio_deadline_sooner(const struct mio_deadline *deadline,
                                        mach_msg_timeout_t ms) {
    struct mio_deadline soon = mio_deadline_in(ms);
    return !deadline->never && deadline->at < soon.at ? *deadline : soon;
}

kern_return_t mio_wait(struct mio_waiter *waiter, struct pollfd *fds, unsigned nfds,
                       const struct mio_deadline *deadline) {
    struct timespec left, *timeout = NULL;
    if (!deadline->never) {
        int64_t ns = deadline->at - monotonic();
        if (ns < 0)
            ns = 0;
        left = (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
        timeout = &left;
    }
    mio_unlock();
    int n = ppoll(fds, nfds, timeout, NULL);
    int error = errno;
    mio_lock();
    if (waiter->woken || (n > 0 && fds[0].revents & POLLIN)) {
        uint64_t times;
        ssize_t got = read(waiter->fd, &times, sizeof times);
        (void)got;
        waiter->woken = false;
        return KERN_SUCCESS;
    }
    if (n < 0)
        return error == EINTR ? KERN_ABORTED : KERN_SUCCESS;
    return n == 0 ? KERN_OPERATION_TIMED_OUT : KERN_SUCCESS;
}
