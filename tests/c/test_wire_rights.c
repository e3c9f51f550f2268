/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Rights that leave the task, come home, or come from elsewhere.
 */
#include "wire_peer.h"

#include <poll.h>

/* ---- send rights ------------------------------------------------------------------------- */

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

TEST(both_rights_of_a_port_may_come_at_once) {
    for (int receive_first = 0; receive_first < 2; receive_first++) {
        struct foreign peer;
        begin();
        make_foreign(&peer);
        struct raw raw = raw_complex(2);
        raw.rights[1] = raw_send_right(&raw, &peer);
        raw.rights[2] = raw_receive_right(&raw, &peer);
        raw.rights[2].fd[1] = raw.rights[1].fd[0]; /* one descriptor, in both */
        raw.fds[3] = peer.cw;
        raw.rights[2].fd[2] = 3;
        raw.head.nfds = (uint16_t)(raw.nfds = 4);
        if (receive_first) {
            struct mio_wire_right first = raw.rights[1];
            raw.rights[1] = raw.rights[2], raw.rights[2] = first;
        }
        transmit(out, &raw);
        struct mio_kmsg *kmsg = receive_message(in);
        struct mio_port *port = kmsg->rights[0].port;
        CHECK(kmsg->rights[1].port == port);
        CHECK_EQ(port->state, MIO_PORT_LOCAL);
        raw = raw_complex(1); /* and one more */
        raw.rights[1] = raw_send_right(&raw, &peer);
        transmit(out, &raw);
        struct mio_kmsg *later = receive_message(in);
        CHECK(later->rights[0].port == port);
        mio_kmsg_destroy(later);
        mio_kmsg_destroy(kmsg);
        close_foreign(&peer);
        end();
    }
}

/* ---- send-once rights -------------------------------------------------------------------- */

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

/* Its holder is still there: he must not put in what it would cost to throw away. */
TEST(a_home_that_got_its_message_takes_no_more) {
    bool shortage;
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_kmsg *kmsg = message(1, 0);
    kmsg->reply = once_right(port);
    struct mio_once *once = kmsg->reply.once;
    CHECK_EQ(mio_wire_send(out, kmsg, 0), MIO_WIRE_OK);
    mio_kmsg_free(kmsg);
    int home = dup(once->source.fd);
    int taken = take_descriptor(in);
    send_ok(taken, message(2, 0), MIO_FRAME_ONCE | MIO_FRAME_NO_CREDIT);
    kmsg = mio_port_dequeue(port, &shortage);
    CHECK_EQ(kmsg->id, 2);
    mio_once_free(kmsg->dest.once);
    mio_kmsg_free(kmsg);
    CHECK_EQ(send(taken, "x", 1, MSG_NOSIGNAL), -1);
    close(taken);
    close(home);
    mio_port_destroy(port);
    end();
}

/* ---- receive rights ---------------------------------------------------------------------- */

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
    mio_port_check_senders(port, MIO_NOW);
    CHECK(told->head != NULL);
    CHECK_EQ(told->head->id, MACH_NOTIFY_NO_SENDERS);
    mio_kmsg_destroy(kmsg);
    mio_port_destroy(told);
    end();
}

/* Its port is gone, but until it fires a request counts. */
TEST(a_request_of_a_dead_port_moves_with_the_right) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL), *told = mio_port_new(MIO_PORT_LOCAL);
    port->no_senders = once_right(told).once;
    port->destroyed = once_right(told).once;
    mio_port_destroy(told);
    struct mio_kmsg *kmsg = message(9, 1);
    kmsg->rights[0] = receive_right(port);
    send_ok(out, kmsg, 0);
    kmsg = receive_message(in);
    port = kmsg->rights[0].port;
    CHECK_EQ(port->no_senders->state, MIO_ONCE_DEAD);
    CHECK_EQ(port->destroyed->state, MIO_ONCE_DEAD);
    mio_kmsg_destroy(kmsg);
    end();
}

TEST(messages_to_send_once_rights_are_counted_after_a_move) {
    begin();
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    enqueue(port, 1, false, once_right(port));
    enqueue(port, 2, false, once_right(port));
    struct mio_kmsg *kmsg = message(9, 1);
    kmsg->rights[0] = receive_right(port);
    send_ok(out, kmsg, 0);
    kmsg = receive_message(in);
    port = kmsg->rights[0].port;
    CHECK_EQ(port->once_frames, 2);
    CHECK(!mio_port_has_senders(port)); /* such a message holds no send right */
    for (unsigned left = 2; left-- > 0;) {
        bool shortage;
        mio_kmsg_destroy(mio_port_dequeue(port, &shortage));
        CHECK_EQ(port->once_frames, left);
    }
    mio_kmsg_destroy(kmsg);
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

CHECK_MAIN()
