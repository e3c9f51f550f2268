/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Whatever a peer puts into a socket: frames of any bytes, with any descriptors, are decoded or
 * dropped, and leave neither descriptors nor memory behind.
 *
 * An input is a number of descriptors, modulo FDS; a byte for each, which says what it is (enum
 * kind); and the frame. If the number is FDS or more the frame comes in a port's socket, and is
 * received with mach_msg(): rights get names, and memory is mapped. LLVMFuzzerTestOneInput() plays
 * one input. `make fuzz` links it with libFuzzer; tests/c/test_fuzz.c plays the kept inputs,
 * tests/fuzz/corpus, with any compiler.
 */
#include "wire.h"

#include <mach/mach.h>

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
    SIDE_RX,  /* a socket in which a frame with two descriptors waits */
    BUNDLE,   /* one that is full: PORT_TX and PORT_CR in turn */
    REST,     /* what comes behind it: PORT_CR */
    HEAP,     /* a page of out-of-line memory */
    HEAP_2,   /* two of them */
    FILE_TX,  /* a file port */
    EMPTY_TX, /* one whose file was taken out */
    OPEN_TX,  /* one that could get another */
    BODY,     /* as many zeros as the frame says that its body has */
    KINDS
};

struct world {
    int fds[KINDS];
    int far; /* the other end of OPEN_TX */
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

/* See fileport.c; `far` keeps its other end if it is to stay open. */
static int make_file(bool filled, int *far) {
    int pair[2], file = make_memfd((const uint8_t *)"file", 4, 0);
    if (mio_pair(pair) != 0 ||
        (filled && mio_wire_transmit(pair[1], "f", 1, &file, 1) != MIO_WIRE_OK))
        die("no file port");
    close(file);
    if (far != NULL)
        *far = pair[1];
    else
        close(pair[1]);
    return pair[0];
}

static int make_sealed(size_t size) {
    int fd = make_memfd((const uint8_t *)"", 0, 0);
    if (!mio_memfd_resize(fd, size) || !mio_memfd_seal(fd))
        die("no memory");
    return fd;
}

static size_t body_of(const uint8_t *frame, size_t size) {
    struct mio_wire_head head = {.size = 0};
    memcpy(&head, frame, size < sizeof head ? size : sizeof head);
    return head.size > sizeof(mach_msg_header_t) && head.size < MIO_WIRE_SIZE_MAX
               ? head.size - sizeof(mach_msg_header_t)
               : 0;
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
    case HEAP:
    case HEAP_2:
        fds[kind] = make_sealed((kind == HEAP ? 1 : 2) * vm_page_size);
        break;
    case BODY:
        fds[BODY] = make_sealed(body_of(data, size));
        break;
    case FILE_TX:
    case EMPTY_TX:
    case OPEN_TX:
        fds[kind] = make_file(kind != EMPTY_TX, kind == OPEN_TX ? &world->far : NULL);
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
    if (world->far >= 0)
        close(world->far);
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

/* Reads both ends of every piece of memory, of which no peer may have taken the file. */
static void touch(const mach_msg_header_t *message) {
    mach_msg_descriptor_t *descriptor = mio_descriptor_first((void *)(uintptr_t)(message + 1));
    for (unsigned i = mio_descriptor_count(message + 1); i > 0; i--) {
        const mach_msg_ool_descriptor_t *memory = &descriptor->out_of_line;
        bool is_memory = descriptor->type.type == MACH_MSG_OOL_DESCRIPTOR ||
                         descriptor->type.type == MACH_MSG_OOL_VOLATILE_DESCRIPTOR;
        if (is_memory && memory->size > 0) {
            const volatile uint8_t *bytes = memory->address;
            (void)bytes[0];
            (void)bytes[memory->size - 1];
        }
        descriptor = mio_descriptor_next(descriptor);
    }
}

/* As a task receives: everything in a message becomes the task's, and is given back. */
static void receive_all(mach_port_t name) {
    static _Alignas(8) uint8_t room[1 << 16];
    mach_msg_header_t *message = (mach_msg_header_t *)(void *)room;
    const mach_msg_option_t options = MACH_RCV_MSG | MACH_RCV_TIMEOUT | MACH_RCV_GUARDED_DESC;
    mach_msg_return_t mr;
    do {
        mr = mach_msg(message, options, 0, sizeof room, name, 0, 0);
        if (mr == MACH_MSG_SUCCESS && message->msgh_bits & MACH_MSGH_BITS_COMPLEX)
            touch(message);
        if (mr == MACH_MSG_SUCCESS || mr & MACH_MSG_MASK)
            mach_msg_destroy(message);
    } while (mr != MACH_RCV_TIMED_OUT);
}

static void send_frame(int to, const uint8_t *data, unsigned nfds, const uint8_t *frame,
                       size_t size) {
    struct world world = {.far = -1};
    int fds[FDS];
    memset(world.fds, -1, sizeof world.fds);
    for (unsigned i = 0; i < nfds; i++)
        fds[i] = make(&world, data[1 + i] % KINDS, frame, size);
    if (size > 0)
        mio_wire_transmit(to, frame, size, fds, nfds);
    unmake(&world);
}

static mach_port_t port_of_task(int *ret_tx) {
    mach_port_t name;
    if (mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &name) != KERN_SUCCESS)
        die("no port");
    mio_lock();
    struct mio_port *port = mio_space_lookup(name)->port;
    if (mio_channel_open(port) != KERN_SUCCESS)
        die("no channel");
    *ret_tx = port->tx;
    mio_unlock();
    return name;
}

/* What the layer opens at first use and keeps. */
static void warm_up(void) {
    static bool warm;
    int tx;
    if (warm)
        return;
    warm = true;
    mio_lock();
    if (mio_task.null < 0)
        mio_task.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    mio_notice_open();
    mio_unlock();
    mach_port_t name = port_of_task(&tx);
    receive_all(name);
    mach_port_mod_refs(mach_task_self(), name, MACH_PORT_RIGHT_RECEIVE, -1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int pair[2], tx;
    unsigned nfds = size > 0 ? data[0] % FDS : 0;
    bool as_task = size > 0 && data[0] >= FDS;
    if (size < 1 + nfds || size - 1 - nfds > MIO_WIRE_FRAME_MAX)
        return -1;
    const uint8_t *frame = data + 1 + nfds;
    size -= 1 + nfds;
    warm_up();
    int before = lowest();
    if (as_task) {
        mach_port_t name = port_of_task(&tx);
        mio_lock();
        send_frame(tx, data, nfds, frame, size);
        mio_unlock();
        receive_all(name);
        mach_port_mod_refs(mach_task_self(), name, MACH_PORT_RIGHT_RECEIVE, -1);
        mio_lock();
    } else {
        mio_lock();
        if (mio_pair(pair) != 0)
            die("no pair");
        mio_pair_receiver(pair[0]);
        send_frame(pair[1], data, nfds, frame, size);
        receive(pair[0]);
        close(pair[0]);
        close(pair[1]);
    }
    check_lowest(before);
    mio_unlock();
    return 0;
}
