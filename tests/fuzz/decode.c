/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Whatever a peer puts into a socket: frames of any bytes, with any descriptors, are decoded or
 * dropped, and leave neither descriptors nor memory behind.
 *
 * An input is a number of descriptors, modulo FDS; a byte for each, which says what it is (enum
 * kind); and the frame. LLVMFuzzerTestOneInput() plays one input. `make fuzz` links it with
 * libFuzzer; tests/c/test_fuzz.c plays the kept inputs, tests/fuzz/corpus, with any compiler.
 */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FDS 20
#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

/* Each port has its own four; the inputs choose among two of a peer's and one of this task's. */
enum kind {
    PORT_RX,
    PORT_TX,
    PORT_CR,
    PORT_CW,
    OTHER_RX,
    OTHER_TX,
    OTHER_CR,
    OTHER_CW,
    OWN_TX,
    OWN_CR,
    ONCE_TX,
    ONCE_RX,
    ONCE_TX_2,
    ONCE_RX_2,
    SEALED, /* a memfd of the bytes behind the frame's start */
    UNSEALED,
    SIDE_RX, /* a socket in which a frame with two descriptors waits */
    BUNDLE,  /* one that is full: PORT_TX and PORT_CR in turn */
    REST,    /* what comes behind it: PORT_CR */
    KINDS
};

struct world {
    int fds[KINDS];
    struct mio_port *own;
};

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    abort();
}

static void make_port(int *rx, int *tx, int *cr, int *cw) {
    struct sockaddr_un name;
    int pair[2], ends[2];
    ino_t pipe;
    if (mio_pair(pair) != 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        die("no port");
    *rx = pair[0], *tx = pair[1], *cr = ends[0], *cw = ends[1];
    mio_pair_receiver(*rx);
    shutdown(*tx, SHUT_RD);
    if (!mio_pipe_inode(*cw, O_WRONLY, &pipe))
        die("no pipe");
    socklen_t length = mio_channel_name(&name, 'p', mio_socket_cookie(*rx), pipe);
    if (bind(*rx, (struct sockaddr *)&name, length) != 0)
        die("no name");
}

static void make_once(int *tx, int *rx) {
    int pair[2];
    if (mio_pair(pair) != 0)
        die("no pair");
    *tx = pair[0], *rx = pair[1];
    shutdown(*tx, SHUT_RD);
}

static int make_memfd(const uint8_t *data, size_t size, int seals) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        die("no memfd");
    if (seals != 0 && fcntl(fd, F_ADD_SEALS, seals) != 0)
        die("no seals");
    return fd;
}

/* The descriptors of a frame begin with a full one: its last is a `tx`, and `cr` follows. */
static int make_bundle(int tx, int cr, unsigned nfds) {
    int pair[2], carried[MIO_WIRE_FDS];
    for (unsigned i = 0; i < nfds; i++)
        carried[i] = nfds > 1 && i % 2 == 0 ? tx : cr;
    if (mio_pair(pair) != 0 || mio_wire_transmit(pair[1], "", 1, carried, nfds) != MIO_WIRE_OK)
        die("no bundle");
    close(pair[1]);
    return pair[0];
}

/* Only what the input refers to is made: most need little. */
static int make(struct world *world, enum kind kind, const uint8_t *data, size_t size) {
    int *fds = world->fds;
    if (fds[kind] >= 0)
        return fds[kind];
    switch (kind) {
    case PORT_RX:
    case PORT_TX:
    case PORT_CR:
    case PORT_CW:
        make_port(&fds[PORT_RX], &fds[PORT_TX], &fds[PORT_CR], &fds[PORT_CW]);
        break;
    case OTHER_RX:
    case OTHER_TX:
    case OTHER_CR:
    case OTHER_CW:
        make_port(&fds[OTHER_RX], &fds[OTHER_TX], &fds[OTHER_CR], &fds[OTHER_CW]);
        break;
    case OWN_TX:
    case OWN_CR:
        world->own = mio_port_new(MIO_PORT_LOCAL);
        if (world->own == NULL || mio_channel_open(world->own) != KERN_SUCCESS)
            die("no port");
        fds[OWN_TX] = dup(world->own->tx);
        fds[OWN_CR] = dup(world->own->cr.fd);
        break;
    case ONCE_TX:
    case ONCE_RX:
        make_once(&fds[ONCE_TX], &fds[ONCE_RX]);
        break;
    case ONCE_TX_2:
    case ONCE_RX_2:
        make_once(&fds[ONCE_TX_2], &fds[ONCE_RX_2]);
        break;
    case SEALED:
        fds[SEALED] = make_memfd(data, size, ALL_SEALS);
        break;
    case UNSEALED:
        fds[UNSEALED] = make_memfd(data, size, 0);
        break;
    case BUNDLE:
    case REST:
        fds[kind] = make_bundle(make(world, PORT_TX, data, size), make(world, PORT_CR, data, size),
                                kind == BUNDLE ? MIO_WIRE_FDS : 1);
        break;
    default: {
        int pair[2];
        if (mio_pair(pair) != 0)
            die("no pair");
        int carried[] = {make(world, PORT_TX, data, size), make(world, PORT_CR, data, size)};
        mio_wire_transmit(pair[1], data, size < 64 ? size : 64, carried, 2);
        close(pair[1]);
        fds[SIDE_RX] = pair[0];
    }
    }
    return fds[kind];
}

static void unmake(struct world *world) {
    for (int i = 0; i < KINDS; i++)
        if (world->fds[i] >= 0)
            close(world->fds[i]);
    if (world->own != NULL)
        mio_port_destroy(world->own);
}

/* The lowest free number: higher afterwards if a descriptor was left behind. */
static int lowest(void) {
    int fd = dup(STDERR_FILENO);
    close(fd);
    return fd;
}

/*
 * Descriptors that could be slow to close are closed by another thread, and a thread that is just
 * beginning takes one for a while: it is enough that the number was free once.
 */
static void check_lowest(int before) {
    const struct timespec pause = {.tv_nsec = 100000};
    for (int i = 0; i < 50000; i++) {
        if (lowest() <= before)
            return;
        mio_unlock();
        nanosleep(&pause, NULL);
        mio_lock();
    }
    die("a descriptor was left behind");
}

static void receive(int fd) {
    struct mio_kmsg *kmsg;
    unsigned kind, flags;
    while (mio_wire_receive(fd, &kmsg, &kind, &flags) == MIO_WIRE_OK)
        if (kmsg != NULL)
            mio_kmsg_destroy(kmsg);
    mio_reap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct world world = {.own = NULL};
    int pair[2], fds[FDS];
    unsigned nfds = size > 0 ? data[0] % FDS : 0;
    if (size < 1 + nfds || size - 1 - nfds > MIO_WIRE_FRAME_MAX)
        return -1;
    const uint8_t *frame = data + 1 + nfds;
    size -= 1 + nfds;
    mio_lock();
    if (mio_task.null < 0) /* what the layer opens at first use and keeps */
        mio_task.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    mio_notice_open();
    int before = lowest();
    memset(world.fds, -1, sizeof world.fds);
    if (mio_pair(pair) != 0)
        die("no pair");
    mio_pair_receiver(pair[0]);
    for (unsigned i = 0; i < nfds; i++)
        fds[i] = make(&world, data[1 + i] % KINDS, frame, size);
    if (size > 0)
        mio_wire_transmit(pair[1], frame, size, fds, nfds);
    unmake(&world);
    receive(pair[0]);
    close(pair[0]);
    close(pair[1]);
    check_lowest(before);
    mio_unlock();
    return 0;
}
