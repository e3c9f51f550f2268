/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of the wire share: a peer made by hand, and a socket to test with.
 *
 * One process plays both sides. What "another task" sends is made here from raw sockets and
 * pipes; what this task sends to itself comes home, which is a path of its own. The tests call
 * the layer's inner functions with its lock held, as the layer does: each TEST() is between
 * begin() and end(), and end() checks that no descriptor is left over.
 */
#ifndef MACHIO_TESTS_WIRE_PEER_H
#define MACHIO_TESTS_WIRE_PEER_H

#include "check.h"
#include "frames.h"
#include "wire.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <time.h>

/* ---- a peer made by hand ----------------------------------------------------------------- */

/* A port as another task would make it. */
struct foreign {
    int rx, tx, cr, cw;
};

static inline void make_foreign_as(struct foreign *ret, char kind, bool named, bool deaf) {
    struct sockaddr_un name;
    int fds[2];
    ino_t pipe;
    CHECK_EQ(mio_pair(fds), 0);
    ret->rx = fds[0], ret->tx = fds[1];
    CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    ret->cr = fds[0], ret->cw = fds[1];
    CHECK(mio_pipe_inode(ret->cw, O_WRONLY, &pipe));
    mio_pair_receiver(ret->rx);
    if (deaf)
        shutdown(ret->tx, SHUT_RD);
    if (named) {
        socklen_t length = mio_channel_name(&name, kind, mio_socket_cookie(ret->rx), pipe);
        CHECK_EQ(bind(ret->rx, (struct sockaddr *)&name, length), 0);
    }
}

static inline void make_foreign(struct foreign *ret) {
    make_foreign_as(ret, 'p', true, true);
}

static inline void close_foreign(struct foreign *port) {
    int fds[] = {port->rx, port->tx, port->cr, port->cw};
    for (int i = 0; i < 4; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* A frame under construction. */
struct raw {
    struct mio_wire_head head;
    struct mio_wire_right rights[4];
    struct mio_wire_receive receives[2];
    uint32_t body[64];
    size_t body_size;
    int fds[16];
    unsigned nfds;
};

static inline struct raw raw_simple(void) {
    return (struct raw){
        .head = {.magic = MIO_WIRE_MAGIC,
                 .version = MIO_WIRE_VERSION,
                 .kind = MIO_FRAME_MESSAGE,
                 .size = 32,
                 .id = 77,
                 .nrights = 1},
        .rights = {{.fd = {0xffff, 0xffff, 0xffff}}, {.fd = {0xffff, 0xffff, 0xffff}}},
        .body = {1, 2},
        .body_size = 8,
    };
}

/* With room for n rights in descriptors. */
static inline struct raw raw_complex(unsigned n) {
    struct raw raw = raw_simple();
    raw.head.flags = MIO_HEAD_COMPLEX;
    raw.head.nrights = (uint16_t)(1 + n);
    raw.body_size = 4 + 12 * n;
    memset(raw.body, 0, sizeof raw.body);
    raw.body[0] = n;
    raw.head.size = (uint32_t)(24 + raw.body_size);
    return raw;
}

static inline uint16_t raw_fd(struct raw *raw, int fd) {
    raw->fds[raw->nfds] = fd;
    raw->head.nfds = (uint16_t)(raw->nfds + 1);
    return (uint16_t)raw->nfds++;
}

static inline struct mio_wire_right raw_send_right(struct raw *raw, const struct foreign *port) {
    return (struct mio_wire_right){.kind = MIO_RIGHT_SEND,
                                   .fd = {raw_fd(raw, port->tx), raw_fd(raw, port->cr), 0xffff}};
}

static inline struct mio_wire_right raw_receive_right(struct raw *raw, const struct foreign *port) {
    raw->receives[raw->head.nreceives] = (struct mio_wire_receive){
        .qlimit = 5, .issued = 5, .no_senders = 0xffff, .destroyed = 0xffff};
    return (struct mio_wire_right){
        .kind = MIO_RIGHT_RECEIVE,
        .fd = {raw_fd(raw, port->rx), raw_fd(raw, port->tx), raw_fd(raw, port->cw)},
        .extra = raw->head.nreceives++};
}

static inline size_t raw_bytes(const struct raw *raw, uint8_t *ret) {
    size_t rights = raw->head.nrights * sizeof raw->rights[0], length = sizeof raw->head;
    size_t receives = raw->head.nreceives * sizeof raw->receives[0];
    memcpy(ret, &raw->head, sizeof raw->head);
    memcpy(ret + length, raw->rights, rights), length += rights;
    memcpy(ret + length, raw->receives, receives), length += receives;
    memcpy(ret + length, raw->body, raw->body_size);
    return length + raw->body_size;
}

static inline void transmit(int fd, const struct raw *raw) {
    uint8_t bytes[1024];
    size_t length = raw_bytes(raw, bytes);
    CHECK_EQ(mio_wire_transmit(fd, bytes, length, raw->fds, raw->nfds), MIO_WIRE_OK);
}

/* ---- a socket to test with --------------------------------------------------------------- */

static int in, out; /* frames that go into `out` come out of `in` */
static int files;

static inline void begin(void) {
    int fds[2];
    mio_lock();
    if (mio_task.null < 0) /* what the layer opens at first use and keeps */
        mio_task.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (mio_task.notice < 0)
        mio_task.notice = epoll_create1(EPOLL_CLOEXEC);
    files = check_fd_count();
    CHECK_EQ(mio_pair(fds), 0);
    in = fds[0], out = fds[1];
    mio_pair_receiver(in);
}

/* Rejected files may be closed by another thread. */
static inline void wait_for_files(int count) {
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 5000 && check_fd_count() != count; i++) {
        mio_unlock();
        nanosleep(&pause, NULL);
        mio_lock();
    }
    CHECK_FDS(count);
}

static inline void end(void) {
    if (in >= 0)
        close(in);
    close(out);
    wait_for_files(files);
    mio_unlock();
}

static unsigned last_kind, last_flags;

static inline struct mio_kmsg *receive(int fd) {
    struct mio_kmsg *kmsg = NULL;
    CHECK_EQ(mio_wire_receive(fd, &kmsg, &last_kind, &last_flags), MIO_WIRE_OK);
    CHECK_EQ(kmsg != NULL, last_kind == MIO_FRAME_MESSAGE);
    return kmsg;
}

static inline struct mio_kmsg *receive_message(int fd) {
    struct mio_kmsg *kmsg = receive(fd);
    CHECK_EQ(last_kind, MIO_FRAME_MESSAGE);
    return kmsg;
}

static inline void is_dropped(const struct raw *raw) {
    transmit(out, raw);
    CHECK(receive(in) == NULL);
    CHECK_EQ(last_kind, MIO_FRAME_BAD);
}

static inline struct mio_kmsg *message(mach_msg_id_t id, unsigned nrights) {
    mach_msg_size_t size = nrights > 0 ? 28 + 12 * nrights : 32;
    struct mio_kmsg *kmsg = mio_kmsg_new(size, nrights);
    CHECK(kmsg != NULL);
    memset(kmsg->body, 0, size - 24);
    memcpy(kmsg->body, &nrights, sizeof nrights);
    kmsg->complex = nrights > 0;
    kmsg->id = id;
    return kmsg;
}

static inline void send_ok(int fd, struct mio_kmsg *kmsg, unsigned flags) {
    CHECK_EQ(mio_wire_send(fd, kmsg, flags), MIO_WIRE_OK);
    CHECK_EQ(kmsg->reply.kind, MIO_RIGHT_NULL);
    for (unsigned i = 0; i < kmsg->nrights; i++)
        CHECK_EQ(kmsg->rights[i].kind, MIO_RIGHT_NULL);
    mio_kmsg_free(kmsg);
}

static inline struct mio_right send_right(struct mio_port *port) {
    mio_port_ref(port);
    port->srights++;
    return (struct mio_right){.kind = MIO_RIGHT_SEND, .disposition = 17, .port = port};
}

static inline struct mio_right once_right(struct mio_port *port) {
    struct mio_once *once = mio_once_new(port);
    CHECK(once != NULL);
    return (struct mio_right){.kind = MIO_RIGHT_ONCE, .disposition = 18, .once = once};
}

static inline struct mio_right receive_right(struct mio_port *port) {
    return (struct mio_right){.kind = MIO_RIGHT_RECEIVE, .disposition = 16, .port = port};
}

#endif
