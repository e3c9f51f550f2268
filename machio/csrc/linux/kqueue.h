/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Kqueues from the inside: what kqueue.c (the descriptor and the calls), knote.c (registrations
 * and the list of active ones) and the filters, filter_*.c, share.
 *
 * The descriptor a program gets is an epoll, and nothing else belongs to a kqueue: the program
 * closes it with close(2) and nobody is told. In this epoll are
 *
 *   the sources of every port watched     level or edge triggered, as its knotes want it
 *   the program's own descriptors         always edge triggered
 *   mio_task.notice                       when any port is watched
 *   mio_task.marker                       readable while some knote is on the active list
 *
 * The kernel's events only put knotes on the active list; whether there is something to report is
 * asked when kevent() walks it. So the rules are the same for a message in memory and one on a
 * socket. All of it is guarded by mio_task.lock.
 */
#ifndef MACHIO_LINUX_KQUEUE_H
#define MACHIO_LINUX_KQUEUE_H

#include "internal.h"

#include <sys/event.h>

struct mio_kfile;

struct mio_kq {
    struct mio_list link; /* mio_task.kqs */
    unsigned refs;        /* the list, and every thread inside kevent() */
    int fd;               /* -1: the program closed it */
    uint64_t serial;      /* tells it from an earlier one with the same number */
    uint64_t asked;       /* mio_task.hold in which the descriptor was this kqueue's */
    bool marked;          /* the marker is on */
    bool held;            /* someone under the lock will set the marker right */
    bool noticing;        /* mio_task.notice is in the epoll */
    struct mio_watch watch;
    struct mio_list active; /* mio_knote.active, in order of activation */
    unsigned nactive;
    unsigned pass;            /* counts walks over the active list */
    unsigned activations;     /* how often a knote became active */
    unsigned nports;          /* knotes of ports and sets */
    struct mio_list *buckets; /* mio_knote.of_kq, by ident */
    unsigned nbuckets, nknotes;
};

enum mio_event {
    MIO_EVENT_NONE,  /* the condition does not hold */
    MIO_EVENT_READY, /* it does; the event is filled in */
    MIO_EVENT_STALE, /* the program closed the descriptor: the knote is to go silently */
};

struct mio_filter {
    int16_t number;
    int (*attach)(struct mio_knote *knote); /* 0 or errno; finds the object, registers nothing */
    void (*detach)(struct mio_knote *knote);
    /* A change of an existing knote; add: it said EV_ADD. */
    int (*touch)(struct mio_knote *knote, const struct kevent64_s *change, bool add);
    /* Whether the object may wake the knote. Off cannot fail. */
    int (*watch)(struct mio_knote *knote, bool on);
    /* Whether the program closed what it watches; NULL: it is told by other means. */
    bool (*is_stale)(struct mio_knote *knote);
    /* Whether the condition holds, without reporting it. */
    enum mio_event (*peek)(struct mio_knote *knote);
    /* Reports: fills in fflags, data, ext, and flags beyond those of EV_ADD. wide: kevent64(). */
    enum mio_event (*report)(struct mio_knote *knote, struct kevent64_s *event, bool wide);
};

extern const struct mio_filter mio_filter_port, mio_filter_read, mio_filter_write, mio_filter_user;

struct mio_knote {
    struct mio_list of_kq;     /* a bucket */
    struct mio_list of_object; /* port, set or file */
    struct mio_list active;    /* mio_kq.active while queued */
    struct mio_kq *kq;
    const struct mio_filter *filter;
    struct kevent64_s event; /* as registered */
    union {
        struct mio_port *port;
        struct mio_set *set;
        struct mio_kfile *file;
    };
    unsigned pass;
    unsigned seen; /* EV_CLEAR: the object's count of drainings when last reported */
    bool fired;    /* seen is valid */
    bool is_set;
    bool triggered; /* EVFILT_USER */
    bool watched;   /* the filter's watch is on */
    bool disabled;
    bool queued;
    bool vanished; /* its object is gone: one last event */
    bool deferred; /* EV_DISPATCH2: one EV_DELETE event when it is enabled */
    bool busy;     /* being reported: not to be freed or queued */
    bool again;    /* became active meanwhile */
    bool dead;     /* dropped meanwhile */
};

/* Where events go: the program's array of either kind. */
struct mio_events {
    void *list;
    int count, room;
    bool wide;
};

/* An fflag of EVFILT_WRITE that is not XNU's: only the end of the readers is an event. */
#define MIO_NOTE_END 0x00800000u

/* filter_file.c; shim.h tells. */
int machio_watch_end(int kq, int fd, uint64_t udata);

/* ---- kqueue.c -------------------------------------------------------------------------------- */

struct mio_kq *mio_kq_find(int fd); /* NULL: not one, or closed */
/* Asks the kernel whether the descriptor is still this kqueue; if not, forgets it: false. */
bool mio_kq_check(struct mio_kq *kq);
/* Makes the descriptor readable or not as the active list wants it, unless the kq is held. */
void mio_kq_mark(struct mio_kq *kq);
/* Moves what epoll has to say to the active list. */
void mio_kq_collect(struct mio_kq *kq);
void mio_kq_watch_notice(struct mio_kq *kq);
void mio_events_put(struct mio_events *events, const struct kevent64_s *event);

/* ---- knote.c --------------------------------------------------------------------------------- */

/* Applies one change; 0 or errno. */
int mio_knote_change(struct mio_kq *kq, struct kevent64_s *change);
void mio_knote_activate(struct mio_knote *knote); /* the marker is left to the caller */
void mio_knote_drop(struct mio_knote *knote);
void mio_knotes_drop_all(struct mio_kq *kq);
struct mio_list *mio_knote_bucket(struct mio_kq *kq, uint64_t ident);
/* Walks the active list once and reports what holds. */
void mio_knotes_report(struct mio_kq *kq, struct mio_events *events);
/* How many events are pending, for another kqueue that watches this one. */
unsigned mio_knotes_pending(struct mio_kq *kq);

/* ---- filter_port.c, filter_file.c ------------------------------------------------------------ */

/* A watched source fired in this kqueue's epoll. */
void mio_filter_port_fired(struct mio_kq *kq, struct mio_port *port,
                           const struct mio_source *source);
/* A descriptor of the program fired: epoll events. */
void mio_filter_file_fired(struct mio_kq *kq, int fd, uint32_t events);

#endif
