/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Knotes: what a program registered with a kqueue. A knote belongs to its kqueue's hash table, to
 * the object it watches (by its filter) and, when something may have happened, to the kqueue's
 * active list, from which kevent() takes it to ask whether the condition holds.
 *
 * A level knote that was reported goes back to the end of the list; one with EV_CLEAR does not;
 * EV_DISPATCH disables it and EV_ONESHOT drops it. A disabled knote watches nothing, so that what
 * it would have reported cannot keep the descriptor readable.
 *
 * Guarded by mio_task.lock. Owns no descriptors. A filter may let the lock go while it reports
 * (a message is received): the knote is busy then and neither freed nor queued.
 */
#include "kqueue.h"

#include <errno.h>
#include <stdlib.h>

#define FIRST_BUCKETS 16u

static const struct mio_filter *const filters[] = {&mio_filter_port, &mio_filter_read,
                                                   &mio_filter_write, &mio_filter_user};

static const struct mio_filter *find_filter(int16_t number) {
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (filters[i]->number == number)
            return filters[i];
    return NULL;
}

static bool is_dispatch2(const struct mio_knote *knote) {
    return (knote->event.flags & EV_DISPATCH2) == EV_DISPATCH2;
}

/* ---- the table ------------------------------------------------------------------------------- */

struct mio_list *mio_knote_bucket(struct mio_kq *kq, uint64_t ident) {
    uint64_t hash = ident * UINT64_C(0x9e3779b97f4a7c15);
    return kq->nbuckets ? &kq->buckets[(hash >> 32) & (kq->nbuckets - 1)] : NULL;
}

static bool make_room(struct mio_kq *kq) {
    if (kq->nknotes < 2 * kq->nbuckets)
        return true;
    struct mio_list *old = kq->buckets;
    unsigned nold = kq->nbuckets, size = nold ? 2 * nold : FIRST_BUCKETS;
    struct mio_list *buckets = malloc(size * sizeof *buckets);
    if (buckets == NULL)
        return nold > 0; /* longer chains do for now */
    for (unsigned i = 0; i < size; i++)
        mio_list_init(&buckets[i]);
    kq->buckets = buckets;
    kq->nbuckets = size;
    for (unsigned i = 0; i < nold; i++) {
        MIO_EACH(item, &old[i]) {
            uint64_t ident = MIO_CONTAINER(item, struct mio_knote, of_kq)->event.ident;
            mio_list_remove(item);
            mio_list_append(mio_knote_bucket(kq, ident), item);
        }
    }
    free(old);
    return true;
}

/* adding: a knote whose object is gone does not stand in the way of one for a new object. */
static struct mio_knote *find(struct mio_kq *kq, const struct kevent64_s *change, bool adding) {
    struct mio_list *bucket = mio_knote_bucket(kq, change->ident);
    if (bucket == NULL)
        return NULL;
    MIO_EACH(item, bucket) {
        struct mio_knote *knote = MIO_CONTAINER(item, struct mio_knote, of_kq);
        const struct kevent64_s *event = &knote->event;
        uint16_t differ = event->flags ^ change->flags;
        if (event->ident != change->ident || event->filter != change->filter ||
            differ & EV_UDATA_SPECIFIC)
            continue;
        if (change->flags & EV_UDATA_SPECIFIC && event->udata != change->udata)
            continue;
        if (adding && knote->vanished && !is_dispatch2(knote))
            continue;
        return knote;
    }
    return NULL;
}

/* ---- activity -------------------------------------------------------------------------------- */

void mio_knote_activate(struct mio_knote *knote) {
    struct mio_kq *kq = knote->kq;
    if (knote->queued || knote->disabled || knote->dead)
        return;
    if (knote->busy) {
        knote->again = true;
        return;
    }
    knote->queued = true;
    mio_list_append(&kq->active, &knote->active);
    kq->nactive++;
    kq->activations++;
}

static void deactivate(struct mio_knote *knote) {
    if (!knote->queued)
        return;
    knote->queued = false;
    mio_list_remove(&knote->active);
    knote->kq->nactive--;
}

static int set_watch(struct mio_knote *knote, bool on) {
    if (knote->watched == on || (on && knote->vanished))
        return 0;
    int error = knote->filter->watch(knote, on);
    if (error == 0)
        knote->watched = on;
    return error;
}

static void disable(struct mio_knote *knote) {
    knote->disabled = true;
    deactivate(knote);
    set_watch(knote, false);
}

static int enable(struct mio_knote *knote) {
    if (!knote->disabled)
        return 0;
    int error = set_watch(knote, true);
    if (error == 0) {
        knote->disabled = false;
        knote->fired = false;
    }
    return error;
}

static bool is_final(const struct mio_knote *knote) {
    return knote->vanished || knote->deferred;
}

static void activate_if_ready(struct mio_knote *knote) {
    if (knote->disabled || knote->queued)
        return;
    if (is_final(knote) || knote->filter->peek(knote) != MIO_EVENT_NONE)
        mio_knote_activate(knote);
}

/* ---- birth and death ------------------------------------------------------------------------- */

void mio_knote_drop(struct mio_knote *knote) {
    disable(knote);
    knote->filter->detach(knote);
    mio_list_remove(&knote->of_object);
    mio_list_remove(&knote->of_kq);
    knote->kq->nknotes--;
    knote->dead = true;
    if (!knote->busy)
        free(knote);
}

void mio_knotes_drop_all(struct mio_kq *kq) {
    for (unsigned i = 0; i < kq->nbuckets; i++)
        while (!mio_list_empty(&kq->buckets[i]))
            mio_knote_drop(MIO_CONTAINER(kq->buckets[i].next, struct mio_knote, of_kq));
}

static int add(struct mio_kq *kq, const struct mio_filter *filter,
               const struct kevent64_s *change) {
    struct mio_knote *knote = calloc(1, sizeof *knote);
    if (knote == NULL || !make_room(kq)) {
        free(knote);
        return ENOMEM;
    }
    knote->kq = kq;
    knote->filter = filter;
    knote->event = *change;
    knote->disabled = change->flags & EV_DISABLE;
    mio_list_init(&knote->of_object);
    mio_list_init(&knote->active);
    mio_list_append(mio_knote_bucket(kq, change->ident), &knote->of_kq);
    kq->nknotes++;
    int error = filter->attach(knote);
    if (error != 0) {
        mio_list_remove(&knote->of_kq);
        kq->nknotes--;
        free(knote);
        return error;
    }
    if (!knote->disabled)
        error = set_watch(knote, true);
    if (error != 0)
        mio_knote_drop(knote);
    else
        activate_if_ready(knote);
    return error;
}

static int remove_knote(struct mio_knote *knote, const struct kevent64_s *change) {
    if (is_dispatch2(knote) && knote->disabled && !(change->flags & EV_ENABLE)) {
        knote->deferred = true;
        return EINPROGRESS;
    }
    mio_knote_drop(knote);
    return 0;
}

int mio_knote_change(struct mio_kq *kq, struct kevent64_s *change) {
    const struct mio_filter *filter = find_filter(change->filter);
    const uint16_t vanishing = EV_ADD | EV_DISPATCH2;
    if (filter == NULL || (change->flags & EV_VANISHED && (change->flags & vanishing) != vanishing))
        return EINVAL;
    if (change->flags & EV_DELETE)
        change->flags &= (uint16_t)~EV_ADD;
    if (change->flags & EV_DISABLE)
        change->flags &= (uint16_t)~EV_ENABLE;

    struct mio_knote *knote = find(kq, change, change->flags & EV_ADD);
    if (knote != NULL && filter->is_stale != NULL && filter->is_stale(knote)) {
        mio_knote_drop(knote);
        knote = NULL;
    }
    if (knote == NULL)
        return change->flags & EV_ADD ? add(kq, filter, change) : ENOENT;
    if (change->flags & EV_DELETE)
        return remove_knote(knote, change);
    if (change->flags & EV_DISABLE)
        disable(knote);
    int error = 0;
    if (!is_final(knote))
        error = filter->touch(knote, change, change->flags & EV_ADD);
    if (error == 0 && change->flags & EV_ENABLE)
        error = enable(knote);
    if (error == 0)
        activate_if_ready(knote);
    return error;
}

/* ---- reporting ------------------------------------------------------------------------------- */

/* The last event of a knote. */
static void report_final(const struct mio_knote *knote, struct kevent64_s *event) {
    event->fflags = 0;
    event->data = 0;
    if (knote->deferred)
        event->flags = EV_DELETE | EV_DISPATCH2 | EV_ONESHOT;
    else if (knote->event.flags & EV_VANISHED)
        event->flags = EV_VANISHED | EV_DISPATCH2 | EV_ONESHOT;
    else
        event->flags |= EV_EOF | EV_ONESHOT;
}

static void after_report(struct mio_knote *knote, const struct kevent64_s *event) {
    if (event->flags & EV_ONESHOT) {
        if (is_dispatch2(knote) && !knote->deferred) {
            knote->deferred = true;
            disable(knote);
        } else {
            mio_knote_drop(knote);
        }
    } else if (event->flags & EV_DISPATCH) {
        disable(knote);
    } else if (knote->again || !(event->flags & EV_CLEAR)) {
        mio_knote_activate(knote);
    }
}

static void report(struct mio_knote *knote, struct mio_events *events) {
    struct kevent64_s event = knote->event;
    enum mio_event result = MIO_EVENT_READY;

    deactivate(knote);
    knote->again = false;
    if (is_final(knote)) {
        report_final(knote, &event);
    } else {
        knote->busy = true;
        result = knote->filter->report(knote, &event, events->wide);
        knote->busy = false;
    }
    if (result == MIO_EVENT_READY)
        mio_events_put(events, &event);
    if (knote->dead) {
        free(knote);
    } else if (result == MIO_EVENT_STALE) {
        mio_knote_drop(knote);
    } else if (result == MIO_EVENT_READY) {
        after_report(knote, &event);
    } else if (knote->again) {
        mio_knote_activate(knote);
    }
}

void mio_knotes_report(struct mio_kq *kq, struct mio_events *events) {
    unsigned pass = ++kq->pass;
    while (events->count < events->room && !mio_list_empty(&kq->active)) {
        struct mio_knote *knote = MIO_CONTAINER(kq->active.next, struct mio_knote, active);
        if (knote->pass == pass)
            break;
        knote->pass = pass;
        report(knote, events);
    }
}

unsigned mio_knotes_pending(struct mio_kq *kq) {
    MIO_EACH(item, &kq->active) {
        struct mio_knote *knote = MIO_CONTAINER(item, struct mio_knote, active);
        if (!is_final(knote) && knote->filter->peek(knote) == MIO_EVENT_NONE)
            deactivate(knote);
    }
    return kq->nactive;
}
