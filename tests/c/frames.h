/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * frames.h - frames as a program sees them that knows none.
 */
#ifndef MACHIO_TESTS_FRAMES_H
#define MACHIO_TESTS_FRAMES_H

#include "check.h"

#include <sys/socket.h>

/* The one descriptor of the next frame. */
static inline int take_descriptor(int fd) {
    union {
        struct cmsghdr align;
        char bytes[256];
    } control;
    char frame[4096];
    struct iovec iov = {.iov_base = frame, .iov_len = sizeof frame};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof control};
    int taken = -1;
    CHECK(recvmsg(fd, &msg, 0) > 0);
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg != NULL; cmsg = CMSG_NXTHDR(&msg, cmsg))
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
            memcpy(&taken, CMSG_DATA(cmsg), sizeof taken);
    CHECK(taken >= 0);
    return taken;
}

#endif
