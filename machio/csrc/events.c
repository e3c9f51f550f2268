/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Events between Python and kevent64(): in one call what would be many from there. The same on both
 * systems.
 */
#include "shim.h"

#include <sys/event.h>
#include <time.h>

#define BATCH 64

int machio_events(int kq, uint64_t *words, int count) {
    struct kevent64_s events[BATCH];
    const struct timespec now = {0};
    int n = kevent64(kq, NULL, 0, events, count < BATCH ? count : BATCH, 0, &now);
    for (int i = 0; i < n; i++)
        words[i] = events[i].udata | (events[i].flags & EV_EOF ? 1 : 0);
    return n;
}
