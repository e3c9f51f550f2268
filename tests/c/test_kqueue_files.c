/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * EVFILT_READ and EVFILT_WRITE on pipes and sockets, EVFILT_USER.
 */
#include "kqueue.h"
#include "kqueues.h"
#include "shim.h" /* its declaration must be that of kqueue.h */

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>

static int add(int kq, int fd, int filter, unsigned flags) {
    return change(kq, (uint64_t)fd, filter, EV_ADD | flags, 0);
}

/* One event: EV_EOF or not, and data unless it is negative. */
static void check_file(int kq, int fd, int filter, bool eof, int64_t data) {
    struct kevent64_s event;
    CHECK_EQ(next(kq, &event), 1);
    CHECK_EQ(event.ident, fd);
    CHECK_EQ(event.filter, filter);
    CHECK_EQ(event.flags & EV_EOF, eof ? EV_EOF : 0);
    CHECK_EQ(event.fflags, 0);
    if (data >= 0)
        CHECK_EQ(event.data, data);
}

static void put(int fd, const char *text) {
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

static void get(int fd, size_t size) {
    char buffer[65536];
    CHECK_EQ(read(fd, buffer, size), size);
}

/* ---- pipes ----------------------------------------------------------------------------------- */

TEST(pipe_read) {
    int kq = kqueue(), fds[2];
    CHECK_EQ(pipe(fds), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, 0), 0);
    check_none(kq);
    put(fds[1], "hello");
    CHECK(readable(kq));
    check_file(kq, fds[0], EVFILT_READ, false, 5);
    get(fds[0], 2);
    check_file(kq, fds[0], EVFILT_READ, false, 3);
    get(fds[0], 3);
    check_none(kq);
    CHECK(!readable(kq));
    put(fds[1], "xyz");
    close(fds[1]);
    check_file(kq, fds[0], EVFILT_READ, true, 3);
    get(fds[0], 3);
    check_file(kq, fds[0], EVFILT_READ, true, 0);
    close(fds[0]);
    check_none(kq);
    CHECK(!readable(kq));
    close(kq);
}

TEST(pipe_write) {
    static const char page[4096];
    int kq = kqueue(), fds[2], size;
    CHECK_EQ(pipe2(fds, O_NONBLOCK), 0);
    size = fcntl(fds[1], F_GETPIPE_SZ);
    CHECK_EQ(add(kq, fds[1], EVFILT_WRITE, 0), 0);
    check_file(kq, fds[1], EVFILT_WRITE, false, size);
    put(fds[1], "hello");
    check_file(kq, fds[1], EVFILT_WRITE, false, size - 5);
    while (write(fds[1], page, sizeof page) > 0)
        ;
    check_none(kq);
    CHECK(!readable(kq));
    char buffer[65536];
    CHECK(read(fds[0], buffer, sizeof buffer) > 0);
    CHECK(readable(kq));
    check_file(kq, fds[1], EVFILT_WRITE, false, -1);
    close(fds[0]);
    check_file(kq, fds[1], EVFILT_WRITE, true, 0);
    close(kq);
    close(fds[1]);
}

TEST(pipe_end_that_cannot) {
    int kq = kqueue(), fds[2];
    CHECK_EQ(pipe(fds), 0);
    CHECK_EQ(add(kq, fds[1], EVFILT_READ, 0), 0);
    put(fds[1], "x");
    check_none(kq);
    CHECK(!readable(kq));
    close(fds[0]);
    CHECK(readable(kq));
    check_file(kq, fds[1], EVFILT_READ, true, 0);
    close(fds[1]);
    CHECK_EQ(pipe(fds), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_WRITE, EV_CLEAR), 0);
    put(fds[1], "x");
    check_none(kq);
    close(fds[1]);
    check_file(kq, fds[0], EVFILT_WRITE, true, 0);
    check_none(kq);
    close(kq);
    close(fds[0]);
}

/* A pipe, whose write end comes second, or a pair of sockets. */
static void make_file(int which, int fds[2]) {
    CHECK_EQ(which == 0 ? pipe(fds) : socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
}

TEST(the_end_of_the_readers_alone) {
    for (int which = 0; which < 2; which++) {
        int kq = kqueue(), fds[2];
        make_file(which, fds);
        CHECK_EQ(machio_watch_end(kq, fds[1], 6), 0);
        check_none(kq);
        put(fds[1], "hello");
        get(fds[0], 5);
        CHECK(!readable(kq));
        check_none(kq);
        close(fds[0]);
        CHECK(readable(kq));
        check_file(kq, fds[1], EVFILT_WRITE, true, -1);
        check_none(kq);
        CHECK_EQ(change(kq, (uint64_t)fds[1], EVFILT_WRITE, EV_DELETE, 0), 0);
        CHECK_EQ(machio_watch_end(kq, fds[1], 6), 0);
        check_file(kq, fds[1], EVFILT_WRITE, true, -1);
        close(fds[1]);
        CHECK_EQ(machio_watch_end(kq, fds[1], 6), -1);
        CHECK_EQ(errno, EBADF);
        close(kq);
    }
}

/* Writes as much as there is room for. */
static int fill(int fd) {
    static const char page[4096];
    int size = 0;
    CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    for (ssize_t n; (n = write(fd, page, sizeof page)) > 0;)
        size += (int)n;
    return size;
}

static int take(int fd) {
    char buffer[65536];
    ssize_t n = read(fd, buffer, sizeof buffer);
    CHECK(n > 0);
    return (int)n;
}

TEST(the_end_becomes_room_and_back) {
    for (int which = 0; which < 2; which++) {
        int kq = kqueue(), fds[2];
        make_file(which, fds);
        CHECK_EQ(machio_watch_end(kq, fds[1], 6), 0);
        CHECK(!readable(kq));
        CHECK_EQ(add(kq, fds[1], EVFILT_WRITE, EV_CLEAR), 0);
        CHECK(readable(kq));
        check_file(kq, fds[1], EVFILT_WRITE, false, -1);
        int most = fill(fds[1]);
        check_none(kq);
        while (most > 0)
            most -= take(fds[0]);
        check_file(kq, fds[1], EVFILT_WRITE, false, -1);
        CHECK_EQ(machio_watch_end(kq, fds[1], 6), 0);
        check_none(kq);
        CHECK(!readable(kq));
        close(fds[0]);
        check_file(kq, fds[1], EVFILT_WRITE, true, -1);
        close(fds[1]);
        close(kq);
    }
}

TEST(the_end_beside_a_reader) {
    int kq = kqueue(), fds[2];
    make_file(1, fds);
    CHECK_EQ(machio_watch_end(kq, fds[1], 6), 0);
    CHECK_EQ(add(kq, fds[1], EVFILT_READ, EV_CLEAR), 0);
    put(fds[0], "abc");
    check_file(kq, fds[1], EVFILT_READ, false, 3);
    check_none(kq);
    CHECK_EQ(change(kq, (uint64_t)fds[1], EVFILT_READ, EV_DELETE, 0), 0);
    close(fds[0]);
    check_file(kq, fds[1], EVFILT_WRITE, true, -1);
    check_none(kq);
    close(fds[1]);
    close(kq);
}

TEST(clear_fires_for_each_arrival) {
    int kq = kqueue(), fds[2];
    CHECK_EQ(pipe(fds), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, EV_CLEAR), 0);
    put(fds[1], "ab");
    check_file(kq, fds[0], EVFILT_READ, false, 2);
    check_none(kq);
    CHECK(!readable(kq));
    put(fds[1], "c");
    check_file(kq, fds[0], EVFILT_READ, false, 3);
    close(fds[1]);
    check_file(kq, fds[0], EVFILT_READ, true, 3);
    check_none(kq);
    close(kq);
    close(fds[0]);
}

TEST(modes_of_files) {
    int kq = kqueue(), fds[2];
    CHECK_EQ(pipe(fds), 0);
    put(fds[1], "ab");
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, EV_ONESHOT), 0);
    check_file(kq, fds[0], EVFILT_READ, false, 2);
    check_none(kq);
    CHECK_EQ(change(kq, (uint64_t)fds[0], EVFILT_READ, EV_DELETE, 0), ENOENT);
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, EV_DISPATCH), 0);
    check_file(kq, fds[0], EVFILT_READ, false, 2);
    put(fds[1], "c");
    check_none(kq);
    CHECK(!readable(kq));
    CHECK_EQ(change(kq, (uint64_t)fds[0], EVFILT_READ, EV_ENABLE, 0), 0);
    check_file(kq, fds[0], EVFILT_READ, false, 3);
    CHECK_EQ(change(kq, (uint64_t)fds[0], EVFILT_READ, EV_DELETE, 0), 0);
    close(kq);
    close(fds[0]);
    close(fds[1]);
}

TEST(low_water_mark) {
    int kq = kqueue(), fds[2];
    CHECK_EQ(pipe(fds), 0);
    struct kevent64_s event = {.ident = (uint64_t)fds[0],
                               .filter = EVFILT_READ,
                               .flags = EV_ADD,
                               .fflags = NOTE_LOWAT,
                               .data = 4};
    CHECK_EQ(kevent64(kq, &event, 1, NULL, 0, 0, NULL), 0);
    put(fds[1], "abc");
    check_none(kq);
    put(fds[1], "d");
    check_file(kq, fds[0], EVFILT_READ, false, 4);
    close(kq);
    close(fds[0]);
    close(fds[1]);
}

/* ---- sockets --------------------------------------------------------------------------------- */

TEST(socketpair_ends) {
    const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
    for (int i = 0; i < 2; i++) {
        int kq = kqueue(), fds[2];
        CHECK_EQ(socketpair(AF_UNIX, types[i], 0, fds), 0);
        CHECK_EQ(add(kq, fds[0], EVFILT_READ, 0), 0);
        check_none(kq);
        put(fds[1], "hello");
        check_file(kq, fds[0], EVFILT_READ, false, 5);
        close(fds[1]);
        check_file(kq, fds[0], EVFILT_READ, true, 5);
        get(fds[0], 5);
        check_file(kq, fds[0], EVFILT_READ, true, 0);
        CHECK_EQ(change(kq, (uint64_t)fds[0], EVFILT_READ, EV_DELETE, 0), 0);
        CHECK_EQ(add(kq, fds[0], EVFILT_WRITE, 0), 0);
        check_file(kq, fds[0], EVFILT_WRITE, true, -1);
        close(kq);
        close(fds[0]);
    }
}

TEST(both_filters_on_a_socket) {
    struct kevent64_s events[3];
    int kq = kqueue(), fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_WRITE, EV_CLEAR), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, 0), 0);
    check_file(kq, fds[0], EVFILT_WRITE, false, -1);
    check_none(kq);
    CHECK(!readable(kq));
    put(fds[1], "x");
    CHECK(kevent64(kq, NULL, 0, events, 3, 0, &now) >= 1);
    /* Linux tells both ways at once, so the other filter may fire again. */
    CHECK_EQ(change(kq, (uint64_t)fds[0], EVFILT_READ, EV_DELETE, 0), 0);
    if (kevent64(kq, NULL, 0, events, 3, 0, &now) == 1)
        CHECK_EQ(events[0].filter, EVFILT_WRITE);
    check_none(kq);
    close(fds[1]);
    check_file(kq, fds[0], EVFILT_WRITE, true, -1);
    close(kq);
    close(fds[0]);
}

/* A peer that only shut down its writing side can still be written to. */
TEST(half_closed) {
    int kq = kqueue(), fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    CHECK_EQ(shutdown(fds[1], SHUT_WR), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, EV_CLEAR), 0);
    check_file(kq, fds[0], EVFILT_READ, true, 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_WRITE, EV_ONESHOT), 0);
    check_file(kq, fds[0], EVFILT_WRITE, false, -1);
    close(kq);
    close(fds[0]);
    close(fds[1]);
}

TEST(datagrams_and_listeners) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int kq = kqueue(), fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, EV_ONESHOT), 0);
    check_none(kq);
    CHECK_EQ(send(fds[1], "", 0, 0), 0);
    check_file(kq, fds[0], EVFILT_READ, false, 0);
    close(fds[0]);
    close(fds[1]);

    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, size), 0);
    CHECK_EQ(listen(listener, 1), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    CHECK_EQ(add(kq, listener, EVFILT_READ, 0), 0);
    CHECK_EQ(add(kq, client, EVFILT_WRITE, EV_CLEAR), 0);
    check_none(kq); /* not connected: neither writable nor at an end */
    CHECK_EQ(connect(client, (struct sockaddr *)&address, size), 0);
    struct kevent64_s events[3];
    CHECK_EQ(kevent64(kq, NULL, 0, events, 3, 0, &now), 2);
    for (int i = 0; i < 2; i++) {
        CHECK(!(events[i].flags & EV_EOF));
        CHECK_EQ(events[i].filter == EVFILT_WRITE, events[i].ident == (uint64_t)client);
    }
    close(accept(listener, NULL, NULL));
    close(listener);
    close(client);
    check_none(kq);
    close(kq);
}

/* ---- descriptors come and go ----------------------------------------------------------------- */

TEST(file_errors) {
    int kq = kqueue(), file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), fds[2];
    CHECK_EQ(add(kq, -1, EVFILT_READ, 0), EBADF);
    CHECK_EQ(add(kq, 999999, EVFILT_READ, 0), EBADF);
    CHECK_EQ(add(kq, file, EVFILT_READ, 0), EINVAL);
    CHECK_EQ(change(kq, 999999, EVFILT_READ, EV_DELETE, 0), ENOENT);
    CHECK_EQ(pipe(fds), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, 0), 0);
    close(fds[0]);
    CHECK_EQ(change(kq, (uint64_t)fds[0], EVFILT_READ, EV_DELETE, 0), ENOENT);
    close(fds[1]);
    close(file);
    close(kq);
}

TEST(a_number_used_again) {
    int kq = kqueue(), fds[2], again[2];
    CHECK_EQ(pipe(fds), 0);
    put(fds[1], "old");
    CHECK_EQ(add(kq, fds[0], EVFILT_READ, 0), 0);
    CHECK_EQ(add(kq, fds[0], EVFILT_WRITE, 0), 0);
    int copy = dup(fds[0]); /* keeps the old pipe in the epoll */
    close(fds[0]);
    CHECK_EQ(pipe(again), 0);
    CHECK_EQ(again[0], fds[0]);
    put(fds[1], "more");
    check_none(kq);
    CHECK_EQ(add(kq, again[0], EVFILT_READ, 0), 0);
    check_none(kq);
    put(again[1], "new!");
    check_file(kq, again[0], EVFILT_READ, false, 4);
    close(copy);
    close(fds[1]);
    close(again[0]);
    close(again[1]);
    check_none(kq);
    close(kq);
}

CHECK_MAIN()
