/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files as rights: a send right that lets its holder, wherever it travels, make a descriptor.
 *
 * The calls return -1 and set errno, unlike Mach's own. Each fileport_makeport makes a port of its
 * own, also of the same file; the file stays open as long as there is a right to one of them, in
 * whatever task or message. A file port has no receiver: messages to it are consumed, it never
 * dies. On Linux each counts as one descriptor in flight (RLIMIT_NOFILE bounds those of a user).
 */

#ifndef _SYS_FILEPORT_H_
#define _SYS_FILEPORT_H_

#include <mach/port.h>

typedef mach_port_t fileport_t;

#define FILEPORT_NULL ((fileport_t)0)

#ifdef __cplusplus
extern "C" {
#endif

/*
 * EBADF; EINVAL: a kind of file that cannot be sent; EMFILE, ENFILE; EAGAIN: no memory, or too many
 * in flight. Ownership: the descriptor stays the caller's, who owns one reference to the right.
 */
int fileport_makeport(int fd, fileport_t *port);

/*
 * A new descriptor, close-on-exec, for the same open file. EINVAL: the name is no right to a file
 * port; EMFILE. Ownership: the descriptor is the caller's, and the right remains so.
 */
int fileport_makefd(fileport_t port);

#ifdef __cplusplus
}
#endif

#endif
