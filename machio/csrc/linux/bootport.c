/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The task's bootstrap port: a name that is there from the start, and what is behind it.
 *
 * Behind it is a remote port that is not connected at first (tx == -1). The first use connects:
 * rendezvous.c finds or starts the server, which sends one message over the connection with a send
 * right to its port; that right moves in behind the name, and the connection is closed. When the
 * server dies the port is not connected again, under the same name, and the next use finds another.
 * What this task had checked in or registered is then checked in again before anything else; and
 * because a task that only waits for messages makes no calls, one with names of its own is woken
 * by the server's death and does it by itself.
 *
 * Locks: `connecting` is held by the one thread that connects, for as long as that takes; the rest
 * of the state here is guarded by mio_task.lock, which is never held while something blocks.
 */
#include "internal.h"
#include "rendezvous.h"

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
    struct mio_bootstrap_request request; /* what made it; its connection is the one that knows */
};

static pthread_mutex_t connecting = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool busy;   /* this thread is the one that connects */
static _Thread_local bool asking; /* ... asks a server; of its end it wants to be told */

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
    mio_starting_lock();
}
void mio_bootstrap_fork_parent(void) {
    mio_starting_unlock();
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

/* ---- the names of this task; with the lock held -------------------------------------------- */

/* Whether a send right to the port can be given again; *ret_disposition: how. */
static bool can_offer(const struct mio_port *port, mach_msg_type_name_t *ret_disposition) {
    struct mio_entry *entry = port->name != MACH_PORT_NULL ? mio_space_lookup(port->name) : NULL;
    if (entry == NULL || port->state == MIO_PORT_DEAD)
        return false;
    *ret_disposition =
        entry->type & MACH_PORT_TYPE_RECEIVE ? MACH_MSG_TYPE_MAKE_SEND : MACH_MSG_TYPE_COPY_SEND;
    return true;
}

/* Forgets services whose port died, and the one of this name, if there is any; id: so made. */
static void forget(const char *name, mach_msg_id_t id) {
    for (struct service **link = &services; *link != NULL;) {
        struct service *service = *link;
        if (service->port->state == MIO_PORT_DEAD ||
            (name != NULL && strcmp(service->request.name, name) == 0 &&
             (id == 0 || service->request.id == id))) {
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

bool mio_bootstrap_remember(const struct mio_bootstrap_request *request) {
    struct mio_entry *entry = mio_space_lookup(request->port);
    struct service *service;

    if (request->connection != connection)
        return false;
    if (request->port == MACH_PORT_NULL) {
        forget(request->name, MIO_BOOTSTRAP_CREATE_SERVICE);
        return true;
    }
    forget(request->name, 0);
    /* Another thread may have destroyed it meanwhile. Without memory it is not checked in again. */
    if (entry == NULL || !(entry->type & MACH_PORT_TYPE_SEND_RECEIVE) ||
        (service = calloc(1, sizeof *service)) == NULL)
        return true;
    service->request = *request;
    /* The port is here: another server, who may have made one for the name, is to take this. */
    if (request->id == MIO_BOOTSTRAP_CHECK_IN)
        service->request.id = MIO_BOOTSTRAP_REGISTER;
    service->port = entry->port;
    mio_port_ref(service->port);
    service->next = services;
    services = service;
    if (mio_task.bootstrap != NULL)
        mio_notice_update_port(mio_task.bootstrap);
    return true;
}

unsigned mio_bootstrap_connection(void) {
    return connection;
}

bool mio_bootstrap_wants_notice(void) {
    return services != NULL;
}

/* ---- the task's port; with the lock held --------------------------------------------------- */

static bool is_connected(void) {
    struct mio_port *port = mio_task.bootstrap;
    if (port == NULL || port->tx < 0)
        return false;
    mio_port_is_dead(port); /* closes it if the server is gone */
    return port->tx >= 0;
}

bool mio_bootstrap_seems_ready(void) {
    return mio_task.bootstrap != NULL && mio_task.bootstrap->tx >= 0 && !settling && !busy;
}

void mio_bootstrap_asking(bool on) {
    asking = on;
}

bool mio_bootstrap_pending(mach_port_name_t name) {
    return !asking && mio_task.bootstrap != NULL && name != MACH_PORT_NULL &&
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

    forget(NULL, 0);
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

/* ---- connecting; without the lock, `connecting` held --------------------------------------- */

/*
 * Takes the welcome that has come over a connection, and gives its right to the task's bootstrap
 * port; as mio_welcome_take().
 */
static kern_return_t enter(int fd) {
    struct mio_right right;
    kern_return_t result = mio_welcome_take(fd, &right);
    if (result != KERN_SUCCESS)
        return result;
    if (is_connected()) { /* another was faster, and what it asks belongs to that connection */
        mio_right_destroy(&right);
        return KERN_SUCCESS;
    }
    mio_bootstrap_attach(&right);
    if (mio_task.bootstrap == NULL || mio_task.bootstrap->tx < 0) {
        mio_say("too many open files to keep the bootstrap server's right; raise ulimit -n");
        return KERN_RESOURCE_SHORTAGE;
    }
    settling = services != NULL;
    connection++;
    attached_at = mio_rendezvous_clock();
    return KERN_SUCCESS;
}

/* Waits for the welcome, and enters. */
static kern_return_t be_welcomed(int fd, int64_t deadline) {
    struct pollfd waiting = {.fd = fd, .events = POLLIN};
    for (;;) {
        int64_t left = deadline - mio_rendezvous_clock();
        int ready = poll(&waiting, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0) {
            mio_say("the bootstrap server does not answer; stop it and try again");
            return KERN_OPERATION_TIMED_OUT;
        }
        mio_lock();
        kern_return_t result = enter(fd);
        mio_unlock();
        if (result != MACH_RCV_TIMED_OUT)
            return result;
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
    mio_start_command(command, sizeof command);
    mio_rendezvous_last_words(words, sizeof words);
    mio_say("the bootstrap server (%s) ended before it answered%s%s; run it by hand to see why",
            command, words[0] != '\0' ? ", saying: " : "", words);
    return KERN_FAILURE;
}

/* A service that this connection does not know, and the request that tells it; NULL: none. */
static struct service *next_to_tell(struct mio_bootstrap_request *ret_request) {
    for (struct service *service = services; service != NULL; service = service->next) {
        if (service->request.connection == connection)
            continue;
        service->request.connection = connection;
        if (!can_offer(service->port, &service->request.disposition))
            continue;
        service->request.port = service->port->name;
        *ret_request = service->request;
        return service;
    }
    return NULL;
}

/* Tells a new server what this task has; other threads' calls wait until that is done. */
static void restore(void) {
    for (;;) {
        struct mio_bootstrap_request request;
        struct mio_bootstrap_answer answer;

        mio_lock();
        forget(NULL, 0);
        struct service *service = is_connected() ? next_to_tell(&request) : NULL;
        if (service == NULL) {
            settling = false;
            mio_unlock();
            return;
        }
        mach_port_name_t bp = mio_task.bootstrap->name;
        struct mio_port *port = service->port;
        mio_port_ref(port);
        mio_unlock();

        kern_return_t result = mio_bootstrap_exchange(bp, &request, &answer);
        if (answer.port != MACH_PORT_NULL) /* of a service created again, which nobody asked for */
            mach_port_deallocate(mach_task_self(), answer.port);

        mio_lock();
        /* The owner did not make this right. */
        if (request.disposition == MACH_MSG_TYPE_MAKE_SEND && port->mscount > 0 &&
            result != MACH_SEND_INVALID_DEST)
            port->mscount--;
        if (result == BOOTSTRAP_NOT_PRIVILEGED)
            forget(request.name, 0); /* somebody else was faster */
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

kern_return_t machio_bootstrap_connect(int start) {
    mio_say(NULL);
    return mio_bootstrap_ensure(start != 0);
}

/* ---- the same in two halves ---------------------------------------------------------------- */

/* Whether all that connecting takes is a server: names would have to be told, which waits. */
static bool is_free_to_enter(void) {
    mio_lock();
    bool result = mio_task.bootstrap != NULL && mio_task.bootstrap->name == bootstrap_port &&
                  services == NULL && !settling;
    mio_unlock();
    return result && !mio_rendezvous_is_server();
}

kern_return_t machio_bootstrap_knock(int *ret_fd) {
    bool started;
    mio_say(NULL);
    if (!is_free_to_enter())
        return KERN_NOT_SUPPORTED;
    return mio_rendezvous_connect(false, 0, ret_fd, &started);
}

kern_return_t machio_bootstrap_enter(int fd) {
    mio_say(NULL);
    mio_lock();
    kern_return_t result = services == NULL || is_connected() ? enter(fd) : KERN_NOT_SUPPORTED;
    mio_unlock();
    return result;
}
