/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Frames from a peer that lies: each is dropped whole and leaves nothing behind.
 */
#include "wire_peer.h"

#include <netinet/in.h>
#include <sys/fileport.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* ---- hostile frames ---------------------------------------------------------------------- */

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
    raw.receives[0].flags = MIO_RECEIVE_NO_SENDERS;
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
    for (size_t i = 0; i < 200; i++) {
        begin();
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
        end();
    }
}

TEST(frames_of_random_bytes_leak_nothing) {
    uint8_t bytes[1024];
    unsigned seed = 12345;
    begin();
    for (int round = 1; round <= 3000; round++) {
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
        if (round % 100 == 0) { /* what was dropped is closed by another thread, in its time */
            end();
            begin();
        }
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

TEST(a_known_port_has_its_own_pipe) {
    struct foreign peer;
    int pair[2], pipe_of_others[2];
    begin();
    make_foreign(&peer);
    CHECK_EQ(mio_pair(pair), 0);
    CHECK_EQ(pipe2(pipe_of_others, O_CLOEXEC), 0);
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_send_right(&raw, &peer);
    transmit(out, &raw);
    struct mio_kmsg *first = receive_message(in);
    const int lies[] = {pair[0], pipe_of_others[0], pipe_of_others[1], peer.tx, peer.rx};
    for (unsigned i = 0; i < sizeof lies / sizeof *lies; i++) {
        raw = raw_complex(1);
        raw.rights[1] = (struct mio_wire_right){
            .kind = MIO_RIGHT_SEND, .fd = {raw_fd(&raw, peer.tx), raw_fd(&raw, lies[i]), 0xffff}};
        is_dropped(&raw);
        CHECK_EQ(first->rights[0].port->srights, 1);
    }
    mio_kmsg_destroy(first);
    close(pair[0]), close(pair[1]), close(pipe_of_others[0]), close(pipe_of_others[1]);
    close_foreign(&peer);
    end();
}

TEST(a_file_is_known_as_a_file_only) {
    mach_port_t name;
    begin();
    mio_unlock();
    CHECK_EQ(fileport_makeport(0, &name), 0);
    mio_lock();
    struct foreign lie = {.tx = mio_space_lookup(name)->port->tx, .cr = 0};
    struct raw raw = raw_complex(1);
    raw.rights[1] = raw_send_right(&raw, &lie);
    is_dropped(&raw);
    mio_unlock();
    mach_port_deallocate(mach_task_self(), name);
    mio_lock();
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
            raw.head.version = MIO_WIRE_VERSION + 1;
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

/* What lies in the home of a right that comes back must not take the place of the frame it is in.
 */
TEST(a_right_that_comes_home_used_spoils_nothing) {
    struct foreign peer;
    begin();
    make_foreign(&peer);
    struct mio_port *port = mio_port_new(MIO_PORT_LOCAL);
    struct mio_kmsg *kmsg = message(1, 1);
    kmsg->rights[0] = once_right(port);
    send_ok(out, kmsg, 0);
    int once = take_descriptor(in);
    struct raw lie = raw_complex(3);
    for (int i = 0; i < 4; i++)
        lie.rights[i] = (struct mio_wire_right){.kind = MIO_RIGHT_SEND, .fd = {250, 251, 0xffff}};
    transmit(once, &lie);
    struct raw raw = raw_complex(2);
    raw.rights[1] =
        (struct mio_wire_right){.kind = MIO_RIGHT_ONCE, .fd = {raw_fd(&raw, once), 0xffff, 0xffff}};
    raw.rights[2] = raw_send_right(&raw, &peer);
    transmit(out, &raw);
    kmsg = receive_message(in);
    CHECK_EQ(kmsg->rights[0].kind, MIO_RIGHT_ONCE);
    CHECK_EQ(kmsg->rights[0].once->state, MIO_ONCE_LOCAL);
    CHECK_EQ(kmsg->rights[1].kind, MIO_RIGHT_SEND);
    CHECK_EQ(kmsg->rights[1].port->cookie, mio_socket_cookie(peer.tx));
    mio_kmsg_destroy(kmsg);
    CHECK_EQ(port->queued, 1); /* MACH_NOTIFY_SEND_ONCE */
    mio_port_destroy(port);
    close(once);
    close_foreign(&peer);
    end();
}

CHECK_MAIN()
