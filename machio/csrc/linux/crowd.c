/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The send-once rights of a port that other tasks hold. The home ends of a few are looked at one by
 * one. Those of many are in an epoll, the port's crowd, so that a receive costs the same however
 * many they are; each tells once that its message is there, and is in the list `ripe` from then on.
 * What is ripe is no longer told by the crowd's descriptor: it is as what is in the port's own
 * list.
 *
 * If there can be no epoll, or somebody's epoll cannot watch it, they are looked at one by one.
 *
 * Guarded by mio_task.lock. The port owns the epoll, which is there while there are rights in it.
 */
#include "internal.h"

#include <sys/epoll.h>
#include <unistd.h>

static bool tell_once(const struct mio_port *port, int op, int fd) {
    struct epoll_event event = {.events = (uint32_t)EPOLLIN | (uint32_t)EPOLLONESHOT,
                                .data.u64 = MIO_WATCH_SOURCE | (uint32_t)fd};
    return epoll_ctl(port->crowd.fd, op, fd, &event) == 0;
}

/* An epoll with all of them, in their place in whoever watches the port. */
static void gather(struct mio_port *port) {
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0)
        return;
    if (mio_source_set(&port->crowd, epfd) != 0) {
        close(epfd);
        return;
    }
    bool complete = mio_watch_source_added(port, &port->crowd);
    MIO_EACH(item, &port->onces) {
        struct mio_once *once = MIO_CONTAINER(item, struct mio_once, link);
        if (once->state != MIO_ONCE_EXPORTED || !complete)
            break;
        complete = tell_once(port, EPOLL_CTL_ADD, once->source.fd);
    }
    if (!complete) {
        mio_source_close(&port->crowd);
        return;
    }
    MIO_EACH(item, &port->onces) {
        struct mio_once *once = MIO_CONTAINER(item, struct mio_once, link);
        if (once->state != MIO_ONCE_EXPORTED)
            break;
        mio_watch_source_removed(port, &once->source);
    }
}

/* One by one again. */
static void scatter(struct mio_port *port) {
    mio_source_close(&port->crowd);
    MIO_EACH(item, &port->onces) {
        struct mio_once *once = MIO_CONTAINER(item, struct mio_once, link);
        if (once->state != MIO_ONCE_EXPORTED)
            break;
        mio_watch_source_added(port, &once->source);
    }
}

void mio_crowd_join(struct mio_once *once) {
    struct mio_port *port = once->home;
    port->away++;
    if (port->crowd.fd >= 0 && tell_once(port, EPOLL_CTL_ADD, once->source.fd))
        return;
    if (port->crowd.fd >= 0) {
        scatter(port);
    } else {
        mio_watch_source_added(port, &once->source);
        if (port->away > MIO_FEW_ONCES)
            gather(port);
    }
    MIO_EACH(item, &port->receivers) /* they wait for other descriptors */
        mio_wake(MIO_CONTAINER(item, struct mio_waiter, link));
}

void mio_crowd_leave(struct mio_once *once) {
    struct mio_port *port = once->home;
    port->away--;
    mio_list_remove(&once->ripe);
    if (port->crowd.fd < 0) {
        mio_watch_source_removed(port, &once->source);
        return;
    }
    epoll_ctl(port->crowd.fd, EPOLL_CTL_DEL, once->source.fd, NULL);
    if (port->away == 0)
        mio_source_close(&port->crowd);
}

/* A right that its holder's end took with it has no stamp, and comes last. */
static uint64_t turn(const struct mio_once *once) {
    return once->stamp != 0 ? once->stamp : UINT64_MAX;
}

static void ripen(struct mio_port *port, struct mio_once *once) {
    once->stamp = mio_wire_peek_stamp(once->source.fd);
    struct mio_list *after = port->ripe.prev;
    while (after != &port->ripe && turn(MIO_CONTAINER(after, struct mio_once, ripe)) > turn(once))
        after = after->prev;
    mio_list_append(after->next, &once->ripe);
}

void mio_crowd_collect(struct mio_port *port) {
    struct epoll_event events[32];
    int n = 32;
    while (port->crowd.fd >= 0 && n == 32) {
        n = epoll_wait(port->crowd.fd, events, 32, 0);
        for (int i = 0; i < n; i++) {
            struct mio_source *source = mio_source_find((int)(uint32_t)events[i].data.u64);
            if (source != NULL && source->kind == MIO_SOURCE_ONCE_RX)
                ripen(port, source->once);
        }
    }
}

struct mio_once *mio_crowd_first(const struct mio_port *port) {
    return mio_list_empty(&port->ripe) ? NULL
                                       : MIO_CONTAINER(port->ripe.next, struct mio_once, ripe);
}

void mio_crowd_look_again(struct mio_once *once) {
    if (mio_list_empty(&once->ripe))
        return;
    mio_list_remove(&once->ripe);
    tell_once(once->home, EPOLL_CTL_MOD, once->source.fd);
}
