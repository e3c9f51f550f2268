/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Kqueues: the descriptor, kevent(), and waiting.
 *
 * The descriptor is the program's: it may close it at any time, and the number may come back as
 * something else. Proof that it is still ours is that the marker can be modified in it; a struct
 * that fails the test is forgotten, with nothing to close. Until then it costs memory only, since
 * the kernel empties a closed epoll by itself.
 *
 * Guarded by mio_task.lock, which is let go to wait. A kqueue owns no descriptor but, until the
 * program closes it, its epoll; the marker is the task's.
 */
#include "kqueue.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64 /* epoll events taken at a time */
#define FIRST_SIZE 64u
#define SECOND INT64_C(1000000000)
#define WATCH_KIND (~UINT64_C(0xffffffff))

/* By descriptor; guarded by mio_task.lock like everything else here. */
static struct mio_kq **table;
static size_t table_size;
static uint64_t last_serial;
static bool some_closed; /* kqueues wait to be freed */

/* ---- the objects ----------------------------------------------------------------------------- */

static bool table_set(int fd, struct mio_kq *kq) {
    if ((size_t)fd >= table_size) {
        size_t size = table_size ? table_size : FIRST_SIZE;
        while (size <= (size_t)fd)
            size *= 2;
        struct mio_kq **bigger = realloc(table, size * sizeof(*bigger));
        if (bigger == NULL)
            return false;
        memset(bigger + table_size, 0, (size - table_size) * sizeof(*bigger));
        table = bigger;
        table_size = size;
    }
    table[fd] = kq;
    return true;
}

struct mio_kq *mio_kq_find(int fd) {
    return fd >= 0 && (size_t)fd < table_size ? table[fd] : NULL;
}

static void unref(struct mio_kq *kq) {
    if (--kq->refs == 0) {
        free(kq->buckets);
        free(kq);
    }
}

/* The program closed it. Its knotes are freed later: someone may be walking over them now. */
static void forget(struct mio_kq *kq) {
    if (kq->fd < 0)
        return;
    table[kq->fd] = NULL;
    kq->fd = kq->watch.epfd = -1;
    some_closed = true;
}

static void free_closed(void) {
    if (!some_closed)
        return;
    some_closed = false;
    MIO_EACH(item, &mio_task.kqs) {
        struct mio_kq *kq = MIO_CONTAINER(item, struct mio_kq, link);
        if (kq->fd >= 0)
            continue;
        mio_list_remove(&kq->link);
        mio_knotes_drop_all(kq);
        mio_watch_unlink(&kq->watch);
        unref(kq);
    }
}

static bool set_marker(struct mio_kq *kq, int op, bool on) {
    struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.u64 = MIO_WATCH_MARKER};
    return epoll_ctl(kq->fd, op, mio_task.marker, &event) == 0;
}

/* Sets the marker, if the descriptor is still ours. */
static bool mark(struct mio_kq *kq) {
    if (kq->fd >= 0 && !set_marker(kq, EPOLL_CTL_MOD, kq->marked))
        forget(kq);
    kq->asked = mio_task.hold;
    return kq->fd >= 0;
}

bool mio_kq_check(struct mio_kq *kq) {
    return kq->asked == mio_task.hold ? kq->fd >= 0 : mark(kq);
}

void mio_kq_mark(struct mio_kq *kq) {
    bool wanted = !mio_list_empty(&kq->active);
    if (kq->held || kq->fd < 0 || wanted == kq->marked)
        return;
    kq->marked = wanted;
    if (!mark(kq) || wanted)
        return;
    /*
     * The marker is still in the epoll's list of what may be ready, and as long as it is, switching
     * it on wakes nobody. A poll takes it out.
     */
    struct pollfd fd = {.fd = kq->fd, .events = POLLIN};
    poll(&fd, 1, 0);
}

void mio_kq_watch_notice(struct mio_kq *kq) {
    bool wanted = kq->nports > 0 && mio_task.notice >= 0;
    if (kq->fd < 0 || mio_task.notice < 0 || wanted == kq->noticing)
        return;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = MIO_WATCH_NOTICE};
    epoll_ctl(kq->fd, wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, mio_task.notice, &event);
    kq->noticing = wanted;
}

void mio_kqs_watch_notice(void) {
    MIO_EACH(item, &mio_task.kqs) {
        struct mio_kq *kq = MIO_CONTAINER(item, struct mio_kq, link);
        kq->noticing = false;
        if (mio_kq_check(kq))
            mio_kq_watch_notice(kq);
    }
}

static int make(int fd) {
    MIO_EACH(item, &mio_task.kqs)
        mio_kq_check(MIO_CONTAINER(item, struct mio_kq, link));
    free_closed();
    if (mio_task.marker < 0)
        mio_task.marker = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mio_task.marker < 0)
        return errno;
    struct mio_kq *kq = calloc(1, sizeof *kq);
    if (kq == NULL)
        return ENOMEM;
    kq->refs = 1;
    kq->fd = kq->watch.epfd = fd;
    kq->watch.kq = kq;
    kq->serial = ++last_serial;
    mio_list_init(&kq->link);
    mio_list_init(&kq->active);
    mio_list_init(&kq->watch.links);
    if (!set_marker(kq, EPOLL_CTL_ADD, false) || !table_set(fd, kq)) {
        unref(kq);
        return ENOMEM;
    }
    mio_list_append(&mio_task.kqs, &kq->link);
    return 0;
}

int kqueue(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        return -1;
    mio_lock();
    int error = make(fd);
    mio_unlock();
    if (error != 0) {
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/*
 * The child shares the parent's open files, so nothing may be changed in an epoll. Adding the
 * marker tells without a change: it is there already if the epoll is a kqueue.
 */
void mio_kqs_fork_child(void) {
    MIO_EACH(item, &mio_task.kqs) {
        struct mio_kq *kq = MIO_CONTAINER(item, struct mio_kq, link);
        int fd = kq->fd;
        if (fd < 0)
            continue;
        if (set_marker(kq, EPOLL_CTL_ADD, false))
            epoll_ctl(fd, EPOLL_CTL_DEL, mio_task.marker, NULL); /* some other epoll by now */
        else if (errno == EEXIST)
            close(fd);
        forget(kq);
    }
    free_closed();
    mio_watches_fork_child();
}

/* ---- waiting --------------------------------------------------------------------------------- */

static void on_source(struct mio_kq *kq, int fd) {
    struct mio_source *source = mio_source_find(fd);
    struct mio_port *port = source != NULL ? mio_source_port(source) : NULL;
    if (port != NULL)
        mio_filter_port_fired(kq, port, source);
    else
        epoll_ctl(kq->fd, EPOLL_CTL_DEL, fd, NULL);
}

void mio_kq_collect(struct mio_kq *kq) {
    struct epoll_event events[BATCH];
    bool notice = false, ours = true;

    int n = epoll_wait(kq->fd, events, BATCH, 0);
    for (int i = 0; i < n; i++) {
        int fd = (int)(uint32_t)events[i].data.u64;
        switch (events[i].data.u64 & WATCH_KIND) {
        case MIO_WATCH_SOURCE:
            on_source(kq, fd);
            break;
        case MIO_WATCH_FD:
            mio_filter_file_fired(kq, fd, events[i].events);
            break;
        case MIO_WATCH_NOTICE:
            notice = true;
            break;
        case MIO_WATCH_MARKER:
            break;
        default:
            ours = false;
        }
    }
    if (n <= 0 || !ours)
        mark(kq);
    if (notice)
        mio_notice_take();
}

static int64_t monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

/* Waits until the descriptor is readable; a poll takes no event away from other threads. */
static int wait_for_event(struct mio_kq *kq, const struct mio_deadline *deadline,
                          bool *ret_expired) {
    struct pollfd fd = {.fd = kq->fd, .events = POLLIN};
    struct timespec left, *timeout = NULL;
    if (!deadline->never) {
        int64_t ns = deadline->at - monotonic();
        if (ns < 0)
            ns = 0;
        left = (struct timespec){.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND};
        timeout = &left;
    }
    kq->held = false;
    mio_kq_mark(kq);
    mio_unlock();
    int n = ppoll(&fd, 1, timeout, NULL);
    int error = errno;
    mio_lock();
    kq->held = true;
    if (kq->fd < 0)
        return EBADF;
    *ret_expired = n == 0;
    return n < 0 ? error : 0;
}

/* ---- kevent() -------------------------------------------------------------------------------- */

/* The same call with either kind of struct. */
struct request {
    int fd;
    const void *changes;
    int nchanges;
    unsigned flags;
    const struct timespec *timeout;
    struct mio_events events;
};

static void get_change(const struct request *request, int i, struct kevent64_s *ret) {
    if (request->events.wide) {
        *ret = ((const struct kevent64_s *)request->changes)[i];
        return;
    }
    const struct kevent *change = (const struct kevent *)request->changes + i;
    *ret = (struct kevent64_s){.ident = change->ident,
                               .filter = change->filter,
                               .flags = change->flags,
                               .fflags = change->fflags,
                               .data = change->data,
                               .udata = (uintptr_t)change->udata};
}

void mio_events_put(struct mio_events *events, const struct kevent64_s *event) {
    if (events->wide) {
        ((struct kevent64_s *)events->list)[events->count++] = *event;
        return;
    }
    ((struct kevent *)events->list)[events->count++] =
        (struct kevent){.ident = (uintptr_t)event->ident,
                        .filter = event->filter,
                        .flags = event->flags,
                        .fflags = event->fflags,
                        .data = (intptr_t)event->data,
                        .udata = (void *)(uintptr_t)event->udata};
}

static int apply_changes(struct mio_kq *kq, struct request *request) {
    struct mio_events *events = &request->events;
    if ((request->nchanges > 0 || events->room == 0) && !mio_kq_check(kq))
        return EBADF;
    for (int i = 0; i < request->nchanges; i++) {
        struct kevent64_s change;
        get_change(request, i, &change);
        change.flags &= (uint16_t)~EV_SYSFLAGS;
        uint16_t flags = change.flags;
        int error = mio_knote_change(kq, &change);
        if (error == 0 && !(flags & EV_RECEIPT))
            continue;
        if (events->count < events->room) {
            change.flags = flags | EV_ERROR;
            change.data = error;
            mio_events_put(events, &change);
        } else if (error != 0) {
            return error;
        }
    }
    return 0;
}

static int wait_for_events(struct mio_kq *kq, struct request *request,
                           const struct mio_deadline *deadline, bool expired) {
    for (;;) {
        mio_turns_look();
        mio_kq_collect(kq);
        if (kq->fd < 0)
            return EBADF;
        mio_knotes_report(kq, &request->events);
        if (request->events.count == 0 && kq->nports > 0 && mio_notice_poll())
            mio_knotes_report(kq, &request->events);
        if (request->events.count > 0 || expired)
            return 0;
        int error = wait_for_event(kq, deadline, &expired);
        if (error != 0)
            return error;
    }
}

/* EINVAL for a timeout that is none. *ret_now: it is zero. */
static int get_deadline(const struct request *request, struct mio_deadline *ret, bool *ret_now) {
    const struct timespec *timeout = request->timeout;
    *ret = (struct mio_deadline){.never = true};
    *ret_now = request->flags & KEVENT_FLAG_IMMEDIATE;
    if (timeout == NULL || *ret_now)
        return 0;
    if (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= SECOND)
        return EINVAL;
    *ret_now = timeout->tv_sec == 0 && timeout->tv_nsec == 0;
    if (!*ret_now && timeout->tv_sec < INT64_MAX / SECOND / 2)
        *ret =
            (struct mio_deadline){.at = monotonic() + timeout->tv_sec * SECOND + timeout->tv_nsec};
    return 0;
}

static int run(struct request *request) {
    struct mio_deadline deadline;
    bool now;
    int error = get_deadline(request, &deadline, &now);
    if (error == 0 && (request->nchanges < 0 || request->events.room < 0 ||
                       request->flags & ~(KEVENT_FLAG_IMMEDIATE | KEVENT_FLAG_ERROR_EVENTS)))
        error = EINVAL;
    if (error == 0) {
        mio_lock();
        free_closed();
        struct mio_kq *kq = mio_kq_find(request->fd);
        if (kq == NULL) {
            error = EBADF;
        } else {
            kq->refs++;
            kq->held = true;
            error = apply_changes(kq, request);
            if (error == 0 && request->events.count == 0 && request->events.room > 0 &&
                !(request->flags & KEVENT_FLAG_ERROR_EVENTS))
                error = wait_for_events(kq, request, &deadline, now);
            kq->held = false;
            mio_kq_mark(kq);
            unref(kq);
        }
        mio_unlock();
    }
    if (error != 0) {
        errno = error;
        return -1;
    }
    return request->events.count;
}

int kevent(int kq, const struct kevent *changelist, int nchanges, struct kevent *eventlist,
           int nevents, const struct timespec *timeout) {
    struct request request = {.fd = kq,
                              .changes = changelist,
                              .nchanges = nchanges,
                              .timeout = timeout,
                              .events = {.list = eventlist, .room = nevents}};
    return run(&request);
}

int kevent64(int kq, const struct kevent64_s *changelist, int nchanges,
             struct kevent64_s *eventlist, int nevents, unsigned int flags,
             const struct timespec *timeout) {
    struct request request = {.fd = kq,
                              .changes = changelist,
                              .nchanges = nchanges,
                              .flags = flags,
                              .timeout = timeout,
                              .events = {.list = eventlist, .room = nevents, .wide = true}};
    return run(&request);
}
