/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The bootstrap server seen from a task: where it is, how to start it, what to say to it.
 * docs/bootstrap.md is the manual of all of this.
 *
 *   rendezvous.c  the private directory: finding the server, becoming it, leaving
 *   start.c       the command that starts it, in a process of its own
 *   welcome.c     what a server says to who has connected
 *   bootport.c    the task's bootstrap port: connecting it, its names after a crash
 *   bootstrap.c   the calls of <servers/bootstrap.h>
 *
 * All of it blocks for a bounded time and is called without mio_task.lock, unless it says so.
 */
#ifndef MACHIO_LINUX_RENDEZVOUS_H
#define MACHIO_LINUX_RENDEZVOUS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* before any other header: the folder compiles without options */
#endif

#include <mach/mach.h>

#include <stdbool.h>
#include <stdint.h>

/* ---- the private directory ----------------------------------------------------------------- */

/* CLOCK_MONOTONIC in milliseconds: what deadlines are counted in. */
int64_t mio_rendezvous_clock(void);
/*
 * A connection to the server; start: starts one if there is none. KERN_FAILURE,
 * KERN_RESOURCE_SHORTAGE, with a sentence. Ownership: *ret_fd is the caller's.
 */
kern_return_t mio_rendezvous_connect(bool start, int64_t deadline, int *ret_fd, bool *ret_started);
/* The last line that the server which was started here wrote, or "". */
void mio_rendezvous_last_words(char *line, size_t size);
/*
 * Held while a server is started; fork() waits for it, so that the child keeps nothing of that. No
 * other lock is taken under it.
 */
void mio_starting_lock(void);
void mio_starting_unlock(void);
/* In the child, with the lock held: it is not the server, whatever its parent was. Unlocks. */
void mio_rendezvous_fork_child(void);

kern_return_t machio_bootstrap_directory(char *path, unsigned int size);
kern_return_t machio_bootstrap_listen(int *ret_listener);
kern_return_t machio_bootstrap_claim(int *ret_crashed);
#define MACHIO_LEAVE_UNLINK 1
#define MACHIO_LEAVE_NOW 2
kern_return_t machio_bootstrap_leave(int listener, int how);
/* True in the server itself, which has no server to call. */
bool mio_rendezvous_is_server(void);

/* ---- starting it --------------------------------------------------------------------------- */

/* A variable that the person, not whoever runs a set-user-id program, has set; or NULL. */
const char *mio_setting(const char *name);
/*
 * With the starting lock held. Runs the server's command with the listener as systemd would pass
 * it; `path` is that of `directory`. KERN_FAILURE, KERN_RESOURCE_SHORTAGE, with a sentence.
 * Ownership: both descriptors stay the caller's.
 */
kern_return_t mio_start_server(int directory, const char *path, int listener, int64_t deadline);
/* The command as one line for people. */
void mio_start_command(char *line, size_t size);
kern_return_t machio_set_bootstrap_command(const char *const argv[]);

/* ---- the server's messages ----------------------------------------------------------------- */

enum {
    MIO_BOOTSTRAP_WELCOME = 11000, /* over the connection: the server's port as reply port */
    MIO_BOOTSTRAP_CHECK_IN = 11001,
    MIO_BOOTSTRAP_REGISTER = 11002,
    MIO_BOOTSTRAP_LOOK_UP = 11003,
    MIO_BOOTSTRAP_LIST = 11004,
    MIO_BOOTSTRAP_CREATE_SERVICE = 11005,
    MIO_BOOTSTRAP_STATUS = 11006,
    MIO_BOOTSTRAP_REPLY = 100, /* added to a request's id */
    MIO_BOOTSTRAP_NAME = 128,  /* bytes of a name with its NUL */
};

/* look_up, status; register of no port */
struct mio_bootstrap_question {
    mach_msg_header_t head;
    NDR_record_t ndr;
    char name[MIO_BOOTSTRAP_NAME];
};

/* check_in, register; create_service, with the task's own port */
struct mio_bootstrap_offer {
    mach_msg_header_t head;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t port;
    NDR_record_t ndr;
    char name[MIO_BOOTSTRAP_NAME];
};

/*
 * A right: of look_up and create_service, a send right; of check_in if the service was created
 * before, its receive right, which is to be used instead of the port that was offered.
 */
struct mio_bootstrap_found {
    mach_msg_header_t head;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t port;
};

/* status, success; any other reply is a mig_reply_error_t */
struct mio_bootstrap_state {
    mach_msg_header_t head;
    NDR_record_t ndr;
    kern_return_t code;
    int status;
};

_Static_assert(sizeof(struct mio_bootstrap_question) == 160, "docs/bootstrap.md");
_Static_assert(sizeof(struct mio_bootstrap_offer) == 176, "docs/bootstrap.md");
_Static_assert(sizeof(struct mio_bootstrap_found) == 40, "docs/bootstrap.md");
_Static_assert(sizeof(struct mio_bootstrap_state) == 40, "docs/bootstrap.md");

struct mio_bootstrap_request {
    mach_msg_id_t id;
    mach_port_name_t port; /* check_in, register, create_service */
    mach_msg_type_name_t disposition;
    unsigned connection; /* the one it went out on */
    char name[MIO_BOOTSTRAP_NAME];
};

/* What a successful reply brings. */
struct mio_bootstrap_answer {
    mach_port_name_t port; /* or MACH_PORT_NULL */
    int status;
};
/*
 * One request to bp and its reply: the server's code, or one of mach_msg or MIG; without success
 * the answer is empty. Ownership: the right in the answer is the caller's.
 */
kern_return_t mio_bootstrap_exchange(mach_port_t bp, const struct mio_bootstrap_request *request,
                                     struct mio_bootstrap_answer *answer);

/*
 * While this thread asks the server by a message, sending it connects to no other: whoever asks
 * does that himself, or does not want to wait for it.
 */
void mio_bootstrap_asking(bool on);

/*
 * The two halves of a call, for who waits in a loop of his own; shim.h tells. what: the id of a
 * request.
 */
kern_return_t machio_bootstrap_ask(int what, const char *service_name, mach_port_t port,
                                   mach_port_t reply, unsigned *ret_connection);
kern_return_t machio_bootstrap_answer(int what, const char *service_name, mach_port_t port,
                                      mach_port_t reply, unsigned connection, mach_port_t *sp);

/* With the lock held. Counts the connections of the bootstrap port. */
unsigned mio_bootstrap_connection(void);
/*
 * With the lock held. The server has said yes: when it dies, the next is to be told (a port that
 * was checked in is registered then). No port: nothing is to be told of this name any more. False:
 * it died already, and what came after does not know.
 */
bool mio_bootstrap_remember(const struct mio_bootstrap_request *request);

/* ---- connecting ---------------------------------------------------------------------------- */

struct mio_right;

/*
 * With the lock held. Takes the welcome off a connection, without waiting. MACH_RCV_TIMED_OUT: it
 * has not come; KERN_ABORTED: nor will it; KERN_RESOURCE_SHORTAGE, KERN_FAILURE, with a sentence.
 * Ownership: the connection stays the caller's; *ret_right, the server's port, is the caller's.
 */
kern_return_t mio_welcome_take(int fd, struct mio_right *ret_right);

kern_return_t machio_bootstrap_welcome(int connection, mach_port_name_t name);
kern_return_t machio_bootstrap_connect(int start);
kern_return_t machio_bootstrap_knock(int *ret_fd);
kern_return_t machio_bootstrap_enter(int fd);

#endif
