/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * EVFILT_READ and EVFILT_WRITE: knotes on the program's own pipes, sockets and kqueues.
 *
 * All knotes of one descriptor share a struct mio_kfile and one registration in the kqueue's
 * epoll, which is always edge triggered: an edge puts the knotes on the active list, and what is
 * reported is asked of the descriptor then.
 *
 * End of file as epoll shows it: a pipe's read end hangs up with the last writer, its write end
 * has an error with the last reader. A socket's peer that only shut down its writing side is
 * RDHUP, which ends reading; HUP ends writing too.
 *
 * Guarded by mio_task.lock. Owns no descriptors: the program may close its own at any time, and a
 * knote finds out by the identity of the file (is_stale).
 */
#include "kqueue.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum kind { PIPE_READ, PIPE_WRITE, PIPE_BOTH, SOCKET, LISTENER, KQUEUE, OTHER };

struct mio_kfile {
    int fd;
    enum kind kind;
    dev_t dev;
    ino_t ino;
    uint64_t serial;        /* KQUEUE: mio_kq.serial */
    uint64_t asked;         /* mio_task.hold in which it was this file */
    bool stream;            /* SOCKET: hangs up also while it is not connected yet */
    bool connected;         /* SOCKET: was seen connected */
    uint32_t events;        /* as registered with epoll; 0: not there */
    struct mio_list knotes; /* mio_knote.of_object */
};

static bool is_read(const struct mio_knote *knote) {
    return knote->event.filter == EVFILT_READ;
}

/* EVFILT_WRITE, as machio_watch_end() asks for it: room is not waited for, and not told. */
static bool is_of_end(const struct mio_knote *knote) {
    return !is_read(knote) && knote->event.fflags & MIO_NOTE_END;
}

/* ---- which file it is ------------------------------------------------------------------------ */

static bool peer_known(int fd) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    return getpeername(fd, (struct sockaddr *)&address, &size) == 0;
}

static void identify_socket(struct mio_kfile *file) {
    int type = 0, listening = 0;
    socklen_t size = sizeof type;
    file->kind = SOCKET;
    if (getsockopt(file->fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0)
        file->stream = type == SOCK_STREAM || type == SOCK_SEQPACKET;
    size = sizeof listening;
    if (getsockopt(file->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening)
        file->kind = LISTENER;
    file->connected = file->stream && peer_known(file->fd);
}

/* 0, EBADF, or EINVAL for what cannot be waited for. */
static int identify(int fd, struct mio_kfile *ret) {
    struct stat stat;
    int mode = fcntl(fd, F_GETFL);
    struct mio_kq *inner = mio_kq_find(fd);
    if (mode < 0 || fstat(fd, &stat) != 0)
        return EBADF;
    *ret = (struct mio_kfile){
        .fd = fd, .kind = OTHER, .dev = stat.st_dev, .ino = stat.st_ino, .asked = mio_task.hold};
    if (inner != NULL && mio_kq_check(inner)) {
        ret->kind = KQUEUE;
        ret->serial = inner->serial;
    } else if (S_ISFIFO(stat.st_mode)) {
        mode &= O_ACCMODE;
        ret->kind = mode == O_RDONLY ? PIPE_READ : mode == O_WRONLY ? PIPE_WRITE : PIPE_BOTH;
    } else if (S_ISSOCK(stat.st_mode)) {
        identify_socket(ret);
    } else if (S_ISREG(stat.st_mode) || S_ISDIR(stat.st_mode) || S_ISBLK(stat.st_mode)) {
        return EINVAL;
    }
    return 0;
}

/* Whether the number stands for another file by now, or none; asked once while the lock is held. */
static bool is_other_file(struct mio_kfile *file) {
    struct mio_kfile now;
    if (file->asked == mio_task.hold)
        return false;
    if (identify(file->fd, &now) != 0)
        return true;
    if (now.kind == LISTENER)
        now.kind = file->kind == SOCKET ? SOCKET : now.kind; /* it listens by now */
    if (now.kind != file->kind || now.dev != file->dev || now.ino != file->ino ||
        now.serial != file->serial)
        return true;
    file->asked = mio_task.hold;
    return false;
}

static bool is_stale(struct mio_knote *knote) {
    return is_other_file(knote->file);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static bool is_ours(int fd) {
    return mio_source_find(fd) != NULL || fd == mio_task.marker || fd == mio_task.notice;
}

static struct mio_knote *find_first(struct mio_kq *kq, int fd) {
    struct mio_list *bucket = mio_knote_bucket(kq, (uint64_t)fd);
    if (bucket == NULL)
        return NULL;
    MIO_EACH(item, bucket) {
        struct mio_knote *knote = MIO_CONTAINER(item, struct mio_knote, of_kq);
        if (knote->event.ident == (uint64_t)fd && knote->file != NULL &&
            (knote->filter == &mio_filter_read || knote->filter == &mio_filter_write))
            return knote;
    }
    return NULL;
}

/* The file that the kqueue's other knotes on this descriptor have; stale ones go. */
static struct mio_kfile *find_file(struct mio_kq *kq, int fd) {
    for (;;) {
        struct mio_knote *knote = find_first(kq, fd);
        if (knote == NULL)
            return NULL;
        if (!is_stale(knote))
            return knote->file;
        mio_knote_drop(knote);
    }
}

static int attach(struct mio_knote *knote) {
    if (knote->event.ident > INT_MAX || is_ours((int)knote->event.ident))
        return EBADF;
    struct mio_kfile found;
    struct mio_kfile *file = find_file(knote->kq, (int)knote->event.ident);
    int error = file != NULL ? 0 : identify((int)knote->event.ident, &found);
    if (error != 0)
        return error;
    if ((file != NULL ? file : &found)->kind == KQUEUE &&
        (!is_read(knote) || (int)knote->event.ident == knote->kq->fd))
        return EINVAL;
    if (file == NULL) {
        file = malloc(sizeof *file);
        if (file == NULL)
            return ENOMEM;
        *file = found;
        mio_list_init(&file->knotes);
    }
    knote->file = file;
    mio_list_append(&file->knotes, &knote->of_object);
    return 0;
}

static void detach(struct mio_knote *knote) {
    struct mio_kfile *file = knote->file;
    mio_list_remove(&knote->of_object);
    knote->file = NULL;
    if (mio_list_empty(&file->knotes))
        free(file);
}

/* Hang-ups and errors come unasked, as long as the descriptor is in the epoll. */
static uint32_t events_for(const struct mio_knote *knote) {
    enum kind kind = knote->file->kind;
    if (is_of_end(knote))
        return 0;
    if (is_read(knote))
        return kind == PIPE_WRITE ? 0u : (uint32_t)EPOLLIN | (uint32_t)EPOLLRDHUP;
    return kind == PIPE_READ || kind == LISTENER ? 0u : (uint32_t)EPOLLOUT;
}

static int watch(struct mio_knote *knote, bool on) {
    struct mio_kfile *file = knote->file;
    int epfd = knote->kq->fd;
    uint32_t wanted = 0;
    MIO_EACH(item, &file->knotes) {
        struct mio_knote *other = MIO_CONTAINER(item, struct mio_knote, of_object);
        if (other == knote ? on : other->watched)
            wanted |= (uint32_t)EPOLLET | events_for(other);
    }
    if (wanted == file->events || epfd < 0)
        return 0;
    struct epoll_event event = {.events = wanted, .data.u64 = MIO_WATCH_FD | (uint32_t)file->fd};
    if (wanted == 0) {
        if (!is_other_file(file))
            epoll_ctl(epfd, EPOLL_CTL_DEL, file->fd, NULL);
        file->events = 0;
        return 0;
    }
    int op = file->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(epfd, op, file->fd, &event) != 0) {
        bool there = errno == EEXIST && epoll_ctl(epfd, EPOLL_CTL_MOD, file->fd, &event) == 0;
        if (!there && on)
            return errno == EPERM || errno == ELOOP ? EINVAL : errno;
    }
    file->events = wanted;
    return 0;
}

static int touch(struct mio_knote *knote, const struct kevent64_s *change, bool add) {
    if (add) {
        knote->event.fflags = change->fflags;
        knote->event.data = change->data;
        knote->event.udata = change->udata;
        knote->fired = false;
    }
    return knote->watched ? watch(knote, true) : 0;
}

/* ---- what there is to report ----------------------------------------------------------------- */

static int64_t ask(int fd, unsigned long what) {
    int n = 0;
    return ioctl(fd, what, &n) == 0 && n > 0 ? n : 0;
}

/* The least that counts: NOTE_LOWAT's, but no more than could ever be there. */
static int64_t low_water(const struct mio_knote *knote, int64_t most) {
    int64_t least = knote->event.fflags & NOTE_LOWAT ? knote->event.data : 1;
    return least < 1 ? 1 : least > most ? most : least;
}

static int64_t buffer_size(int fd, int which) {
    int n = 0;
    socklen_t size = sizeof n;
    return getsockopt(fd, SOL_SOCKET, which, &n, &size) == 0 && n > 0 ? n : 1;
}

static bool pipe_state(const struct mio_knote *knote, short revents, int64_t *ret_data,
                       bool *ret_eof) {
    const struct mio_kfile *file = knote->file;
    *ret_eof = revents & (POLLHUP | POLLERR);
    *ret_data = 0;
    if (is_read(knote) && file->kind != PIPE_WRITE) {
        int64_t used = *ret_data = ask(file->fd, FIONREAD);
        bool any = !(knote->event.fflags & NOTE_LOWAT);
        return *ret_eof || used >= (any ? 1 : low_water(knote, fcntl(file->fd, F_GETPIPE_SZ)));
    }
    if (!is_read(knote) && file->kind != PIPE_READ) {
        if (revents & POLLOUT && !*ret_eof) {
            int64_t room = fcntl(file->fd, F_GETPIPE_SZ) - ask(file->fd, FIONREAD);
            *ret_data = room > 0 ? room : 0;
        }
        return revents & POLLOUT || *ret_eof;
    }
    return *ret_eof;
}

static bool socket_state(const struct mio_knote *knote, short revents, int64_t *ret_data,
                         bool *ret_eof) {
    struct mio_kfile *file = knote->file;
    int fd = file->fd;
    if (revents & POLLHUP && file->stream && !file->connected && !(revents & POLLERR)) {
        file->connected = peer_known(fd);
        if (!file->connected)
            return false; /* no connection has ended: there was none */
    }
    if (is_read(knote)) {
        int64_t bytes = ask(fd, FIONREAD);
        *ret_data = bytes;
        *ret_eof = revents & (POLLRDHUP | POLLHUP);
        if (revents & POLLIN &&
            (bytes == 0 || bytes >= low_water(knote, buffer_size(fd, SO_RCVBUF))))
            return true;
        return *ret_eof || revents & POLLERR;
    }
    int64_t room = buffer_size(fd, SO_SNDBUF) - ask(fd, SIOCOUTQ);
    *ret_data = room > 0 ? room : 0;
    *ret_eof = revents & POLLHUP;
    return *ret_eof || revents & (POLLOUT | POLLERR);
}

static bool other_state(const struct mio_knote *knote, short revents, int64_t *ret_data,
                        bool *ret_eof) {
    *ret_eof = revents & POLLHUP;
    *ret_data = 1;
    if (is_read(knote) && knote->file->kind == OTHER) {
        int64_t bytes = ask(knote->file->fd, FIONREAD);
        *ret_data = bytes > 0 || *ret_eof ? bytes : 1;
    }
    return revents & (is_read(knote) ? POLLIN | POLLHUP | POLLERR : POLLOUT | POLLHUP | POLLERR);
}

/* A kqueue in a kqueue: as many events as it has pending. */
static enum mio_event inner_state(struct mio_knote *knote, int64_t *ret_data,
                                  unsigned *ret_activations) {
    struct mio_kq *inner = mio_kq_find(knote->file->fd);
    mio_kq_collect(inner);
    if (inner->fd < 0)
        return MIO_EVENT_STALE;
    *ret_data = mio_knotes_pending(inner);
    *ret_activations = inner->activations;
    mio_kq_mark(inner);
    bool quiet = knote->event.flags & EV_CLEAR && knote->fired && knote->seen == inner->activations;
    return *ret_data > 0 && !quiet ? MIO_EVENT_READY : MIO_EVENT_NONE;
}

static enum mio_event evaluate(struct mio_knote *knote, int64_t *ret_data, bool *ret_eof,
                               unsigned *ret_activations) {
    struct mio_kfile *file = knote->file;
    if (is_stale(knote))
        return MIO_EVENT_STALE;
    if (file->kind == KQUEUE)
        return inner_state(knote, ret_data, ret_activations);
    struct pollfd fd = {.fd = file->fd, .events = is_read(knote) ? POLLIN | POLLRDHUP : POLLOUT};
    if (is_of_end(knote))
        fd.events = 0;
    if (poll(&fd, 1, 0) == 0)
        return MIO_EVENT_NONE;
    bool ready;
    if (file->kind == SOCKET)
        ready = socket_state(knote, fd.revents, ret_data, ret_eof);
    else if (file->kind == LISTENER || file->kind == OTHER)
        ready = other_state(knote, fd.revents, ret_data, ret_eof);
    else
        ready = pipe_state(knote, fd.revents, ret_data, ret_eof);
    return ready ? MIO_EVENT_READY : MIO_EVENT_NONE;
}

static enum mio_event peek(struct mio_knote *knote) {
    int64_t data;
    bool eof;
    unsigned activations;
    return evaluate(knote, &data, &eof, &activations);
}

static enum mio_event report(struct mio_knote *knote, struct kevent64_s *event, bool wide) {
    int64_t data = 0;
    bool eof = false;
    unsigned activations = 0;
    (void)wide;
    enum mio_event result = evaluate(knote, &data, &eof, &activations);
    if (result != MIO_EVENT_READY)
        return result;
    knote->fired = true;
    knote->seen = activations;
    event->fflags = 0;
    event->data = data;
    if (eof)
        event->flags |= EV_EOF;
    return MIO_EVENT_READY;
}

void mio_filter_file_fired(struct mio_kq *kq, int fd, uint32_t events) {
    struct mio_knote *first = find_first(kq, fd);
    if (first == NULL)
        return;
    MIO_EACH(item, &first->file->knotes) {
        struct mio_knote *knote = MIO_CONTAINER(item, struct mio_knote, of_object);
        uint32_t mine = is_read(knote) ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
        if (events & (mine | EPOLLHUP | EPOLLERR))
            mio_knote_activate(knote);
    }
}

int machio_watch_end(int kq, int fd, uint64_t udata) {
    const struct kevent64_s change = {.ident = (uint64_t)fd,
                                      .filter = EVFILT_WRITE,
                                      .flags = EV_ADD | EV_CLEAR,
                                      .fflags = MIO_NOTE_END,
                                      .udata = udata};
    return kevent64(kq, &change, 1, NULL, 0, 0, NULL);
}

#define FILTER(NUMBER)     \
    {.number = (NUMBER),   \
     .attach = attach,     \
     .detach = detach,     \
     .touch = touch,       \
     .watch = watch,       \
     .is_stale = is_stale, \
     .peek = peek,         \
     .report = report}

const struct mio_filter mio_filter_read = FILTER(EVFILT_READ);
const struct mio_filter mio_filter_write = FILTER(EVFILT_WRITE);
