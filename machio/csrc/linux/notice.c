/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the task watches for the sake of notifications. What it does itself (a port destroyed, a
 * name freed, a message received) fires where it happens. What other tasks do, the kernel tells by
 * the descriptors of a port: all of those that matter to some request are registered with one
 * epoll, mio_task.notice. It is looked at before any receive or kevent of this task reports that
 * there is nothing (mio_notice_poll), by every thread that blocks, and by every kqueue. So a
 * notification whose cause has happened is there at the next receive, and no thread is needed for
 * it.
 *
 * Only when the right to notify belongs to another task does nobody here ever look: then one
 * thread watches, as long as there is something to watch.
 *
 * Guarded by mio_task.lock. Owns mio_task.notice, mio_task.tick and the watcher's eventfd.
 */
#include "internal.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

static struct mio_waiter watcher = {.fd = -1}; /* the thread for other tasks' rights */
static bool watcher_runs;

/* Whether requests are watched for; the server's death is for who looks by himself anyway. */
static bool requests_watched(void) {
    const struct mio_port *bootstrap = mio_task.bootstrap;
    unsigned own =
        bootstrap != NULL && bootstrap->cr.wanted && mio_list_empty(&bootstrap->requests);
    return mio_task.wanted > own;
}

static void *watch(void *unused) {
    (void)unused;
    int fd = mio_thread_fd();
    mio_lock();
    watcher.fd = fd;
    while (fd >= 0 && requests_watched()) {
        watcher.woken = false;
        struct pollfd fds[2] = {{.fd = fd, .events = POLLIN},
                                {.fd = mio_task.notice, .events = POLLIN}};
        struct mio_deadline never = mio_deadline_never();
        mio_wait(&watcher, fds, 2, &never);
        mio_notice_take();
    }
    watcher.fd = -1;
    watcher_runs = false;
    mio_unlock();
    return NULL;
}

static void start_watcher(void) {
    pthread_t thread;
    sigset_t all, old;
    if (watcher_runs)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, NULL, watch, NULL) == 0) {
        watcher_runs = true;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void mio_notice_forget_watcher(void) {
    watcher_runs = false;
    watcher.fd = -1;
}

bool mio_notice_open(void) {
    if (mio_task.notice < 0) {
        mio_task.notice = epoll_create1(EPOLL_CLOEXEC);
        if (mio_task.notice >= 0)
            mio_kqs_watch_notice();
    }
    return mio_task.notice >= 0;
}

static void want(struct mio_source *source, bool wanted) {
    if (wanted == source->wanted)
        return;
    mio_task.wanted += wanted ? 1u : -1u;
    source->wanted = wanted;
    if (!wanted && !requests_watched() && watcher.fd >= 0)
        mio_wake(&watcher);
}

/*
 * events 0: not to be watched. HUP and ERR are always reported. A credit pipe stays registered for
 * what happens to it but once, its end: whoever waits for room there does so again and again.
 */
static void notice(struct mio_source *source, uint32_t events) {
    bool wanted = events != 0;
    if (source->fd < 0 || (wanted && !mio_notice_open()))
        return;
    if (!wanted && source->noticed != 0 && source->kind == MIO_SOURCE_CR)
        events = EPOLLHUP;
    int op = events == 0 ? EPOLL_CTL_DEL : source->noticed == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    struct epoll_event event = {.events = events,
                                .data.u64 = MIO_WATCH_SOURCE | (uint32_t)source->fd};
    if (events != source->noticed) {
        if (epoll_ctl(mio_task.notice, op, source->fd, &event) != 0)
            return;
        if (op == EPOLL_CTL_DEL)
            mio_notice_left(source);
        source->noticed = events;
    }
    want(source, wanted);
}

void mio_notice_left(struct mio_source *source) {
    source->noticed = 0;
    want(source, false);
}

static bool notify_is_foreign(const struct mio_request *request) {
    return request->notify != NULL && request->notify->state == MIO_ONCE_REMOTE;
}

void mio_notice_update_port(struct mio_port *port) {
    bool foreign = false, armed = false;
    const struct mio_loop *loop = NULL; /* a remote port has one request, for it has one name */
    MIO_EACH(item, &port->requests) {
        struct mio_request *request = MIO_CONTAINER(item, struct mio_request, link);
        foreign |= notify_is_foreign(request);
        armed |= request->armed;
        loop = &request->loop;
    }
    if (port->state == MIO_PORT_REMOTE) {
        bool wanted = !mio_list_empty(&port->requests) ||
                      (port == mio_task.bootstrap && mio_bootstrap_wants_notice());
        bool waits = armed && !port->credit_in_hand;
        bool in_turn = mio_turn_wait(port, waits ? loop : NULL);
        notice(&port->cr, !wanted ? 0u : EPOLLHUP | (waits && !in_turn ? (uint32_t)EPOLLIN : 0u));
        if (armed && port->credit_in_hand && port->room.fd < 0 && port->tx >= 0)
            mio_source_set(&port->room, port->tx);
        notice(&port->room, armed && port->credit_in_hand ? EPOLLOUT : 0);
    } else if (port->state == MIO_PORT_LOCAL) {
        bool wanted = port->no_senders != NULL && port->senders_seen && !port->senders_gone &&
                      port->srights == 0;
        foreign |= wanted && port->no_senders->state == MIO_ONCE_REMOTE;
        notice(&port->cw, wanted ? EPOLLERR : 0);
    }
    if (foreign)
        start_watcher();
}

void mio_notice_forget_room(struct mio_port *port) {
    notice(&port->room, 0);
    mio_source_release(&port->room);
}

void mio_notice_update_once(struct mio_once *once) {
    if (once->state != MIO_ONCE_REMOTE)
        return;
    if (once->request != NULL) {
        mio_list_remove(&once->request->link); /* its home may have been here */
        once->request->port = NULL;
        if (notify_is_foreign(once->request))
            start_watcher();
    } else if (requests_watched()) {
        start_watcher(); /* some request's notify right may be this one */
    }
    notice(&once->source, once->request != NULL ? EPOLLHUP : 0);
}

static bool open_tick(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = MIO_WATCH_TICK};
    if (mio_task.tick >= 0)
        return true;
    if (!mio_notice_open())
        return false;
    mio_task.tick = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (mio_task.tick >= 0 &&
        epoll_ctl(mio_task.notice, EPOLL_CTL_ADD, mio_task.tick, &event) != 0) {
        close(mio_task.tick);
        mio_task.tick = -1;
    }
    return mio_task.tick >= 0;
}

/*
 * Lost credits announce themselves by nothing, nor does it that a loop whose turn it was is gone;
 * while someone waits for room, look now and then. The timer goes on when nobody waits any more,
 * until it finds so: waits follow each other quickly.
 */
void mio_notice_start_tick(void) {
    const struct itimerspec every = {.it_interval = {.tv_sec = 1}, .it_value = {.tv_sec = 1}};
    if (mio_task.armed > 0 && !mio_task.ticking && open_tick())
        mio_task.ticking = timerfd_settime(mio_task.tick, 0, &every, NULL) == 0;
}

static void on_tick(void) {
    const struct itimerspec never = {0};
    uint64_t times;
    if (read(mio_task.tick, &times, sizeof times) < 0)
        return;
    if (mio_task.armed == 0) {
        mio_task.ticking = timerfd_settime(mio_task.tick, 0, &never, NULL) != 0;
        return;
    }
    for (unsigned i = 0; i < MIO_HASH; i++) {
        for (struct mio_port *port = mio_task.by_cookie[i]; port != NULL; port = port->hash_next) {
            MIO_EACH(item, &port->requests) {
                if (port->state == MIO_PORT_REMOTE &&
                    MIO_CONTAINER(item, struct mio_request, link)->armed) {
                    mio_port_nudge(port);
                    break;
                }
            }
        }
    }
}

static bool on_source(struct mio_source *source, uint32_t events) {
    switch (source->kind) {
    case MIO_SOURCE_CR:
        if (events & EPOLLHUP) {
            mio_port_ref(source->port);
            struct mio_port *port = source->port;
            mio_port_died(port);
            mio_port_unref(port);
            return true;
        }
        return mio_requests_room(source->port);
    case MIO_SOURCE_TX:
        return mio_requests_room(source->port);
    case MIO_SOURCE_CW:
        return mio_port_check_senders(source->port, mio_channel_ended(source->fd));
    case MIO_SOURCE_ONCE_TX:
        return mio_once_is_dead(source->once);
    default:
        return false;
    }
}

bool mio_notice_poll(void) {
    return requests_watched() && mio_notice_take();
}

bool mio_notice_take(void) {
    struct epoll_event events[32];
    bool any = false;
    int n;
    do {
        bool progress = false;
        n = epoll_wait(mio_task.notice, events, 32, 0);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == MIO_WATCH_TICK) {
                on_tick();
                continue;
            }
            struct mio_source *source = mio_source_find((int)(uint32_t)events[i].data.u64);
            if (source != NULL && source->noticed != 0)
                progress |= on_source(source, events[i].events);
        }
        any |= progress;
        if (!progress)
            break;
    } while (n == 32);
    return any;
}
