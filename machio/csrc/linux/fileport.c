/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Open files as rights (<sys/fileport.h>).
 *
 * A file port is one socket, of a pair whose other end is closed: in its queue lies a single
 * message with the file's descriptor. Whoever holds the socket looks at the message (MSG_PEEK) and
 * gets a descriptor of his own; nobody can add a message or replace it, so the kernel itself binds
 * the file to the port. The right travels as the socket, whose cookie is the port's identity, and
 * the file lives as long as somebody has it. A hostile holder can take the message away: then the
 * right is good for nothing, and dead for whom it is sent to.
 *
 * To a task each file port is a remote port without a credit pipe: it has no receiver anywhere.
 *
 * Guarded by mio_task.lock. A port owns its socket, and closes it as it would a peer's descriptor:
 * with the last one the file is closed, which may take its time.
 */
#include "wire.h"

#include <sys/fileport.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MARK 'f' /* the message */

bool mio_file_is_there(int tx) {
    char found = 0;
    int queued = 0;
    mio_look_at_front(tx);
    return ioctl(tx, FIONREAD, &queued) == 0 && queued == 1 &&
           recv(tx, &found, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && found == MARK;
}

/* The file's descriptor; -1 and errno. */
static int open_file(int tx) {
    struct mio_wire_input input;
    int fd = -1;
    mio_look_at_front(tx);
    enum mio_wire_result result = mio_wire_look(tx, &input);
    if (result == MIO_WIRE_OK && input.nfds > 0) {
        fd = input.fds[0];
        input.fds[0] = -1;
    }
    if (result == MIO_WIRE_OK)
        mio_wire_input_clear(&input);
    errno = result == MIO_WIRE_SHORTAGE ? EMFILE : EINVAL;
    return fd;
}

/* The name of a right to a new port. Ownership: consumes the socket. */
static bool name_it(int tx, mach_port_name_t *ret_name) {
    struct mio_port *port = mio_port_new_remote(MIO_PORT_FILE, mio_socket_cookie(tx), 0, tx, -1);
    if (port == NULL)
        return false;
    port->srights = 1;
    struct mio_right right = {.kind = MIO_RIGHT_SEND, .port = port};
    if (mio_right_copyout(&right, ret_name) == KERN_SUCCESS)
        return true;
    mio_right_destroy(&right);
    return false;
}

int fileport_makeport(int fd, fileport_t *port) {
    int tx = fcntl(fd, F_GETFD) < 0 ? -1 : mio_bundle_new(MARK, &fd, 1);
    if (tx < 0) {
        if (errno == ETOOMANYREFS || errno == ENOMEM || errno == ENOBUFS)
            errno = EAGAIN;
        return -1;
    }
    mio_lock();
    bool named = name_it(tx, port);
    mio_unlock();
    if (!named)
        errno = EAGAIN;
    return named ? 0 : -1;
}

int fileport_makefd(fileport_t port) {
    int fd = -1, error = EINVAL;
    mio_lock();
    struct mio_entry *entry = mio_entry_get(port);
    if (entry != NULL && entry->type & MACH_PORT_TYPE_SEND && entry->port->kind == MIO_PORT_FILE) {
        fd = open_file(entry->port->tx);
        error = errno;
    }
    mio_unlock();
    errno = error;
    return fd;
}
