/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Files in memory that nobody can change any more: how bytes travel that are too many for a
 * frame, and out-of-line memory. A receiver maps such a file or reads it, and whatever the peer
 * does afterwards, the bytes stay and there are as many of them; so it asks for the seals first.
 *
 * No lock. Owns no descriptors: each is the caller's.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

int mio_memfd_new(void) {
    int fd = memfd_create("mach_msg", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL) /* a kernel before 6.3 */
        fd = memfd_create("mach_msg", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd;
}

kern_return_t mio_memfd_write(int fd, const void *from, size_t size, uint64_t at) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < at + size)
        return KERN_RESOURCE_SHORTAGE; /* writing would raise SIGXFSZ */
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, (const char *)from + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 && errno == EFAULT ? KERN_INVALID_ADDRESS : KERN_RESOURCE_SHORTAGE;
        done += (size_t)n;
    }
    return KERN_SUCCESS;
}

bool mio_memfd_read(int fd, void *to, size_t size, uint64_t at) {
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(fd, (char *)to + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

bool mio_memfd_resize(int fd, uint64_t size) {
    struct rlimit limit;
    if (size > INT64_MAX || (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < size))
        return false;
    return ftruncate(fd, (off_t)size) == 0;
}

bool mio_memfd_seal(int fd) {
    return fcntl(fd, F_ADD_SEALS, SEALS) == 0;
}

int mio_memfd_sealed_copy(int fd, uint64_t size) {
    int copy = mio_memfd_new();
    off_t from = 0;
    if (copy < 0)
        return -1;
    bool done = mio_memfd_resize(copy, size);
    while (done && (uint64_t)from < size) {
        ssize_t n = sendfile(copy, fd, &from, (size_t)(size - (uint64_t)from));
        done = n > 0 || (n < 0 && errno == EINTR);
    }
    if (done && mio_memfd_seal(copy))
        return copy;
    close(copy);
    return -1;
}

/* Huge pages are refused: there may be none left when one is touched, which is SIGBUS. */
bool mio_memfd_is_sealed(int fd, uint64_t size) {
    struct statfs system;
    struct stat stat;
    int seals = fcntl(fd, F_GET_SEALS), flags = fcntl(fd, F_GETFL);
    return seals >= 0 && (seals & SEALS) == SEALS && flags >= 0 &&
           (flags & O_ACCMODE) != O_WRONLY && fstat(fd, &stat) == 0 && stat.st_size >= 0 &&
           (uint64_t)stat.st_size == size && fstatfs(fd, &system) == 0 &&
           system.f_type == TMPFS_MAGIC;
}
