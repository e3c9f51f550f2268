/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Frames in and out of sockets. encode.c makes them of messages and decode.c messages of them.
 *
 * A message must never be half received. The kernel installs the descriptors of a message as far
 * as they fit and drops the rest with the message. So, unless this task is sure to have room for
 * all that a message can carry, the message is first looked at (MSG_PEEK, which installs copies
 * and takes nothing), and taken off only when nothing was missing. MSG_CTRUNC is how the kernel
 * says that something was.
 *
 * Guarded by mio_task.lock; owns no descriptors beyond a call.
 */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif

#define HEADROOM 1024 /* descriptors: with so many free numbers nothing will be missing */
#define WARY 64 /* frames after an announcement: others may have sent before what it announces */

/* Rights, credentials, a stamp; and what another holder may have switched on to disturb us. */
#define CONTROL_SIZE                                                             \
    (CMSG_SPACE(MIO_WIRE_FDS * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)) + \
     CMSG_SPACE(sizeof(struct timespec)) + 1024)

/* ---- out --------------------------------------------------------------------------------- */

static enum mio_wire_result send_error(int error) {
    switch (error) {
    case EAGAIN:
        return MIO_WIRE_FULL;
    case EPIPE:
    case ECONNREFUSED:
    case ECONNRESET:
    case ENOTCONN:
        return MIO_WIRE_GONE;
    default: /* ETOOMANYREFS, ENOMEM, ENOBUFS, and what a sandbox may say */
        return MIO_WIRE_SHORTAGE;
    }
}

/* A frame larger than the whole buffer: some holder of the socket made it small. */
static bool make_room(int fd, size_t length) {
    int size = (int)length + 4096, now = 0;
    socklen_t option_length = sizeof now;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &now, &option_length) == 0 && now > size;
}

enum mio_wire_result mio_wire_transmit(int fd, const void *frame, size_t length, const int *fds,
                                       unsigned nfds) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(MIO_WIRE_FDS * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)frame, .iov_len = length};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (nfds > 0) {
        memset(&control, 0, CMSG_SPACE(nfds * sizeof(int)));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
    }
    for (bool again = false;; again = true) {
        if (sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return MIO_WIRE_OK;
        if (errno == EINTR)
            continue;
        if (again || errno != EMSGSIZE || !make_room(fd, length))
            return send_error(errno);
    }
}

enum mio_wire_result mio_wire_signal(int fd, unsigned kind) {
    struct mio_wire_head head = {
        .magic = MIO_WIRE_MAGIC, .version = MIO_WIRE_VERSION, .kind = (uint8_t)kind};
    return mio_wire_transmit(fd, &head, sizeof head, NULL, 0);
}

/* ---- in ---------------------------------------------------------------------------------- */

static unsigned
    wary; /* so many frames more are looked at first: one with bundles may be among them */

/*
 * Numbers are given out lowest first: if one so far below the limit is free, so are those above it,
 * unless somebody chose their numbers himself.
 */
static bool short_of_descriptors(void) {
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < HEADROOM ||
           fcntl((int)limit.rlim_cur - HEADROOM, F_GETFD) >= 0;
}

static void start(struct mio_wire_input *input) {
    input->fds = input->few;
    input->nfds = 0;
    input->stamp = 0;
    input->sender = (struct mio_sender){.uid = MIO_WIRE_NOBODY, .gid = MIO_WIRE_NOBODY};
}

static void keep_fds(struct mio_wire_input *input, const struct cmsghdr *cmsg) {
    size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
        if (fd < 0)
            continue;
        if (input->nfds < MIO_WIRE_FDS)
            input->fds[input->nfds++] = fd;
        else
            mio_fd_discard(fd);
    }
}

static void read_control(struct mio_wire_input *input, struct msghdr *msg) {
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET)
            continue;
        if (cmsg->cmsg_type == SCM_RIGHTS) {
            keep_fds(input, cmsg);
        } else if (cmsg->cmsg_type == SCM_CREDENTIALS &&
                   cmsg->cmsg_len >= CMSG_LEN(sizeof(struct ucred))) {
            struct ucred creds;
            memcpy(&creds, CMSG_DATA(cmsg), sizeof creds);
            input->sender =
                (struct mio_sender){.uid = creds.uid, .gid = creds.gid, .pid = creds.pid};
        } else if (cmsg->cmsg_type == SCM_TIMESTAMPNS &&
                   cmsg->cmsg_len >= CMSG_LEN(sizeof(struct timespec))) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(cmsg), sizeof stamp);
            input->stamp = (uint64_t)stamp.tv_sec * UINT64_C(1000000000) + (uint64_t)stamp.tv_nsec;
        } else if (cmsg->cmsg_type == SCM_PIDFD && cmsg->cmsg_len >= CMSG_LEN(sizeof(int))) {
            int pidfd; /* nobody here asks for one: another holder of the socket did */
            memcpy(&pidfd, CMSG_DATA(cmsg), sizeof pidfd);
            if (pidfd >= 0)
                close(pidfd);
        }
    }
}

void mio_wire_input_clear(struct mio_wire_input *input) {
    for (unsigned i = 0; i < input->nfds; i++)
        mio_fd_discard(input->fds[i]);
    if (input->fds != input->few)
        free(input->fds);
    input->fds = input->few;
    input->nfds = 0;
}

/* EINTR cannot last; ECONNRESET says once that the other end threw something away. */
static ssize_t recvmsg_now(int fd, struct msghdr *msg, int flags) {
    ssize_t n = -1;
    for (int tries = 0; tries < 3; tries++) {
        n = recvmsg(fd, msg, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n >= 0 || (errno != EINTR && errno != ECONNRESET))
            break;
    }
    return n;
}

/* The frame that was looked at leaves the queue; its descriptors are here already. */
static bool take_off(int fd) {
    struct msghdr msg = {.msg_iov = NULL};
    return recvmsg_now(fd, &msg, 0) >= 0;
}

/* Whether a number is free: if so, what kept the kernel from installing another was not that. */
static bool has_free_number(int fd) {
    int probe = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (probe >= 0)
        close(probe);
    return probe >= 0;
}

enum mio_wire_result mio_wire_look(int fd, struct mio_wire_input *input) {
    char byte;
    union {
        struct cmsghdr align;
        char bytes[CONTROL_SIZE];
    } control;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    start(input);
    ssize_t n = recvmsg_now(fd, &msg, MSG_PEEK);
    if (n < 0)
        return errno == ENOMEM || errno == ENOBUFS ? MIO_WIRE_SHORTAGE : MIO_WIRE_GONE;
    read_control(input, &msg);
    if (n == 1 && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return MIO_WIRE_OK;
    bool full = msg.msg_flags & MSG_CTRUNC && !has_free_number(fd);
    mio_wire_input_clear(input);
    return full ? MIO_WIRE_SHORTAGE : MIO_WIRE_GONE;
}

static bool read_head(const struct mio_wire_input *input, struct mio_wire_head *ret) {
    if (input->length < sizeof *ret)
        return false;
    memcpy(ret, input->frame, sizeof *ret);
    return ret->magic == MIO_WIRE_MAGIC && ret->version == MIO_WIRE_VERSION;
}

/* If what came are bundles, opens them. */
static enum mio_wire_result open_bundles(struct mio_wire_input *input) {
    struct mio_wire_head head;
    if (!read_head(input, &head) || !(head.flags & MIO_HEAD_BUNDLES))
        return MIO_WIRE_OK;
    return mio_bundles_open(input, head.nfds);
}

/* One frame off the socket. *ret_bad: it cannot be what it should; *input has no descriptors. */
static enum mio_wire_result take(int fd, struct mio_wire_input *input, bool *ret_bad) {
    static uint8_t frame[MIO_WIRE_FRAME_MAX];
    union {
        struct cmsghdr align;
        char bytes[CONTROL_SIZE];
    } control;
    struct iovec iov = {.iov_base = frame, .iov_len = sizeof frame};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    bool peek = short_of_descriptors() || wary > 0;

    start(input);
    input->frame = frame;
    ssize_t n = recvmsg_now(fd, &msg, peek ? MSG_PEEK : 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR     ? MIO_WIRE_FULL
               : errno == ENOMEM || errno == ENOBUFS ? MIO_WIRE_SHORTAGE
                                                     : MIO_WIRE_GONE;
    if (n == 0 && msg.msg_controllen == 0 && !(msg.msg_flags & MSG_CTRUNC))
        return MIO_WIRE_GONE; /* a frame would come with its sender's credentials */
    input->length = (size_t)n;
    read_control(input, &msg);
    *ret_bad = msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    enum mio_wire_result opened = *ret_bad ? MIO_WIRE_GONE : open_bundles(input);
    if (peek) {
        if (opened == MIO_WIRE_SHORTAGE || (msg.msg_flags & MSG_CTRUNC && !has_free_number(fd))) {
            mio_wire_input_clear(input);
            return MIO_WIRE_SHORTAGE;
        }
        if (!take_off(fd)) { /* a former holder of the socket stole it */
            mio_wire_input_clear(input);
            return MIO_WIRE_FULL;
        }
        wary -= wary > 0;
    }
    *ret_bad = opened != MIO_WIRE_OK;
    if (*ret_bad)
        mio_wire_input_clear(input);
    if (input->stamp == 0)
        input->stamp = mio_now();
    return MIO_WIRE_OK;
}

static bool is_signal(const struct mio_wire_head *head, const struct mio_wire_input *input) {
    const struct mio_wire_head only = {
        .magic = MIO_WIRE_MAGIC, .version = MIO_WIRE_VERSION, .kind = head->kind};
    return input->length == sizeof only && input->nfds == 0 &&
           memcmp(head, &only, sizeof only) == 0;
}

enum mio_wire_result mio_wire_receive(int fd, struct mio_kmsg **ret_kmsg, unsigned *ret_kind,
                                      unsigned *ret_flags) {
    struct mio_wire_input input;
    struct mio_wire_head head;
    bool bad;
    enum mio_wire_result result = take(fd, &input, &bad);
    if (result == MIO_WIRE_OK && !bad && read_head(&input, &head) &&
        head.kind == MIO_FRAME_ANNOUNCED && is_signal(&head, &input)) {
        wary = WARY;
        result = take(fd, &input, &bad);
    }
    if (result != MIO_WIRE_OK)
        return result;
    *ret_kmsg = NULL;
    *ret_kind = MIO_FRAME_BAD;
    *ret_flags = 0;
    if (bad || !read_head(&input, &head)) {
        mio_wire_input_clear(&input);
    } else if (head.kind == MIO_FRAME_MESSAGE) {
        *ret_flags = (head.flags & MIO_HEAD_NO_CREDIT ? (unsigned)MIO_FRAME_NO_CREDIT : 0) |
                     (head.flags & MIO_HEAD_ONCE ? (unsigned)MIO_FRAME_ONCE : 0);
        *ret_kmsg = mio_wire_decode(&input);
        if (*ret_kmsg != NULL)
            *ret_kind = MIO_FRAME_MESSAGE;
    } else if ((head.kind == MIO_FRAME_NUDGE || head.kind == MIO_FRAME_DROPPED) &&
               is_signal(&head, &input)) {
        *ret_kind = head.kind;
    } else {
        mio_wire_input_clear(&input);
    }
    return MIO_WIRE_OK;
}

/*
 * The stamp is the first thing that the kernel writes into the control buffer, and there is room
 * for no more, so no descriptor is installed; if another holder switched stamps off, some may be.
 */
uint64_t mio_wire_peek_stamp(int fd) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct timespec))];
    } control;
    struct mio_wire_input input;
    struct msghdr msg = {.msg_control = &control, .msg_controllen = sizeof control};
    start(&input);
    ssize_t n = recvmsg_now(fd, &msg, MSG_PEEK);
    if (n < 0 || (msg.msg_controllen == 0 && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))))
        return 0;
    read_control(&input, &msg);
    mio_wire_input_clear(&input);
    return input.stamp != 0 ? input.stamp : 1; /* something is there: before all that has a time */
}

/* Unlike mio_wire_drain() this may be called while a frame is being read: it looks at none. */
void mio_wire_discard(int fd) {
    struct mio_wire_input input;
    union {
        struct cmsghdr align;
        char bytes[CONTROL_SIZE];
    } control;
    start(&input);
    for (bool shut = false;; shut = true) {
        struct msghdr msg = {.msg_control = &control, .msg_controllen = sizeof control};
        ssize_t n = recvmsg_now(fd, &msg, 0);
        if (n < 0 ? shut : msg.msg_controllen == 0 && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
            return; /* its end, or nothing more is there and nothing can come */
        if (!shut)
            shutdown(fd, SHUT_RDWR);
        if (n >= 0) {
            read_control(&input, &msg);
            mio_wire_input_clear(&input);
        }
    }
}

void mio_wire_drain(int fd) {
    struct mio_kmsg *kmsg;
    unsigned kind, flags;
    shutdown(fd, SHUT_RDWR);
    while (mio_wire_receive(fd, &kmsg, &kind, &flags) == MIO_WIRE_OK) {
        if (kmsg == NULL)
            continue;
        kmsg->next = NULL;
        *mio_task.dying_tail = kmsg;
        mio_task.dying_tail = &kmsg->next;
    }
}
