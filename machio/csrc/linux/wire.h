/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The frame: what one task sends another (docs/linux-wire.md), and what channel.c, identity.c,
 * wire.c, encode.c, decode.c and contents.c share. Both sides are processes of one machine, so all
 * integers are in its byte order. A frame is
 *
 *   struct mio_wire_head
 *   struct mio_wire_right    x nrights, the reply right first
 *   struct mio_wire_receive  x nreceives
 *   the message's body, unless it is in a memfd
 */
#ifndef MACHIO_LINUX_WIRE_H
#define MACHIO_LINUX_WIRE_H

#include "internal.h"

#include <assert.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MIO_WIRE_MAGIC UINT32_C(0x6863616d) /* "mach" */
#define MIO_WIRE_VERSION 4
#define MIO_WIRE_FDS 253u      /* SCM_MAX_FD */
#define MIO_WIRE_RIGHTS 16384u /* the reply right and as many descriptors as Mach allows */
#define MIO_WIRE_RECEIVES MIO_WIRE_RIGHTS
#define MIO_WIRE_FDS_MAX (MIO_WIRE_FDS * MIO_WIRE_FDS)
#define MIO_WIRE_INLINE 3700u       /* a whole frame of that size costs the kernel one page */
#define MIO_WIRE_SIZE_MAX 50331580u /* of msgh_size */
#define MIO_WIRE_NO_FD UINT16_C(0xffff)
#define MIO_WIRE_NOBODY 65534u /* the sender is not known */

/* mio_wire_head.flags */
enum {
    MIO_HEAD_COMPLEX = 1,
    MIO_HEAD_NO_CREDIT = 2,
    MIO_HEAD_ONCE = 4,     /* the destination was a send-once right */
    MIO_HEAD_MEMFD = 8,    /* the body is in the last descriptor, or the one before the heap */
    MIO_HEAD_RELAYED = 16, /* not from the process that the kernel names */
    MIO_HEAD_BUNDLES = 32, /* the descriptors are in bundles: bundle.c */
    MIO_HEAD_HEAP = 64,    /* the out-of-line memory is in the last descriptor */
    MIO_HEAD_KNOWN = MIO_HEAD_COMPLEX | MIO_HEAD_NO_CREDIT | MIO_HEAD_ONCE | MIO_HEAD_MEMFD |
        MIO_HEAD_RELAYED | MIO_HEAD_BUNDLES | MIO_HEAD_HEAP,
};

/* One more flag of mio_wire_send, for messages that were queued here when their port moved. */
enum { MIO_FRAME_RELAYED = 4 };

struct mio_wire_head {
    uint32_t magic;
    uint16_t version;
    uint8_t kind; /* MIO_FRAME_MESSAGE, _NUDGE, _DROPPED */
    uint8_t flags;
    uint32_t size; /* msgh_size */
    int32_t id;
    uint32_t voucher;
    uint16_t nrights;
    uint16_t nreceives;
    uint16_t nfds;
    uint16_t reserved;
};

/* One more kind of right, in frames only: a send right to a file port. */
enum { MIO_WIRE_FILE = MIO_RIGHT_RECEIVE + 1 };

/* kind is an enum mio_right_kind, or the above: its values are part of the format. */
struct mio_wire_right {
    uint8_t kind;
    uint8_t disposition;
    uint16_t fd[3]; /* SEND: tx, cr. ONCE, FILE: tx. RECEIVE: rx, tx, cw. Others: MIO_WIRE_NO_FD */
    uint16_t extra; /* RECEIVE: which struct mio_wire_receive */
    uint16_t reserved;
};

/* mio_wire_receive.flags */
enum {
    MIO_RECEIVE_SENDERS_SEEN = 1,
    MIO_RECEIVE_NO_SENDERS = 2, /* a request is armed, though its port may be dead */
    MIO_RECEIVE_DESTROYED = 4,
    MIO_RECEIVE_KNOWN = MIO_RECEIVE_SENDERS_SEEN | MIO_RECEIVE_NO_SENDERS | MIO_RECEIVE_DESTROYED,
};

struct mio_wire_receive {
    uint32_t qlimit;
    uint32_t issued;
    uint32_t once_frames;            /* in its socket: messages that came by send-once rights */
    uint16_t once_first, once_count; /* the home ends of its send-once rights, in a row */
    uint16_t no_senders, destroyed;  /* armed requests: send-once rights, or MIO_WIRE_NO_FD */
    uint32_t flags;
};

static_assert(sizeof(struct mio_wire_head) == 28, "part of the format");
static_assert(sizeof(struct mio_wire_right) == 12, "part of the format");
static_assert(sizeof(struct mio_wire_receive) == 24, "part of the format");
static_assert(MIO_RIGHT_NULL == 0 && MIO_RIGHT_DEAD == 1 && MIO_RIGHT_SEND == 2 &&
                  MIO_RIGHT_ONCE == 3 && MIO_RIGHT_RECEIVE == 4,
              "part of the format");

#define MIO_WIRE_FRAME_MAX                                                            \
    (sizeof(struct mio_wire_head) + MIO_WIRE_RIGHTS * sizeof(struct mio_wire_right) + \
     MIO_WIRE_RECEIVES * sizeof(struct mio_wire_receive) + MIO_WIRE_INLINE)

/* What recvmsg() gave. Whoever holds it owns the descriptors that are not -1. */
struct mio_wire_input {
    const uint8_t *frame; /* static memory: gone with the next mio_wire_receive() */
    size_t length;
    unsigned nfds;
    int *fds; /* few, or allocated: those of bundles */
    int few[MIO_WIRE_FDS];
    struct mio_sender sender;
    uint64_t stamp;
};

/* ---- identity.c -------------------------------------------------------------------------- */

/* The abstract name of a port's receiving socket. */
socklen_t mio_channel_name(struct sockaddr_un *ret, char kind, uint64_t cookie, ino_t pipe);
/* The inode of a pipe made by pipe(); false for any other file. access: O_RDONLY or O_WRONLY. */
bool mio_pipe_inode(int fd, int access, ino_t *ret_inode);
bool mio_new_pipe_inode(int fd, ino_t *ret_inode); /* of one that was made here */
bool mio_pipe_is(int fd, ino_t inode);             /* whether it is that one, by whichever end */

/* ---- channel.c --------------------------------------------------------------------------- */

/* Lets a local port's socket hold that many messages, as far as the system allows. */
void mio_channel_widen(struct mio_port *port, unsigned messages);

/* ---- wire.c ------------------------------------------------------------------------------ */

/* One frame and its descriptors into a socket. Ownership: everything stays the caller's. */
enum mio_wire_result mio_wire_transmit(int fd, const void *frame, size_t length, const int *fds,
                                       unsigned nfds);

/*
 * What the first datagram in a bundle carries; it stays there. SHORTAGE: not enough free numbers;
 * GONE: that is no bundle. Ownership: on MIO_WIRE_OK the descriptors are the input's.
 */
enum mio_wire_result mio_wire_look(int fd, struct mio_wire_input *input);
/* Discards all descriptors that are left in an input. */
void mio_wire_input_clear(struct mio_wire_input *input);

/* ---- bundle.c ---------------------------------------------------------------------------- */

/* A socket with one datagram in its queue, the mark and these descriptors, and no other end: nobody
 * can add anything. -1, errno kept. Ownership: the socket is the caller's. */
int mio_bundle_new(char mark, const int *fds, unsigned nfds);

/*
 * Where the index of a descriptor among many stands, or is to be written: MIO_WIRE_NO_FD until
 * then. *begun: false the first time for a frame.
 */
uint16_t *mio_bundles_place(const int *fds, unsigned nfds, int fd, bool *begun);
/* As mio_wire_transmit, for more than MIO_WIRE_FDS descriptors; MIO_HEAD_BUNDLES is set. */
enum mio_wire_result mio_bundles_send(int fd, const void *frame, size_t length, const int *fds,
                                      unsigned nfds);
/*
 * What came are bundles: the nfds descriptors in them take their place. SHORTAGE: they do not fit
 * now; GONE: they are not what they should be. Ownership: without MIO_WIRE_OK the input is as it
 * was.
 */
enum mio_wire_result mio_bundles_open(struct mio_wire_input *input, unsigned nfds);

/* ---- contents.c ---------------------------------------------------------------------------- */

/*
 * Whether a complete body of head->size, header excluded, agrees with the frame's records and its
 * heap (-1: none). Names, addresses and guards in its descriptors are blanked.
 */
bool mio_wire_check_body(const struct mio_wire_head *head, const uint8_t *rights, int heap,
                         uint8_t *body);

/* ---- decode.c ---------------------------------------------------------------------------- */

/*
 * The message in a frame; NULL if anything is wrong with it. Ownership: consumes the descriptors
 * in either case.
 */
struct mio_kmsg *mio_wire_decode(struct mio_wire_input *input);

#endif
