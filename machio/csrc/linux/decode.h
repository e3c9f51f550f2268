/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * A frame on its way to become a message: what decode.c, which checks it, and import.c, which takes
 * its rights over, know of it.
 */
#ifndef MACHIO_LINUX_DECODE_H
#define MACHIO_LINUX_DECODE_H

#include "wire.h"

#include <string.h>

enum mio_role {
    NONE,
    SEND_TX,
    SEND_CR,
    FILE_TX,
    ONCE_TX,
    PORT_RX,
    PORT_CW,
    ONCE_RX,
    FILE_OF_BYTES
};

struct mio_slot {
    enum mio_role role;
    bool known;  /* SEND_TX: of a port that is known here */
    bool sound;  /* closing it costs nobody anything */
    uint16_t cr; /* SEND_TX: the pipe it was verified with, or MIO_WIRE_NO_FD; FILE_TX: itself */
    uint64_t cookie; /* of the port: SEND_TX, FILE_TX, PORT_RX */
    ino_t pipe;
    enum mio_port_kind kind;
};

struct mio_decoder {
    struct mio_wire_input *input;
    struct mio_wire_head head;
    const uint8_t *rights, *receives, *body;
    size_t body_size;
    int memfd, heap;        /* the body, the out-of-line memory; or -1 */
    unsigned nreceives;     /* seen so far */
    struct mio_slot *slots; /* few, or allocated for descriptors that came in bundles */
    struct mio_slot few[MIO_WIRE_FDS];
};

static inline struct mio_wire_right mio_decoder_right(const struct mio_decoder *decoder,
                                                      unsigned i) {
    struct mio_wire_right record;
    memcpy(&record, decoder->rights + i * sizeof record, sizeof record);
    return record;
}

static inline struct mio_wire_receive mio_decoder_receive(const struct mio_decoder *decoder,
                                                          unsigned i) {
    struct mio_wire_receive record;
    memcpy(&record, decoder->receives + i * sizeof record, sizeof record);
    return record;
}

/* The descriptor, once: it is the caller's now. -1: it was taken before. */
static inline int mio_decoder_adopt(struct mio_decoder *decoder, uint16_t index) {
    int fd = decoder->input->fds[index];
    decoder->input->fds[index] = -1;
    return fd;
}

/*
 * Of a frame that was checked. false: no memory. Ownership: what the message holds then, and the
 * descriptors that were adopted, are its own, on failure too.
 */
bool mio_import_rights(struct mio_decoder *decoder, struct mio_kmsg *kmsg);

#endif
