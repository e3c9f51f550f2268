/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * As many different rights in one message as there may be, each of which works: send rights are two
 * files each, so that the limit on files decides; send-once rights are one. And what is in flight
 * may be too much for the kernel: then the send is refused, and nothing lost.
 */
#include "arrays.h"

#include <grp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

static mach_port_name_t names[MANY];

static rlim_t raise_limit(rlim_t wanted) {
    struct rlimit limit = {.rlim_cur = wanted, .rlim_max = wanted};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) { /* that takes privilege */
        CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    return limit.rlim_cur;
}

/* Bundles are closed by another thread; where taken credits go stays, and what watches for deaths.
 */
static void check_given_back(int files) {
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 5000 && check_fd_count() > files + 2; i++)
        nanosleep(&pause, NULL);
    CHECK(check_fd_count() <= files + 2);
}

static mach_msg_return_t send_with(mach_port_t dest, mach_msg_type_name_t disposition, int id) {
    mach_msg_header_t message = {
        .msgh_bits = MACH_MSGH_BITS(disposition, 0), .msgh_remote_port = dest, .msgh_id = id};
    return send_now(&message, sizeof message);
}

/* ---- send rights -------------------------------------------------------------------------- */

/* From another task, each is four files there while it is sent, and two here. */
TEST(as_many_different_send_rights_as_files_allow) {
    mach_port_t port = new_port();
    struct message none;
    rlim_t limit = raise_limit(4 * MANY + 1000);
    unsigned count = limit / 4 > MANY + 100 ? MANY : (unsigned)limit / 4 - 100;
    CHECK_EQ(receive(port, &none, 1), MACH_RCV_TIMED_OUT);
    int files = check_fd_count();
    struct handed handed = hand_over(port);
    pid_t child = fork();
    if (child == 0) {
        mach_port_t there = take_over(&handed);
        for (unsigned i = 0; i < count; i++)
            names[i] = new_port();
        struct with_array message =
            carrying(there, MACH_MSG_TYPE_COPY_SEND, names, count, MACH_MSG_TYPE_MAKE_SEND);
        mach_msg_return_t sent = send_now(&message.header, ARRAY_SIZE);
        if (sent == MACH_SEND_NO_BUFFER) { /* the uid's limit: nothing was lost */
            CHECK_EQ(type_of(names[0]), MACH_PORT_TYPE_RECEIVE);
            message.array.count = count = 100;
            sent = send_now(&message.header, ARRAY_SIZE);
        }
        CHECK_EQ(sent, MACH_MSG_SUCCESS);
        for (unsigned i = 0; i < count; i++) {
            struct message got;
            CHECK_EQ(receive(names[i], &got, 20000), MACH_MSG_SUCCESS);
            CHECK_EQ(got.header.msgh_id, (mach_msg_id_t)i);
        }
        _exit(0);
    }
    struct with_array got;
    get(port, &got.header, ARRAY_SIZE, 0);
    mach_port_name_t *array = got.array.address;
    count = got.array.count;
    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(send_with(array[i], MACH_MSG_TYPE_COPY_SEND, (int)i), MACH_MSG_SUCCESS);
    CHECK_CHILD(child);
    mach_port_name_t last = array[count - 1];
    mach_msg_destroy(&got.header);
    CHECK_EQ(type_of(last), 0);
    forget(&handed);
    destroy_port(port);
    check_given_back(files);
}

/* ---- send-once rights --------------------------------------------------------------------- */

#define MAKERS 2u

/* Makes a send-once right to each of so many ports, and gets a message by each. */
static void make_rights(mach_port_t middle, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        names[i] = new_port();
    struct with_array message =
        carrying(middle, MACH_MSG_TYPE_COPY_SEND, names, count, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    CHECK_EQ(mach_msg(&message.header, MACH_SEND_MSG, ARRAY_SIZE, 0, 0, 0, 0), MACH_MSG_SUCCESS);
    mach_msg_id_t first = 0;
    for (unsigned i = 0; i < count; i++) {
        struct message got;
        CHECK_EQ(receive(names[i], &got, 30000), MACH_MSG_SUCCESS);
        if (i == 0)
            first = got.header.msgh_id;
        CHECK_EQ(got.header.msgh_id, first + (mach_msg_id_t)i);
    }
    _exit(0);
}

static void use_rights(const mach_port_name_t *array, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        CHECK_EQ(type_of(array[i]), MACH_PORT_TYPE_SEND_ONCE);
        CHECK_EQ(send_with(array[i], MACH_MSG_TYPE_MOVE_SEND_ONCE, (int)i), MACH_MSG_SUCCESS);
        CHECK_EQ(type_of(array[i]), 0);
    }
}

/* Gets all of them in one message, and uses each. */
static void take_rights(mach_port_t middle) {
    mach_port_t own = new_port();
    struct message none;
    CHECK_EQ(receive(own, &none, 1), MACH_RCV_TIMED_OUT);
    struct with_array message =
        carrying(middle, MACH_MSG_TYPE_COPY_SEND, &own, 1, MACH_MSG_TYPE_MAKE_SEND);
    CHECK_EQ(send_now(&message.header, ARRAY_SIZE), MACH_MSG_SUCCESS);
    int files = check_fd_count();
    CHECK_EQ(mach_msg(&message.header, MACH_RCV_MSG, 0, sizeof message, own, 0, 0),
             MACH_MSG_SUCCESS);
    use_rights(message.array.address, message.array.count);
    mach_msg_destroy(&message.header);
    check_given_back(files);
    _exit(0);
}

/* To an ordinary user's count of what is in flight all belongs whose bundles are not closed yet. */
static mach_msg_return_t send_when_possible(mach_msg_header_t *message) {
    const struct timespec pause = {.tv_nsec = 1000000};
    mach_msg_return_t sent = send_now(message, ARRAY_SIZE);
    for (int i = 0; i < 5000 && sent == MACH_SEND_NO_BUFFER; i++) {
        nanosleep(&pause, NULL);
        sent = send_now(message, ARRAY_SIZE);
    }
    return sent;
}

/* They are made in two tasks, where each is two files, and pass through a third into a fourth. */
TEST(sixteen_thousand_different_rights_in_one_message) {
    mach_port_t middle = new_port(), there = MACH_PORT_NULL;
    struct message none;
    rlim_t limit = raise_limit(MANY + 1000);
    const unsigned most = limit > MANY + 500 ? MANY : (unsigned)limit - 500;
    unsigned count = 0;
    pid_t children[1 + MAKERS];
    CHECK_EQ(receive(middle, &none, 1), MACH_RCV_TIMED_OUT);
    int files = check_fd_count();
    struct handed handed = hand_over(middle);
    for (unsigned i = 0; i < 1 + MAKERS; i++) {
        children[i] = fork();
        if (children[i] == 0 && i == 0)
            take_rights(take_over(&handed));
        else if (children[i] == 0)
            make_rights(take_over(&handed), i == 1 ? most / 2 : most - most / 2);
    }
    forget(&handed);
    for (unsigned i = 0; i < 1 + MAKERS; i++) {
        struct with_array got;
        get(middle, &got.header, ARRAY_SIZE, 0);
        if (got.array.disposition == MACH_MSG_TYPE_PORT_SEND) {
            there = *(mach_port_name_t *)got.array.address;
        } else {
            CHECK(got.array.count <= most - count);
            memcpy(names + count, got.array.address, got.array.count * sizeof *names);
            count += got.array.count;
        }
        vm_deallocate(SELF, (vm_address_t)got.array.address, got.array.count * sizeof *names);
    }
    CHECK_EQ(count, most);
    struct with_array message =
        carrying(there, MACH_MSG_TYPE_COPY_SEND, names, count, MACH_MSG_TYPE_MOVE_SEND_ONCE);
    CHECK_EQ(send_when_possible(&message.header), MACH_MSG_SUCCESS);
    CHECK_EQ(type_of(names[count - 1]), 0);
    for (unsigned i = 0; i < 1 + MAKERS; i++)
        CHECK_CHILD(children[i]);
    CHECK_EQ(mach_port_deallocate(SELF, there), KERN_SUCCESS);
    destroy_port(middle);
    check_given_back(files);
}

/* ---- in flight ---------------------------------------------------------------------------- */

#define FEW 200u /* 400 files: two bundles */

/* A user who has nothing else in flight, as far as that can be had, and no privilege. */
static void become_ordinary(void) {
    if (geteuid() == 0) {
        CHECK_EQ(setgroups(0, NULL), 0);
        CHECK_EQ(setgid(65534), 0);
        CHECK_EQ(setuid((uid_t)(60000 + getpid() % 5000)), 0);
        CHECK_EQ(prctl(PR_SET_DUMPABLE, 1), 0); /* its own /proc stays its own */
    }
}

/* The kernel counts over all processes of the user, and against the sender's limit on files. */
TEST(what_is_too_much_in_flight_comes_back) {
    mach_port_t port = new_port();
    struct with_array got;
    struct handed handed = hand_over(port);
    int refused[2];
    CHECK_EQ(pipe(refused), 0);
    pid_t child = fork();
    if (child == 0) {
        mach_port_t there = take_over(&handed);
        struct with_array message;
        mach_msg_return_t mr;
        unsigned sent = 0;
        become_ordinary();
        for (unsigned i = 0; i < FEW; i++)
            names[i] = new_port();
        raise_limit(4 * FEW + 200);
        for (;; sent++) {
            message = carrying(there, MACH_MSG_TYPE_COPY_SEND, names, FEW, MACH_MSG_TYPE_MAKE_SEND);
            if ((mr = send_now(&message.header, ARRAY_SIZE)) != MACH_MSG_SUCCESS)
                break;
        }
        CHECK_EQ(mr, MACH_SEND_NO_BUFFER);
        int files = check_fd_count();
        for (int tries = 0; tries < 3; tries++) {
            CHECK_EQ(message.array.count, FEW);
            for (unsigned i = 0; i < FEW; i++)
                CHECK(type_of(((mach_port_name_t *)message.array.address)[i]) &
                      MACH_PORT_TYPE_RECEIVE);
            CHECK_EQ(send_now(&message.header, ARRAY_SIZE), MACH_SEND_NO_BUFFER);
            CHECK_FDS(files);
        }
        CHECK_EQ(write(refused[1], &sent, sizeof sent), (ssize_t)sizeof sent);
        while ((mr = send_now(&message.header, ARRAY_SIZE)) == MACH_SEND_NO_BUFFER)
            sched_yield(); /* until the other has taken some */
        CHECK_EQ(mr, MACH_MSG_SUCCESS);
        for (unsigned i = 0; i <= sent; i++) { /* by each message's last right one */
            struct message answer;
            CHECK_EQ(receive(names[FEW - 1], &answer, 10000), MACH_MSG_SUCCESS);
        }
        _exit(0);
    }
    forget(&handed);
    unsigned sent;
    close(refused[1]);
    CHECK_EQ(read(refused[0], &sent, sizeof sent), (ssize_t)sizeof sent);
    for (unsigned i = 0; i <= sent; i++) {
        get(port, &got.header, ARRAY_SIZE, 0);
        CHECK_EQ(got.array.count, FEW);
        CHECK_EQ(send_with(((mach_port_name_t *)got.array.address)[FEW - 1],
                           MACH_MSG_TYPE_COPY_SEND, (int)i),
                 MACH_MSG_SUCCESS);
        mach_msg_destroy(&got.header);
    }
    CHECK_CHILD(child);
    close(refused[0]);
    destroy_port(port);
}

CHECK_MAIN()
