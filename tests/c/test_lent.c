/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Send-once rights that other tasks hold, few and many: those of many are looked at all at once,
 * and nobody must notice. Each test but the last is run on both sides of the difference.
 */
#include "faults.h"
#include "kqueues.h"
#include "tasks.h"

#include <fcntl.h>
#include <pthread.h>

#define MANY 40

static const int sizes[] = {1, MIO_FEW_ONCES, MIO_FEW_ONCES + 1, MANY};

#define EACH_SIZE(N) for (unsigned size = 0; size < 4 && ((N) = sizes[size], true); size++)

static int held[MANY];

static void lend(mach_port_t port, int n) {
    for (int i = 0; i < n; i++)
        held[i] = lend_once(port);
}

/* What they send out of order comes in the order in which it was sent. */
static void use_all(int n) {
    for (int i = n - 1; i >= 0; i--)
        use_once(held[i], i);
}

static void check_crowd(mach_port_t name, bool there) {
    mio_lock();
    CHECK_EQ(mio_space_lookup(name)->port->crowd.fd >= 0, there);
    mio_unlock();
}

static mach_port_status_t status_of(mach_port_t name) {
    mach_port_status_t status;
    mach_msg_type_number_t count = MACH_PORT_RECEIVE_STATUS_COUNT;
    CHECK_EQ(mach_port_get_attributes(SELF, name, MACH_PORT_RECEIVE_STATUS,
                                      (mach_port_info_t)&status, &count),
             KERN_SUCCESS);
    return status;
}

/* A port; the files are counted after what the thread and the task open once and keep. */
static mach_port_t set_up(int *ret_files) {
    mach_port_t port = new_port();
    struct message none;
    int kq = kqueue();
    CHECK_EQ(change_port(kq, port, EV_ADD), 0);
    send_id(port, 0);
    check_event(kq, port, EV_ADD, port);
    receive_from(port, port, 0);
    close(kq);
    mio_lock();
    if (mio_task.null < 0)
        mio_task.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    mio_unlock();
    set_limit(port, MACH_PORT_QLIMIT_MAX);
    CHECK_EQ(receive(port, &none, 1), MACH_RCV_TIMED_OUT);
    *ret_files = check_fd_count();
    return port;
}

static void receive_all(mach_port_t name, mach_port_t port, int n) {
    for (int i = n - 1; i >= 0; i--)
        receive_from(name, port, i);
    check_empty(name);
}

/* ---- one task, one thread ------------------------------------------------------------------ */

TEST(messages_come_in_the_order_in_which_they_were_sent) {
    int n, files;
    EACH_SIZE(n) {
        mach_port_t port = set_up(&files);
        lend(port, n);
        check_crowd(port, n > (int)MIO_FEW_ONCES);
        CHECK_EQ(status_of(port).mps_sorights, (unsigned)n);
        use_all(n);
        CHECK_EQ(status_of(port).mps_msgcount, (unsigned)n);
        receive_all(port, port, n);
        CHECK_EQ(status_of(port).mps_sorights, 0);
        CHECK_FDS(files);
        destroy_port(port);
    }
}

TEST(and_among_those_that_came_otherwise) {
    int n, files;
    EACH_SIZE(n) {
        mach_port_t port = set_up(&files);
        lend(port, n);
        for (int i = 0; i < n; i++) {
            send_id(port, 3 * i);
            use_once(held[i], 3 * i + 1);
            send_wire(port, 3 * i + 2);
            if (i == n / 2)
                receive_from(port, port, 0); /* some are known to be there, the others not */
        }
        for (int i = 1; i < 3 * n; i++)
            receive_from(port, port, i);
        check_empty(port);
        destroy_port(port);
        CHECK_FDS(files);
    }
}

TEST(rights_that_their_holders_take_along_are_told_last) {
    int n, files;
    EACH_SIZE(n) {
        mach_port_t port = set_up(&files);
        lend(port, n);
        close(held[0]);
        for (int i = 1; i < n; i++)
            use_once(held[i], 100 + i);
        for (int i = 1; i < n; i++)
            receive_from(port, port, 100 + i);
        receive_from(port, port, MACH_NOTIFY_SEND_ONCE);
        check_empty(port);
        destroy_port(port);
        CHECK_FDS(files);
    }
}

TEST(a_set_has_what_its_member_has) {
    int n, files;
    EACH_SIZE(n) {
        mach_port_t port = set_up(&files), set = new_set();
        CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
        check_empty(set); /* its watch is made */
        lend(port, n);
        use_all(n);
        receive_all(set, port, n);
        lend(port, n);
        use_all(n);
        receive_from(port, port, n - 1); /* which learns of all of them */
        send_wire(port, MANY);
        for (int i = n - 2; i >= 0; i--)
            receive_from(set, port, i);
        receive_from(set, port, MANY);
        destroy_set(set);
        lend(port, n);
        set = new_set(); /* they are there before it */
        CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
        use_all(n);
        receive_all(set, port, n);
        destroy_set(set);
        destroy_port(port);
        CHECK_FDS(files);
    }
}

/* Level, edge and one shot at a time; the descriptor is readable while there is an event. */
TEST(a_kqueue_has_what_its_port_has) {
    const unsigned kinds[] = {0, EV_CLEAR, EV_DISPATCH};
    int n, files;
    EACH_SIZE(n) {
        for (unsigned kind = 0; kind < 3; kind++) {
            mach_port_t port = set_up(&files);
            int kq = kqueue();
            CHECK_EQ(change_port(kq, port, EV_ADD | kinds[kind]), 0);
            lend(port, n);
            CHECK(!readable(kq));
            check_none(kq);
            use_all(n);
            for (int i = n - 1; i >= 0; i--) {
                bool told = kinds[kind] != EV_CLEAR || i == n - 1;
                CHECK_EQ(readable(kq), told);
                if (told)
                    check_event(kq, port, EV_ADD | kinds[kind], port);
                if (kinds[kind] == EV_DISPATCH) {
                    CHECK(!readable(kq));
                    CHECK_EQ(change_port(kq, port, EV_ENABLE), 0);
                }
                receive_from(port, port, i);
            }
            check_none(kq);
            CHECK(!readable(kq));
            close(kq);
            destroy_port(port);
            CHECK_FDS(files);
        }
    }
}

TEST(a_port_that_dies_ends_all_of_them) {
    int n, files;
    EACH_SIZE(n) {
        mach_port_t port = set_up(&files);
        lend(port, n);
        use_once(held[0], 1);
        destroy_port(port);
        for (int i = 1; i < n; i++) {
            struct pollfd fd = {.fd = held[i]};
            CHECK_EQ(poll(&fd, 1, 0), 1);
            CHECK(fd.revents & POLLHUP);
            close(held[i]);
        }
        CHECK_FDS(files);
    }
}

/* Through a socket and back, as to another task and from there. */
TEST(they_move_with_their_port) {
    int n, files, pair[2];
    EACH_SIZE(n) {
        mach_port_t port = set_up(&files), moved;
        struct mio_right right;
        unsigned kind, flags;
        lend(port, n);
        for (int i = 0; i < n; i += 2)
            use_once(held[i], i);
        receive_from(port, port, 0);
        mio_lock();
        struct mio_kmsg *kmsg = mio_kmsg_new(sizeof(mach_msg_base_t) + 12, 1);
        memcpy(kmsg->body, &(uint32_t[4]){1}, 16);
        kmsg->complex = true;
        CHECK_EQ(mio_right_copyin(port, MACH_MSG_TYPE_MOVE_RECEIVE, kmsg->rights), KERN_SUCCESS);
        CHECK_EQ(mio_pair(pair), 0);
        CHECK_EQ(mio_wire_send(pair[0], kmsg, 0), MIO_WIRE_OK);
        mio_kmsg_free(kmsg);
        CHECK_EQ(mio_wire_receive(pair[1], &kmsg, &kind, &flags), MIO_WIRE_OK);
        right = kmsg->rights[0];
        CHECK_EQ(mio_right_copyout(&right, &moved), KERN_SUCCESS);
        mio_kmsg_free(kmsg);
        mio_unlock();
        close(pair[0]);
        close(pair[1]);
        check_crowd(moved, n > (int)MIO_FEW_ONCES + 1);
        for (int i = 1; i < n; i += 2)
            use_once(held[i], i);
        for (int i = 2; i < n; i += 2)
            receive_from(moved, moved, i);
        for (int i = 1; i < n; i += 2)
            receive_from(moved, moved, i);
        check_empty(moved);
        destroy_port(moved);
        CHECK_FDS(files);
    }
}

/* Somebody who had the receive right kept copies, and takes a message that was told. */
TEST(a_message_that_is_gone_is_waited_for_again) {
    mach_port_t port = new_port();
    lend(port, MANY);
    mio_lock();
    struct mio_once *once =
        MIO_CONTAINER(mio_space_lookup(port)->port->onces.next, struct mio_once, link);
    int thief = dup(once->source.fd);
    mio_unlock();
    int last = MANY - 1; /* the first in the list */
    use_once(dup(held[last]), -1);
    CHECK_EQ(status_of(port).mps_msgcount, 1);
    char frame[256];
    CHECK(recv(thief, frame, sizeof frame, 0) > 0);
    close(thief);
    check_empty(port);
    CHECK_EQ(status_of(port).mps_msgcount, 0);
    for (int i = 0; i <= last; i++)
        use_once(held[i], i);
    for (int i = 0; i <= last; i++)
        receive_from(port, port, i);
    check_empty(port);
    destroy_port(port);
}

/* They are looked at one by one again, or still, and join those who watch the port. */
TEST(without_an_epoll_nothing_else_changes) {
    const enum fault_call calls[] = {FAULT_EPOLL_CREATE1, FAULT_EPOLL_CTL};
    for (unsigned call = 0; call < 2; call++) {
        int fired = 0;
        for (int nth = 1; nth == fired + 1; nth++) {
            int files;
            mach_port_t port = set_up(&files), set = new_set();
            CHECK_EQ(mach_port_insert_member(SELF, port, set), KERN_SUCCESS);
            check_empty(set);
            for (int i = 0; i < MANY; i++) {
                if (i == (int)MIO_FEW_ONCES)
                    fault_arm(calls[call], calls[call] == FAULT_EPOLL_CTL ? ENOSPC : EMFILE, nth);
                held[i] = lend_once(port);
            }
            fired += fault_fired();
            use_all(MANY / 2);
            receive_from(port, port, MANY / 2 - 1);
            receive_all(set, port, MANY / 2 - 1);
            for (int i = MANY / 2; i < MANY; i++)
                use_once(held[i], i);
            for (int i = MANY / 2; i < MANY; i++)
                receive_from(set, port, i);
            destroy_set(set);
            destroy_port(port);
            CHECK_FDS(files);
        }
        CHECK(fired > 0);
    }
}

/* ---- threads ------------------------------------------------------------------------------- */

static void *receive_one(void *port) {
    struct message message;
    CHECK_EQ(receive(*(mach_port_t *)port, &message, 20000), MACH_MSG_SUCCESS);
    return NULL;
}

static void wait_until_blocked(mach_port_t name, int n) {
    for (int blocked = 0; blocked != n;) {
        blocked = 0;
        mio_lock();
        MIO_EACH(item, &mio_space_lookup(name)->port->receivers)
            blocked++;
        mio_unlock();
    }
}

/* Whoever waits already hears of rights that leave later, and each message wakes somebody. */
TEST(who_waits_gets_what_is_sent_by_rights_that_leave_later) {
    int n;
    EACH_SIZE(n) {
        mach_port_t port = new_port();
        pthread_t threads[MANY];
        for (int i = 0; i < n; i++)
            CHECK_EQ(pthread_create(&threads[i], NULL, receive_one, &port), 0);
        wait_until_blocked(port, n);
        lend(port, n);
        use_all(n);
        for (int i = 0; i < n; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        check_empty(port);
        destroy_port(port);
    }
}

CHECK_MAIN()
