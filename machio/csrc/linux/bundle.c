/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * A frame with more descriptors than the kernel takes in one message carries bundles instead: each
 * is a socket with one datagram in its queue, and in that are up to 253 of the descriptors.
 *
 * Such a frame must not be half received either, so a bundle is only looked at: the datagram stays
 * in it, and what was installed is one copy more. If one of them does not fit, all copies are given
 * back, and the frame, which was only looked at too, is as it was. That a frame may be one to look
 * at first, its receiver learns from a frame without a message that goes before it.
 *
 * Guarded by mio_task.lock; owns no descriptors beyond a call.
 */
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static unsigned bundles_for(unsigned nfds) {
    return (nfds + MIO_WIRE_FDS - 1) / MIO_WIRE_FDS;
}

static unsigned part_of(unsigned nfds, unsigned at) {
    return nfds - at < MIO_WIRE_FDS ? nfds - at : MIO_WIRE_FDS;
}

/* ---- many descriptors ---------------------------------------------------------------------- */

/* The index of each descriptor, near the place of its number. */
static uint16_t indices[1u << 17];
static_assert(sizeof indices / sizeof *indices >= 2 * MIO_WIRE_FDS_MAX, "most places are free");

static uint16_t *place_of(const int *fds, int fd) {
    const unsigned mask = sizeof indices / sizeof *indices - 1;
    unsigned at = (unsigned)fd & mask;
    while (indices[at] != MIO_WIRE_NO_FD && fds[indices[at]] != fd)
        at = (at + 1) & mask;
    return &indices[at];
}

uint16_t *mio_bundles_place(const int *fds, unsigned nfds, int fd, bool *begun) {
    if (!*begun) {
        *begun = true;
        memset(indices, 0xff, sizeof indices);
        for (unsigned i = 0; i < nfds; i++)
            *place_of(fds, fds[i]) = (uint16_t)i;
    }
    return place_of(fds, fd);
}

/* ---- out --------------------------------------------------------------------------------- */

int mio_bundle_new(char mark, const int *fds, unsigned nfds) {
    int pair[2];
    if (mio_pair(pair) != 0)
        return -1;
    bool sent = mio_wire_transmit(pair[1], &mark, 1, fds, nfds) == MIO_WIRE_OK;
    int error = errno;
    close(pair[1]);
    if (sent)
        return pair[0];
    close(pair[0]);
    errno = error;
    return -1;
}

enum mio_wire_result mio_bundles_send(int fd, const void *frame, size_t length, const int *fds,
                                      unsigned nfds) {
    int bundles[MIO_WIRE_FDS];
    unsigned count = 0;
    enum mio_wire_result result = MIO_WIRE_SHORTAGE;

    for (unsigned at = 0; at < nfds; at += MIO_WIRE_FDS) {
        bundles[count] = mio_bundle_new('\0', fds + at, part_of(nfds, at));
        if (bundles[count] < 0)
            break;
        count++;
    }
    if (count == bundles_for(nfds)) {
        mio_wire_signal(fd, MIO_FRAME_ANNOUNCED);
        result = mio_wire_transmit(fd, frame, length, bundles, count);
    }
    /* What is in them is here as well: closing them cannot wait for anything. */
    while (count > 0)
        close(bundles[--count]);
    return result;
}

/* ---- in ---------------------------------------------------------------------------------- */

/* The same socket again and again would be many descriptors for few. */
static bool are_bundles(const struct mio_wire_input *input) {
    uint64_t cookies[MIO_WIRE_FDS];
    for (unsigned i = 0; i < input->nfds; i++) {
        if (!mio_channel_verify_bundle(input->fds[i], &cookies[i]))
            return false;
        for (unsigned k = 0; k < i; k++)
            if (cookies[k] == cookies[i])
                return false;
    }
    return true;
}

/* Whether this task could hold so many if it had no others: if not, waiting is in vain. */
static bool could_hold(unsigned nfds) {
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && nfds < limit.rlim_cur;
}

enum mio_wire_result mio_bundles_open(struct mio_wire_input *input, unsigned nfds) {
    unsigned count = 0;
    if (nfds <= MIO_WIRE_FDS || input->nfds != bundles_for(nfds) || !could_hold(nfds) ||
        !are_bundles(input))
        return MIO_WIRE_GONE;
    int *fds = malloc(nfds * sizeof *fds);
    enum mio_wire_result result = fds != NULL ? MIO_WIRE_OK : MIO_WIRE_SHORTAGE;
    for (unsigned i = 0; i < input->nfds && result == MIO_WIRE_OK; i++) {
        struct mio_wire_input bundle;
        result = mio_wire_look(input->fds[i], &bundle);
        if (result == MIO_WIRE_OK && bundle.nfds != part_of(nfds, count)) {
            mio_wire_input_clear(&bundle);
            result = MIO_WIRE_GONE;
        }
        if (result == MIO_WIRE_OK) {
            memcpy(fds + count, bundle.fds, bundle.nfds * sizeof *fds);
            count += bundle.nfds;
        }
    }
    if (result != MIO_WIRE_OK) {
        while (count > 0)
            mio_fd_discard(fds[--count]);
        free(fds);
        return result;
    }
    mio_wire_input_clear(input);
    input->fds = fds;
    input->nfds = nfds;
    return MIO_WIRE_OK;
}
