/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Open files as rights: within a task, on the wire, and from a peer that lies.
 */
#include "wire_peer.h"

#include <errno.h>
#include <sys/fileport.h>
#include <sys/resource.h>

/* Whether both are the same open file: the position in it is shared. */
static bool same_file(int a, int b) {
    off_t at = lseek(a, 0, SEEK_CUR);
    CHECK(at >= 0);
    CHECK_EQ(lseek(a, at + 7, SEEK_SET), at + 7);
    bool same = lseek(b, 0, SEEK_CUR) == at + 7;
    lseek(a, at, SEEK_SET);
    return same;
}

static int some_file(void) {
    int fd = mio_memfd_new();
    CHECK(fd >= 0);
    return fd;
}

static mach_port_t make(int fd) {
    fileport_t name = MACH_PORT_NULL;
    CHECK_EQ(fileport_makeport(fd, &name), 0);
    CHECK(MACH_PORT_VALID(name));
    return name;
}

static void drop(mach_port_t name) {
    CHECK_EQ(mach_port_deallocate(mach_task_self(), name), KERN_SUCCESS);
}

/* The tests of the wire hold the lock; Mach's calls take it. */
static struct mio_right right_of(mach_port_t name) {
    struct mio_right right;
    mio_lock();
    CHECK_EQ(mio_right_copyin(name, MACH_MSG_TYPE_COPY_SEND, &right), KERN_SUCCESS);
    mio_unlock();
    return right;
}

/* A port's socket is closed by another thread. */
static void wait_for_fds(int count) {
    for (int tries = 0; check_fd_count() > count && tries < 5000; tries++)
        usleep(1000);
    CHECK_FDS(count);
}

TEST(a_file_comes_out_again) {
    int fd = some_file(), count = check_fd_count();
    mach_port_t name = make(fd);
    int again = fileport_makefd(name), third = fileport_makefd(name);
    CHECK(again >= 0 && third >= 0 && again != fd && third != again);
    CHECK(same_file(fd, again) && same_file(fd, third));
    CHECK_EQ(fcntl(again, F_GETFD), FD_CLOEXEC);
    close(fd);
    close(third);
    drop(name);
    CHECK_EQ(lseek(again, 3, SEEK_SET), 3); /* the right is not the descriptor */
    close(again);
    wait_for_fds(count - 1);
}

TEST(the_file_lives_as_long_as_a_right) {
    int ends[2];
    char byte;
    CHECK_EQ(pipe(ends), 0);
    mach_port_t name = make(ends[1]);
    close(ends[1]);
    int again = fileport_makefd(name);
    CHECK_EQ(write(again, "x", 1), 1);
    close(again);
    CHECK_EQ(read(ends[0], &byte, 1), 1);
    drop(name);
    CHECK_EQ(read(ends[0], &byte, 1), 0);
    close(ends[0]);
}

TEST(each_port_is_its_own) {
    int fd = some_file();
    mach_port_t a = make(fd), b = make(fd);
    mach_port_type_t type;
    CHECK(a != b);
    CHECK_EQ(mach_port_type(mach_task_self(), a, &type), KERN_SUCCESS);
    CHECK_EQ(type, MACH_PORT_TYPE_SEND);
    drop(a);
    int again = fileport_makefd(b);
    CHECK(same_file(fd, again));
    close(again);
    drop(b);
    close(fd);
}

TEST(errors_are_of_errno) {
    fileport_t name = 77;
    mach_port_t port;
    CHECK_EQ(fileport_makeport(-1, &name), -1);
    CHECK_EQ(errno, EBADF);
    CHECK_EQ(fileport_makeport(999, &name), -1);
    CHECK_EQ(errno, EBADF);
    CHECK_EQ(name, 77);
    CHECK_EQ(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port), KERN_SUCCESS);
    const mach_port_t wrong[] = {MACH_PORT_NULL, MACH_PORT_DEAD, 0x7777, port, mach_task_self()};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_EQ(fileport_makefd(wrong[i]), -1);
        CHECK_EQ(errno, EINVAL);
    }
}

TEST(too_few_descriptors) {
    struct rlimit few, old;
    fileport_t name;
    int fd = some_file();
    mach_port_t port = make(fd);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = old;
    few.rlim_cur = 0;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    CHECK_EQ(fileport_makefd(port), -1);
    CHECK_EQ(errno, EMFILE);
    CHECK_EQ(fileport_makeport(fd, &name), -1);
    CHECK_EQ(errno, EMFILE);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
    int again = fileport_makefd(port);
    CHECK(same_file(fd, again));
}

TEST(messages_to_it_are_consumed) {
    mach_port_t port = make(some_file()), notify;
    mach_msg_header_t msg = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0),
                             .msgh_size = sizeof msg,
                             .msgh_remote_port = port};
    for (int i = 0; i < 20; i++) /* more than a queue would hold */
        CHECK_EQ(mach_msg(&msg, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof msg, 0, 0, 0, 0),
                 MACH_MSG_SUCCESS);
    mach_port_t previous;
    CHECK_EQ(mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &notify), KERN_SUCCESS);
    CHECK_EQ(mach_port_request_notification(mach_task_self(), port, MACH_NOTIFY_DEAD_NAME, 1,
                                            notify, MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous),
             KERN_SUCCESS);
    struct {
        mach_msg_header_t header;
        mach_msg_max_trailer_t trailer;
        char room[64];
    } told;
    CHECK_EQ(mach_msg(&told.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof told, notify, 0, 0),
             MACH_RCV_TIMED_OUT); /* it does not die */
}

/* ---- on the wire ------------------------------------------------------------------------- */

static struct mio_wire_right raw_file(struct raw *raw, int tx) {
    return (struct mio_wire_right){.kind = MIO_WIRE_FILE, .fd = {raw_fd(raw, tx), 0xffff, 0xffff}};
}

/* The socket of a port, which is given up here: as a peer has it. */
static int steal(mach_port_t name) {
    int count = check_fd_count();
    struct mio_right right = right_of(name);
    int tx = fcntl(right.port->tx, F_DUPFD_CLOEXEC, 0);
    mio_lock();
    mio_right_destroy(&right);
    mio_unlock();
    drop(name);
    wait_for_fds(count);
    return tx;
}

static mach_port_t arrived(struct mio_kmsg *kmsg, unsigned i) {
    mach_port_name_t name;
    CHECK_EQ(mio_right_copyout(&kmsg->rights[i], &name), KERN_SUCCESS);
    return name;
}

TEST(one_name_however_often_it_arrives) {
    int fd = some_file(), tx = steal(make(fd));
    mach_port_name_t name = 0;
    begin();
    for (int i = 0; i < 3; i++) {
        struct raw raw = raw_complex(2);
        raw.rights[1] = raw_file(&raw, tx);
        raw.rights[2] = raw.rights[1];
        raw.rights[0] = raw.rights[1];
        transmit(out, &raw);
        struct mio_kmsg *kmsg = receive_message(in);
        mach_port_name_t first = arrived(kmsg, 0);
        CHECK_EQ(arrived(kmsg, 1), first);
        CHECK(name == 0 || name == first);
        name = first;
        mio_kmsg_destroy(kmsg);
    }
    mio_unlock();
    mach_port_urefs_t refs;
    CHECK_EQ(mach_port_get_refs(mach_task_self(), name, MACH_PORT_RIGHT_SEND, &refs), KERN_SUCCESS);
    CHECK_EQ(refs, 6);
    int again = fileport_makefd(name);
    CHECK(same_file(fd, again));
    close(again);
    CHECK_EQ(mach_port_mod_refs(mach_task_self(), name, MACH_PORT_RIGHT_SEND, -6), KERN_SUCCESS);
    mio_lock();
    end();
    close(tx);
}

TEST(what_leaves_arrives) {
    int fd = some_file();
    mach_port_t name = make(fd);
    struct mio_right right = right_of(name);
    drop(name);
    begin();
    files--; /* the port's socket: it leaves */
    struct mio_kmsg *kmsg = message(1, 1);
    kmsg->rights[0] = right;
    send_ok(out, kmsg, 0);
    kmsg = receive_message(in);
    name = arrived(kmsg, 0);
    mio_kmsg_destroy(kmsg);
    mio_unlock();
    int again = fileport_makefd(name);
    CHECK(same_file(fd, again));
    close(again);
    drop(name);
    mio_lock();
    end();
}

/* One end of a pair, with so many messages in it; the other is closed if there is no *ret_other. */
static int forge(const void *bytes, size_t size, int fd, int messages, int *ret_other) {
    int pair[2];
    CHECK_EQ(mio_pair(pair), 0);
    for (int i = 0; i < messages; i++)
        CHECK_EQ(mio_wire_transmit(pair[1], bytes, size, &fd, 1), MIO_WIRE_OK);
    if (ret_other == NULL)
        close(pair[1]);
    else
        *ret_other = pair[1];
    return pair[0];
}

static void is_refused(int tx) {
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_file(&raw, tx);
    is_dropped(&raw);
    close(tx);
}

TEST(what_is_none_is_refused) {
    struct foreign peer;
    begin();
    int fd = some_file(), other;
    is_refused(dup(fd));
    is_refused(forge("f", 1, fd, 1, &other)); /* more can be added */
    close(other);
    is_refused(forge("f", 1, fd, 2, NULL));
    is_refused(forge("g", 1, fd, 1, NULL));
    is_refused(forge("", 0, fd, 1, NULL));
    is_refused(forge("ff", 2, fd, 1, NULL));
    is_refused(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    is_refused(socket(AF_INET, SOCK_STREAM, 0));
    make_foreign_as(&peer, 'f', true, true);
    is_refused(dup(peer.tx));
    struct raw raw = raw_complex(1); /* nor is a port of that kind of name a file's */
    raw.rights[1] = raw_send_right(&raw, &peer);
    is_dropped(&raw);
    close_foreign(&peer);
    close(fd);
    end();
}

TEST(it_is_nothing_else_either) {
    int fd = some_file(), tx = steal(make(fd));
    begin();
    struct raw raw = raw_complex(1);
    raw.rights[1] =
        (struct mio_wire_right){.kind = MIO_RIGHT_ONCE, .fd = {raw_fd(&raw, tx), 0xffff, 0xffff}};
    is_dropped(&raw);
    raw = raw_complex(1); /* an array of send-once rights */
    raw.rights[1] = raw_file(&raw, tx);
    mach_msg_ool_ports_descriptor_t array = {.count = 1,
                                             .disposition = MACH_MSG_TYPE_PORT_SEND_ONCE,
                                             .type = MACH_MSG_OOL_PORTS_DESCRIPTOR};
    memcpy(raw.body + 1, &array, sizeof array);
    raw.body_size = 4 + sizeof array;
    raw.head.size = (uint32_t)(24 + raw.body_size);
    is_dropped(&raw);
    end();
    close(tx);
}

TEST(a_file_that_was_taken_out) {
    char byte;
    int fd = some_file(), tx = steal(make(fd));
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_file(&raw, tx);
    begin();
    transmit(out, &raw);
    struct mio_kmsg *kmsg = receive_message(in);
    mach_port_name_t name = arrived(kmsg, 0);
    mio_kmsg_destroy(kmsg);
    CHECK_EQ(recv(tx, &byte, 1, 0), 1); /* a holder's malice */
    mio_unlock();
    CHECK_EQ(fileport_makefd(name), -1);
    CHECK_EQ(errno, EINVAL);
    drop(name);
    mio_lock();
    transmit(out, &raw);
    kmsg = receive_message(in);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_DEAD);
    mio_kmsg_destroy(kmsg);
    end();
    close(tx);
}

/* What another holder may ask the shared socket to do does not disturb. */
TEST(options_of_a_holder) {
    int fd = some_file(), tx = steal(make(fd)), on = 1, off = 1;
    setsockopt(tx, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    setsockopt(tx, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    setsockopt(tx, SOL_SOCKET, 76 /* SO_PASSPIDFD */, &on, sizeof on);
    setsockopt(tx, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off);
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_file(&raw, tx);
    begin();
    transmit(out, &raw);
    struct mio_kmsg *kmsg = receive_message(in);
    mach_port_name_t name = arrived(kmsg, 0);
    mio_kmsg_destroy(kmsg);
    mio_unlock();
    setsockopt(tx, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off);
    int again = fileport_makefd(name);
    CHECK(again >= 0 && same_file(fd, again));
    close(again);
    drop(name);
    mio_lock();
    end();
    close(tx);
}

CHECK_MAIN()
