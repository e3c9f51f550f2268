/*
 * The wire: channel.c, identity.c, encode.c, decode.c, wire.c.
 *
 * One process plays both sides. What "another task" sends is made here by hand from raw sockets
 * and pipes, or by a forked child; what this task sends to itself comes home, which is a path of
 * its own. The tests call the layer's inner functions with its lock held, as the layer does.
 *
 * After each test no descriptor may be left over.
 */
#include "check.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

/* ---- a peer made by hand ------------------------------------------------------------------------- */

/* A port as another task would make it. */
struct foreign {
    int rx, tx, cr, cw;
};

static void make_foreign_as(struct foreign *ret, char kind, bool named, bool deaf) {
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

static void make_foreign(struct foreign *ret) {
    make_foreign_as(ret, 'p', true, true);
}

static void close_foreign(struct foreign *port) {
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

static struct raw raw_simple(void) {
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
static struct raw raw_complex(unsigned n) {
    struct raw raw = raw_simple();
    raw.head.flags = MIO_HEAD_COMPLEX;
    raw.head.nrights = (uint16_t)(1 + n);
    raw.body_size = 4 + 12 * n;
    memset(raw.body, 0, sizeof raw.body);
    raw.body[0] = n;
    raw.head.size = (uint32_t)(24 + raw.body_size);
    return raw;
}

static uint16_t raw_fd(struct raw *raw, int fd) {
    raw->fds[raw->nfds] = fd;
    raw->head.nfds = (uint16_t)(raw->nfds + 1);
    return (uint16_t)raw->nfds++;
}

static struct mio_wire_right raw_send_right(struct raw *raw, const struct foreign *port) {
    return (struct mio_wire_right){
        .kind = MIO_RIGHT_SEND, .fd = {raw_fd(raw, port->tx), raw_fd(raw, port->cr), 0xffff}};
}

static struct mio_wire_right raw_receive_right(struct raw *raw, const struct foreign *port) {
    raw->receives[raw->head.nreceives] = (struct mio_wire_receive){
        .qlimit = 5, .issued = 5, .no_senders = 0xffff, .destroyed = 0xffff};
    return (struct mio_wire_right){
        .kind = MIO_RIGHT_RECEIVE,
        .fd = {raw_fd(raw, port->rx), raw_fd(raw, port->tx), raw_fd(raw, port->cw)},
        .extra = raw->head.nreceives++};
}

static size_t raw_bytes(const struct raw *raw, uint8_t *ret) {
    size_t rights = raw->head.nrights * sizeof raw->rights[0], length = sizeof raw->head;
    size_t receives = raw->head.nreceives * sizeof raw->receives[0];
    memcpy(ret, &raw->head, sizeof raw->head);
    memcpy(ret + length, raw->rights, rights), length += rights;
    memcpy(ret + length, raw->receives, receives), length += receives;
    memcpy(ret + length, raw->body, raw->body_size);
    return length + raw->body_size;
}

static void transmit(int fd, const struct raw *raw) {
    uint8_t bytes[1024];
    size_t length = raw_bytes(raw, bytes);
    CHECK_EQ(mio_wire_transmit(fd, bytes, length, raw->fds, raw->nfds), MIO_WIRE_OK);
}

/* ---- a socket to test with ----------------------------------------------------------------------- */

static int in, out; /* frames that go into `out` come out of `in` */
static int files;

static void begin(void) {
    int fds[2];
    mio_lock();
    struct mio_once *warm = mio_once_new(NULL); /* the table of sources, /dev/null, and the like */
    mio_once_free(warm);
    mio_task.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    files = check_fd_count();
    CHECK_EQ(mio_pair(fds), 0);
    in = fds[0], out = fds[1];
    mio_pair_receiver(in);
}

/* Rejected files may be closed by another thread. */
static void end(void) {
    const struct timespec pause = {.tv_nsec = 1000000};
    if (in >= 0)
        close(in);
    close(out);
    for (int i = 0; i < 5000 && check_fd_count() != files; i++) {
        mio_unlock();
        nanosleep(&pause, NULL);
        mio_lock();
    }
    CHECK_FDS(files);
    mio_unlock();
}

static unsigned last_kind, last_flags;

static struct mio_kmsg *receive(int fd) {
    struct mio_kmsg *kmsg = NULL;
    CHECK_EQ(mio_wire_receive(fd, &kmsg, &last_kind, &last_flags), MIO_WIRE_OK);
    CHECK_EQ(kmsg != NULL, last_kind == MIO_FRAME_MESSAGE);
    return kmsg;
}

static struct mio_kmsg *receive_message(int fd) {
    struct mio_kmsg *kmsg = receive(fd);
    CHECK_EQ(last_kind, MIO_FRAME_MESSAGE);
    return kmsg;
}

static void is_dropped(const struct raw *raw) {
    transmit(out, raw);
    CHECK(receive(in) == NULL);
    CHECK_EQ(last_kind, MIO_FRAME_BAD);
}

static struct mio_kmsg *message(mach_msg_id_t id, unsigned nrights) {
    mach_msg_size_t size = nrights > 0 ? 28 + 12 * nrights : 32;
    struct mio_kmsg *kmsg = mio_kmsg_new(size, nrights);
    CHECK(kmsg != NULL);
    memset(kmsg->body, 0, size - 24);
    memcpy(kmsg->body, &nrights, sizeof nrights);
    kmsg->complex = nrights > 0;
    kmsg->id = id;
    return kmsg;
}

static void send_ok(int fd, struct mio_kmsg *kmsg, unsigned flags) {
    CHECK_EQ(mio_wire_send(fd, kmsg, flags), MIO_WIRE_OK);
    CHECK_EQ(kmsg->reply.kind, MIO_RIGHT_NULL);
    for (unsigned i = 0; i < kmsg->nrights; i++)
        CHECK_EQ(kmsg->rights[i].kind, MIO_RIGHT_NULL);
    mio_kmsg_free(kmsg);
}

static struct mio_right send_right(struct mio_port *port) {
    mio_port_ref(port);
    port->srights++;
    return (struct mio_right){.kind = MIO_RIGHT_SEND, .disposition = 17, .port = port};
}

static struct mio_right once_right(struct mio_port *port) {
    struct mio_once *once = mio_once_new(port);
    CHECK(once != NULL);
    return (struct mio_right){.kind = MIO_RIGHT_ONCE, .disposition = 18, .once = once};
}

static struct mio_right receive_right(struct mio_port *port) {
    return (struct mio_right){.kind = MIO_RIGHT_RECEIVE, .disposition = 16, .port = port};
}

/* ---- messages ------------------------------------------------------------------------------------ */

TEST(a_message_crosses_as_it_is) {
    begin();
    struct mio_kmsg *kmsg = message(1234, 0);
    memcpy(kmsg->body, "8 bytes.", 8);
    kmsg->voucher = 99;
    kmsg->reply.disposition = 17;
    uint64_t before = mio_now();
    send_ok(out, kmsg, MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT);
    kmsg = receive_message(in);
    CHECK_EQ(last_flags, MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT);
    CHECK_EQ(kmsg->id, 1234);
    CHECK_EQ(kmsg->size, 32);
    CHECK_EQ(kmsg->voucher, 99);
    CHECK(!kmsg->complex);
    CHECK_EQ(kmsg->nrights, 0);
    CHECK_EQ(kmsg->reply.kind, MIO_RIGHT_NULL);
    CHECK_EQ(kmsg->reply.disposition, 17);
    CHECK_MEM(kmsg->body, "8 bytes.", 8);
    CHECK_EQ(kmsg->sender.pid, getpid());
    CHECK_EQ(kmsg->sender.uid, getuid());
    CHECK_EQ(kmsg->sender.gid, getgid());
    CHECK(!kmsg->sender.kernel);
    CHECK(kmsg->stamp >= before && kmsg->stamp <= mio_now());
    mio_kmsg_destroy(kmsg);
    end();
}

TEST(bodies_of_every_size_cross) {
    static const mach_msg_size_t sizes[] = {24,   28,    3640,   3660,   3664,     3668,
                                            3700, 65536, 262144, 999996, 4 << 20};
    begin();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct mio_kmsg *kmsg = mio_kmsg_new(sizes[i], 0);
        for (size_t k = 0; k < sizes[i] - 24; k++)
            kmsg->body[k] = (uint8_t)(k * 7 + i);
        send_ok(out, kmsg, 0);
        kmsg = receive_message(in);
        CHECK_EQ(kmsg->size, sizes[i]);
        for (size_t k = 0; k < sizes[i] - 24; k++)
            if (kmsg->body[k] != (uint8_t)(k * 7 + i))
                CHECK(!"the same bytes");
        mio_kmsg_destroy(kmsg);
    }
    end();
}

TEST(dead_and_null_rights_keep_their_dispositions) {
    begin();
    struct mio_kmsg *kmsg = message(1, 3);
    kmsg->reply = (struct mio_right){.kind = MIO_RIGHT_DEAD, .disposition = 18};
    kmsg->rights[0] = (struct mio_right){.kind = MIO_RIGHT_NULL, .disposition = 16};
    kmsg->rights[1] = (struct mio_right){.kind = MIO_RIGHT_DEAD, .disposition = 17};
    kmsg->rights[2] = (struct mio_right){.kind = MIO_RIGHT_NULL, .disposition = 55};
    CHECK_EQ(mio_wire_send(out, kmsg, 0), MIO_WIRE_OK);
    mio_kmsg_free(kmsg);
    kmsg = receive_message(in);
    CHECK_EQ(kmsg->reply.kind, MIO_RIGHT_DEAD);
    CHECK_EQ(kmsg->reply.disposition, 18);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_NULL);
    CHECK_EQ(kmsg->rights[0].disposition, 16);
    CHECK_EQ(kmsg->rights[1].kind, MIO_RIGHT_DEAD);
    CHECK_EQ(kmsg->rights[2].disposition, 0);
    mio_kmsg_destroy(kmsg);
    end();
}

TEST(names_do_not_leave_the_task) {
    uint8_t frame[256];
    begin();
    struct mio_kmsg *kmsg = message(1, 1);
    kmsg->rights[0].kind = MIO_RIGHT_DEAD;
    memset(kmsg->body + 4, 0xee, 4);
    CHECK_EQ(mio_wire_send(out, kmsg, 0), MIO_WIRE_OK);
    mio_kmsg_free(kmsg);
    ssize_t n = recv(in, frame, sizeof frame, MSG_DONTWAIT);
    CHECK(n > 0);
    CHECK(memchr(frame, 0xee, (size_t)n) == NULL);
    end();
}

TEST(signals_are_frames_without_a_message) {
    begin();
    mio_wire_signal(out, MIO_FRAME_NUDGE);
    mio_wire_signal(out, MIO_FRAME_DROPPED);
    CHECK(mio_wire_peek_stamp(in) != 0);
    CHECK(receive(in) == NULL);
    CHECK_EQ(last_kind, MIO_FRAME_NUDGE);
    CHECK(receive(in) == NULL);
    CHECK_EQ(last_kind, MIO_FRAME_DROPPED);
    CHECK_EQ(mio_wire_peek_stamp(in), 0);
    end();
}

TEST(nothing_there_is_not_end_of_file) {
    struct mio_kmsg *kmsg;
    unsigned kind, flags;
    begin();
    CHECK_EQ(mio_wire_receive(in, &kmsg, &kind, &flags), MIO_WIRE_FULL);
    CHECK_EQ(send(out, "", 0, MSG_NOSIGNAL), 0);
    CHECK(mio_wire_peek_stamp(in) != 0);
    CHECK(receive(in) == NULL);
    CHECK_EQ(last_kind, MIO_FRAME_BAD);
    CHECK_EQ(mio_wire_receive(in, &kmsg, &kind, &flags), MIO_WIRE_FULL);
    shutdown(out, SHUT_WR);
    CHECK_EQ(mio_wire_receive(in, &kmsg, &kind, &flags), MIO_WIRE_GONE);
    CHECK_EQ(mio_wire_peek_stamp(in), 0);
    end();
}

TEST(a_send_to_nobody_is_gone_and_keeps_the_message) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_kmsg *kmsg = message(1, 1);
    kmsg->reply = once_right(port);
    kmsg->rights[0] = send_right(port);
    close(in);
    in = -1;
    CHECK_EQ(mio_wire_send(out, kmsg, 0), MIO_WIRE_GONE);
    CHECK_EQ(kmsg->reply.kind, MIO_RIGHT_ONCE);
    CHECK_EQ(kmsg->reply.once->state, MIO_ONCE_LOCAL);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_SEND);
    CHECK_EQ(port->srights, 1);
    mio_kmsg_destroy(kmsg);
    CHECK_EQ(port->srights, 0);
    mio_port_destroy(port);
    end();
}

TEST(a_full_socket_takes_no_rights) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    while (send(out, "x", 1, MSG_DONTWAIT) == 1)
        ;
    struct mio_kmsg *kmsg = message(1, 1);
    kmsg->rights[0] = once_right(port);
    CHECK_EQ(mio_wire_send(out, kmsg, 0), MIO_WIRE_FULL);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_ONCE);
    mio_kmsg_destroy(kmsg);
    mio_port_destroy(port);
    end();
}

TEST(more_descriptors_than_fit_are_a_shortage) {
    static struct mio_port *ports[130];
    begin();
    struct mio_kmsg *kmsg = message(1, 130);
    for (unsigned i = 0; i < 130; i++) {
        ports[i] = mio_port_new(MIO_PORT_LOCAL);
        kmsg->rights[i] = send_right(ports[i]);
    }
    CHECK_EQ(mio_wire_send(out, kmsg, 0), MIO_WIRE_SHORTAGE);
    for (unsigned i = 0; i < 130; i++)
        CHECK_EQ(ports[i]->srights, 1);
    mio_kmsg_destroy(kmsg);
    for (unsigned i = 0; i < 130; i++)
        mio_port_destroy(ports[i]);
    end();
}

/* ---- send rights --------------------------------------------------------------------------------- */

TEST(a_right_to_a_foreign_port_is_one_object) {
    struct foreign peer;
    begin();
    make_foreign(&peer);
    struct raw raw = raw_complex(2);
    raw.rights[1] = raw_send_right(&raw, &peer);
    raw.rights[2] = raw.rights[1]; /* the same descriptors */
    transmit(out, &raw);
    raw = raw_complex(1);
    raw.rights[0] = raw_send_right(&raw, &peer); /* another copy of them */
    raw.rights[1].kind = MIO_RIGHT_NULL;
    transmit(out, &raw);
    struct mio_kmsg *first = receive_message(in), *second = receive_message(in);
    struct mio_port *port = first->rights[0].port;
    CHECK_EQ(first->rights[0].kind, MIO_RIGHT_SEND);
    CHECK_EQ(first->rights[0].disposition, 17);
    CHECK_EQ(port->state, MIO_PORT_REMOTE);
    CHECK(first->rights[1].port == port);
    CHECK(second->reply.port == port);
    CHECK_EQ(port->srights, 3);
    CHECK_EQ(port->cookie, mio_socket_cookie(peer.tx));

    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_NONE);
    CHECK_EQ(write(peer.cw, "xx", 2), 2);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
    send_ok(port->tx, message(5, 0), 0);
    struct mio_kmsg *arrived = receive_message(peer.rx);
    CHECK_EQ(arrived->id, 5);
    mio_kmsg_destroy(arrived);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
    close(peer.cw);
    peer.cw = -1;
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_DEAD);
    mio_kmsg_destroy(first);
    mio_kmsg_destroy(second);
    close_foreign(&peer);
    end();
}

TEST(a_dead_port_arrives_dead) {
    struct foreign peer;
    begin();
    make_foreign(&peer);
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_send_right(&raw, &peer);
    transmit(out, &raw);
    close_foreign(&peer);
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_DEAD);
    CHECK_EQ(kmsg->rights[0].disposition, 17);
    mio_kmsg_destroy(kmsg);
    end();
}

TEST(a_send_right_comes_home) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_kmsg *kmsg = message(1, 2);
    kmsg->rights[0] = send_right(port);
    kmsg->rights[1] = send_right(port);
    send_ok(out, kmsg, 0);
    CHECK_EQ(port->srights, 0);
    CHECK(port->cookie != 0);
    CHECK_EQ(port->cr.fd, -1); /* only the one in flight is left */
    CHECK(mio_port_has_senders(port));
    kmsg = receive_message(in);
    CHECK(kmsg->rights[0].port == port && kmsg->rights[1].port == port);
    CHECK_EQ(port->srights, 2);
    mio_kmsg_destroy(kmsg);
    CHECK_EQ(port->srights, 0);
    CHECK(!mio_port_has_senders(port));
    mio_port_destroy(port);
    end();
}

/* ---- credits ------------------------------------------------------------------------------------- */

TEST(credits_follow_the_queue_limit) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_right right = send_right(port);
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_NONE);
    CHECK_EQ(mio_channel_depth(port), 5);
    mio_credit_set_limit(port, 2);
    mio_credit_return(port, true);
    mio_credit_return(port, true);
    mio_credit_return(port, true);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_NONE); /* withheld: two are still out */
    mio_credit_return(port, true);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
    mio_credit_set_limit(port, 1024);
    for (int i = 0; i < 1022; i++)
        CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_NONE);
    mio_credit_recover(port); /* all were lost */
    CHECK_EQ(mio_channel_depth(port), 0);
    mio_credit_set_limit(port, 0);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_NONE);
    mio_right_destroy(&right);
    mio_port_destroy(port);
    end();
}

TEST(nobody_mints_credits) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_right right = send_right(port);
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    for (int i = 0; i < 100; i++)
        mio_credit_return(port, true); /* for messages that had none */
    for (int i = 0; i < 5; i++)
        CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_NONE);
    mio_right_destroy(&right);
    mio_port_destroy(port);
    end();
}

TEST(a_credit_for_nobody_raises_no_signal) {
    sigset_t pending;
    begin();
    signal(SIGPIPE, SIG_DFL);
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
    mio_source_close(&port->cr);
    mio_credit_return(port, true);
    sigpending(&pending);
    CHECK(!sigismember(&pending, SIGPIPE));
    for (int i = 0; i < 5; i++)
        CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN); /* it came with the new reader */
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_NONE);
    mio_port_destroy(port);
    end();
}

TEST(a_blocking_pipe_does_not_block) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    fcntl(port->cr.fd, F_SETFL, 0);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_NONE);
    mio_port_destroy(port);
    end();
}

/* ---- send-once rights ---------------------------------------------------------------------------- */

TEST(a_send_once_right_leaves_and_comes_home) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_kmsg *kmsg = message(1, 0);
    kmsg->reply = once_right(port);
    struct mio_once *once = kmsg->reply.once;
    send_ok(out, kmsg, 0);
    CHECK_EQ(once->state, MIO_ONCE_EXPORTED);
    CHECK_EQ(port->sorights, 1);
    kmsg = receive_message(in);
    CHECK(kmsg->reply.once == once);
    CHECK_EQ(kmsg->reply.disposition, 18);
    CHECK_EQ(once->state, MIO_ONCE_LOCAL);
    CHECK_EQ(once->cookie, 0);
    CHECK_EQ(port->sorights, 1);
    mio_once_free(once);
    kmsg->reply.kind = MIO_RIGHT_NULL;
    mio_kmsg_destroy(kmsg);
    CHECK_EQ(port->sorights, 0);
    mio_port_destroy(port);
    end();
}

TEST(a_foreign_send_once_right_carries_one_message) {
    int pair[2];
    begin();
    CHECK_EQ(mio_pair(pair), 0);
    shutdown(pair[0], SHUT_RD);
    mio_pair_receiver(pair[1]);
    struct raw raw = raw_simple();
    raw.rights[0] = (struct mio_wire_right){.kind = MIO_RIGHT_ONCE,
                                            .fd = {raw_fd(&raw, pair[0]), 0xffff, 0xffff}};
    transmit(out, &raw);
    close(pair[0]);
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_EQ(kmsg->reply.kind, MIO_RIGHT_ONCE);
    CHECK_EQ(kmsg->reply.once->state, MIO_ONCE_REMOTE);
    CHECK(!mio_once_is_dead(kmsg->reply.once));
    send_ok(kmsg->reply.once->source.fd, message(8, 0), MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT);
    mio_once_free(kmsg->reply.once);
    kmsg->reply.kind = MIO_RIGHT_NULL;
    mio_kmsg_destroy(kmsg);
    kmsg = receive_message(pair[1]);
    CHECK_EQ(kmsg->id, 8);
    mio_kmsg_destroy(kmsg);
    close(pair[1]);
    end();
}

/* ---- receive rights ------------------------------------------------------------------------------ */

static void enqueue(struct mio_port *port, mach_msg_id_t id, bool counted, struct mio_right dest) {
    struct mio_kmsg *kmsg = message(id, 0);
    kmsg->counted = counted;
    kmsg->dest = dest;
    mio_task_sender(&kmsg->sender);
    mio_port_enqueue(port, kmsg);
}

TEST(a_receive_right_moves_with_its_queue_and_comes_home) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_right kept = send_right(port);
    port->qlimit = 7;
    enqueue(port, 1, true, send_right(port));
    enqueue(port, 2, true, send_right(port));
    enqueue(port, 3, false, once_right(port));
    struct mio_right held = once_right(port); /* the home goes, the right stays */
    struct mio_kmsg *kmsg = message(9, 1);
    kmsg->rights[0] = receive_right(port);
    send_ok(out, kmsg, 0);
    CHECK_EQ(port->state, MIO_PORT_REMOTE);
    CHECK_EQ(port->srights, 1);
    CHECK(port->head == NULL);
    CHECK_EQ(port->queued, 0);
    CHECK_EQ(port->sorights, 0);
    CHECK_EQ(held.once->state, MIO_ONCE_REMOTE);
    CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN); /* as any sender */
    send_ok(port->tx, message(4, 0), 0);

    kmsg = receive_message(in);
    CHECK_EQ(kmsg->id, 9);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_RECEIVE);
    CHECK_EQ(kmsg->rights[0].disposition, 16);
    CHECK(kmsg->rights[0].port == port);
    CHECK_EQ(port->state, MIO_PORT_LOCAL);
    CHECK_EQ(port->qlimit, 7);
    CHECK_EQ(port->sorights, 1);
    CHECK_EQ(mio_channel_depth(port), 3);
    for (int id = 1; id <= 4; id++) {
        struct mio_kmsg *queued = receive_message(port->rx.fd);
        CHECK_EQ(queued->id, id);
        CHECK_EQ(last_flags, id == 3 ? MIO_FRAME_NO_CREDIT | MIO_FRAME_ONCE : 0);
        CHECK_EQ(queued->sender.pid, getpid());
        mio_credit_return(port, id != 3);
        mio_kmsg_destroy(queued);
    }
    CHECK_EQ(mio_channel_depth(port), 0);
    CHECK_EQ(held.once->state, MIO_ONCE_REMOTE); /* it does not know that its home is here */
    send_ok(held.once->source.fd, message(6, 0), MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT);
    mio_once_free(held.once);
    bool shortage;
    struct mio_kmsg *reply = mio_port_dequeue(port, &shortage);
    CHECK(reply != NULL);
    CHECK_EQ(reply->id, 6);
    CHECK_EQ(reply->dest.kind, MIO_RIGHT_ONCE);
    mio_once_free(reply->dest.once);
    reply->dest.kind = MIO_RIGHT_NULL;
    mio_kmsg_destroy(reply);
    CHECK_EQ(port->sorights, 0);
    mio_right_destroy(&kept);
    mio_kmsg_destroy(kmsg); /* and with it the port */
    end();
}

TEST(a_message_that_others_sent_is_not_ours_when_its_port_moves) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    enqueue(port, 1, true, send_right(port));
    port->head->sender = (struct mio_sender){.kernel = true};
    struct mio_kmsg *kmsg = message(9, 1);
    kmsg->rights[0] = receive_right(port);
    send_ok(out, kmsg, 0);
    kmsg = receive_message(in);
    struct mio_kmsg *queued = receive_message(kmsg->rights[0].port->rx.fd);
    CHECK(!queued->sender.kernel);
    CHECK_EQ(queued->sender.uid, MIO_WIRE_NOBODY);
    CHECK_EQ(queued->sender.pid, 0);
    mio_kmsg_destroy(queued);
    mio_kmsg_destroy(kmsg);
    end();
}

TEST(both_ends_of_a_send_once_right_travel) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_kmsg *kmsg = message(9, 1);
    kmsg->reply = once_right(port);
    kmsg->rights[0] = receive_right(port);
    port->no_senders = once_right(port).once;
    port->destroyed = once_right(port).once;
    send_ok(out, kmsg, 0); /* the port is unknown here now */
    kmsg = receive_message(in);
    port = kmsg->rights[0].port;
    CHECK_EQ(port->sorights, 3);
    CHECK_EQ(kmsg->reply.once->state, MIO_ONCE_REMOTE);
    CHECK_EQ(port->no_senders->state, MIO_ONCE_REMOTE);
    CHECK_EQ(port->destroyed->state, MIO_ONCE_REMOTE);
    mio_once_free(port->destroyed); /* or the right would be sent to the port itself */
    port->destroyed = NULL;
    mio_kmsg_destroy(kmsg);
    end();
}

TEST(requests_move_with_the_right) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL), *told = mio_port_new(MIO_PORT_LOCAL);
    struct mio_once *request = port->no_senders = once_right(told).once;
    port->senders_seen = true;
    struct mio_kmsg *kmsg = message(9, 1);
    kmsg->rights[0] = receive_right(port);
    send_ok(out, kmsg, 0);
    CHECK_EQ(request->state, MIO_ONCE_EXPORTED);
    kmsg = receive_message(in);
    port = kmsg->rights[0].port;
    CHECK(port->no_senders == request); /* its port is here */
    CHECK_EQ(request->state, MIO_ONCE_LOCAL);
    CHECK(port->senders_seen);
    mio_port_check_senders(port);
    CHECK(told->head != NULL);
    CHECK_EQ(told->head->id, MACH_NOTIFY_NO_SENDERS);
    mio_kmsg_destroy(kmsg);
    mio_port_destroy(told);
    end();
}

TEST(another_process_gets_the_port) {
    begin();
    mio_unlock();
    pid_t child = fork();
    mio_lock();
    CHECK(child >= 0);
    if (child == 0) {
        struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
        struct mio_kmsg *kmsg = message(9, 2);
        for (int id = 0; id < 300; id++)
            enqueue(port, id, false, once_right(port));
        kmsg->rights[0] = receive_right(port);
        kmsg->rights[1] = send_right(port);
        send_ok(out, kmsg, 0);
        mio_unlock();
        _exit(0);
    }
    struct pollfd wait = {.fd = in, .events = POLLIN};
    CHECK_EQ(poll(&wait, 1, 30000), 1);
    CHECK_CHILD(child);
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_EQ(kmsg->sender.pid, child);
    struct mio_port *port = kmsg->rights[0].port;
    CHECK_EQ(port->state, MIO_PORT_LOCAL);
    CHECK(kmsg->rights[1].port == port);
    for (int id = 0; id < 300; id++) {
        bool shortage;
        struct mio_kmsg *queued = mio_port_dequeue(port, &shortage);
        CHECK(queued != NULL);
        CHECK_EQ(queued->id, id);
        CHECK_EQ(queued->dest.disposition, 18);
        mio_kmsg_destroy(queued);
    }
    mio_kmsg_destroy(kmsg);
    end();
}

TEST(a_chain_of_ports_does_not_exhaust_the_stack) {
    begin();
    struct mio_port *inner = mio_port_new(MIO_PORT_LOCAL);
    for (int i = 0; i < 5000; i++) { /* each in the other's socket */
        struct mio_port *outer = mio_port_new(MIO_PORT_LOCAL);
        struct mio_kmsg *kmsg = message(1, 1);
        CHECK_EQ(mio_channel_open(outer), KERN_SUCCESS);
        kmsg->rights[0] = receive_right(inner);
        if (mio_wire_send(outer->tx, kmsg, MIO_FRAME_NO_CREDIT) != MIO_WIRE_OK) {
            mio_kmsg_destroy(kmsg); /* the kernel's own limit of nesting, or of descriptors */
            inner = outer;
            break;
        }
        mio_kmsg_free(kmsg);
        inner = outer;
    }
    mio_port_destroy(inner);
    end();
}

/* ---- a shortage of descriptors -------------------------------------------------------------------- */

TEST(a_message_is_never_half_received) {
    struct rlimit limit, low;
    struct foreign a, b;
    struct mio_kmsg *kmsg;
    unsigned kind, flags;
    int stuffing[64], n = 0;
    begin();
    make_foreign(&a);
    make_foreign(&b);
    struct raw raw = raw_complex(2);
    raw.rights[1] = raw_send_right(&raw, &a);
    raw.rights[2] = raw_send_right(&raw, &b);
    transmit(out, &raw);
    getrlimit(RLIMIT_NOFILE, &limit);
    low = limit;
    low.rlim_cur = (rlim_t)b.cw + 4; /* at most three more */
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    while (n < 64 && (stuffing[n] = dup(0)) >= 0)
        n++;
    for (int room = 0; room < 4 && n > 0; room++) {
        CHECK_EQ(mio_wire_receive(in, &kmsg, &kind, &flags), MIO_WIRE_SHORTAGE);
        CHECK(mio_wire_peek_stamp(in) != 0);
        close(stuffing[--n]);
    }
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    kmsg = receive_message(in);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_SEND);
    CHECK_EQ(kmsg->rights[1].kind, MIO_RIGHT_SEND);
    mio_kmsg_destroy(kmsg);
    while (n > 0)
        close(stuffing[--n]);
    close_foreign(&a);
    close_foreign(&b);
    end();
}

TEST(looking_first_receives_the_same) {
    struct rlimit limit = {.rlim_cur = 256, .rlim_max = 256};
    struct foreign peer;
    begin();
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    make_foreign(&peer);
    for (int i = 0; i < 100; i++) {
        struct raw raw = raw_complex(1);
        raw.rights[1] = raw_send_right(&raw, &peer);
        transmit(out, &raw);
        struct mio_kmsg *kmsg = receive_message(in);
        CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_SEND);
        mio_kmsg_destroy(kmsg);
    }
    close_foreign(&peer);
    end();
}

TEST(a_peek_at_the_stamp_installs_nothing) {
    struct foreign peer;
    begin();
    make_foreign(&peer);
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_send_right(&raw, &peer);
    transmit(out, &raw);
    int before = check_fd_count(), off = 0;
    uint64_t stamp = mio_wire_peek_stamp(in);
    CHECK(stamp > 1 && stamp <= mio_now());
    setsockopt(in, SOL_SOCKET, SO_TIMESTAMPNS, &off, sizeof off);
    setsockopt(in, SOL_SOCKET, SO_PASSCRED, &off, sizeof off);
    CHECK_EQ(mio_wire_peek_stamp(in), 1); /* something is there */
    CHECK_FDS(before);
    mio_pair_receiver(in);
    struct mio_kmsg *kmsg = receive_message(in);
    mio_kmsg_destroy(kmsg);
    close_foreign(&peer);
    end();
}

/* ---- hostile frames ------------------------------------------------------------------------------- */

/* A frame with everything in it; the descriptors stay the caller's. */
static struct raw raw_rich(const struct foreign *a, const struct foreign *b, const int once[4]) {
    struct raw raw = raw_complex(2);
    raw.rights[0] = (struct mio_wire_right){.kind = MIO_RIGHT_ONCE,
                                            .fd = {raw_fd(&raw, once[0]), 0xffff, 0xffff}};
    raw.rights[1] = raw_send_right(&raw, a);
    raw.rights[2] = raw_receive_right(&raw, b);
    raw.receives[0].once_first = raw_fd(&raw, once[1]);
    raw.receives[0].once_count = 1;
    raw.receives[0].no_senders = raw_fd(&raw, once[2]);
    return raw;
}

struct rich {
    struct foreign a, b;
    int once[4];
};

static void make_rich(struct rich *ret) {
    make_foreign(&ret->a);
    make_foreign(&ret->b);
    for (int i = 0; i < 4; i += 2) {
        CHECK_EQ(mio_pair(ret->once + i), 0);
        shutdown(ret->once[i], SHUT_RD);
    }
}

static void close_rich(struct rich *rich) {
    close_foreign(&rich->a);
    close_foreign(&rich->b);
    for (int i = 0; i < 4; i++)
        close(rich->once[i]);
}

TEST(the_rich_frame_is_good) {
    struct rich rich;
    begin();
    make_rich(&rich);
    struct raw raw = raw_rich(&rich.a, &rich.b, rich.once);
    transmit(out, &raw);
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_EQ(kmsg->rights[1].port->sorights, 1);
    mio_once_free(kmsg->reply.once);
    kmsg->reply.kind = MIO_RIGHT_NULL;
    mio_kmsg_destroy(kmsg);
    close_rich(&rich);
    end();
}

TEST(frames_cut_short_are_dropped) {
    uint8_t bytes[1024];
    struct rich rich;
    begin();
    make_rich(&rich);
    struct raw raw = raw_rich(&rich.a, &rich.b, rich.once);
    size_t length = raw_bytes(&raw, bytes);
    for (size_t cut = 0; cut < length; cut++) {
        CHECK_EQ(mio_wire_transmit(out, bytes, cut, raw.fds, raw.nfds), MIO_WIRE_OK);
        CHECK(receive(in) == NULL);
        CHECK_EQ(last_kind, MIO_FRAME_BAD);
    }
    memset(bytes + length, 0, 4);
    CHECK_EQ(mio_wire_transmit(out, bytes, length + 4, raw.fds, raw.nfds), MIO_WIRE_OK);
    CHECK(receive(in) == NULL);
    close_rich(&rich);
    end();
}

/* Every single byte set to other values: what is accepted must be clean, what is not, dropped. */
TEST(frames_with_one_wrong_byte_leak_nothing) {
    static const uint8_t values[] = {0, 1, 2, 3, 4, 5, 0x7f, 0x80, 0xff};
    uint8_t bytes[1024];
    begin();
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < sizeof values; k++) {
            struct rich rich;
            make_rich(&rich);
            struct raw raw = raw_rich(&rich.a, &rich.b, rich.once);
            size_t length = raw_bytes(&raw, bytes);
            if (i < length) {
                bytes[i] = values[k];
                CHECK_EQ(mio_wire_transmit(out, bytes, length, raw.fds, raw.nfds), MIO_WIRE_OK);
                struct mio_kmsg *kmsg = receive(in);
                if (kmsg != NULL)
                    mio_kmsg_destroy(kmsg);
            }
            close_rich(&rich);
        }
    }
    end();
}

TEST(frames_of_random_bytes_leak_nothing) {
    uint8_t bytes[1024];
    unsigned seed = 12345;
    begin();
    for (int round = 0; round < 3000; round++) {
        struct rich rich;
        make_rich(&rich);
        struct raw raw = raw_rich(&rich.a, &rich.b, rich.once);
        size_t length = raw_bytes(&raw, bytes);
        for (int changes = 1 + rand_r(&seed) % 6; changes > 0; changes--) {
            size_t at = 8 + (size_t)rand_r(&seed) % (length - 8);
            bytes[at] = (uint8_t)(rand_r(&seed) % 2 ? rand_r(&seed) % 12 : rand_r(&seed));
        }
        for (unsigned i = raw.nfds - 1; i > 0 && rand_r(&seed) % 2; i--) {
            unsigned other = (unsigned)rand_r(&seed) % (i + 1);
            int fd = raw.fds[i];
            raw.fds[i] = raw.fds[other], raw.fds[other] = fd;
        }
        unsigned nfds = rand_r(&seed) % 4 ? raw.nfds : (unsigned)rand_r(&seed) % (raw.nfds + 1);
        CHECK_EQ(mio_wire_transmit(out, bytes, length, raw.fds, nfds), MIO_WIRE_OK);
        struct mio_kmsg *kmsg = receive(in);
        if (kmsg != NULL)
            mio_kmsg_destroy(kmsg);
        close_rich(&rich);
    }
    end();
}

TEST(descriptors_must_be_what_they_are_said_to_be) {
    struct foreign peer, strangers;
    char path[] = "/tmp/machio-wire-XXXXXX";
    begin();
    make_foreign(&peer);
    make_foreign(&strangers);
    int wrong[] = {
        peer.rx,
        peer.cw,
        strangers.tx,
        strangers.cr,
        open("/dev/null", O_RDWR | O_CLOEXEC),
        open("/", O_PATH | O_CLOEXEC),
        mkstemp(path),
        memfd_create("m", MFD_CLOEXEC),
        socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
        socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0),
        mio_task.null,
    };
    int count = sizeof wrong / sizeof *wrong;
    for (int i = 0; i < count; i++) {
        CHECK(wrong[i] >= 0);
        struct raw raw = raw_complex(1);
        struct foreign mixed = {.tx = peer.tx, .cr = wrong[i]};
        raw.rights[1] = raw_send_right(&raw, &mixed);
        is_dropped(&raw);
        raw = raw_complex(1);
        mixed = (struct foreign){.tx = wrong[i], .cr = peer.cr};
        raw.rights[1] = raw_send_right(&raw, &mixed);
        is_dropped(&raw);
        raw = raw_simple();
        raw.rights[0] = (struct mio_wire_right){.kind = MIO_RIGHT_ONCE,
                                                .fd = {raw_fd(&raw, wrong[i]), 0xffff, 0xffff}};
        is_dropped(&raw);
        for (int part = 0; part < 3; part++) {
            mixed = peer;
            *(part == 0 ? &mixed.rx : part == 1 ? &mixed.tx : &mixed.cw) = wrong[i];
            if (memcmp(&mixed, &peer, sizeof peer) == 0)
                continue;
            raw = raw_complex(1);
            raw.rights[1] = raw_receive_right(&raw, &mixed);
            is_dropped(&raw);
        }
    }
    for (int i = 4; i < count - 1; i++)
        close(wrong[i]);
    unlink(path);
    close_foreign(&peer);
    close_foreign(&strangers);
    end();
}

TEST(a_fifo_is_not_a_credit_pipe) {
    struct foreign peer, mixed;
    char dir[] = "/tmp/machio-wire-XXXXXX", path[64];
    begin();
    make_foreign(&peer);
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/fifo", dir);
    CHECK_EQ(mkfifo(path, 0600), 0);
    mixed = peer;
    mixed.cr = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CHECK(mixed.cr >= 0);
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_send_right(&raw, &mixed);
    is_dropped(&raw);
    close(mixed.cr);
    unlink(path);
    rmdir(dir);
    close_foreign(&peer);
    end();
}

TEST(ports_that_are_not_made_properly_are_dropped) {
    begin();
    for (int i = 0; i < 3; i++) { /* without a name, open for reading, of no known kind */
        struct foreign peer;
        make_foreign_as(&peer, i == 2 ? 'x' : 'p', i != 0, i != 1);
        struct raw raw = raw_complex(1);
        raw.rights[1] = raw_send_right(&raw, &peer);
        is_dropped(&raw);
        raw = raw_complex(1);
        raw.rights[1] = raw_receive_right(&raw, &peer);
        is_dropped(&raw);
        close_foreign(&peer);
    }
    end();
}

TEST(a_receive_right_that_is_here_or_comes_twice_is_a_lie) {
    struct foreign peer, copy;
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    struct foreign mine = {.rx = port->rx.fd, .tx = port->tx, .cr = port->cr.fd, .cw = port->cw.fd};
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_receive_right(&raw, &mine);
    is_dropped(&raw);
    CHECK_EQ(port->state, MIO_PORT_LOCAL);
    mio_port_destroy(port);

    make_foreign(&peer);
    copy = (struct foreign){dup(peer.rx), dup(peer.tx), dup(peer.cr), dup(peer.cw)};
    raw = raw_complex(2);
    raw.rights[1] = raw_receive_right(&raw, &peer);
    raw.rights[2] = raw_receive_right(&raw, &copy);
    is_dropped(&raw);
    close_foreign(&copy);
    close_foreign(&peer);
    end();
}

TEST(bodies_in_files_are_verified) {
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    begin();
    for (int variant = 0; variant < 6; variant++) {
        int fd = memfd_create("m", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        struct raw raw = raw_simple();
        CHECK_EQ(ftruncate(fd, variant == 1 ? 8 : variant == 2 ? 20000 : 10000), 0);
        CHECK_EQ(fcntl(fd, F_ADD_SEALS, variant == 3 ? all & ~F_SEAL_WRITE : all), 0);
        raw.head.flags = MIO_HEAD_MEMFD;
        raw.head.size = variant == 4 ? 60000000 : 24 + 10000;
        raw.body_size = variant == 5 ? 8 : 0;
        raw_fd(&raw, fd);
        if (variant == 0) {
            transmit(out, &raw);
            mio_kmsg_destroy(receive_message(in));
        } else {
            is_dropped(&raw);
        }
        close(fd);
    }
    end();
}

TEST(descriptors_in_bodies_are_verified) {
    begin();
    for (int variant = 0; variant < 5; variant++) {
        struct raw raw = raw_complex(1);
        raw.rights[1].kind = MIO_RIGHT_DEAD;
        if (variant == 0)
            raw.body[0] = 2;
        else if (variant == 1)
            raw.body[3] = 1u << 24; /* an out-of-line descriptor */
        else if (variant == 2)
            raw.head.flags = 0;
        else if (variant == 3)
            raw.body_size = 8, raw.head.size = 32;
        else
            raw.head.version = 2;
        is_dropped(&raw);
    }
    struct raw raw = raw_complex(1);
    raw.rights[1].kind = MIO_RIGHT_DEAD;
    raw.body[1] = 0xbad;
    transmit(out, &raw);
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_MEM(kmsg->body + 4, "\0\0\0\0", 4);
    mio_kmsg_destroy(kmsg);
    end();
}

TEST(a_lingering_socket_does_not_stall) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    struct linger linger = {.l_onoff = 1, .l_linger = 20};
    struct timespec before, after;
    static char data[1 << 20];
    begin();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(listen(listener, 1), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    while (send(client, data, sizeof data, MSG_DONTWAIT) > 0)
        ;
    setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    int pair[2];
    CHECK_EQ(mio_pair(pair), 0); /* in a socket, in a frame */
    struct raw raw = raw_simple();
    raw_fd(&raw, client);
    transmit(pair[0], &raw);
    close(client);
    raw = raw_simple();
    raw_fd(&raw, pair[1]);
    transmit(out, &raw);
    close(pair[0]);
    close(pair[1]);
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(receive(in) == NULL);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK(after.tv_sec - before.tv_sec < 5);
    close(listener); /* the connection is reset: whoever waits there need not any more */
    end();
}

CHECK_MAIN()
