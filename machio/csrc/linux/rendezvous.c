/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Where tasks and the bootstrap server meet: a private directory with
 *
 *   socket   the server listens here (SOCK_SEQPACKET)
 *   lock     flock: held for the moment in which a server is started or leaves. Its text is the
 *            pid of the server; what is left of it tells the next that this one did not leave
 *   log      stderr of a server that was started by a task
 *
 * The directory is opened once and checked; its files are reached through the descriptor, as
 * /proc/self/fd/<n>/socket, so nobody can exchange it afterwards and its path may be long.
 *
 * Starting: whoever finds nobody takes the lock, looks again, and if there is still nobody binds
 * the socket, gives it to the new server (which need not be ready: the kernel keeps connections
 * until it is) and lets the lock go. Leaving: under the same lock, unlink. A client that was in
 * between is hung up on, and looks again.
 *
 * `starting` is held whenever a descriptor exists that a forked child must not keep: the lock
 * file, which would stay locked, and the listener, which would look like a living server. fork()
 * waits for it; it is never held for longer than an exec takes, and no other lock is taken in it.
 */
#include "rendezvous.h"
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REMEDY "or set MACHIO_BOOTSTRAP to the absolute path of another directory"

/* Says what failed for want of descriptors or otherwise, and gives the code for it. */
static kern_return_t failed(const char *what, const char *path, int error) {
    mio_say("cannot %s %s: %s", what, path, strerror(error));
    switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case EAGAIN:
        return KERN_RESOURCE_SHORTAGE;
    default:
        return KERN_FAILURE;
    }
}

/* ---- the directory ------------------------------------------------------------------------- */

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static int claimed = -1; /* the server's own hold on its directory */

void mio_starting_lock(void) {
    pthread_mutex_lock(&starting);
}
void mio_starting_unlock(void) {
    pthread_mutex_unlock(&starting);
}

/* The child is not the server, whatever its parent was. */
void mio_rendezvous_fork_child(void) {
    int fd = claimed;
    claimed = -1;
    if (fd >= 0)
        close(fd);
    mio_starting_unlock();
}

struct place {
    int fd;
    char path[PATH_MAX];
};

int64_t mio_rendezvous_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void nap(void) {
    nanosleep(&(struct timespec){.tv_nsec = 5 * 1000 * 1000}, NULL);
}

/* $XDG_RUNTIME_DIR counts only if it is the user's own: su and sudo let another's through. */
static bool is_mine(const char *path) {
    struct stat status;
    return path[0] == '/' && stat(path, &status) == 0 && S_ISDIR(status.st_mode) &&
           status.st_uid == geteuid();
}

static kern_return_t find_place(struct place *place) {
    const char *chosen = mio_setting("MACHIO_BOOTSTRAP"), *runtime = mio_setting("XDG_RUNTIME_DIR");
    int size;

    if (chosen != NULL && chosen[0] != '/') {
        mio_say("MACHIO_BOOTSTRAP is \"%.200s\", but has to be the absolute path of a directory",
                chosen);
        return KERN_INVALID_ARGUMENT;
    }
    if (chosen != NULL)
        size = snprintf(place->path, sizeof place->path, "%s", chosen);
    else if (runtime != NULL && is_mine(runtime))
        size = snprintf(place->path, sizeof place->path, "%s/machio", runtime);
    else
        size = snprintf(place->path, sizeof place->path, "/tmp/machio-%u", (unsigned)geteuid());
    if (size >= (int)sizeof place->path - 8) {
        mio_say("the path of the bootstrap directory is too long: %.80s...", place->path);
        return KERN_INVALID_ARGUMENT;
    }
    /* A slash at the end would follow a symbolic link. */
    while (size > 1 && place->path[size - 1] == '/')
        place->path[--size] = '\0';
    return KERN_SUCCESS;
}

/* Opens the directory, made if it is not there, and checks that it is this user's alone. */
static kern_return_t open_place(struct place *place) {
    struct stat status;
    place->fd = -1;
    kern_return_t result = find_place(place);
    if (result != KERN_SUCCESS)
        return result;
    const char *path = place->path;
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        int error = errno;
        if (lstat(path, &status) < 0) {
            mio_say("cannot make the directory %s: %s; make it with mode 0700, " REMEDY, path,
                    strerror(error));
            return KERN_FAILURE;
        }
    }
    place->fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (place->fd < 0) {
        int error = errno;
        if (lstat(path, &status) == 0 && S_ISLNK(status.st_mode)) {
            mio_say("%s is a symbolic link, which anybody may have put there; remove it, " REMEDY,
                    path);
            return KERN_FAILURE;
        }
        if (error == ENOTDIR) {
            mio_say("%s is not a directory; remove it, " REMEDY, path);
            return KERN_FAILURE;
        }
        return failed("open the directory", path, error);
    }
    if (fstat(place->fd, &status) < 0)
        result = failed("look at", path, errno);
    else if (status.st_uid != geteuid())
        mio_say("%s belongs to uid %u, not to you (uid %u); have it removed, " REMEDY, path,
                (unsigned)status.st_uid, (unsigned)geteuid()),
            result = KERN_FAILURE;
    else if (status.st_mode & 077)
        mio_say("%s is open to others (mode %04o); run chmod 700 %s, " REMEDY, path,
                (unsigned)status.st_mode & 07777, path),
            result = KERN_FAILURE;
    if (result != KERN_SUCCESS) {
        close(place->fd);
        place->fd = -1;
    }
    return result;
}

kern_return_t machio_bootstrap_directory(char *path, unsigned int size) {
    struct place place;
    mio_say(NULL);
    kern_return_t result = find_place(&place);
    if (result != KERN_SUCCESS)
        return result;
    if (strlen(place.path) >= size)
        return KERN_INSUFFICIENT_BUFFER_SIZE;
    strcpy(path, place.path);
    return KERN_SUCCESS;
}

/* ---- the socket ---------------------------------------------------------------------------- */

enum reach { REACHED, NOBODY, BUSY, FAILED };

static kern_return_t address_of(const struct place *place, struct sockaddr_un *address) {
    char through[48];
    snprintf(through, sizeof through, "/proc/self/fd/%d", place->fd);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (access(through, F_OK) == 0) {
        snprintf(address->sun_path, sizeof address->sun_path, "%.48s/socket", through);
        return KERN_SUCCESS;
    }
    int size = snprintf(address->sun_path, sizeof address->sun_path, "%s/socket", place->path);
    if (size < (int)sizeof address->sun_path)
        return KERN_SUCCESS;
    mio_say("without /proc the path %s/socket is too long for a socket; mount /proc, " REMEDY,
            place->path);
    return KERN_FAILURE;
}

/* REACHED: *ret_fd is the caller's. FAILED: *ret_result, and a sentence. */
static enum reach try_connect(const struct place *place, int *ret_fd, kern_return_t *ret_result) {
    struct sockaddr_un address;
    struct ucred peer;
    socklen_t size = sizeof peer;

    *ret_result = address_of(place, &address);
    if (*ret_result != KERN_SUCCESS)
        return FAILED;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        *ret_result = failed("make a socket for", place->path, errno);
        return FAILED;
    }
    mio_pair_receiver(fd);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int error = errno;
        close(fd);
        if (error == ECONNREFUSED || error == ENOENT)
            return NOBODY;
        if (error == EAGAIN)
            return BUSY;
        *ret_result = failed("connect to the bootstrap server in", place->path, error);
        return FAILED;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
        (peer.uid == geteuid() || peer.uid == 0)) {
        *ret_fd = fd;
        return REACHED;
    }
    close(fd);
    mio_say("who listens in %s is uid %u, not you; remove the socket there, " REMEDY, place->path,
            (unsigned)peer.uid);
    *ret_result = KERN_FAILURE;
    return FAILED;
}

/* The lock, without waiting; -1: another has it (*ret_result KERN_ABORTED) or failure. */
static int try_lock(const struct place *place, kern_return_t *ret_result) {
    int fd = openat(place->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        *ret_result = failed("open the lock file in", place->path, errno);
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    *ret_result = errno == EWOULDBLOCK || errno == EINTR
                      ? KERN_ABORTED
                      : failed("lock the lock file in", place->path, errno);
    close(fd);
    return -1;
}

static void unlock(int fd) {
    flock(fd, LOCK_UN); /* also for a copy of the descriptor that is on its way to an exec */
    close(fd);
}

/* Binds and listens; the lock is held and nobody is there. */
static kern_return_t make_listener(const struct place *place, int *ret_listener) {
    struct sockaddr_un address;
    kern_return_t result = address_of(place, &address);
    if (result != KERN_SUCCESS)
        return result;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return failed("make a socket in", place->path, errno);
    unlinkat(place->fd, "socket", 0);
    fchmod(fd, 0600); /* the mode the file will have; the umask is the whole process' */
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) {
        result = failed("listen in", place->path, errno);
        close(fd);
        return result;
    }
    *ret_listener = fd;
    return KERN_SUCCESS;
}

/* ---- finding or starting the server -------------------------------------------------------- */

/* `starting` and the lock are held, nobody is there: makes a server. */
static kern_return_t start_server(const struct place *place, int64_t deadline) {
    int listener;
    kern_return_t result = make_listener(place, &listener);
    if (result != KERN_SUCCESS)
        return result;
    result = mio_start_server(place->fd, place->path, listener, deadline);
    close(listener);
    if (result != KERN_SUCCESS)
        unlinkat(place->fd, "socket", 0);
    return result;
}

/* Starts a server unless somebody else does or has: KERN_ABORTED, try to connect again. */
static kern_return_t start_if_alone(const struct place *place, int64_t deadline) {
    kern_return_t result;
    int fd;

    mio_starting_lock();
    int lock = try_lock(place, &result);
    if (lock >= 0) {
        switch (try_connect(place, &fd, &result)) {
        case REACHED:
            close(fd);
            result = KERN_ABORTED;
            break;
        case BUSY:
            result = KERN_ABORTED;
            break;
        case NOBODY:
            result = start_server(place, deadline);
            break;
        case FAILED:
            break;
        }
        unlock(lock);
    }
    mio_starting_unlock();
    return result;
}

kern_return_t mio_rendezvous_connect(bool start, int64_t deadline, int *ret_fd, bool *ret_started) {
    struct place place;
    kern_return_t result = open_place(&place);

    *ret_started = false;
    while (result == KERN_SUCCESS) {
        enum reach reach = try_connect(&place, ret_fd, &result);
        if (reach == REACHED || reach == FAILED)
            break;
        if (reach == NOBODY && (!start || *ret_started)) {
            mio_say("no bootstrap server listens in %s", place.path);
            result = *ret_started ? KERN_ABORTED : KERN_FAILURE;
            break;
        }
        if (reach == NOBODY) {
            result = start_if_alone(&place, deadline);
            *ret_started = result == KERN_SUCCESS;
            if (*ret_started)
                continue;
            if (result != KERN_ABORTED)
                break;
            result = KERN_SUCCESS;
        }
        if (mio_rendezvous_clock() >= deadline) {
            mio_say("the bootstrap server in %s accepts no connection", place.path);
            result = KERN_OPERATION_TIMED_OUT;
            break;
        }
        nap();
    }
    if (place.fd >= 0)
        close(place.fd);
    return result;
}

void mio_rendezvous_last_words(char *line, size_t size) {
    char text[512];
    struct place place;
    ssize_t got = 0;

    line[0] = '\0';
    if (open_place(&place) != KERN_SUCCESS)
        return;
    int log = openat(place.fd, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (log >= 0) {
        off_t end = lseek(log, 0, SEEK_END), most = sizeof text - 1;
        got = pread(log, text, sizeof text - 1, end > most ? end - most : 0);
        close(log);
    }
    close(place.fd);
    while (got > 0 && (text[got - 1] == '\n' || text[got - 1] == ' '))
        got--;
    text[got > 0 ? got : 0] = '\0';
    const char *last = strrchr(text, '\n');
    snprintf(line, size, "%s", last != NULL ? last + 1 : text);
}

/* ---- being the server ---------------------------------------------------------------------- */

bool mio_rendezvous_is_server(void) {
    return claimed >= 0;
}

kern_return_t machio_bootstrap_listen(int *ret_listener) {
    struct place place;
    int64_t deadline = mio_rendezvous_clock() + 5000;

    mio_say(NULL);
    kern_return_t result = open_place(&place);
    if (result != KERN_SUCCESS)
        return result;
    do {
        int fd;
        mio_starting_lock();
        int lock = try_lock(&place, &result);
        if (lock >= 0) {
            switch (try_connect(&place, &fd, &result)) {
            case REACHED:
                close(fd);
                /* fall through */
            case BUSY:
                mio_say("another bootstrap server runs already in %s; stop it, " REMEDY,
                        place.path);
                result = KERN_NAME_EXISTS;
                break;
            case NOBODY:
                result = make_listener(&place, ret_listener);
                break;
            case FAILED:
                break;
            }
            unlock(lock);
        }
        mio_starting_unlock();
        if (result == KERN_ABORTED)
            nap();
    } while (result == KERN_ABORTED && mio_rendezvous_clock() < deadline);
    if (result == KERN_ABORTED)
        mio_say("another process holds the lock file in %s", place.path);
    close(place.fd);
    return result;
}

kern_return_t machio_bootstrap_claim(int *ret_crashed) {
    struct place place;
    char pid[24];

    mio_say(NULL);
    kern_return_t result = open_place(&place);
    if (result != KERN_SUCCESS)
        return result;
    int fd = openat(place.fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        result = failed("open the lock file in", place.path, errno);
        close(place.fd);
        return result;
    }
    *ret_crashed = pread(fd, pid, 1, 0) == 1;
    int size = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)size, 0) != size)
        *ret_crashed = 0; /* a full disk: the server works without */
    close(fd);
    flock(place.fd, LOCK_SH | LOCK_NB); /* tells systemd-tmpfiles that /tmp/machio-* is in use */
    mio_starting_lock();
    int before = claimed;
    claimed = place.fd;
    mio_starting_unlock();
    if (before >= 0)
        close(before);
    return KERN_SUCCESS;
}

/* Whether the directory is gone; then nobody finds the server in it any more. */
static bool is_removed(int directory) {
    struct stat status;
    return fstat(directory, &status) == 0 && status.st_nlink == 0;
}

kern_return_t machio_bootstrap_leave(int listener, int how) {
    struct place place = {.fd = claimed};
    int64_t deadline = mio_rendezvous_clock() + (how & MACHIO_LEAVE_NOW ? 1000 : 0);
    kern_return_t result;

    mio_say(NULL);
    if (claimed < 0)
        return KERN_FAILURE;
    /* A directory that was removed leads nobody here, and nothing can be locked in it. */
    if (is_removed(claimed))
        return KERN_SUCCESS;
    snprintf(place.path, sizeof place.path, "the bootstrap directory");
    for (;;) {
        struct pollfd fd = {.fd = listener, .events = POLLIN};
        mio_starting_lock();
        int lock = try_lock(&place, &result);
        if (lock >= 0) {
            if (!(how & MACHIO_LEAVE_NOW) && poll(&fd, 1, 0) != 0) {
                result = KERN_ABORTED; /* a client is at the door */
            } else {
                result = KERN_SUCCESS;
                if (how & MACHIO_LEAVE_UNLINK)
                    unlinkat(place.fd, "socket", 0);
                (void)!ftruncate(lock, 0);
            }
            unlock(lock);
        }
        mio_starting_unlock();
        if (lock < 0 && is_removed(place.fd))
            return KERN_SUCCESS;
        if (lock >= 0 || result != KERN_ABORTED || mio_rendezvous_clock() >= deadline)
            return result;
        nap();
    }
}
