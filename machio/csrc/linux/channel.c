/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The kernel objects behind a port that other tasks can reach.
 *
 * A message goes through a pair of sockets: whoever has `rx` receives, whoever has `tx` sends.
 * Room in the queue is a byte in the credit pipe: a sender takes one before it sends, the
 * receiver puts one back for each message it takes. `issued` counts those that exist: bytes in
 * the pipe, in senders' hands, spent on messages. Above the queue limit, the next ones to come
 * back are withheld.
 *
 * The ends of the pipe also tell of life and death: a sender holds `cr`, so when no cr is left
 * cw reports an error; the receiver holds `cw`, so when it is closed every cr hangs up. Nothing
 * else proves that a port died: any sender can shut down the socket.
 *
 * No call here blocks, also not on a file whose O_NONBLOCK some other holder cleared.
 *
 * Guarded by mio_task.lock. A port owns rx, tx, cw and cr; the task owns mio_task.null.
 */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define CREDITS_MAX 1024 /* MACH_PORT_QLIMIT_MAX; also what fits a pipe of one page */
#define FRAME_COST 4608  /* of a frame of MIO_WIRE_INLINE bytes in SO_SNDBUF, from above */
#define NAME_RETRIES 8
#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x00000100 /* Linux 6.18 */
#endif

/* ---- sockets ----------------------------------------------------------------------------- */

/* What the kernel refused last, other than for want of descriptors or memory. */
static const char *refused;
static int refusal;

/* Takes note of errno, if it is a refusal. */
static void note_refusal(const char *what) {
    bool shortage = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS ||
                    errno == EADDRINUSE;
    refused = shortage ? NULL : what;
    refusal = errno;
}

void mio_channel_explain(void) {
    if (refused != NULL)
        mio_say("this process may not use %s (%s), which ports need; a seccomp filter or another "
                "sandbox forbids it, or it is not there",
                refused, strerror(refusal));
    else
        mio_say(NULL);
    refused = NULL;
}

int mio_pair(int fds[2]) {
    int result = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds);
    if (result != 0)
        note_refusal("socketpair(AF_UNIX, SOCK_SEQPACKET)");
    return result;
}

void mio_look_at_front(int fd) {
    int off = -1;
    setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof off);
}

void mio_pair_receiver(int fd) {
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
}

/* The kernel looks for sockets that only messages in flight refer to when one is closed. */
void mio_collect_cycles(void) {
    int fds[2];
    if (mio_pair(fds) != 0)
        return;
    close(fds[0]);
    close(fds[1]);
}

void mio_channel_widen(struct mio_port *port, unsigned messages) {
    int old, half = (int)(messages < 65536 ? messages : 65536) * (FRAME_COST / 2);
    socklen_t length = sizeof old;
    if (getsockopt(port->tx, SOL_SOCKET, SO_SNDBUF, &old, &length) != 0 || old / 2 >= half)
        return;
    /* The kernel doubles the value, and bounds it for the unprivileged. */
    if (setsockopt(port->tx, SOL_SOCKET, SO_SNDBUFFORCE, &half, sizeof half) != 0)
        setsockopt(port->tx, SOL_SOCKET, SO_SNDBUF, &half, sizeof half);
}

/* ---- credits ----------------------------------------------------------------------------- */

static int credits_free(const struct mio_port *port) {
    int n = 0;
    return ioctl(port->cw.fd, FIONREAD, &n) == 0 ? n : 0;
}

static ssize_t write_now(int fd, size_t n, int flags) {
    static char credits[CREDITS_MAX];
    struct iovec iov = {.iov_base = credits, .iov_len = n < CREDITS_MAX ? n : CREDITS_MAX};
    ssize_t done = pwritev2(fd, &iov, 1, -1, RWF_NOWAIT | flags);
    if (done >= 0 || errno == EAGAIN || errno == EPIPE)
        return done;
    if (flags != 0)
        return done;
    int status = fcntl(fd, F_GETFL); /* a kernel or file that does not know NOWAIT */
    if (status >= 0 && !(status & O_NONBLOCK))
        fcntl(fd, F_SETFL, status | O_NONBLOCK);
    return writev(fd, &iov, 1);
}

/* The same without SIGPIPE; that of somebody else stays pending. */
static ssize_t write_quietly(int fd, size_t n) {
    const struct timespec now = {0};
    static bool must_block; /* the kernel is older than Linux 6.18 */
    sigset_t sigpipe, old, pending;
    if (!must_block) {
        ssize_t done = write_now(fd, n, RWF_NOSIGNAL);
        if (done >= 0 || errno == EAGAIN || errno == EPIPE)
            return done;
        must_block = errno == EOPNOTSUPP || errno == EINVAL;
    }
    sigemptyset(&sigpipe);
    sigemptyset(&pending);
    sigaddset(&sigpipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe, &old);
    if (sigismember(&old, SIGPIPE))
        sigpending(&pending);
    ssize_t done = write_now(fd, n, 0);
    if (done < 0 && errno == EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&sigpipe, NULL, &now) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return done;
}

/* Messages without a credit (own ones, and those that came along in a move) use up room. */
static int above_limit(const struct mio_port *port) {
    return (int)(port->queued - port->counted + port->once_frames);
}

/*
 * Brings the credits up to the limit, `at_once` of them with each write: a write wakes one of the
 * tasks that wait in turn. Without any reader the pipe takes none, and nobody wants any: then those
 * that are missing are written when the next reader is made.
 */
static void top_up(struct mio_port *port, int at_once) {
    for (;;) {
        int missing = (int)port->qlimit - above_limit(port) - port->issued;
        if (missing <= 0)
            return;
        size_t n = (size_t)(missing < at_once ? missing : at_once);
        ssize_t done =
            port->cr.fd >= 0 ? write_now(port->cw.fd, n, 0) : write_quietly(port->cw.fd, n);
        if (done <= 0)
            return;
        port->issued += (int)done;
    }
}

/* Takes up to n credits out of the pipe; 0: end of file; -1 with EAGAIN: none there. */
static ssize_t withdraw(int cr, size_t n) {
    char credits[CREDITS_MAX];
    if (mio_task.null < 0)
        mio_task.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (mio_task.null >= 0) { /* unlike read(), this asks nobody's O_NONBLOCK */
        ssize_t done = splice(cr, NULL, mio_task.null, NULL, n, SPLICE_F_NONBLOCK);
        if (done >= 0 || errno == EAGAIN || errno == EINTR)
            return done;
    }
    int flags = fcntl(cr, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK))
        fcntl(cr, F_SETFL, flags | O_NONBLOCK);
    return read(cr, credits, n < sizeof credits ? n : sizeof credits);
}

enum mio_credit mio_credit_take(struct mio_port *port) {
    if (port->state == MIO_PORT_REMOTE && port->credit_in_hand) {
        port->credit_in_hand = false;
        return MIO_CREDIT_TAKEN;
    }
    if (port->cr.fd < 0 &&
        (port->state != MIO_PORT_LOCAL || mio_channel_open_cr(port) != KERN_SUCCESS))
        return port->state == MIO_PORT_LOCAL ? MIO_CREDIT_NONE : MIO_CREDIT_DEAD;
    ssize_t n = withdraw(port->cr.fd, 1);
    return n > 0 ? MIO_CREDIT_TAKEN : n == 0 ? MIO_CREDIT_DEAD : MIO_CREDIT_NONE;
}

/*
 * Who sends without taking makes the receiver write credits that nobody took. So the pipe is looked
 * at once for every limit's worth that came back: more than that is never too many.
 */
void mio_credit_return(struct mio_port *port, bool counted) {
    if (port->cw.fd < 0)
        return;
    port->issued -= counted;
    if (++port->returned >= port->qlimit) {
        int unused = credits_free(port);
        if (port->issued < unused)
            port->issued = unused;
        port->returned = 0;
    }
    top_up(port, 1);
}

void mio_credit_set_limit(struct mio_port *port, unsigned limit) {
    port->qlimit = limit;
    if (port->cw.fd < 0)
        return;
    mio_channel_widen(port, limit);
    int excess = port->issued + above_limit(port) - (int)limit;
    if (excess <= 0) {
        top_up(port, 1);
    } else if (mio_channel_open_cr(port) == KERN_SUCCESS) {
        ssize_t n = withdraw(port->cr.fd, (size_t)excess);
        if (n > 0)
            port->issued -= (int)n;
        mio_channel_trim(port);
    }
}

void mio_credit_recover(struct mio_port *port) {
    if (port->cw.fd < 0)
        return;
    port->issued = credits_free(port) + (int)port->counted;
    top_up(port, 1);
}

unsigned mio_channel_depth(struct mio_port *port) {
    if (port->cw.fd < 0)
        return 0;
    int depth = port->issued - credits_free(port) - (int)port->counted;
    return depth > 0 ? (unsigned)depth : 0;
}

/* ---- birth ------------------------------------------------------------------------------- */

/* A channel that is no port's yet; a descriptor that is not there is -1. */
struct channel {
    int rx, tx, cr, cw;
    ino_t pipe;
};

static void unmake(struct channel *channel) {
    int fds[] = {channel->rx, channel->tx, channel->cr, channel->cw};
    int error = errno;
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    errno = error;
}

/* errno EADDRINUSE: somebody squats on the name; the next channel has another. */
static bool make(struct channel *ret, char kind) {
    struct channel made = {.rx = -1, .tx = -1, .cr = -1, .cw = -1};
    struct sockaddr_un name;
    int fds[2];

    if (mio_pair(fds) != 0)
        return false;
    made.rx = fds[0], made.tx = fds[1];
    const char *what = "pipe2";
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0) {
        made.cr = fds[0], made.cw = fds[1];
        what = "fchmod and fstat of a pipe, or shutdown of a socket";
        /* Readable again through /proc, but not writable: a sender must not mint credits. */
        if (fchmod(made.cw, 0444) == 0 && mio_new_pipe_inode(made.cw, &made.pipe) &&
            shutdown(made.tx, SHUT_RD) == 0) {
            mio_pair_receiver(made.rx);
            socklen_t length = mio_channel_name(&name, kind, mio_socket_cookie(made.rx), made.pipe);
            what = "bind of an abstract AF_UNIX name";
            if (bind(made.rx, (struct sockaddr *)&name, length) == 0) {
                *ret = made;
                return true;
            }
        }
    }
    note_refusal(what);
    unmake(&made);
    return false;
}

/* Ownership: on success the descriptors are the port's; otherwise they are closed. */
static bool adopt(struct mio_port *port, struct channel *channel) {
    port->rx.kind = MIO_SOURCE_RX, port->cw.kind = MIO_SOURCE_CW, port->cr.kind = MIO_SOURCE_CR;
    port->rx.port = port->cw.port = port->cr.port = port;
    if (mio_source_set(&port->rx, channel->rx) == 0) {
        channel->rx = -1;
        if (mio_source_set(&port->cw, channel->cw) == 0) {
            channel->cw = -1;
            if (mio_source_set(&port->cr, channel->cr) == 0) {
                port->tx = channel->tx;
                return true;
            }
        }
    }
    mio_source_close(&port->rx);
    mio_source_close(&port->cw);
    unmake(channel);
    return false;
}

kern_return_t mio_channel_open(struct mio_port *port) {
    struct channel channel;
    bool made;
    if (port->cookie != 0)
        return KERN_SUCCESS;
    if (port->state != MIO_PORT_LOCAL)
        return KERN_INVALID_ARGUMENT;
    for (int tries = 1; !(made = make(&channel, (char)port->kind)); tries++)
        if (errno != EADDRINUSE || tries == NAME_RETRIES)
            break;
    if (!made || !adopt(port, &channel))
        return KERN_RESOURCE_SHORTAGE;
    port->cookie = mio_socket_cookie(port->tx);
    port->pipe = channel.pipe;
    port->broken = port->senders_gone = false;
    mio_port_hash(port);
    mio_channel_widen(port, port->qlimit);
    port->issued = (int)port->counted; /* messages that are here already hold theirs */
    top_up(port, CREDITS_MAX);         /* nobody waits for them yet */
    mio_watch_source_added(port, &port->rx);
    mio_notice_update_port(port);
    mio_port_wake_all(port);
    return KERN_SUCCESS;
}

kern_return_t mio_channel_open_cr(struct mio_port *port) {
    char path[sizeof "/proc/self/fd/-2147483648"];
    if (port->cr.fd >= 0)
        return KERN_SUCCESS;
    if (port->cw.fd < 0)
        return KERN_INVALID_ARGUMENT;
    snprintf(path, sizeof path, "/proc/self/fd/%d", port->cw.fd);
    int cr = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (cr < 0) {
        note_refusal("/proc/self/fd");
        return KERN_RESOURCE_SHORTAGE;
    }
    port->cr.kind = MIO_SOURCE_CR;
    port->cr.port = port;
    if (mio_source_set(&port->cr, cr) != 0) {
        close(cr);
        return KERN_RESOURCE_SHORTAGE;
    }
    top_up(port, CREDITS_MAX); /* nobody waits for them yet */
    if (port->senders_gone) {
        port->senders_gone = false;
        mio_notice_update_port(port);
    }
    return KERN_SUCCESS;
}

void mio_channel_trim(struct mio_port *port) {
    if (port->state == MIO_PORT_LOCAL && port->srights == 0)
        mio_source_close(&port->cr);
}

/* ---- death ------------------------------------------------------------------------------- */

static void forget(struct mio_port *port) {
    mio_port_unhash(port);
    mio_source_close(&port->cr);
    if (port->kind == MIO_PORT_FILE)
        mio_fd_discard(port->tx);
    else if (port->tx >= 0)
        close(port->tx);
    port->tx = -1;
    port->cookie = 0;
    port->pipe = 0;
    port->credit_in_hand = false;
}

/*
 * Who closes the last end of one side of a pipe leaves the time of it in the pipe's inode, where
 * the other side finds it: a modification time that is a nanosecond after the access time, as
 * neither reading nor writing leaves them. It is possible for the user who made the pipe only.
 */
static void leave_time(int fd) {
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[1]);
    times[1].tv_nsec |= 1; /* one less is of the same second */
    times[0] = times[1];
    times[0].tv_nsec--;
    futimens(fd, times);
}

uint64_t mio_channel_ended(int fd) {
    struct stat pipe;
    if (fstat(fd, &pipe) != 0 || pipe.st_mtim.tv_sec != pipe.st_atim.tv_sec ||
        pipe.st_mtim.tv_nsec != pipe.st_atim.tv_nsec + 1)
        return MIO_NOW;
    uint64_t now = mio_now(), when = (uint64_t)pipe.st_mtim.tv_sec * UINT64_C(1000000000) +
                                     (uint64_t)pipe.st_mtim.tv_nsec;
    return when < now ? when : now;
}

void mio_channel_close(struct mio_port *port) {
    if (port->cookie == 0)
        return;
    if (port->rx.fd < 0) {
        if (port->credit_in_hand)
            mio_wire_signal(port->tx, MIO_FRAME_NUDGE); /* it is lost now */
        mio_notice_forget_room(port);
        if (port->cr.fd >= 0)
            leave_time(port->cr.fd);
        forget(port);
        return;
    }
    mio_channel_hang_up(port);
    mio_wire_drain(port->rx.fd);
    mio_channel_bury(port);
    mio_reap();
}

/* Senders must see the pipe hang up before the socket: else the port looks broken, not dead. */
void mio_channel_hang_up(struct mio_port *port) {
    if (port->cookie == 0)
        return;
    if (mio_port_has_message(port)) /* it will take a while */
        mio_channel_open_cr(port);
    mio_port_unhash(port);
    leave_time(port->cw.fd);
    mio_source_close(&port->cw);
    shutdown(port->rx.fd, SHUT_RDWR);
}

void mio_channel_bury(struct mio_port *port) {
    if (port->cookie == 0)
        return;
    if (port->cr.fd >= 0)
        leave_time(port->cr.fd);
    mio_source_close(&port->rx);
    forget(port);
    port->issued = 0;
}
