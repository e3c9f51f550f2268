/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Blocked threads. A thread that waits polls its own eventfd, by which the task wakes it, and the
 * descriptors that the kernel wakes it by. The eventfd is made at the thread's first wait and
 * closed when the thread ends.
 */
#include "internal.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/epoll.h>
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

/* How many nanoseconds are left; negative for ever. */
static int64_t time_left(const struct mio_deadline *deadline) {
    if (deadline->never)
        return -1;
    int64_t ns = deadline->at - monotonic();
    return ns < 0 ? 0 : ns;
}

/* What a wait has come to: `n` descriptors are ready, the waiter's `own` among them, or errno. */
static kern_return_t end_of_wait(struct mio_waiter *waiter, int n, int error, bool own) {
    if (waiter->woken || own) {
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

kern_return_t mio_wait(struct mio_waiter *waiter, struct pollfd *fds, unsigned nfds,
                       const struct mio_deadline *deadline) {
    int64_t ns = time_left(deadline);
    struct timespec left = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    mio_unlock();
    int n = ppoll(fds, nfds, ns < 0 ? NULL : &left, NULL);
    int error = errno;
    mio_lock();
    return end_of_wait(waiter, n, error, n > 0 && fds[0].revents & POLLIN);
}

/*
 * An epoll that a write to the pipe wakes only if none before it in the pipe's line sleeps: the
 * kernel has it so for whoever sleeps in epoll_wait itself.
 */
static int make_turnstile(const struct pollfd *fds) {
    struct epoll_event own = {.events = EPOLLIN, .data.u32 = 0};
    struct epoll_event turn = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.u32 = 1};
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd >= 0 && (epoll_ctl(epfd, EPOLL_CTL_ADD, fds[0].fd, &own) != 0 ||
                      epoll_ctl(epfd, EPOLL_CTL_ADD, fds[1].fd, &turn) != 0)) {
        close(epfd);
        return -1;
    }
    return epfd;
}

kern_return_t mio_wait_in_turn(struct mio_waiter *waiter, struct pollfd *fds,
                               const struct mio_deadline *deadline) {
    struct epoll_event events[2];
    bool own = false;
    int epfd = make_turnstile(fds);
    if (epfd < 0) /* no descriptor to spare: with everybody else */
        return mio_wait(waiter, fds, 2, deadline);
    int64_t ns = time_left(deadline), ms = ns / 1000000 + (ns % 1000000 > 0);
    mio_unlock();
    int n = epoll_wait(epfd, events, 2, ns < 0 ? -1 : ms < INT_MAX ? (int)ms : INT_MAX);
    int error = errno;
    mio_lock();
    close(epfd);
    for (int i = 0; i < n; i++)
        own |= events[i].data.u32 == 0;
    return end_of_wait(waiter, n, error, own);
}
