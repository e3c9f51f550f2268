/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Messages as frames, the queue limit as credits, and what happens without descriptors.
 */
#include "wire_peer.h"

#include <signal.h>
#include <sys/resource.h>

/* ---- messages ---------------------------------------------------------------------------- */

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
    static const mach_msg_size_t sizes[] = {24,   28,    3640,   3660,   3664,   3668,
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

/* ---- credits ----------------------------------------------------------------------------- */

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

static int credits_in(struct mio_port *port) {
    int taken = 0;
    while (mio_credit_take(port) == MIO_CREDIT_TAKEN)
        taken++;
    for (int i = 0; i < taken; i++)
        mio_credit_return(port, true);
    return taken;
}

/* One that sends without taking gains a limit's worth for a while, and no more. */
TEST(nobody_mints_credits) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_right right = send_right(port);
    CHECK_EQ(mio_channel_open(port), KERN_SUCCESS);
    for (int i = 0; i < 1000; i++)
        mio_credit_return(port, true); /* for messages that had none */
    CHECK(credits_in(port) <= 2 * 5);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(mio_credit_take(port), MIO_CREDIT_TAKEN);
        mio_credit_return(port, true);
    }
    CHECK_EQ(credits_in(port), 5);
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

/* ---- a shortage of descriptors ----------------------------------------------------------- */

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

/* The layer has not seen the numbers that the program took. */
TEST(nor_when_others_took_the_descriptors) {
    struct rlimit limit, low;
    struct foreign peer;
    struct mio_kmsg *kmsg;
    unsigned kind, flags;
    static int taken[2048];
    int n = 0;
    begin();
    make_foreign(&peer);
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_send_right(&raw, &peer);
    transmit(out, &raw);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = 2048;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    while ((taken[n] = dup(0)) >= 0)
        n++;
    CHECK_EQ(mio_wire_receive(in, &kmsg, &kind, &flags), MIO_WIRE_SHORTAGE);
    while (n > 0)
        close(taken[--n]);
    mio_kmsg_destroy(receive_message(in));
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    close_foreign(&peer);
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

CHECK_MAIN()
