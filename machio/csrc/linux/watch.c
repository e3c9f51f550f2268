/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Sources and watches: which of the layer's descriptors belongs to which port, and which epolls
 * look at it. A port set and every kqueue have a watch of their own; a port that is in several
 * sets or kqueues is linked to each.
 *
 * A descriptor leaves every epoll before it is closed. Closing would not do: while another task
 * has a copy of the same open file it goes on firing, and nobody can take it out any more.
 *
 * Guarded by mio_task.lock. A source owns its descriptor; a set's watch owns its epoll; the epoll
 * of a kqueue belongs to the program.
 */
#include "internal.h"

#include "kqueue.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

/* ---- sources --------------------------------------------------------------------------------- */

#define FIRST_SIZE 64u

static bool grow(size_t fd) {
    size_t size = mio_task.nsources ? mio_task.nsources : FIRST_SIZE;
    while (size <= fd)
        size *= 2;
    struct mio_source **sources = realloc(mio_task.sources, size * sizeof *sources);
    if (sources == NULL)
        return false;
    for (size_t i = mio_task.nsources; i < size; i++)
        sources[i] = NULL;
    mio_task.sources = sources;
    mio_task.nsources = size;
    return true;
}

/* Ownership: the descriptor is the source's on success, still the caller's on failure. */
int mio_source_set(struct mio_source *source, int fd) {
    if ((size_t)fd >= mio_task.nsources && !grow((size_t)fd))
        return -1;
    source->fd = fd;
    source->noticed = 0;
    source->wanted = false;
    mio_task.sources[fd] = source;
    return 0;
}

struct mio_source *mio_source_find(int fd) {
    return fd >= 0 && (size_t)fd < mio_task.nsources ? mio_task.sources[fd] : NULL;
}

struct mio_port *mio_source_port(struct mio_source *source) {
    if (source->kind == MIO_SOURCE_RX || source->kind == MIO_SOURCE_CROWD)
        return source->port;
    if (source->kind == MIO_SOURCE_ONCE_RX)
        return source->once->home;
    return NULL;
}

int mio_source_release(struct mio_source *source) {
    int fd = source->fd;
    if (fd < 0)
        return -1;
    if (source->noticed != 0) {
        epoll_ctl(mio_task.notice, EPOLL_CTL_DEL, fd, NULL);
        mio_notice_left(source);
    }
    if (source->kind == MIO_SOURCE_CR)
        mio_turn_wait(source->port, NULL);
    struct mio_port *port = mio_source_port(source);
    if (source->kind == MIO_SOURCE_ONCE_RX)
        mio_crowd_leave(source->once);
    else if (port != NULL)
        mio_watch_source_removed(port, source);
    if (mio_source_find(fd) == source)
        mio_task.sources[fd] = NULL;
    source->fd = -1;
    return fd;
}

void mio_source_close(struct mio_source *source) {
    int fd = mio_source_release(source);
    if (fd >= 0)
        close(fd);
}

/* ---- watches --------------------------------------------------------------------------------- */

static struct mio_list set_watches = {&set_watches, &set_watches};

struct mio_watch *mio_watch_new(void) {
    struct mio_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return NULL;
    mio_list_init(&watch->links);
    mio_list_init(&watch->all);
    watch->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (watch->epfd < 0) {
        free(watch);
        return NULL;
    }
    mio_list_append(&set_watches, &watch->all);
    return watch;
}

static void free_link(struct mio_watch_link *link) {
    mio_list_remove(&link->of_watch);
    mio_list_remove(&link->of_port);
    free(link);
}

void mio_watch_unlink(struct mio_watch *watch) {
    MIO_EACH(item, &watch->links)
        free_link(MIO_CONTAINER(item, struct mio_watch_link, of_watch));
}

void mio_watch_free(struct mio_watch *watch) {
    if (watch == NULL)
        return;
    mio_watch_unlink(watch);
    mio_list_remove(&watch->all);
    close(watch->epfd);
    free(watch);
}

/* The parent's epolls: nothing may be taken out of them. */
void mio_watches_fork_child(void) {
    MIO_EACH(item, &set_watches) {
        struct mio_watch *watch = MIO_CONTAINER(item, struct mio_watch, all);
        mio_list_remove(item);
        close(watch->epfd);
        watch->epfd = -1;
    }
}

/* Brings one descriptor from the events `old` to `new`, where 0 is not being in the epoll. */
static bool change_fd(struct mio_watch *watch, int fd, uint32_t old, uint32_t new) {
    struct epoll_event event = {.events = new, .data.u64 = MIO_WATCH_SOURCE | (uint32_t)fd};
    if (new == 0) {
        epoll_ctl(watch->epfd, EPOLL_CTL_DEL, fd, NULL);
        return true;
    }
    if (epoll_ctl(watch->epfd, old ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0)
        return true;
    if (old == 0 && errno == EEXIST)
        return epoll_ctl(watch->epfd, EPOLL_CTL_MOD, fd, &event) == 0;
    if (old != 0 && errno == ENOENT)
        return epoll_ctl(watch->epfd, EPOLL_CTL_ADD, fd, &event) == 0;
    return false;
}

/* A program closes a kqueue without telling; its number may be another epoll's by now. */
static bool usable(struct mio_watch *watch) {
    return watch->epfd >= 0 && (watch->kq == NULL || mio_kq_check(watch->kq));
}

static bool change_port(struct mio_watch_link *link, uint32_t old, uint32_t new) {
    struct mio_port *port = link->port;
    bool ok = true;
    if (port->rx.fd >= 0 && !port->broken)
        ok = change_fd(link->watch, port->rx.fd, old, new);
    if (port->crowd.fd >= 0)
        return change_fd(link->watch, port->crowd.fd, old, new) && ok;
    MIO_EACH(item, &port->onces) {
        struct mio_once *once = MIO_CONTAINER(item, struct mio_once, link);
        if (once->state != MIO_ONCE_EXPORTED)
            break;
        if (once->source.fd >= 0)
            ok = change_fd(link->watch, once->source.fd, old, new) && ok;
    }
    return ok;
}

/* Registers the port's sources as its link's counts want it. On failure: as they were. */
static bool update(struct mio_watch_link *link) {
    uint32_t old = link->events, new = 0;
    if (link->level > 0)
        new = EPOLLIN;
    else if (link->clear > 0)
        new = (uint32_t)EPOLLIN | (uint32_t)EPOLLET;
    if (old == new)
        return true;
    link->events = new;
    if (!usable(link->watch) || change_port(link, old, new))
        return true;
    change_port(link, new, old);
    link->events = old;
    return false;
}

static struct mio_watch_link *find_link(struct mio_watch *watch, struct mio_port *port) {
    MIO_EACH(item, &port->links) {
        struct mio_watch_link *link = MIO_CONTAINER(item, struct mio_watch_link, of_port);
        if (link->watch == watch)
            return link;
    }
    return NULL;
}

kern_return_t mio_watch_add(struct mio_watch *watch, struct mio_port *port, bool edge) {
    struct mio_watch_link *link = find_link(watch, port);
    if (link == NULL) {
        link = calloc(1, sizeof *link);
        if (link == NULL)
            return KERN_RESOURCE_SHORTAGE;
        link->watch = watch;
        link->port = port;
        mio_list_append(&watch->links, &link->of_watch);
        mio_list_append(&port->links, &link->of_port);
    }
    unsigned *count = edge ? &link->clear : &link->level;
    ++*count;
    if (update(link))
        return KERN_SUCCESS;
    if (--*count == 0 && link->level + link->clear == 0)
        free_link(link);
    return KERN_RESOURCE_SHORTAGE;
}

void mio_watch_remove(struct mio_watch *watch, struct mio_port *port, bool edge) {
    struct mio_watch_link *link = find_link(watch, port);
    if (link == NULL)
        return;
    unsigned *count = edge ? &link->clear : &link->level;
    if (*count > 0)
        --*count;
    update(link);
    if (link->level + link->clear == 0)
        free_link(link);
}

bool mio_watch_source_added(struct mio_port *port, struct mio_source *source) {
    bool ok = true;
    MIO_EACH(item, &port->links) {
        struct mio_watch_link *link = MIO_CONTAINER(item, struct mio_watch_link, of_port);
        if (link->events != 0 && usable(link->watch))
            ok = change_fd(link->watch, source->fd, 0, link->events) && ok;
    }
    return ok;
}

void mio_watch_source_removed(struct mio_port *port, struct mio_source *source) {
    MIO_EACH(item, &port->links) {
        struct mio_watch_link *link = MIO_CONTAINER(item, struct mio_watch_link, of_port);
        if (link->watch->epfd >= 0)
            change_fd(link->watch, source->fd, link->events, 0);
    }
}
