/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kqueue: one descriptor that waits for ports, pipes, sockets and user events.
 *
 * Filters on Linux: EVFILT_MACHPORT, EVFILT_READ, EVFILT_WRITE, EVFILT_USER. The others have their
 * numbers and are refused with EINVAL. A kqueue is closed with close(), can be polled like any
 * descriptor, and does not survive fork().
 */

#ifndef _SYS_EVENT_H_
#define _SYS_EVENT_H_

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_AIO (-3)
#define EVFILT_VNODE (-4)
#define EVFILT_PROC (-5)
#define EVFILT_SIGNAL (-6)
#define EVFILT_TIMER (-7)
#define EVFILT_MACHPORT (-8)
#define EVFILT_FS (-9)
#define EVFILT_USER (-10)
#define EVFILT_VM (-12)
#define EVFILT_EXCEPT (-15)
#define EVFILT_SYSCOUNT 17
#define EVFILT_THREADMARKER EVFILT_SYSCOUNT

#pragma pack(push, 4)

struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    void *udata;
};

#pragma pack(pop)

struct kevent64_s {
    uint64_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    int64_t data;
    uint64_t udata;
    uint64_t ext[2]; /* EVFILT_MACHPORT with MACH_RCV_MSG in fflags: buffer and size */
};

#define EV_SET(kevp, a, b, c, d, e, f)   \
    do {                                 \
        struct kevent *ev_set_ = (kevp); \
        ev_set_->ident = (a);            \
        ev_set_->filter = (b);           \
        ev_set_->flags = (c);            \
        ev_set_->fflags = (d);           \
        ev_set_->data = (e);             \
        ev_set_->udata = (f);            \
    } while (0)

#define EV_SET64(kevp, a, b, c, d, e, f, g, h) \
    do {                                       \
        struct kevent64_s *ev_set_ = (kevp);   \
        ev_set_->ident = (a);                  \
        ev_set_->filter = (b);                 \
        ev_set_->flags = (c);                  \
        ev_set_->fflags = (d);                 \
        ev_set_->data = (e);                   \
        ev_set_->udata = (f);                  \
        ev_set_->ext[0] = (g);                 \
        ev_set_->ext[1] = (h);                 \
    } while (0)

/* What to do with a change. */
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008

/* How the event behaves. */
#define EV_ONESHOT 0x0010  /* once, then deleted */
#define EV_CLEAR 0x0020    /* once per trigger */
#define EV_RECEIPT 0x0040  /* the change is answered, with EV_ERROR and 0 if it succeeded */
#define EV_DISPATCH 0x0080 /* once, then disabled */
#define EV_UDATA_SPECIFIC 0x0100
#define EV_DISPATCH2 (EV_DISPATCH | EV_UDATA_SPECIFIC)
#define EV_VANISHED 0x0200
#define EV_SYSFLAGS 0xf000
#define EV_FLAG0 0x1000
#define EV_FLAG1 0x2000
#define EV_POLL EV_FLAG0
#define EV_OOBAND EV_FLAG1

/* What came back. */
#define EV_ERROR 0x4000 /* data is an errno */
#define EV_EOF 0x8000

/* kevent64() */
#define KEVENT_FLAG_NONE 0x000000
#define KEVENT_FLAG_IMMEDIATE 0x000001
#define KEVENT_FLAG_ERROR_EVENTS 0x000002

/* EVFILT_USER: the lower 24 bits are the user's, the upper two say how they change. */
#define NOTE_TRIGGER 0x01000000
#define NOTE_FFNOP 0x00000000
#define NOTE_FFAND 0x40000000
#define NOTE_FFOR 0x80000000
#define NOTE_FFCOPY 0xc0000000
#define NOTE_FFCTRLMASK 0xc0000000
#define NOTE_FFLAGSMASK 0x00ffffff

/* EVFILT_READ and EVFILT_WRITE: data is the low water mark. */
#define NOTE_LOWAT 0x00000001

/* EVFILT_EXCEPT */
#define NOTE_OOB 0x00000002

/* EVFILT_VNODE */
#define NOTE_DELETE 0x00000001
#define NOTE_WRITE 0x00000002
#define NOTE_EXTEND 0x00000004
#define NOTE_ATTRIB 0x00000008
#define NOTE_LINK 0x00000010
#define NOTE_RENAME 0x00000020
#define NOTE_REVOKE 0x00000040
#define NOTE_NONE 0x00000080
#define NOTE_FUNLOCK 0x00000100

/* EVFILT_PROC */
#define NOTE_EXIT 0x80000000
#define NOTE_FORK 0x40000000
#define NOTE_EXEC 0x20000000
#define NOTE_REAP 0x10000000
#define NOTE_SIGNAL 0x08000000
#define NOTE_EXITSTATUS 0x04000000
#define NOTE_EXIT_DETAIL 0x02000000
#define NOTE_PDATAMASK 0x000fffff
#define NOTE_PCTRLMASK (~NOTE_PDATAMASK)

/* EVFILT_TIMER */
#define NOTE_SECONDS 0x00000001
#define NOTE_USECONDS 0x00000002
#define NOTE_NSECONDS 0x00000004
#define NOTE_ABSOLUTE 0x00000008
#define NOTE_LEEWAY 0x00000010
#define NOTE_CRITICAL 0x00000020
#define NOTE_BACKGROUND 0x00000040
#define NOTE_MACH_CONTINUOUS_TIME 0x00000080
#define NOTE_MACHTIME 0x00000100

#ifdef __cplusplus
extern "C" {
#endif

/* A new kqueue, close-on-exec; -1 and errno on failure. Ownership: the descriptor is the caller's.
 */
int kqueue(void);

/*
 * Applies the changes, then waits for events as long as timeout says: NULL for ever, zero not at
 * all, and with nevents 0 it does not wait. Returns how many events there are. A change that fails
 * is an event with EV_ERROR if there is room, else -1 and errno. Ownership: no right moves.
 */
int kevent(int kq, const struct kevent *changelist, int nchanges, struct kevent *eventlist,
           int nevents, const struct timespec *timeout);

/* The same with KEVENT_FLAG_*. Ownership: no right moves, unless MACH_RCV_MSG received a message:
 * as mach_msg(). */
int kevent64(int kq, const struct kevent64_s *changelist, int nchanges,
             struct kevent64_s *eventlist, int nevents, unsigned int flags,
             const struct timespec *timeout);

#ifdef __cplusplus
}
#endif

#endif
