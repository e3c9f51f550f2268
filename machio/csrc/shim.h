/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What machio needs beside Mach's own calls, declared alike for both systems; memory that is meant
 * to travel has a header of its own.
 *
 * The bootstrap server of macOS is launchd: there is nothing to start, to serve or to explain, and
 * shim.c says so. The Linux layer has a server of its own (docs/bootstrap.md) and brings
 * definitions that take the place of shim.c's.
 */

#ifndef MACHIO_SHIM_H
#define MACHIO_SHIM_H

#include "linux/include/machio_memory.h"

#include <mach/mach.h>
#include <stdint.h>

/* libSystem has it, the headers of current macOS SDKs do not. */
mach_port_name_t mach_reply_port(void);

/*
 * Open files as rights, the same: on macOS <sys/fileport.h> is not for the public. -1 and errno.
 * Ownership: the descriptors and the rights that go in stay the caller's, those that come out are.
 */
int fileport_makeport(int fd, mach_port_t *port);
int fileport_makefd(mach_port_t port);

/*
 * Lays a message out in `buffer`, which has room for a header and `size` bytes, rounded up to a
 * multiple of 4, and sends it. payload: what follows the header, copied; rounded up with zeros.
 * Otherwise as mach_msg(), sending half.
 */
mach_msg_return_t machio_send(mach_msg_header_t *buffer, mach_msg_bits_t bits, mach_port_t remote,
                              mach_port_t local, mach_msg_id_t id, const char *payload,
                              mach_msg_size_t size, mach_msg_option_t option,
                              mach_msg_timeout_t timeout);

/*
 * Receives without waiting: as mach_msg(), receiving half, with MACH_RCV_TIMEOUT and 0. But for
 * MACHIO_RECEIVED_LAST instead of MACH_MSG_SUCCESS: nothing is left, and a kqueue that watches
 * `name` will tell of what comes next. A system that cannot know it says MACH_MSG_SUCCESS.
 */
#define MACHIO_RECEIVED_LAST 1

mach_msg_return_t machio_receive_now(mach_msg_header_t *buffer, mach_msg_option_t option,
                                     mach_msg_size_t size, mach_port_name_t name);

/*
 * For an event loop that has found a queue full: asks that a notification come to `notify` when
 * there is room, at once if there is by now. As mach_port_request_notification() with
 * MACH_NOTIFY_SEND_POSSIBLE, sync and MACH_MSG_TYPE_MAKE_SEND_ONCE, but for this: where a system
 * can, a free place is told to one of the tasks that wait so, in turn, and not to all. So whoever
 * has asked and will not send calls machio_pass_room(), whether he was told or not.
 *
 * kq: the kqueue by which the caller hears of `notify`. epfd: the epoll in which the calling loop
 * sleeps and watches `kq`, under its number as data; -1: not known, and all are told.
 */
kern_return_t machio_request_room(mach_port_name_t name, mach_port_name_t notify, int kq, int epfd,
                                  mach_port_t *previous);
void machio_pass_room(mach_port_name_t name);

/*
 * Takes up to `count` of the system's notifications off a port without waiting, a word each: its id
 * in the upper half, the name or the count that it tells in the lower. What is not the system's is
 * destroyed. Returns how many; fewer than `count`: nothing is left.
 */
int machio_notifications(mach_port_name_t name, uint64_t *words, int count);

/*
 * Takes up to `count` events off a kqueue without waiting: a word each, the udata, which has to be
 * even, and 1 for EV_EOF. The number of events; -1 and errno as kevent64().
 */
int machio_events(int kq, uint64_t *words, int count);

/*
 * Has a kqueue watch a pipe or socket for the end of its readers: as EVFILT_WRITE with EV_CLEAR,
 * but that there is room is no event, where the system can leave that out. -1 and errno as
 * kevent64().
 */
int machio_watch_end(int kq, int fd, uint64_t udata);

/*
 * Why the calling thread's latest bootstrap call failed, as a sentence that says what to do; NULL
 * if the code says all. Valid until the thread's next bootstrap call.
 */
const char *machio_last_error(void);

/*
 * What starts the bootstrap server, a NULL-terminated list that is copied; NULL: the standard one.
 * The environment's MACHIO_BOOTSTRAPD goes before it.
 */
kern_return_t machio_set_bootstrap_command(const char *const argv[]);

/*
 * Connects to the bootstrap server; start: starts one if there is none. Every call that needs the
 * server does it by itself.
 */
kern_return_t machio_bootstrap_connect(int start);

/*
 * The same in two halves, neither of which waits for anybody, where a server listens already. The
 * task has no names: another server would have to be told of them.
 *
 * knock: connects. KERN_*: it did not; the call that waits will do, or say why not. Ownership:
 * *ret_fd, to be closed after the other half, is the caller's.
 *
 * enter: takes the server's right from there. MACH_RCV_TIMED_OUT: not yet, the descriptor becomes
 * readable. KERN_*: it never will. Ownership: `fd` stays the caller's.
 */
kern_return_t machio_bootstrap_knock(int *ret_fd);
kern_return_t machio_bootstrap_enter(int fd);

/*
 * A bootstrap call in two halves, neither of which waits for anybody. what: MACHIO_ASK_LOOK_UP, or
 * with a `port`, whose receive right (send right) is the caller's, CHECK_IN (REGISTER).
 *
 * ask: sends the request; the answer comes to the receive right `reply`, which nobody else uses.
 * *ret_connection is for the other half. KERN_NOT_SUPPORTED, MACH_SEND_*: it was not sent, for
 * want of a server say; the call that waits will do.
 *
 * answer: MACH_RCV_TIMED_OUT: not yet. MIG_SERVER_DIED: there will be none; the call that waits
 * finds another server. Else as bootstrap_look_up() and so on, *sp being `port` where they bring
 * nothing. Ownership: as of those; a CHECK_IN that brings another right leaves `port` the caller's.
 */
#define MACHIO_ASK_CHECK_IN 11001
#define MACHIO_ASK_REGISTER 11002
#define MACHIO_ASK_LOOK_UP 11003

kern_return_t machio_bootstrap_ask(int what, const char *service_name, mach_port_t port,
                                   mach_port_t reply, unsigned *ret_connection);
kern_return_t machio_bootstrap_answer(int what, const char *service_name, mach_port_t port,
                                      mach_port_t reply, unsigned connection, mach_port_t *sp);

/* The bootstrap directory as the environment has it now. KERN_INSUFFICIENT_BUFFER_SIZE. */
kern_return_t machio_bootstrap_directory(char *path, unsigned int size);

/*
 * The bootstrap server's own calls.
 *
 * listen: binds the socket in the bootstrap directory. KERN_NAME_EXISTS: a server is there.
 * Ownership: the listening socket (non-blocking, close-on-exec) is the caller's.
 *
 * claim: this process is the server from now on; *ret_crashed tells whether the one before it died
 * without leaving.
 *
 * welcome: sends a client that has connected a send right to the server's port. KERN_ABORTED: the
 * client is gone. Ownership: the connection and the port's receive right stay the caller's.
 *
 * leave: to be called before the listening socket is closed. how: MACHIO_LEAVE_UNLINK removes the
 * socket, to be given when it is not systemd's. KERN_ABORTED: a client is at the door, go on
 * serving; MACHIO_LEAVE_NOW leaves all the same.
 */
#define MACHIO_LEAVE_UNLINK 1
#define MACHIO_LEAVE_NOW 2

kern_return_t machio_bootstrap_listen(int *ret_listener);
kern_return_t machio_bootstrap_claim(int *ret_crashed);
kern_return_t machio_bootstrap_welcome(int connection, mach_port_name_t name);
kern_return_t machio_bootstrap_leave(int listener, int how);

#endif
