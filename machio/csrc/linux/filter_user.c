/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * EVFILT_USER: knotes on nothing, triggered by the program, from any thread.
 *
 * Guarded by mio_task.lock; owns nothing.
 */
#include "kqueue.h"

static void merge(struct mio_knote *knote, uint32_t fflags) {
    uint32_t *flags = &knote->event.fflags, bits = fflags & NOTE_FFLAGSMASK;
    switch (fflags & NOTE_FFCTRLMASK) {
    case NOTE_FFAND:
        *flags &= bits;
        break;
    case NOTE_FFOR:
        *flags |= bits;
        break;
    case NOTE_FFCOPY:
        *flags = bits;
        break;
    default:
        break;
    }
    knote->triggered |= (fflags & NOTE_TRIGGER) != 0;
}

static int user_attach(struct mio_knote *knote) {
    uint32_t fflags = knote->event.fflags;
    knote->event.fflags = fflags & NOTE_FFLAGSMASK;
    knote->triggered = fflags & NOTE_TRIGGER;
    return 0;
}

static void user_detach(struct mio_knote *knote) {
    knote->triggered = false;
}

static int user_touch(struct mio_knote *knote, const struct kevent64_s *change, bool add_again) {
    merge(knote, change->fflags);
    knote->event.data = change->data;
    if (add_again)
        knote->event.udata = change->udata;
    return 0;
}

static int user_watch(struct mio_knote *knote, bool on) {
    (void)knote;
    (void)on;
    return 0;
}

static enum mio_event user_peek(struct mio_knote *knote) {
    return knote->triggered ? MIO_EVENT_READY : MIO_EVENT_NONE;
}

static enum mio_event user_report(struct mio_knote *knote, struct kevent64_s *event, bool wide) {
    (void)event; /* fflags and data are the knote's */
    (void)wide;
    if (!knote->triggered)
        return MIO_EVENT_NONE;
    if (knote->event.flags & EV_CLEAR) {
        knote->triggered = false;
        knote->event.fflags = 0;
        knote->event.data = 0;
    }
    return MIO_EVENT_READY;
}

const struct mio_filter mio_filter_user = {.number = EVFILT_USER,
                                           .attach = user_attach,
                                           .detach = user_detach,
                                           .touch = user_touch,
                                           .watch = user_watch,
                                           .peek = user_peek,
                                           .report = user_report};
