/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The task's bootstrap port, and the calls of <servers/bootstrap.h>.
 *
 * The name bootstrap_port is there from the start of the task; behind it is a remote port that is
 * not connected (tx == -1). The first use connects: rendezvous.c finds or starts the server, which
 * sends one message over the connection with a send right to its port; that right moves in behind
 * the name, and the connection is closed. When the server dies the port is not connected again,
 * under the same name, and the next use finds another. What this task had checked in or registered
 * is then checked in again before anything else; and because a task that only waits for messages
 * makes no calls, one with names of its own is woken by the server's death and does it by itself.
 *
 * The server's messages are those of rendezvous.h, sent with mach_msg like anybody's.
 *
 * Locks: `connecting` is held by the one thread that connects, for as long as that takes; the rest
 * of the state here is guarded by mio_task.lock, which is never held while something blocks.
 */
#include "internal.h"
#include "rendezvous.h"

#include <mach/mig_errors.h>
#include <servers/bootstrap.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE = 30000 /* ms for a server to welcome us; its death is noticed at once */ };

/* What this task checked in or registered. Holds a reference to the port, no right. */
struct service {
    struct service *next;
    struct mio_port *port;
    mach_msg_id_t request; /* what made it */
    unsigned told;         /* the connection that knows it */
    char name[MIO_BOOTSTRAP_NAME];
};

static pthread_mutex_t connecting = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool busy; /* this thread is the one that connects */

static struct service *services;
static unsigned connection; /* counts them */
static bool settling;       /* connected, but not all names are checked in again */
static bool recovering;     /* a thread does that by itself */
static int64_t attached_at;
static unsigned short_lives; /* servers in a row that died at once */

/* The latest attempt, for those who waited for it. Guarded by `connecting`, but for `attempts`. */
static unsigned attempts;
static kern_return_t last_result;
static char last_sentence[512];

void mio_bootstrap_fork_prepare(void) {
    mio_rendezvous_fork_prepare();
}
void mio_bootstrap_fork_parent(void) {
    mio_rendezvous_fork_parent();
}
/* The child has no names. Another thread may have been connecting: its descriptors stay. */
void mio_bootstrap_fork_child(void) {
    mio_rendezvous_fork_child();
    pthread_mutex_init(&connecting, NULL);
    while (services != NULL) {
        struct service *gone = services;
        services = gone->next;
        free(gone);
    }
    busy = settling = recovering = false;
    last_result = KERN_SUCCESS;
}

/* ---- the names of this task; with the lock held ------------------------------------------------
 */

/* Whether a send right to the port can be given again; *ret_disposition: how. */
static bool can_offer(const struct mio_port *port, mach_msg_type_name_t *ret_disposition) {
    struct mio_entry *entry = port->name != MACH_PORT_NULL ? mio_space_lookup(port->name) : NULL;
    if (entry == NULL || port->state == MIO_PORT_DEAD)
        return false;
    *ret_disposition =
        entry->type & MACH_PORT_TYPE_RECEIVE ? MACH_MSG_TYPE_MAKE_SEND : MACH_MSG_TYPE_COPY_SEND;
    return true;
}

/* Forgets services whose port died, and the one of this name if there is any. */
static void forget(const char *name) {
    for (struct service **link = &services; *link != NULL;) {
        struct service *service = *link;
        if (service->port->state == MIO_PORT_DEAD ||
            (name != NULL && strcmp(service->name, name) == 0)) {
            *link = service->next;
            mio_port_unref(service->port);
            free(service);
        } else {
            link = &service->next;
        }
    }
    if (services == NULL && mio_task.bootstrap != NULL)
        mio_notice_update_port(mio_task.bootstrap);
}

/* Remembers what the server now knows. Ownership: consumes `service`; the name must be valid. */
static void remember(struct service *service, mach_port_name_t port) {
    struct mio_entry *entry = mio_space_lookup(port);
    forget(service->name);
    if (entry == NULL || !(entry->type & MACH_PORT_TYPE_SEND_RECEIVE)) {
        free(service); /* another thread destroyed it meanwhile */
        return;
    }
    service->port = entry->port;
    mio_port_ref(service->port);
    service->told = connection;
    service->next = services;
    services = service;
    if (mio_task.bootstrap != NULL)
        mio_notice_update_port(mio_task.bootstrap);
}

bool mio_bootstrap_wants_notice(void) {
    return services != NULL;
}

/* ---- the task's port; with the lock held -------------------------------------------------------
 */

static bool is_connected(void) {
    struct mio_port *port = mio_task.bootstrap;
    if (port == NULL || port->tx < 0)
        return false;
    mio_port_is_dead(port); /* closes it if the server is gone */
    return port->tx >= 0;
}

bool mio_bootstrap_pending(mach_port_name_t name) {
    return mio_task.bootstrap != NULL && name != MACH_PORT_NULL &&
           mio_task.bootstrap->name == name && !is_connected();
}

/* The port's descriptors move to the task's bootstrap port; what is left of it is dead. */
static void move_in(struct mio_port *mine, struct mio_port *port) {
    mio_port_unhash(port);
    int cr = mio_source_release(&port->cr);
    mine->cookie = port->cookie;
    mine->pipe = port->pipe;
    mine->tx = port->tx;
    mine->credit_in_hand = port->credit_in_hand;
    port->tx = -1;
    port->cookie = 0;
    port->credit_in_hand = false;
    port->state = MIO_PORT_DEAD;
    mio_port_hash(mine);
    if (mio_source_set(&mine->cr, cr) < 0) {
        close(cr);
        mio_channel_close(mine);
    }
}

/* Messages on their way hold the port already: it takes over the name instead. */
static void take_name(struct mio_port *mine, struct mio_port *port) {
    struct mio_entry *entry = mio_space_lookup(mine->name);
    port->kind = MIO_PORT_BOOTSTRAP;
    port->name = mine->name;
    mine->name = MACH_PORT_NULL;
    entry->port = port;
    MIO_EACH(item, &mine->requests) {
        MIO_CONTAINER(item, struct mio_request, link)->port = port;
        mio_list_remove(item);
        mio_list_append(&port->requests, item);
    }
    /* The name's right and the task's pointer each hold a reference. */
    mio_port_ref(port);
    mio_port_ref(port);
    port->srights++;
    mine->srights--;
    mio_task.bootstrap = port;
    mio_port_unref(mine);
    mio_port_unref(mine);
}

/* Both are held by messages on their way: two ports for one, until they are used up. */
static void share(struct mio_port *mine, struct mio_port *port) {
    int tx = fcntl(port->tx, F_DUPFD_CLOEXEC, 0);
    int cr = fcntl(port->cr.fd, F_DUPFD_CLOEXEC, 0);
    if (tx < 0 || cr < 0 || mio_source_set(&mine->cr, cr) < 0) {
        if (tx >= 0)
            close(tx);
        if (cr >= 0)
            close(cr);
        return;
    }
    mine->tx = tx;
    mine->cookie = port->cookie;
    mine->pipe = port->pipe;
    mio_port_hash(mine); /* in front of the other: what comes from now on is this one */
}

/* Ownership: consumes the right, whatever comes of it. */
void mio_bootstrap_attach(struct mio_right *right) {
    struct mio_port *mine = mio_task.bootstrap, *port = right->port;
    if (mine != NULL && port != mine && !is_connected()) {
        if (port->name == MACH_PORT_NULL && port->srights == 1)
            move_in(mine, port);
        else if (port->name == MACH_PORT_NULL && mine->name != MACH_PORT_NULL && mine->srights == 1)
            take_name(mine, port);
        else
            share(mine, port);
        mio_notice_update_port(mio_task.bootstrap);
        mio_port_wake_all(mio_task.bootstrap);
    }
    mio_right_destroy(right);
}

static void *recover(void *unused) {
    mio_bootstrap_ensure(true);
    mio_lock();
    recovering = false;
    mio_unlock();
    return unused;
}

void mio_bootstrap_lost(void) {
    pthread_t thread;
    sigset_t all, before;

    forget(NULL);
    short_lives = mio_rendezvous_clock() - attached_at < 1000 ? short_lives + 1 : 0;
    if (services == NULL || recovering || busy || short_lives > 3)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, recover, NULL) == 0) {
        recovering = true;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- requests; without the lock ----------------------------------------------------------------
 */

union message {
    mach_msg_header_t head;
    struct mio_bootstrap_look_up look_up;
    struct mio_bootstrap_offer offer;
    struct mio_bootstrap_found found;
    mig_reply_error_t error;
    char room[256]; /* any reply with its trailer */
};

struct request {
    mach_msg_id_t id;
    char name[MIO_BOOTSTRAP_NAME];
    mach_port_name_t port; /* check_in, register */
    mach_msg_type_name_t disposition;
};

/* A longer name loses its end, as MIG's stubs have it. */
static void set_name(struct request *request, const char *name) {
    size_t size = strnlen(name, MIO_BOOTSTRAP_NAME - 1);
    memset(request->name, 0, MIO_BOOTSTRAP_NAME);
    memcpy(request->name, name, size);
}

static mach_msg_size_t build(const struct request *request, union message *message) {
    *message = (union message){.room = {0}};
    message->head.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE);
    message->head.msgh_id = request->id;
    if (request->id == MIO_BOOTSTRAP_LOOK_UP) {
        message->look_up.ndr = NDR_record;
        memcpy(message->look_up.name, request->name, MIO_BOOTSTRAP_NAME);
        return sizeof message->look_up;
    }
    message->head.msgh_bits |= MACH_MSGH_BITS_COMPLEX;
    message->offer.body.msgh_descriptor_count = 1;
    message->offer.port.type = MACH_MSG_PORT_DESCRIPTOR;
    message->offer.port.name = request->port;
    message->offer.port.disposition = request->disposition;
    message->offer.ndr = NDR_record;
    memcpy(message->offer.name, request->name, MIO_BOOTSTRAP_NAME);
    return sizeof message->offer;
}

/* Ownership: on success *ret_found is the caller's; a reply of any other shape is destroyed. */
static kern_return_t parse(const struct request *request, union message *message,
                           mach_port_name_t *ret_found) {
    const mach_msg_header_t *head = &message->head;
    bool complex = head->msgh_bits & MACH_MSGH_BITS_COMPLEX;

    if (head->msgh_id == MACH_NOTIFY_SEND_ONCE)
        return MIG_SERVER_DIED;
    if (head->msgh_id != request->id + MIO_BOOTSTRAP_REPLY) {
        mach_msg_destroy(&message->head);
        return MIG_REPLY_MISMATCH;
    }
    if (!complex && head->msgh_size == sizeof message->error &&
        (request->id != MIO_BOOTSTRAP_LOOK_UP || message->error.RetCode != KERN_SUCCESS))
        return message->error.RetCode;
    if (complex && request->id == MIO_BOOTSTRAP_LOOK_UP &&
        head->msgh_size == sizeof message->found &&
        message->found.body.msgh_descriptor_count == 1 &&
        message->found.port.type == MACH_MSG_PORT_DESCRIPTOR &&
        message->found.port.disposition == MACH_MSG_TYPE_PORT_SEND) {
        *ret_found = message->found.port.name;
        return MACH_PORT_VALID(*ret_found) ? KERN_SUCCESS : BOOTSTRAP_UNKNOWN_SERVICE;
    }
    mach_msg_destroy(&message->head);
    return MIG_TYPE_ERROR;
}

/* One request and its reply. The reply port is the call's own: a late reply meets nobody. */
static kern_return_t exchange(mach_port_t bp, const struct request *request,
                              mach_port_name_t *ret_found) {
    union message message;
    mach_port_name_t reply;
    mach_msg_size_t size = build(request, &message);

    kern_return_t result = mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &reply);
    if (result != KERN_SUCCESS)
        return result;
    message.head.msgh_remote_port = bp;
    message.head.msgh_local_port = reply;
    result = mach_msg(&message.head, MACH_SEND_MSG | MACH_RCV_MSG, size, sizeof message, reply,
                      MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
    if (result == MACH_MSG_SUCCESS)
        result = parse(request, &message, ret_found);
    mach_port_mod_refs(mach_task_self(), reply, MACH_PORT_RIGHT_RECEIVE, -1);
    return result;
}

/* ---- connecting; without the lock, `connecting` held -------------------------------------------
 */

/* What makes a welcome. Ownership: the kmsg is consumed; on success *ret_right is the caller's. */
static bool is_welcome(struct mio_kmsg *kmsg, struct mio_right *ret_right) {
    bool good =
        kmsg->id == MIO_BOOTSTRAP_WELCOME && !kmsg->complex && kmsg->reply.kind == MIO_RIGHT_SEND &&
        kmsg->reply.port->kind == MIO_PORT_BOOTSTRAP && kmsg->reply.port->state == MIO_PORT_REMOTE;
    if (good) {
        *ret_right = kmsg->reply;
        kmsg->reply.kind = MIO_RIGHT_NULL;
    }
    mio_kmsg_destroy(kmsg);
    return good;
}

/* Receives the welcome and gives its right to the task's bootstrap port. */
static kern_return_t be_welcomed(int fd, int64_t deadline) {
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    for (;;) {
        struct mio_kmsg *kmsg = NULL;
        struct mio_right right;
        unsigned kind = 0, flags = 0;

        int64_t left = deadline - mio_rendezvous_clock();
        int ready = poll(&waiting, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0) {
            mio_say("the bootstrap server does not answer; stop it and try again");
            return KERN_OPERATION_TIMED_OUT;
        }
        mio_lock();
        enum mio_wire_result result = mio_wire_receive(fd, &kmsg, &kind, &flags);
        bool good = result == MIO_WIRE_OK && kmsg != NULL && is_welcome(kmsg, &right);
        if (good) {
            mio_bootstrap_attach(&right);
            good = mio_task.bootstrap != NULL && mio_task.bootstrap->tx >= 0;
            settling = good;
            connection += good;
            attached_at = mio_rendezvous_clock();
        }
        mio_unlock();
        if (good)
            return KERN_SUCCESS;
        if (result == MIO_WIRE_FULL)
            continue;
        if (result == MIO_WIRE_GONE)
            return KERN_ABORTED;
        if (result == MIO_WIRE_SHORTAGE) {
            mio_say("too many open files to take the bootstrap server's right; raise ulimit -n");
            return KERN_RESOURCE_SHORTAGE;
        }
        mio_say("what listens as the bootstrap server speaks another protocol; stop it");
        return KERN_FAILURE;
    }
}

static kern_return_t connect_port(bool start) {
    int64_t deadline = mio_rendezvous_clock() + PATIENCE;
    unsigned starts = 0;
    char command[256], words[256];

    /* A server that leaves hangs up on those who just came: they look again. */
    for (unsigned tries = 0; tries < 5; tries++) {
        bool started;
        int fd;
        kern_return_t result = mio_rendezvous_connect(start && starts < 2, deadline, &fd, &started);
        starts += started;
        if (result == KERN_SUCCESS) {
            result = be_welcomed(fd, deadline);
            close(fd);
        } else if (result == KERN_FAILURE && starts >= 2) {
            break;
        }
        if (result != KERN_ABORTED)
            return result;
    }
    if (starts == 0) {
        mio_say("the bootstrap server hangs up on this process without an answer");
        return KERN_FAILURE;
    }
    mio_rendezvous_command(command, sizeof command);
    mio_rendezvous_last_words(words, sizeof words);
    mio_say("the bootstrap server (%s) ended before it answered%s%s; run it by hand to see why",
            command, words[0] != '\0' ? ", saying: " : "", words);
    return KERN_FAILURE;
}

/* Tells a new server what this task has; other threads' calls wait until that is done. */
static void restore(void) {
    for (;;) {
        struct request request;
        struct service *service;
        struct mio_port *port;
        mach_port_name_t bp;

        mio_lock();
        forget(NULL);
        for (service = services; service != NULL; service = service->next)
            if (service->told != connection) {
                service->told = connection;
                if (can_offer(service->port, &request.disposition))
                    break;
            }
        if (service == NULL || mio_task.bootstrap == NULL || !is_connected()) {
            settling = false;
            mio_unlock();
            return;
        }
        bp = mio_task.bootstrap->name;
        port = service->port;
        request.id = service->request;
        request.port = port->name;
        set_name(&request, service->name);
        mio_port_ref(port);
        mio_unlock();

        kern_return_t result = exchange(bp, &request, &(mach_port_name_t){0});

        mio_lock();
        /* The owner did not make this right. */
        if (request.disposition == MACH_MSG_TYPE_MAKE_SEND && port->mscount > 0 &&
            result != MACH_SEND_INVALID_DEST)
            port->mscount--;
        if (result == BOOTSTRAP_NOT_PRIVILEGED)
            forget(request.name); /* somebody else was faster */
        mio_port_unref(port);
        mio_unlock();
    }
}

kern_return_t mio_bootstrap_ensure(bool start) {
    if (busy)
        return KERN_FAILURE; /* the server died while it is told our names */
    if (mio_rendezvous_is_server()) {
        mio_say("the bootstrap server cannot call itself");
        return KERN_NOT_SUPPORTED;
    }
    mio_lock();
    bool ready = is_connected() && !settling;
    unsigned seen = attempts;
    mio_unlock();
    if (ready)
        return KERN_SUCCESS;

    pthread_mutex_lock(&connecting);
    mio_lock();
    ready = is_connected();
    bool tried = attempts != seen;
    mio_unlock();
    kern_return_t result = KERN_SUCCESS;
    if (!ready && tried && last_result != KERN_SUCCESS) {
        result = last_result;
        mio_say("%s", last_sentence);
    } else if (!ready) {
        busy = true;
        result = connect_port(start);
        if (result == KERN_SUCCESS)
            restore();
        busy = false;
        last_result = result;
        const char *sentence = machio_last_error();
        last_sentence[0] = '\0';
        if (result != KERN_SUCCESS && sentence != NULL)
            strncat(last_sentence, sentence, sizeof last_sentence - 1);
        mio_lock();
        attempts++;
        mio_unlock();
    }
    pthread_mutex_unlock(&connecting);
    return result;
}

/* ---- the calls ---------------------------------------------------------------------------------
 */

static bool is_ours(mach_port_t bp) {
    mio_lock();
    bool ours =
        mio_task.bootstrap != NULL && bp != MACH_PORT_NULL && bp == mio_task.bootstrap->name;
    mio_unlock();
    return ours;
}

/* A request to whatever bp is; if it is the bootstrap server, to its successor when it dies. */
static kern_return_t call(mach_port_t bp, const struct request *request,
                          mach_port_name_t *ret_found) {
    for (unsigned tries = 0;; tries++) {
        bool ours = is_ours(bp);
        if (ours) {
            kern_return_t result = mio_bootstrap_ensure(true);
            if (result != KERN_SUCCESS)
                return result == KERN_RESOURCE_SHORTAGE ? BOOTSTRAP_NO_MEMORY
                                                        : MACH_SEND_INVALID_DEST;
            mio_say(NULL);
        }
        kern_return_t result = exchange(bp, request, ret_found);
        if (!ours || tries == 3 || (result != MIG_SERVER_DIED && result != MACH_SEND_INVALID_DEST))
            return result;
    }
}

/* check_in and register: the server's answer, remembered if it is yes. */
static kern_return_t offer(mach_port_t bp, mach_msg_id_t id, const char *name,
                           mach_port_name_t port, mach_msg_type_name_t disposition) {
    struct request request = {.id = id, .port = port, .disposition = disposition};
    struct service *service = calloc(1, sizeof *service);
    if (service == NULL)
        return BOOTSTRAP_NO_MEMORY;
    set_name(&request, name);
    bool ours = is_ours(bp);
    kern_return_t result = call(bp, &request, &(mach_port_name_t){0});
    if (result != KERN_SUCCESS || !ours || !MACH_PORT_VALID(port)) {
        free(service);
        return result;
    }
    service->request = id;
    memcpy(service->name, request.name, sizeof service->name);
    mio_lock();
    remember(service, port);
    mio_unlock();
    return KERN_SUCCESS;
}

/*
 * The receive right is made here and never leaves: the server only gets a send right. As on macOS
 * the owner has no send right, and its make-send count begins at 0.
 */
kern_return_t bootstrap_check_in(mach_port_t bp, const char *service_name, mach_port_t *sp) {
    mach_port_name_t port;

    mio_say(NULL);
    kern_return_t result = mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port);
    if (result != KERN_SUCCESS)
        return BOOTSTRAP_NO_MEMORY;
    result = offer(bp, MIO_BOOTSTRAP_CHECK_IN, service_name, port, MACH_MSG_TYPE_MAKE_SEND);
    if (result != KERN_SUCCESS) {
        mach_port_mod_refs(mach_task_self(), port, MACH_PORT_RIGHT_RECEIVE, -1);
        return result;
    }
    mio_lock();
    struct mio_entry *entry = mio_space_lookup(port);
    if (entry != NULL && entry->type & MACH_PORT_TYPE_RECEIVE)
        entry->port->mscount = 0;
    mio_unlock();
    *sp = port;
    return KERN_SUCCESS;
}

/* As with launchd, registering no port takes nothing away. */
kern_return_t bootstrap_register(mach_port_t bp, char *service_name, mach_port_t sp) {
    mio_say(NULL);
    if (sp == MACH_PORT_NULL && is_ours(bp))
        return BOOTSTRAP_SUCCESS;
    return offer(bp, MIO_BOOTSTRAP_REGISTER, service_name, sp, MACH_MSG_TYPE_COPY_SEND);
}

kern_return_t bootstrap_look_up(mach_port_t bp, const char *service_name, mach_port_t *sp) {
    struct request request = {.id = MIO_BOOTSTRAP_LOOK_UP};
    mach_port_name_t found;

    mio_say(NULL);
    set_name(&request, service_name);
    kern_return_t result = call(bp, &request, &found);
    if (result == KERN_SUCCESS)
        *sp = found;
    return result;
}

kern_return_t machio_bootstrap_connect(int start) {
    mio_say(NULL);
    return mio_bootstrap_ensure(start != 0);
}

/* ---- the server's side -------------------------------------------------------------------------
 */

/*
 * Sends a client that has just connected a send right to the port. Ownership: the connection and
 * the receive right under the name stay the caller's.
 */
kern_return_t machio_bootstrap_welcome(int client, mach_port_name_t name) {
    mio_say(NULL);
    mio_lock();
    struct mio_entry *entry = mio_space_lookup(name);
    kern_return_t result = entry == NULL ? KERN_INVALID_NAME : KERN_SUCCESS;
    struct mio_kmsg *kmsg = NULL;
    if (result == KERN_SUCCESS && !(entry->type & MACH_PORT_TYPE_RECEIVE))
        result = KERN_INVALID_RIGHT;
    if (result == KERN_SUCCESS) {
        if (entry->port->cookie == 0)
            entry->port->kind = MIO_PORT_BOOTSTRAP; /* seen by whoever gets a right to it */
        kmsg = mio_kmsg_new(sizeof(mach_msg_header_t), 0);
        if (kmsg == NULL)
            result = KERN_RESOURCE_SHORTAGE;
    }
    if (result == KERN_SUCCESS) {
        kmsg->id = MIO_BOOTSTRAP_WELCOME;
        result = mio_right_copyin(name, MACH_MSG_TYPE_MAKE_SEND, &kmsg->reply);
    }
    if (result == KERN_SUCCESS) {
        switch (mio_wire_send(client, kmsg, MIO_FRAME_NO_CREDIT)) {
        case MIO_WIRE_OK:
            break;
        case MIO_WIRE_SHORTAGE:
            result = KERN_RESOURCE_SHORTAGE;
            break;
        case MIO_WIRE_FULL:
        case MIO_WIRE_GONE:
            result = KERN_ABORTED;
            break;
        }
    }
    if (kmsg != NULL)
        mio_kmsg_destroy(kmsg);
    mio_unlock();
    return result;
}
