/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Messages with more descriptors than one SCM_RIGHTS carries.
 */
#include "faults.h"
#include "wire_peer.h"

#include <sys/resource.h>

#define MOST 600u /* six files each, and a bare Linux lets a process have 4,096 */

static struct mio_port *ports[MOST];

static struct mio_kmsg *loaded(unsigned n) {
    struct mio_kmsg *kmsg = message(1, n);
    for (unsigned i = 0; i < n; i++) {
        ports[i] = mio_port_new(MIO_PORT_LOCAL);
        CHECK(ports[i] != NULL);
        kmsg->rights[i] = send_right(ports[i]);
    }
    return kmsg;
}

static void check_arrived(struct mio_kmsg *kmsg, unsigned n) {
    CHECK_EQ(kmsg->nrights, n);
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(kmsg->rights[i].kind, MIO_RIGHT_SEND);
        CHECK(kmsg->rights[i].port == ports[i]);
        CHECK_EQ(ports[i]->srights, 1);
    }
    mio_kmsg_destroy(kmsg);
}

static void destroy_ports(unsigned n) {
    for (unsigned i = 0; i < n; i++)
        mio_port_destroy(ports[i]);
}

/* ---- what crosses -------------------------------------------------------------------------- */

TEST(messages_on_either_side_of_the_boundaries_cross) {
    static const unsigned counts[] = {1, 126, 127, 252, 253, 254, MOST};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        begin();
        send_ok(out, loaded(counts[i]), 0);
        check_arrived(receive_message(in), counts[i]);
        destroy_ports(counts[i]);
        end();
    }
}

TEST(a_right_is_in_the_frame_once_however_many_there_are) {
    begin();
    struct mio_kmsg *kmsg = loaded(300);
    struct mio_kmsg *more = message(2, 900);
    for (unsigned i = 0; i < 900; i++)
        more->rights[i] = send_right(ports[i % 300]);
    mio_kmsg_destroy(kmsg);
    send_ok(out, more, 0);
    CHECK_EQ(ports[299]->srights, 0);
    more = receive_message(in);
    for (unsigned i = 0; i < 900; i++)
        CHECK(more->rights[i].port == ports[i % 300]);
    CHECK_EQ(ports[299]->srights, 3);
    mio_kmsg_destroy(more);
    destroy_ports(300);
    end();
}

TEST(receive_rights_in_numbers_keep_their_messages) {
    begin();
    struct mio_kmsg *kmsg = message(3, 200);
    for (unsigned i = 0; i < 200; i++) {
        ports[i] = mio_port_new(MIO_PORT_LOCAL);
        CHECK_EQ(mio_channel_open(ports[i]), KERN_SUCCESS);
        struct mio_kmsg *inner = message((mach_msg_id_t)i, 0);
        send_ok(ports[i]->tx, inner, 0);
        kmsg->rights[i] = receive_right(ports[i]);
    }
    send_ok(out, kmsg, 0);
    kmsg = receive_message(in);
    for (unsigned i = 0; i < 200; i++) {
        bool shortage;
        CHECK_EQ(kmsg->rights[i].kind, MIO_RIGHT_RECEIVE);
        struct mio_kmsg *inner = mio_port_dequeue(kmsg->rights[i].port, &shortage);
        CHECK_EQ(inner->id, (mach_msg_id_t)i);
        mio_kmsg_destroy(inner);
    }
    mio_kmsg_destroy(kmsg);
    mio_reap();
    end();
}

/* ---- shortages: all or nothing ------------------------------------------------------------- */

TEST(a_send_that_fails_anywhere_keeps_every_right) {
    static const struct {
        enum fault_call call;
        int error;
    } cases[] = {
        {FAULT_SENDMSG, ETOOMANYREFS}, {FAULT_SENDMSG, ENOBUFS}, {FAULT_SOCKETPAIR, EMFILE}};
    for (size_t i = 0; i < 3; i++) {
        begin();
        struct mio_kmsg *kmsg = loaded(300);
        for (unsigned k = 0; k < 300; k++) /* the pairs of the ports are made */
            CHECK_EQ(mio_channel_open(ports[k]), KERN_SUCCESS);
        for (int nth = 1;; nth++) {
            fault_arm(cases[i].call, cases[i].error, nth);
            enum mio_wire_result result = mio_wire_send(out, kmsg, 0);
            if (!fault_fired()) {
                CHECK_EQ(result, MIO_WIRE_OK);
                CHECK(nth >= 4); /* 3 bundles; an announcement, whose fate is of no interest; it */
                break;
            }
            if (result == MIO_WIRE_OK)
                break; /* only the announcement was lost */
            CHECK_EQ(result, MIO_WIRE_SHORTAGE);
            for (unsigned k = 0; k < 300; k++)
                CHECK_EQ(ports[k]->srights, 1);
        }
        mio_kmsg_free(kmsg);
        check_arrived(receive_message(in), 300);
        destroy_ports(300);
        end();
    }
}

/* An announcement, the frame, and three bundles are looked at: each look may fail. */
TEST(a_receive_that_fails_anywhere_keeps_the_message) {
    static const int errors[] = {ENOMEM, EINTR};
    for (size_t i = 0; i < 2; i++) {
        int fired = 0;
        bool queued = false, failed = true;
        begin();
        for (int nth = 1; failed; nth++) {
            struct mio_kmsg *kmsg = NULL;
            unsigned kind, flags;
            if (!queued)
                send_ok(out, loaded(300), 0);
            int before = check_fd_count();
            fault_arm(FAULT_RECVMSG, errors[i], nth);
            enum mio_wire_result result = mio_wire_receive(in, &kmsg, &kind, &flags);
            failed = fault_fired();
            fired += failed;
            queued = result != MIO_WIRE_OK;
            if (queued) {
                CHECK_EQ(result, MIO_WIRE_SHORTAGE);
                CHECK(failed && errors[i] == ENOMEM);
                wait_for_files(before);
            } else {
                check_arrived(kmsg, 300);
                destroy_ports(300);
            }
        }
        CHECK(fired >= 4); /* the announcement need not be looked at again */
        end();
    }
}

/* Takes all free numbers but some. */
static int stuffing[4096], stuffed;

static void stuff_up_to(rlim_t room) {
    while (stuffed < 4096 && (stuffing[stuffed] = dup(out)) >= 0)
        stuffed++;
    CHECK(stuffed < 4096 && (rlim_t)stuffed > room);
    while (room-- > 0)
        close(stuffing[--stuffed]);
}

static void make_room(unsigned n) {
    while (n-- > 0 && stuffed > 0)
        close(stuffing[--stuffed]);
}

static rlim_t limit_files(rlim_t most) {
    struct rlimit limit;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = most;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    return before;
}

static int highest_open(void) {
    int highest = 0;
    for (int fd = 0; fd < 8192; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            highest = fd;
    return highest;
}

TEST(a_large_message_is_never_half_received) {
    struct mio_kmsg *kmsg;
    unsigned kind, flags, n = 150;
    begin();
    send_ok(out, loaded(n), 0);
    rlim_t before = limit_files((rlim_t)highest_open() + 500);
    stuff_up_to(30);
    for (int tries = 0; tries < 15; tries++) {
        CHECK_EQ(mio_wire_receive(in, &kmsg, &kind, &flags), MIO_WIRE_SHORTAGE);
        make_room(n / 10); /* 2 n are needed, and the sockets */
    }
    make_room(n);
    check_arrived(receive_message(in), n);
    make_room(4096);
    limit_files(before);
    destroy_ports(n);
    end();
}

/* So many numbers are free that the layer takes a frame off without a look, unless announced. */
TEST(nor_one_that_comes_as_a_surprise) {
    struct mio_kmsg *kmsg;
    unsigned kind, flags;
    begin();
    send_ok(out, loaded(MOST), 0);
    rlim_t highest = (rlim_t)highest_open(), before = limit_files(highest + 2);
    stuff_up_to(0);
    limit_files(highest + 1100); /* two descriptors are needed for each right */
    for (int tries = 0; tries < 3; tries++)
        CHECK_EQ(mio_wire_receive(in, &kmsg, &kind, &flags), MIO_WIRE_SHORTAGE);
    limit_files(before);
    check_arrived(receive_message(in), MOST);
    make_room(4096);
    destroy_ports(MOST);
    end();
}

TEST(what_a_task_can_never_hold_is_dropped) {
    begin();
    send_ok(out, loaded(300), 0);
    rlim_t before = limit_files(500);
    CHECK(receive(in) == NULL);
    CHECK_EQ(last_kind, MIO_FRAME_BAD);
    limit_files(before);
    destroy_ports(300);
    end();
}

/* ---- peers that lie ------------------------------------------------------------------------ */

#define RIGHTS 130u /* 260 descriptors: two bundles */

struct large {
    struct mio_wire_head head;
    struct mio_wire_right rights[1 + RIGHTS];
    uint32_t body[1 + 3 * RIGHTS];
};

static struct large large;

/* Rights to one foreign port, again and again, each with descriptors of its own. */
static void make_large(void) {
    large = (struct large){
        .head = {.magic = MIO_WIRE_MAGIC,
                 .version = MIO_WIRE_VERSION,
                 .kind = MIO_FRAME_MESSAGE,
                 .flags = MIO_HEAD_COMPLEX | MIO_HEAD_BUNDLES,
                 .size = 24 + sizeof large.body,
                 .nrights = 1 + RIGHTS,
                 .nfds = 2 * RIGHTS},
        .rights = {{.fd = {0xffff, 0xffff, 0xffff}}},
        .body = {RIGHTS},
    };
    for (uint16_t i = 0; i < RIGHTS; i++)
        large.rights[1 + i] = (struct mio_wire_right){
            .kind = MIO_RIGHT_SEND, .fd = {(uint16_t)(2 * i), (uint16_t)(2 * i + 1), 0xffff}};
}

static int bundle_of(const struct foreign *peer, unsigned nfds) {
    int fds[MIO_WIRE_FDS], pair[2];
    for (unsigned i = 0; i < nfds; i++)
        fds[i] = i % 2 == 0 ? peer->tx : peer->cr;
    CHECK_EQ(mio_pair(pair), 0);
    CHECK_EQ(mio_wire_transmit(pair[1], "", 1, fds, nfds), MIO_WIRE_OK);
    close(pair[1]);
    return pair[0];
}

static void send_large(const int *fds, unsigned nfds) {
    CHECK_EQ(mio_wire_transmit(out, &large, sizeof large, fds, nfds), MIO_WIRE_OK);
}

static void large_is_dropped(int first, int second) {
    send_large((int[]){first, second}, 2);
    CHECK(receive(in) == NULL);
    CHECK_EQ(last_kind, MIO_FRAME_BAD);
}

TEST(bundles_must_be_what_they_are_said_to_be) {
    struct foreign peer;
    int pipe_fds[2], stream[2], empty[2], on = 1;
    begin();
    make_foreign(&peer);
    make_large();
    CHECK_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream), 0);
    CHECK_EQ(mio_pair(empty), 0);
    /* The descriptors of the second bundle begin with a pipe: 253 is odd. */
    struct foreign turned = {.tx = peer.cr, .cr = peer.tx};
    int full = bundle_of(&peer, MIO_WIRE_FDS), rest = bundle_of(&turned, 7);
    int less = bundle_of(&turned, 6), fuller = bundle_of(&turned, 8);
    int wrong = bundle_of(&peer, 7), passing = bundle_of(&turned, 7);
    int unconnected = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int inet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    send_large((int[]){full, rest}, 2);
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_EQ(kmsg->nrights, RIGHTS);
    CHECK_EQ(kmsg->rights[RIGHTS - 1].port->srights, RIGHTS);
    mio_kmsg_destroy(kmsg);

    large_is_dropped(rest, full);
    large_is_dropped(full, full);
    large_is_dropped(full, less);
    large_is_dropped(full, fuller);
    large_is_dropped(full, wrong);
    large_is_dropped(full, empty[0]); /* would block for ever, if it could */
    large_is_dropped(full, stream[0]);
    large_is_dropped(full, pipe_fds[0]);
    large_is_dropped(full, unconnected);
    large_is_dropped(full, inet);
    large_is_dropped(full, peer.rx);
    large_is_dropped(full, mio_task.null);
    setsockopt(passing, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    setsockopt(passing, SOL_SOCKET, SO_PEEK_OFF, &on, sizeof on);
    large_is_dropped(full, passing); /* its one byte was looked at already */
    for (int i = 0; i < 4; i++) {
        make_large();
        large.head.nfds = (uint16_t[]){2, MIO_WIRE_FDS, 2 * RIGHTS + 1, 0xffff}[i];
        large_is_dropped(full, rest);
    }
    make_large();
    send_large((int[]){full}, 1);
    CHECK(receive(in) == NULL);
    large.head.flags = MIO_HEAD_COMPLEX;
    large_is_dropped(full, rest);

    int made[] = {full, rest,        less,        fuller,    wrong,     passing,  unconnected,
                  inet, pipe_fds[0], pipe_fds[1], stream[0], stream[1], empty[0], empty[1]};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        close(made[i]);
    close_foreign(&peer);
    end();
}

TEST(one_bundle_is_not_many) {
    struct foreign peer;
    struct mio_wire_input input = {.fds = input.few};
    begin();
    make_foreign(&peer);
    int one = bundle_of(&peer, MIO_WIRE_FDS), other = bundle_of(&peer, MIO_WIRE_FDS);
    for (int same = 0; same < 2; same++) {
        input.few[0] = dup(one), input.few[1] = dup(same ? one : other), input.nfds = 2;
        CHECK_EQ(mio_bundles_open(&input, 2 * MIO_WIRE_FDS), same ? MIO_WIRE_GONE : MIO_WIRE_OK);
        CHECK_EQ(input.nfds, same ? 2 : 2 * MIO_WIRE_FDS);
        mio_wire_input_clear(&input);
    }
    close(one);
    close(other);
    close_foreign(&peer);
    end();
}

TEST(announcements_are_free) {
    begin();
    for (int i = 0; i < 100; i++)
        mio_wire_signal(out, MIO_FRAME_ANNOUNCED);
    send_ok(out, message(5, 0), 0);
    for (int i = 0; i < 50; i++) { /* by twos: the second is none that is expected */
        struct mio_kmsg *kmsg = receive(in);
        CHECK(kmsg == NULL);
        CHECK_EQ(last_kind, MIO_FRAME_BAD);
    }
    struct mio_kmsg *kmsg = receive_message(in);
    CHECK_EQ(kmsg->id, 5);
    mio_kmsg_destroy(kmsg);
    end();
}

CHECK_MAIN()
