/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Notifications, and the requests that make them.
 *
 * The causes are of two kinds. What this task does itself (a port destroyed, a name freed, a
 * message received) fires where it happens. What other tasks do, the kernel tells by the
 * descriptors of a port: all of those that matter to some request are registered with one epoll,
 * mio_task.notice. It is looked at before any receive or kevent of this task reports that there
 * is nothing (mio_notice_poll), by every thread that blocks, and by every kqueue. So a notification
 * whose cause has happened is there at the next receive, and no thread is needed for it.
 *
 * Only when the right to notify belongs to another task does nobody here ever look: then one
 * thread watches, as long as there is something to watch.
 *
 * Guarded by mio_task.lock. Owns mio_task.notice, mio_task.tick and the watcher's eventfd.
 */
#include "internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* ---- making and delivering ----------------------------------------------------------------- */

static struct mio_kmsg *notification(mach_msg_id_t id, mach_msg_size_t size, unsigned nrights) {
    struct mio_kmsg *kmsg = mio_kmsg_new(size, nrights);
    if (kmsg == NULL)
        return NULL;
    kmsg->id = id;
    kmsg->sender.kernel = true;
    kmsg->complex = nrights > 0;
    return kmsg;
}

static struct mio_kmsg *notification_word(mach_msg_id_t id, uint32_t word) {
    mach_msg_size_t size = sizeof(mach_msg_header_t) + sizeof(NDR_record_t) + sizeof word;
    struct mio_kmsg *kmsg = notification(id, size, 0);
    if (kmsg != NULL) {
        memcpy(kmsg->body, &NDR_record, sizeof NDR_record);
        memcpy(kmsg->body + sizeof NDR_record, &word, sizeof word);
    }
    return kmsg;
}

/* Ownership: consumes both; false: nobody is there any more, the kmsg is still the caller's. */
static bool deliver(struct mio_once *notify, struct mio_kmsg *kmsg) {
    if (notify->state == MIO_ONCE_LOCAL) {
        kmsg->dest = (struct mio_right){
            .kind = MIO_RIGHT_ONCE, .disposition = MACH_MSG_TYPE_PORT_SEND_ONCE, .once = notify};
        mio_port_enqueue(notify->home, kmsg);
        return true;
    }
    bool sent =
        !mio_once_is_dead(notify) &&
        mio_wire_send(notify->source.fd, kmsg, MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT) == MIO_WIRE_OK;
    mio_once_free(notify);
    if (sent)
        mio_kmsg_free(kmsg);
    return sent;
}

static void deliver_or_drop(struct mio_once *notify, struct mio_kmsg *kmsg) {
    if (kmsg == NULL)
        mio_once_free(notify);
    else if (!deliver(notify, kmsg))
        mio_kmsg_destroy(kmsg);
}

void mio_notify_name(struct mio_once *notify, mach_msg_id_t id, mach_port_name_t name) {
    if (notify != NULL)
        deliver_or_drop(notify, notification_word(id, name));
}

void mio_notify_count(struct mio_once *notify, mach_msg_id_t id, natural_t count) {
    if (notify != NULL)
        deliver_or_drop(notify, notification_word(id, count));
}

struct mio_kmsg *mio_notify_send_once_kmsg(struct mio_once *once) {
    struct mio_kmsg *kmsg = notification(MACH_NOTIFY_SEND_ONCE, sizeof(mach_msg_header_t), 0);
    if (kmsg != NULL)
        kmsg->dest = (struct mio_right){
            .kind = MIO_RIGHT_ONCE, .disposition = MACH_MSG_TYPE_PORT_SEND_ONCE, .once = once};
    return kmsg;
}

void mio_notify_send_once(struct mio_once *once) {
    deliver_or_drop(once, notification(MACH_NOTIFY_SEND_ONCE, sizeof(mach_msg_header_t), 0));
}

bool mio_notify_port_destroyed(struct mio_once *notify, struct mio_port *port) {
    mach_msg_size_t size = sizeof(mach_msg_base_t) + sizeof(mach_msg_port_descriptor_t);
    struct mio_kmsg *kmsg = NULL;
    if (notify->state != MIO_ONCE_LOCAL || !mio_port_travels_in(port, notify->home))
        kmsg = notification(MACH_NOTIFY_PORT_DESTROYED, size, 1);
    if (kmsg == NULL) { /* no memory, or the right would lie in its own queue for ever */
        mio_once_free(notify);
        return false;
    }
    mach_msg_body_t count = {.msgh_descriptor_count = 1};
    mach_msg_port_descriptor_t descriptor = {.disposition = MACH_MSG_TYPE_PORT_RECEIVE,
                                             .type = MACH_MSG_PORT_DESCRIPTOR};
    memcpy(kmsg->body, &count, sizeof count);
    memcpy(kmsg->body + sizeof count, &descriptor, sizeof descriptor);
    kmsg->rights[0] = (struct mio_right){
        .kind = MIO_RIGHT_RECEIVE, .disposition = MACH_MSG_TYPE_PORT_RECEIVE, .port = port};
    if (deliver(notify, kmsg))
        return true;
    kmsg->rights[0].kind = MIO_RIGHT_NULL;
    mio_kmsg_destroy(kmsg);
    return false;
}

/* ---- watching ------------------------------------------------------------------------------- */

static struct mio_waiter watcher = {.fd = -1}; /* the thread for other tasks' rights */
static bool watcher_runs;

/* Whether requests are watched for; the server's death is for who looks by himself anyway. */
static bool requests_watched(void) {
    const struct mio_port *bootstrap = mio_task.bootstrap;
    unsigned own =
        bootstrap != NULL && bootstrap->cr.noticed != 0 && mio_list_empty(&bootstrap->requests);
    return mio_task.noticed > own;
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
        mio_notice_poll();
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

/* events 0: not to be watched. HUP and ERR are always reported. */
static void notice(struct mio_source *source, uint32_t events) {
    if (source->fd < 0 || events == source->noticed || (events != 0 && !mio_notice_open()))
        return;
    int op = events == 0 ? EPOLL_CTL_DEL : source->noticed == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    struct epoll_event event = {.events = events,
                                .data.u64 = MIO_WATCH_SOURCE | (uint32_t)source->fd};
    if (epoll_ctl(mio_task.notice, op, source->fd, &event) != 0)
        return;
    mio_task.noticed += op == EPOLL_CTL_ADD;
    if (op == EPOLL_CTL_DEL)
        mio_notice_left(source);
    source->noticed = events;
}

void mio_notice_left(struct mio_source *source) {
    source->noticed = 0;
    mio_task.noticed--;
    if (!requests_watched() && watcher.fd >= 0)
        mio_wake(&watcher);
}

static bool notify_is_foreign(const struct mio_request *request) {
    return request->notify != NULL && request->notify->state == MIO_ONCE_REMOTE;
}

void mio_notice_update_port(struct mio_port *port) {
    bool foreign = false, armed = false;
    MIO_EACH(item, &port->requests) {
        struct mio_request *request = MIO_CONTAINER(item, struct mio_request, link);
        foreign |= notify_is_foreign(request);
        armed |= request->armed;
    }
    if (port->state == MIO_PORT_REMOTE) {
        bool wanted = !mio_list_empty(&port->requests) ||
                      (port == mio_task.bootstrap && mio_bootstrap_wants_notice());
        notice(&port->cr,
               !wanted ? 0u : EPOLLHUP | (armed && !port->credit_in_hand ? (uint32_t)EPOLLIN : 0u));
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

/* Lost credits announce themselves by nothing; while someone waits for room, look now and then. */
static void set_tick(void) {
    bool wanted = mio_task.armed > 0;
    if (wanted == (mio_task.tick >= 0))
        return;
    if (!wanted) {
        epoll_ctl(mio_task.notice, EPOLL_CTL_DEL, mio_task.tick, NULL);
        close(mio_task.tick);
        mio_task.tick = -1;
        return;
    }
    if (!mio_notice_open())
        return;
    struct itimerspec every = {.it_interval = {.tv_sec = 1}, .it_value = {.tv_sec = 1}};
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = MIO_WATCH_TICK};
    mio_task.tick = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (mio_task.tick < 0)
        return;
    if (timerfd_settime(mio_task.tick, 0, &every, NULL) != 0 ||
        epoll_ctl(mio_task.notice, EPOLL_CTL_ADD, mio_task.tick, &event) != 0) {
        close(mio_task.tick);
        mio_task.tick = -1;
    }
}

static void on_tick(void) {
    uint64_t times;
    if (read(mio_task.tick, &times, sizeof times) < 0)
        return;
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
        return mio_port_check_senders(source->port);
    case MIO_SOURCE_ONCE_TX:
        return mio_once_is_dead(source->once);
    default:
        return false;
    }
}

bool mio_notice_poll(void) {
    struct epoll_event events[32];
    bool any = false;
    int n;
    if (mio_task.notice < 0 || (mio_task.noticed == 0 && mio_task.tick < 0))
        return false;
    do {
        bool progress = false;
        n = epoll_wait(mio_task.notice, events, 32, 0);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == MIO_WATCH_TICK) {
                if (mio_task.tick >= 0)
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

/* ---- dead-name and send-possible requests ---------------------------------------------------- */

/* Keeps mio_task.armed, and the timer that runs while it is not 0. */
static void recount(struct mio_request *request) {
    bool remote = request->armed && request->port->state == MIO_PORT_REMOTE;
    if (remote != request->ticking)
        mio_task.armed += remote ? 1u : -1u;
    request->ticking = remote;
    set_tick();
}

static void disarm(struct mio_request *request) {
    request->armed = false;
    recount(request);
}

static void arm(struct mio_request *request) {
    if (request->armed || request->port == NULL)
        return;
    request->armed = true;
    recount(request);
    mio_notice_update_port(request->port);
}

/* The receive right of a port with requests came or went: what is watched changes with it. */
void mio_requests_moved(struct mio_port *port) {
    MIO_EACH(item, &port->requests)
        recount(MIO_CONTAINER(item, struct mio_request, link));
    mio_notice_update_port(port);
}

void mio_request_arm(struct mio_entry *entry) {
    if (entry->request != NULL && entry->request->send_possible && entry->request->notify != NULL)
        arm(entry->request);
}

static void detach(struct mio_request *request) {
    struct mio_port *port = request->port;
    struct mio_once *once = request->once;
    disarm(request);
    mio_list_remove(&request->link);
    request->port = NULL;
    request->once = NULL;
    if (once != NULL) {
        once->request = NULL;
        mio_notice_update_once(once);
    } else if (port != NULL) {
        mio_notice_update_port(port);
    }
}

void mio_request_free(struct mio_request *request) {
    detach(request);
    free(request);
}

void mio_request_fire_dead(struct mio_request *request) {
    if (request == NULL || request->notify == NULL)
        return;
    struct mio_once *notify = request->notify;
    request->notify = NULL; /* the name gets its extra reference when it is converted */
    detach(request);
    mio_notify_name(notify, MACH_NOTIFY_DEAD_NAME, request->name);
}

void mio_requests_port_died(struct mio_port *port) {
    while (!mio_list_empty(&port->requests))
        mio_request_fire_dead(MIO_CONTAINER(port->requests.next, struct mio_request, link));
}

bool mio_requests_room(struct mio_port *port) {
    bool any = false;
    MIO_EACH(item, &port->requests) {
        struct mio_request *request = MIO_CONTAINER(item, struct mio_request, link);
        if (!request->armed)
            continue;
        struct mio_entry *entry = mio_space_lookup(request->name);
        struct mio_once *notify = request->notify;
        if (entry != NULL && entry->request == request)
            entry->request = NULL;
        mach_port_name_t name = request->name;
        mio_request_free(request);
        mio_notify_name(notify, MACH_NOTIFY_SEND_POSSIBLE, name);
        any = true;
    }
    return any;
}

struct mio_once *mio_request_cancel(struct mio_entry *entry) {
    struct mio_request *request = entry->request;
    if (request == NULL)
        return NULL;
    struct mio_once *notify = request->notify;
    entry->request = NULL;
    mio_request_free(request);
    return notify;
}

static kern_return_t register_on(mach_port_name_t name, struct mio_entry *entry, bool send_possible,
                                 struct mio_once *notify) {
    struct mio_request *request = calloc(1, sizeof *request);
    if (request == NULL)
        return KERN_RESOURCE_SHORTAGE;
    mio_list_init(&request->link);
    request->name = name;
    request->send_possible = send_possible;
    request->notify = notify;
    entry->request = request;
    if (entry->type & MACH_PORT_TYPE_SEND_ONCE) {
        request->once = entry->once;
        entry->once->request = request;
        if (entry->once->state == MIO_ONCE_LOCAL)
            mio_list_append(&entry->once->home->requests, &request->link);
        mio_notice_update_once(entry->once);
    } else {
        request->port = entry->port;
        mio_list_append(&entry->port->requests, &request->link);
        mio_notice_update_port(entry->port);
    }
    return KERN_SUCCESS;
}

kern_return_t mio_request_set(mach_port_name_t name, struct mio_entry *entry, bool send_possible,
                              bool immediate, struct mio_once *notify,
                              struct mio_once **ret_previous) {
    *ret_previous = NULL;
    if (notify == NULL && entry->request == NULL)
        return KERN_SUCCESS;
    if (entry->type & MACH_PORT_TYPE_PORT_SET)
        return KERN_INVALID_RIGHT;
    if (entry->type & MACH_PORT_TYPE_DEAD_NAME) {
        if (!send_possible)
            return KERN_INVALID_ARGUMENT;
        if (entry->urefs < MIO_UREFS_MAX)
            entry->urefs++;
        mio_notify_name(notify, MACH_NOTIFY_DEAD_NAME, name);
        return KERN_SUCCESS;
    }
    *ret_previous = mio_request_cancel(entry);
    if (notify == NULL)
        return KERN_SUCCESS;
    bool once = entry->type & MACH_PORT_TYPE_SEND_ONCE;
    if (send_possible && immediate && (once || mio_port_has_room(entry->port))) {
        mio_notify_name(notify, MACH_NOTIFY_SEND_POSSIBLE, name);
        return KERN_SUCCESS;
    }
    kern_return_t kr = register_on(name, entry, send_possible, notify);
    if (kr == KERN_SUCCESS && send_possible && immediate)
        arm(entry->request);
    return kr;
}
