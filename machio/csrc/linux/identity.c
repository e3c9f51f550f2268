/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What a descriptor is that another task sent. A peer can send any file it likes and call it a
 * port; here each is asked, with calls that never block whatever it turns out to be.
 *
 * The parts of a port belong together because its maker bound the receiving socket to a name in
 * which the kernel's cookie of that socket and the inode of the credit pipe are written. Nobody
 * can bind it again, and every sender reads it with getpeername(). A sending end, of a port or of
 * a send-once right, is shut for reading from the start: so nothing can be queued at it that
 * would have to be thrown away, at somebody's cost, when it is closed.
 *
 * Guarded by mio_task.lock. Owns the descriptors in `rejects` until a thread has closed them.
 */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- names ------------------------------------------------------------------------------- */

#define NAME_OFFSET (offsetof(struct sockaddr_un, sun_path) + 1)

socklen_t mio_channel_name(struct sockaddr_un *ret, char kind, uint64_t cookie, ino_t pipe) {
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(ret->sun_path + 1, sizeof ret->sun_path - 1, "machio/%c/%" PRIu64 "/%" PRIu64,
                     kind, cookie, (uint64_t)pipe);
    return (socklen_t)NAME_OFFSET + (socklen_t)n;
}

/* Reads what mio_channel_name() wrote; one name has one spelling. */
static bool parse_name(const struct sockaddr_un *name, socklen_t length, char *ret_kind,
                       uint64_t *ret_cookie, ino_t *ret_pipe) {
    char text[sizeof name->sun_path];
    struct sockaddr_un again;
    uint64_t cookie, pipe;
    char kind;

    if (length <= NAME_OFFSET || length > sizeof *name || name->sun_family != AF_UNIX ||
        name->sun_path[0] != '\0')
        return false;
    memcpy(text, name->sun_path + 1, length - NAME_OFFSET);
    text[length - NAME_OFFSET] = '\0';
    if (sscanf(text, "machio/%c/%" SCNu64 "/%" SCNu64, &kind, &cookie, &pipe) != 3)
        return false;
    if (kind != MIO_PORT_PLAIN && kind != MIO_PORT_BOOTSTRAP &&
        (!mio_kind_is_kernels((enum mio_port_kind)kind) || kind == MIO_PORT_FILE))
        return false;
    if (mio_channel_name(&again, kind, cookie, (ino_t)pipe) != length ||
        memcmp(&again, name, length) != 0)
        return false;
    *ret_kind = kind;
    *ret_cookie = cookie;
    *ret_pipe = (ino_t)pipe;
    return true;
}

/* ---- files ------------------------------------------------------------------------------- */

uint64_t mio_socket_cookie(int fd) {
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) != 0)
        return 0;
    return cookie;
}

static int socket_option(int fd, int option) {
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

static bool is_seqpacket(int fd) {
    return socket_option(fd, SO_DOMAIN) == AF_UNIX && socket_option(fd, SO_TYPE) == SOCK_SEQPACKET;
}

/*
 * Whether a socket is shut for reading and holds nothing: closing it costs nobody anything. One
 * whose other end was closed with messages in it says so first, once.
 */
static bool is_deaf(int fd) {
    struct msghdr msg = {.msg_iov = NULL};
    ssize_t n = recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && errno == ECONNRESET)
        n = recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

/* DONT_SYNC: a file of a network or user-space file system is not asked over there. */
static bool inode_of(int fd, struct statx *ret) {
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, ret) == 0;
}

/* The device of all pipes that pipe() makes; a FIFO in a file system has another. */
static bool is_pipefs(const struct statx *stat) {
    static bool known;
    static uint32_t dev_major, dev_minor;
    if (!known) {
        struct statx own;
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) != 0)
            return false;
        known = inode_of(fds[0], &own);
        if (known)
            dev_major = own.stx_dev_major, dev_minor = own.stx_dev_minor;
        close(fds[0]);
        close(fds[1]);
    }
    return known && stat->stx_dev_major == dev_major && stat->stx_dev_minor == dev_minor;
}

static bool look_at_pipe(int fd, struct statx *ret) {
    return fcntl(fd, F_GETPIPE_SZ) > 0 && inode_of(fd, ret) && is_pipefs(ret);
}

bool mio_pipe_inode(int fd, int access, ino_t *ret_inode) {
    struct statx stat;
    int flags;
    if (!look_at_pipe(fd, &stat) || (flags = fcntl(fd, F_GETFL)) < 0 ||
        (flags & (O_ACCMODE | O_PATH)) != access)
        return false;
    *ret_inode = (ino_t)stat.stx_ino;
    return true;
}

bool mio_new_pipe_inode(int fd, ino_t *ret_inode) {
    struct statx stat;
    if (!inode_of(fd, &stat))
        return false;
    *ret_inode = (ino_t)stat.stx_ino;
    return true;
}

bool mio_pipe_is(int fd, ino_t inode) {
    struct statx stat;
    return look_at_pipe(fd, &stat) && (ino_t)stat.stx_ino == inode;
}

/* ---- parts of a port --------------------------------------------------------------------- */

bool mio_channel_verify_send(int tx, int cr, struct mio_port *identity) {
    struct sockaddr_un peer;
    socklen_t length = sizeof peer;
    uint64_t rx_cookie;
    ino_t named, pipe;
    char kind;

    if (!is_seqpacket(tx) || getpeername(tx, (struct sockaddr *)&peer, &length) != 0 ||
        !parse_name(&peer, length, &kind, &rx_cookie, &named) || !is_deaf(tx) ||
        !mio_pipe_inode(cr, O_RDONLY, &pipe) || pipe != named)
        return false;
    identity->pipe = pipe;
    identity->kind = (enum mio_port_kind)kind;
    return true;
}

bool mio_channel_verify_receive(int rx, int tx, int cw, bool known, struct mio_port *identity) {
    struct sockaddr_un own, peer;
    socklen_t own_length = sizeof own, peer_length = sizeof peer;
    uint64_t rx_cookie;
    ino_t named, pipe;
    char kind;

    if (!is_seqpacket(rx) || (!known && !is_seqpacket(tx)) ||
        getsockname(rx, (struct sockaddr *)&own, &own_length) != 0 ||
        getpeername(tx, (struct sockaddr *)&peer, &peer_length) != 0 ||
        !parse_name(&own, own_length, &kind, &rx_cookie, &named) || peer_length != own_length ||
        memcmp(&peer, &own, own_length) != 0 || rx_cookie != mio_socket_cookie(rx) ||
        (!known && !is_deaf(tx)) || !mio_pipe_inode(cw, O_WRONLY, &pipe) || pipe != named)
        return false;
    identity->pipe = pipe;
    identity->kind = (enum mio_port_kind)kind;
    return identity->cookie != rx_cookie;
}

/* Connected, or once so, to one without a name: what has a name is a port's. */
static bool is_connected_to_nameless(int fd) {
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    return is_seqpacket(fd) && getpeername(fd, (struct sockaddr *)&name, &length) == 0 &&
           length <= sizeof name.sun_family;
}

static bool is_nameless_pair(int fd) {
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    return is_connected_to_nameless(fd) &&
           getsockname(fd, (struct sockaddr *)&name, &length) == 0 &&
           length <= sizeof name.sun_family;
}

/* Its own name matters not: what is deaf receives for no port. */
bool mio_channel_verify_once(int tx) {
    return is_connected_to_nameless(tx) && is_deaf(tx);
}

bool mio_channel_verify_once_rx(int rx) {
    return is_nameless_pair(rx);
}

bool mio_channel_verify_bundle(int fd, uint64_t *ret_cookie) {
    *ret_cookie = mio_socket_cookie(fd);
    return is_nameless_pair(fd) && *ret_cookie != 0;
}

/* Nobody can put anything into it any more: its file is there, or was taken out. */
bool mio_channel_verify_file(int tx, uint64_t *ret_cookie) {
    struct pollfd end = {.fd = tx};
    return mio_channel_verify_bundle(tx, ret_cookie) && poll(&end, 1, 0) == 1 &&
           end.revents & POLLHUP && (mio_file_is_there(tx) || is_deaf(tx));
}

/* ---- getting rid ------------------------------------------------------------------------- */

struct reject {
    struct reject *next;
    int fd;
};

static struct reject *rejects;
static pid_t closer; /* the process in which the thread below runs; 0: none */

/* close() may wait: for a network, a terminal, a file system in user space. This thread can. */
static void *close_rejects(void *unused) {
    (void)unused;
    mio_lock();
    while (rejects != NULL) {
        struct reject *reject = rejects;
        rejects = reject->next;
        mio_unlock();
        close(reject->fd);
        free(reject);
        mio_lock();
    }
    closer = 0;
    mio_unlock();
    return NULL;
}

static void start_closer(void) {
    pid_t pid = getpid(); /* not that of a parent, whose threads are not here */
    pthread_t thread;
    sigset_t all, old;
    if (closer == pid)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, NULL, close_rejects, NULL) == 0) {
        closer = pid;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static bool closes_at_once(int fd) {
    if (fcntl(fd, F_GETPIPE_SZ) > 0)
        return true;
    int domain = socket_option(fd, SO_DOMAIN);
    if (domain == AF_UNIX)
        return is_deaf(fd);
    if (domain >= 0) {
        struct linger off = {.l_onoff = 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
        return false; /* a peer may have set it again */
    }
    return fcntl(fd, F_GET_SEALS) >= 0;
}

/* Ownership: consumes the descriptor. */
void mio_fd_discard(int fd) {
    struct reject *reject;
    if (fd < 0)
        return;
    if (closes_at_once(fd) || (reject = malloc(sizeof *reject)) == NULL) {
        close(fd);
        return;
    }
    *reject = (struct reject){.next = rejects, .fd = fd};
    rejects = reject;
    start_closer();
}
