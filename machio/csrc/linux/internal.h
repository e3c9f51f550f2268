/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Mach for Linux: the private header of the layer.
 *
 * One task is one process. Everything a task knows of Mach lives in the objects declared here,
 * and one lock, `mio_task.lock`, guards them all; a function of this header is called with the
 * lock held unless its comment begins with "Unlocked". System calls made under the lock never
 * block; whoever has to wait lets the lock go first (wait.c).
 *
 *   space.c    the name table: names, entries, user references
 *   right.c    rights: from a name into transit (copyin), back (copyout), dropped
 *   port.c     ports as objects: birth, counts, death     once.c  send-once rights
 *   crowd.c    many send-once rights of a port that are elsewhere
 *   channel.c  the kernel objects behind a port that other tasks can reach
 *   portset.c  port sets
 *   calls.c    mach_port_*: names made, told about, given rights     release.c  and dropped
 *   attr.c     mach_port_get/set_attributes, contexts, guards
 *   send.c     mach_msg, sending half     receive.c  receiving half     trailer.c  who sent it
 *   queue.c    a port's messages, from wherever they come     kmsg.c  messages
 *   descriptor.c  the bytes of a body's descriptors    body.c  what they stand for: memory, rights
 *   memfd.c    files of bytes that nobody can change any more     region.c  memory made of them
 *   identity.c what a descriptor is that a peer sent
 *   wire.c     frames in and out of sockets (docs/linux-wire.md)
 *   encode.c   a message becomes a frame     decode.c  a frame becomes a message
 *   import.c   a frame's rights become this task's
 *   contents.c  whether a body says what its frame holds
 *   request.c  requests for notifications     notify.c  notifications     notice.c  their causes
 *   wait.c     blocked threads
 *   watch.c    epoll: which descriptors belong to which port
 *   kqueue.c   kqueues              knote.c  what is registered with them
 *   filter_port.c, filter_file.c     EVFILT_MACHPORT; READ and WRITE      memory.c  vm_allocate
 *   task.c     the task itself: start, fork     taskport.c  what its port can be asked
 *   fileport.c  open files as rights
 *   special.c  special and registered ports     thread.c, host.c  the ports of threads, of the host
 *   mig.c      what MIG's output calls     server.c  mach_msg_server     peek.c  mach_port_peek
 *   bootstrap.c, rendezvous.c  finding and starting the bootstrap server, its calls
 *   error.c    codes, and what went wrong, in words
 */
#ifndef MACHIO_LINUX_INTERNAL_H
#define MACHIO_LINUX_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* before any other header: the folder compiles without options */
#endif

#include <mach/mach.h>

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct mio_port;
struct mio_once;
struct mio_set;
struct mio_kmsg;
struct mio_request;
struct mio_watch;
struct mio_watch_link;
struct mio_kq;
struct pollfd;
struct timespec;

/* ---- lists: intrusive, circular, doubly linked ------------------------------------------- */

struct mio_list {
    struct mio_list *next, *prev;
};

#define MIO_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define MIO_EACH(pos, head)                                                           \
    for (struct mio_list *pos = (head)->next, *pos##_next = pos->next; pos != (head); \
         pos = pos##_next, pos##_next = pos->next)

static inline void mio_list_init(struct mio_list *head) {
    head->next = head->prev = head;
}
static inline bool mio_list_empty(const struct mio_list *head) {
    return head->next == head;
}
static inline void mio_list_append(struct mio_list *head, struct mio_list *item) {
    item->prev = head->prev, item->next = head;
    head->prev->next = item, head->prev = item;
}
/* Removing twice is harmless: a removed item is a list of its own. */
static inline void mio_list_remove(struct mio_list *item) {
    item->prev->next = item->next, item->next->prev = item->prev;
    mio_list_init(item);
}

/* ---- sources: file descriptors the layer owns -------------------------------------------- */

enum mio_source_kind {
    MIO_SOURCE_RX = 1,  /* a local port's queue */
    MIO_SOURCE_ONCE_RX, /* the home end of a send-once right that is elsewhere */
    MIO_SOURCE_CW,      /* a local port's credit pipe, write end: tells that no sender is left */
    MIO_SOURCE_CR,      /* a remote port's credit pipe, read end: tells room and death */
    MIO_SOURCE_ONCE_TX, /* a remote send-once right: tells death */
    MIO_SOURCE_TX,      /* a remote port's socket while a credit is in hand: tells room */
    MIO_SOURCE_CROWD,   /* the epoll of many ONCE_RX of a local port */
};

struct mio_source {
    int fd; /* -1: none */
    enum mio_source_kind kind;
    union {
        struct mio_port *port; /* of all others */
        struct mio_once *once; /* ONCE_RX, ONCE_TX */
    };
    uint32_t noticed; /* the epoll events that mio_task.notice watches it for; 0: not there */
    bool wanted;      /* for somebody's sake */
};

/* ---- ports ------------------------------------------------------------------------------- */

enum mio_port_state {
    MIO_PORT_LOCAL,  /* the receive right is in this task: under a name, or in a local message */
    MIO_PORT_REMOTE, /* another task's; here are send rights only */
    MIO_PORT_DEAD,   /* names that still refer to it are dead names, converted when touched */
};

enum mio_port_kind {
    MIO_PORT_PLAIN = 'p',
    MIO_PORT_TASK = 't',      /* a task's own port; nobody receives from it */
    MIO_PORT_BOOTSTRAP = 'b', /* the bootstrap server's port */
    MIO_PORT_HOST = 'h',      /* as a task's */
    MIO_PORT_THREAD = 'a',    /* the same */
    MIO_PORT_FILE = 'f',      /* an open file (fileport.c): remote in every task, no credit pipe */
};

/* On XNU the kernel is who receives from it; here nobody does. */
static inline bool mio_kind_is_kernels(enum mio_port_kind kind) {
    return kind == MIO_PORT_TASK || kind == MIO_PORT_HOST || kind == MIO_PORT_THREAD ||
           kind == MIO_PORT_FILE;
}

/*
 * A port. A local port has kernel objects only while another task can reach it ("wired").
 *
 *   fd          local, wired                     remote
 *   rx.fd       receiving socket                 -
 *   tx          sending socket, to export        sending socket
 *   cw.fd       credit pipe, write end           -
 *   cr.fd       only while local senders use it  credit pipe, read end
 */
struct mio_port {
    unsigned refs; /* memory only: entries, rights in transit, send-once rights, requests */
    enum mio_port_state state;
    enum mio_port_kind kind;
    mach_port_name_t name; /* its one name in this space (send, receive or both), or 0 */
    unsigned srights;      /* holders of send rights in this task: the name, local messages */

    uint64_t cookie; /* SO_COOKIE of tx: its identity among tasks; 0: not wired */
    ino_t pipe;      /* inode of the credit pipe */
    int tx;
    struct mio_source rx, cw, cr;
    struct mio_source room; /* tx once more while mio_task.notice watches it; not closed by it */
    struct mio_port *hash_next;
    struct mio_list turn; /* mio_task.turns, while cr stands in the epoll of a loop that waits */
    int epfd;             /* that epoll */
    uint64_t asked;       /* remote: the hold in which the kernel was asked whether it lives */
    bool shut;            /* remote: its socket was shut down, by a hostile holder if it lives */

    /* Local only, from here on. */
    struct mio_kmsg *head, **tail; /* messages that never left the task, and notifications */
    unsigned queued;               /* how many these are */
    unsigned counted;              /* of these, how many hold a credit if the port is wired */
    unsigned once_frames;          /* wired: in the socket, came by send-once rights and a move */
    unsigned reserved;             /* slots promised to senders that were woken (unwired) */
    unsigned qlimit, seqno, mscount;
    uint64_t ready;      /* the hold in which the kernel told that the wire has something */
    int told;            /* in that hold: the only source that has, or -1 */
    unsigned returned;   /* wired: credits since the pipe was last looked at */
    int issued;          /* wired: credits in the pipe, in senders' hands, and spent on messages */
    bool senders_gone;   /* every cr was closed; the wire's messages are yet to be received */
    bool broken;         /* a hostile holder shut the socket down */
    bool credit_in_hand; /* remote: a credit was taken, the socket was full */
    mach_port_context_t context;
    uint32_t flags; /* MACH_PORT_STATUS_FLAG_* */
    bool guarded, strict, immovable;
    unsigned sorights;           /* send-once rights made and not yet used up */
    struct mio_list onces;       /* mio_once.link: live send-once rights whose home this is; those
                                    elsewhere come first: they alone have files to be looked at */
    unsigned away;               /* how many those are */
    struct mio_source crowd;     /* the epoll that looks at them, if they are many */
    struct mio_list ripe;        /* mio_once.ripe: the crowd's that have told, oldest first */
    struct mio_list memberships; /* mio_member.of_port */
    struct mio_list receivers;   /* mio_waiter.link: threads blocked in receive on the port */
    struct mio_list senders;     /* mio_waiter.link: threads of this task blocked in send */
    struct mio_list links;       /* mio_watch_link.of_port: sets' and kqueues' epolls */
    struct mio_list knotes;      /* mio_knote.of_object */
    struct mio_list requests;    /* mio_request.link: dead-name and send-possible, by name */
    struct mio_once *no_senders; /* armed requests */
    struct mio_once *destroyed;  /* port-destroyed */
    unsigned drained;            /* how often the queue was seen to become empty (EV_CLEAR) */
    struct mio_port *carrier;    /* the port in whose local queue the receive right travels */
    bool senders_seen;           /* a send right was made since no-senders was last settled */
};

/*
 * A send-once right: one message or one notification, never both.
 *
 *   LOCAL     home is here and so is the right (a name, or a local message)
 *   EXPORTED  home is here, the right elsewhere; source = ONCE_RX
 *   REMOTE    the right is here, home elsewhere; source = ONCE_TX
 *   DEAD      its port died
 */
enum mio_once_state { MIO_ONCE_LOCAL, MIO_ONCE_EXPORTED, MIO_ONCE_REMOTE, MIO_ONCE_DEAD };

struct mio_once {
    enum mio_once_state state;
    struct mio_port *home; /* LOCAL, EXPORTED, and DEAD for requests; holds a reference */
    struct mio_source source;
    uint64_t cookie; /* SO_COOKIE of the end that travels */
    struct mio_once *hash_next;
    struct mio_list link;        /* mio_port.onces */
    struct mio_list ripe;        /* mio_port.ripe, or nowhere */
    struct mio_request *request; /* dead-name request on the name that holds it */
    int pending_tx, pending_rx;  /* a pair made for a move that is under way, or -1 */
    uint64_t asked;              /* REMOTE: the hold in which the kernel was asked if it lives */
    uint64_t stamp;              /* EXPORTED: the peeked stamp of its message, or 0 */
};

/* ---- rights in transit ------------------------------------------------------------------- */

enum mio_right_kind {
    MIO_RIGHT_NULL,
    MIO_RIGHT_DEAD,
    MIO_RIGHT_SEND,
    MIO_RIGHT_ONCE,
    MIO_RIGHT_RECEIVE
};

/* A right that no name holds. Whoever holds the struct owns the right. */
struct mio_right {
    enum mio_right_kind kind;
    mach_msg_type_name_t disposition; /* as received: 16, 17, 18; or 0 */
    union {
        struct mio_port *port; /* SEND, RECEIVE: with one reference, SEND with one srights */
        struct mio_once *once; /* ONCE: owned */
    };
};

/* ---- messages ---------------------------------------------------------------------------- */

struct mio_sender {
    uid_t uid;
    gid_t gid;
    pid_t pid;
    bool kernel; /* made by this layer for this task: the zero token */
};

struct mio_kmsg {
    struct mio_kmsg *next;
    uint64_t stamp; /* CLOCK_REALTIME in ns, when it was queued; MIO_NOW: not yet */
    bool complex;   /* MACH_MSGH_BITS_COMPLEX */
    bool counted;   /* was sent by a send right; on a wired port it holds a credit */
    mach_msg_id_t id;
    mach_port_name_t voucher;
    struct mio_sender sender;
    struct mio_right dest; /* SEND or ONCE; off the wire: kind NULL, disposition 17 or 18 */
    struct mio_right reply;
    unsigned nrights;
    struct mio_right *rights; /* of all descriptors, in order; each element of an array is one */
    int heap;                 /* a file of the out-of-line memory, in order, by pages; or -1 */
    uint64_t unsealed;        /* its size while it is not sealed: before it leaves; or 0 */
    mach_msg_size_t size;     /* msgh_size */
    uint8_t *body;            /* size - 24 bytes; what its descriptors name, rights and heap have */
    bool foreign_bootstrap;   /* carries another task's view of a bootstrap port */
};

/* ---- the name table ---------------------------------------------------------------------- */

struct mio_entry {
    mach_port_type_t type; /* MACH_PORT_TYPE_* bits; 0: free */
    mach_port_urefs_t urefs;
    uint8_t gen;        /* low byte of the name it has or had last */
    uint32_t next_free; /* index */
    union {
        struct mio_port *port; /* SEND, RECEIVE */
        struct mio_once *once; /* SEND_ONCE */
        struct mio_set *set;   /* PORT_SET */
    };
    struct mio_request *request; /* dead-name or send-possible request; owned */
};

/* An event loop: the epoll in which it sleeps, or -1, and the kqueue that it watches there. */
struct mio_loop {
    int epfd, kq;
};

/* A dead-name or send-possible request. Stays with its entry until fired, cancelled, converted. */
struct mio_request {
    struct mio_list link;    /* mio_port.requests (also of a LOCAL send-once right's home) */
    struct mio_port *port;   /* what it watches: this port ... */
    struct mio_once *once;   /* ... or this send-once right, REMOTE or LOCAL */
    struct mio_once *notify; /* NULL: fired, the entry is yet to be converted */
    mach_port_name_t name;
    bool send_possible;   /* asked for MACH_NOTIFY_SEND_POSSIBLE */
    bool armed;           /* fires when there is room */
    bool ticking;         /* counted in mio_task.armed */
    struct mio_loop loop; /* waits in turn */
};

/* ---- port sets ---------------------------------------------------------------------------- */

struct mio_member {
    struct mio_set *set;
    struct mio_port *port;
    struct mio_list of_set, of_port;
    struct mio_list ready; /* mio_set.ready while the port may have a message */
};

struct mio_set {
    mach_port_name_t name;
    struct mio_list members;
    struct mio_list ready;
    struct mio_list receivers; /* mio_waiter.link */
    struct mio_list knotes;    /* mio_knote.of_object */
    struct mio_watch *watch;   /* its members' sources; made at the first receive */
    bool collected;            /* `ready` has what the watch told, and nothing was taken since */
    unsigned drained;
};

/* ---- watching: epoll ---------------------------------------------------------------------- */

/*
 * A set of ports whose sources one epoll watches: a port set's, or a kqueue's. Events carry
 * MIO_WATCH_SOURCE | fd; the fd is looked up in mio_task.sources, so a late event for a
 * descriptor that is gone finds nothing.
 */
struct mio_watch {
    int epfd;              /* -1: the program closed this kqueue */
    struct mio_kq *kq;     /* whose it is; NULL: a set's */
    struct mio_list all;   /* every set's: a forked child closes them */
    struct mio_list links; /* mio_watch_link.of_watch */
};

struct mio_watch_link {
    struct mio_watch *watch;
    struct mio_port *port;
    struct mio_list of_watch, of_port;
    unsigned level, clear; /* how many want level, how many want edge triggering */
    uint32_t events;       /* as registered */
};

#define MIO_WATCH_SOURCE (UINT64_C(1) << 32) /* | fd: a source */
#define MIO_WATCH_NOTICE (UINT64_C(2) << 32) /* mio_task.notice */
#define MIO_WATCH_MARKER (UINT64_C(3) << 32) /* mio_task.marker */
#define MIO_WATCH_FD (UINT64_C(4) << 32)     /* | fd: a descriptor of the program's own */
#define MIO_WATCH_TICK (UINT64_C(5) << 32)   /* mio_task.tick */

/* ---- blocked threads ---------------------------------------------------------------------- */

struct mio_waiter {
    struct mio_list link;
    int fd; /* the thread's eventfd */
    bool woken;
    bool granted; /* a sender: a slot of the queue was reserved for it */
};

/* ---- the task ----------------------------------------------------------------------------- */

#define MIO_CHUNK 256u
#define MIO_CHUNKS 1195u     /* 1195 * 256 names, about XNU's limit */
#define MIO_HASH 1024u       /* buckets, by cookie */
#define MIO_QUEUE_MAX 65534u /* MACH_PORT_QLIMIT_KERNEL */
#define MIO_UREFS_MAX 65535u

struct mio_task {
    pthread_mutex_t lock;
    uint64_t hold; /* how often the lock was taken: what the kernel said is good for one hold */
    struct mio_entry *chunks[MIO_CHUNKS];
    uint32_t table_size; /* entries that exist */
    uint32_t free_head;  /* index of the first free entry; 0: none */

    struct mio_source **sources; /* by fd */
    size_t nsources;
    struct mio_port *by_cookie[MIO_HASH];
    struct mio_once *once_by_cookie[MIO_HASH];
    unsigned exported; /* how many are in there */

    struct mio_port *self;      /* this task's port */
    struct mio_port *bootstrap; /* the bootstrap port; tx == -1 until connected */

    int notice;            /* epoll of everything whose change causes a notification; -1: none */
    unsigned wanted;       /* how many sources it watches for somebody's sake */
    unsigned armed;        /* armed send-possible requests on remote ports */
    int tick;              /* a timer in `notice`: looks for lost credits; or -1 */
    bool ticking;          /* it runs */
    struct mio_list turns; /* mio_port.turn */
    struct mio_list kqs;   /* mio_kq.link */
    int marker;            /* an eventfd that is always readable: makes a kqueue readable */
    int null;              /* /dev/null, where taken credits go */
    struct mio_kmsg *dying, **dying_tail; /* messages of dead ports, about to be destroyed */
    bool reaping;
};

extern struct mio_task mio_task;

void mio_lock(void);   /* Unlocked. Starts the layer if need be. */
void mio_unlock(void); /* also runs nothing: destruction finishes where it begins */

/* Unlocked. A call on this task begins and ends; anything else than this task is no destination. */
#define MIO_ENTER(task)                                            \
    do {                                                           \
        if ((task) != mach_task_self_ || (task) == MACH_PORT_NULL) \
            return MACH_SEND_INVALID_DEST;                         \
        mio_lock();                                                \
    } while (0)

static inline kern_return_t mio_leave(kern_return_t kr) {
    mio_unlock();
    return kr;
}

/* ---- space.c ------------------------------------------------------------------------------ */

/* The entry under exactly this name, or NULL. */
struct mio_entry *mio_space_lookup(mach_port_name_t name);
/* A new name. KERN_NO_SPACE, KERN_RESOURCE_SHORTAGE. The entry is zeroed. */
kern_return_t mio_space_alloc(mach_port_name_t *ret_name, struct mio_entry **ret_entry);
/* Exactly this name: the table of mach_port_allocate_name. */
kern_return_t mio_space_alloc_name(mach_port_name_t name, struct mio_entry **ret_entry);
void mio_space_free(mach_port_name_t name);
/* The name of the i-th entry that is in use, scanning from index `*cursor`; 0 at the end. */
mach_port_name_t mio_space_next(uint32_t *cursor, struct mio_entry **ret_entry);

/* ---- right.c ------------------------------------------------------------------------------ */

/* The entry under the name after a dead port's name was converted to a dead name; NULL if none. */
struct mio_entry *mio_entry_get(mach_port_name_t name);
/*
 * The same for what a right of these types and a dead name suffer alike: whether the port lives is
 * asked only if somebody wants to be told of its death.
 */
struct mio_entry *mio_entry_get_unasked(mach_port_name_t name, mach_port_type_t types);
/*
 * Takes a right from under a name. dead_ok: a dead name gives MIO_RIGHT_DEAD, as in a message's
 * body. Ownership: on success *ret owns the right; on failure nothing changed.
 * KERN_INVALID_NAME, KERN_INVALID_RIGHT, KERN_INVALID_CAPABILITY (immovable).
 */
kern_return_t mio_right_copyin(mach_port_name_t name, mach_msg_type_name_t disposition,
                               struct mio_right *ret);
/*
 * The same for a message's body. A right whose death nobody asked to be told of may leave as if its
 * port lived: who receives it sees that it does not.
 */
kern_return_t mio_right_copyin_unasked(mach_port_name_t name, mach_msg_type_name_t disposition,
                                       struct mio_right *ret);
/*
 * Gives a right a name. Ownership: consumed on success; on failure still the caller's.
 * *ret_name is NULL/DEAD for such rights. KERN_NO_SPACE, KERN_RESOURCE_SHORTAGE.
 */
kern_return_t mio_right_copyout(struct mio_right *right, mach_port_name_t *ret_name);
/* The same under a chosen name: mach_port_insert_right's second half. Consumes the right. */
kern_return_t mio_right_copyout_as(struct mio_right *right, mach_port_name_t name);
/* The disposition that a receiver sees; 0: it is none. */
mach_msg_type_name_t mio_received_as(mach_msg_type_name_t disposition);
/* Drops a right with the usual effects; the struct becomes MIO_RIGHT_NULL. */
void mio_right_destroy(struct mio_right *right);
/* Drops `urefs` send references under the name. All effects: no-senders, PORT_DELETED. */
void mio_entry_drop_send(mach_port_name_t name, struct mio_entry *entry, unsigned urefs);
/* Frees the name; a request on it becomes PORT_DELETED. The entry's object is the caller's. */
void mio_entry_free(mach_port_name_t name, struct mio_entry *entry);
/* The receive right leaves the name: sets, waiters, knotes see it go. Keeps a send part. */
void mio_entry_take_receive(mach_port_name_t name, struct mio_entry *entry);

/* ---- port.c ------------------------------------------------------------------------------- */

struct mio_port *mio_port_new(enum mio_port_state state); /* refs 1; NULL: no memory */
/*
 * Another task's port, by its parts; a file port has no pipe (0) and no cr (-1). NULL: no memory.
 * Ownership: consumes the descriptors; the reference is the caller's.
 */
struct mio_port *mio_port_new_remote(enum mio_port_kind kind, uint64_t cookie, ino_t pipe, int tx,
                                     int cr);
void mio_port_ref(struct mio_port *port);
void mio_port_unref(struct mio_port *port);
/* Drops one holder's send right and its reference; may fire no-senders, close a remote port. */
void mio_port_drop_send(struct mio_port *port);
/*
 * Fires the armed no-senders request if no send right is left anywhere; true if it did. when: the
 * last one went, or MIO_NOW.
 */
bool mio_port_check_senders(struct mio_port *port, uint64_t when);
/* Whether a send right exists anywhere: here, elsewhere, in flight. */
bool mio_port_has_senders(struct mio_port *port);
/* Destroys the receive right (already out of the space): section 5 of Mach's rules. */
void mio_port_destroy(struct mio_port *port);
/* A remote port is found dead: names, requests. Idempotent. */
void mio_port_died(struct mio_port *port);
/*
 * Asks the kernel, once in a hold of the lock, whether a remote port has died; true if it is dead.
 * Sees also whether its socket was shut down.
 */
bool mio_port_is_dead(struct mio_port *port);
/* Nobody asks in this hold. false: it is not one to be asked. */
bool mio_port_presume_alive(struct mio_port *port);
struct mio_port *mio_port_by_cookie(uint64_t cookie);
void mio_port_hash(struct mio_port *port);
void mio_port_unhash(struct mio_port *port);

/* What was known here as somebody else's port is this task's now. */
void mio_port_make_local(struct mio_port *port);
/* The port's socket was shut down by a hostile holder: every remote right dies, the port lives. */
void mio_port_break(struct mio_port *port);
/* Whether dest is the port, or lies in its queue, at any depth: the port's right must not go there.
 */
bool mio_port_travels_in(const struct mio_port *port, const struct mio_port *dest);
/* The port's memberships go to their sets' ready lists; no wake-up. */
void mio_port_mark_ready(struct mio_port *port);
/* Someone may have something to receive: blocked threads, sets, kqueues. */
void mio_port_ready(struct mio_port *port);
/* Wakes every thread blocked on the port so that it looks again. */
void mio_port_wake_all(struct mio_port *port);
/* Leaves all sets, final knote events, PORT_CHANGED for receivers; resets what a move resets. */
void mio_port_leave_space(struct mio_port *port);

/* ---- once.c -------------------------------------------------------------------------------- */

struct mio_once *mio_once_new(struct mio_port *home); /* LOCAL; home NULL: REMOTE */
void mio_once_left(struct mio_once *once);            /* it is EXPORTED from now on */
void mio_once_came_home(struct mio_once *once);       /* it is LOCAL again */
/* The right whose home is here and whose travelling end this is; NULL: another's, or one unknown.
 */
struct mio_once *mio_once_by_end(int tx);
void mio_once_hash(struct mio_once *once);
void mio_once_unhash(struct mio_once *once);
/* As the same of a port: the kernel is asked once in a hold. */
bool mio_once_is_dead(struct mio_once *once);
bool mio_once_presume_alive(struct mio_once *once);
/* Drops the right: its port gets MACH_NOTIFY_SEND_ONCE. */
void mio_once_drop(struct mio_once *once);
/*
 * An EXPORTED right's home end is done with: what else a hostile holder queued there goes to
 * mio_task.dying.
 */
void mio_once_close_home(struct mio_once *once);
/* Frees the object without any message: the right was used, moved away, or its home end drained. */
void mio_once_free(struct mio_once *once);

/* ---- crowd.c -------------------------------------------------------------------------------- */

#define MIO_FEW_ONCES 4u /* so many are no crowd */

/* An EXPORTED right's home end is to be looked at from now on; or no more: mio_source_close(). */
void mio_crowd_join(struct mio_once *once);
void mio_crowd_leave(struct mio_once *once);
/* Those whose message has come are ripe. */
void mio_crowd_collect(struct mio_port *port);
/* The oldest of those that are ripe, or NULL. */
struct mio_once *mio_crowd_first(const struct mio_port *port);
/* Nothing was there, somebody else having taken it: if it was ripe, it is not. */
void mio_crowd_look_again(struct mio_once *once);

/* ---- channel.c: the kernel objects ------------------------------------------------------- */

/* Makes a local port reachable for other tasks. KERN_RESOURCE_SHORTAGE. Idempotent. */
kern_return_t mio_channel_open(struct mio_port *port);
/* Closes what a port has of kernel objects; messages on a local port's wire are destroyed. */
void mio_channel_close(struct mio_port *port);
/* A local port dies: everybody can see it from now on. Its socket can still be read. */
void mio_channel_hang_up(struct mio_port *port);
/* Its messages are destroyed: the time of its death is now. Closes what is left. */
void mio_channel_bury(struct mio_port *port);
/*
 * When the other end of this end of a credit pipe came to its end, as its last holder wrote there;
 * MIO_NOW if he could not.
 */
uint64_t mio_channel_ended(int fd);
/* A local, wired port: opens cr if it is not open. */
kern_return_t mio_channel_open_cr(struct mio_port *port);
/*
 * After a failure for want of kernel objects: if the kernel forbade one, the calling thread's
 * sentence for machio_last_error says which; otherwise there is none.
 */
void mio_channel_explain(void);
/* A local port without send rights here keeps no cr: it would count as a sender's. */
void mio_channel_trim(struct mio_port *port);
enum mio_credit { MIO_CREDIT_TAKEN, MIO_CREDIT_NONE, MIO_CREDIT_DEAD };
enum mio_credit mio_credit_take(struct mio_port *port);
/* A message was taken off a wired port, with the credit that it held or without one. */
void mio_credit_return(struct mio_port *port, bool counted);
void mio_credit_set_limit(struct mio_port *port, unsigned limit);
void mio_credit_recover(struct mio_port *port);    /* the queue is empty: lost credits come back */
unsigned mio_channel_depth(struct mio_port *port); /* messages on the wire */
/*
 * Checks that the descriptors are the parts of one port, and tells its pipe and kind; its cookie is
 * that of tx. known: tx is the socket of a port that is known here.
 */
bool mio_channel_verify_send(int tx, int cr, struct mio_port *identity);
bool mio_channel_verify_receive(int rx, int tx, int cw, bool known, struct mio_port *identity);
bool mio_channel_verify_file(int tx, uint64_t *ret_cookie);
bool mio_channel_verify_once(int tx);
bool mio_channel_verify_once_rx(int rx);
/* A bundle's socket (bundle.c). */
bool mio_channel_verify_bundle(int fd, uint64_t *ret_cookie);
int mio_pair(int fds[2]); /* a CLOEXEC SOCK_SEQPACKET pair; -1 on failure, errno kept */
/* A receiving end: PASSCRED, TIMESTAMPNS. */
void mio_pair_receiver(int fd);
void mio_look_at_front(int fd); /* MSG_PEEK, whatever another holder of the socket set */
uint64_t mio_socket_cookie(int fd);
void mio_fd_discard(int fd);   /* closes a descriptor a peer sent: never blocks */
void mio_collect_cycles(void); /* makes the kernel look for unreachable sockets in flight */

/* ---- watch.c ------------------------------------------------------------------------------ */

int mio_source_set(struct mio_source *source, int fd); /* 0, or -1: no memory */
void mio_source_close(struct mio_source *source);      /* leaves every epoll, then closes */
int mio_source_release(struct mio_source *source);     /* the same, but gives the fd away */
struct mio_source *mio_source_find(int fd);
struct mio_port *
mio_source_port(struct mio_source *source); /* whose queue it is part of, or NULL */
struct mio_watch *mio_watch_new(void);
void mio_watch_free(struct mio_watch *watch);
void mio_watch_unlink(struct mio_watch *watch); /* forgets the ports; touches no epoll */
void mio_watches_fork_child(void);              /* closes those of sets; by mio_kqs_fork_child */
kern_return_t mio_watch_add(struct mio_watch *watch, struct mio_port *port, bool edge);
void mio_watch_remove(struct mio_watch *watch, struct mio_port *port, bool edge);
/* false: some epoll does not take it. */
bool mio_watch_source_added(struct mio_port *port, struct mio_source *source);
void mio_watch_source_removed(struct mio_port *port, struct mio_source *source);

/* ---- portset.c ---------------------------------------------------------------------------- */

struct mio_set *mio_set_new(void);
void mio_set_destroy(struct mio_set *set);
struct mio_member *mio_set_find(struct mio_set *set, struct mio_port *port);
kern_return_t mio_set_insert(struct mio_set *set, struct mio_port *port);
void mio_set_remove(struct mio_member *member);

/* ---- kmsg.c -------------------------------------------------------------------------------- */

struct mio_kmsg *mio_kmsg_new(mach_msg_size_t size, unsigned nrights); /* NULL: no memory */
void mio_kmsg_free(struct mio_kmsg *kmsg);    /* memory, also what is out of line; no rights */
void mio_kmsg_destroy(struct mio_kmsg *kmsg); /* with every right in it, in Mach's order */
uint64_t mio_now(void);
#define MIO_NOW UINT64_C(0) /* as the time of something: it happens now */

/* ---- attr.c ------------------------------------------------------------------------------- */

/*
 * Unlocked. The port under a name that must hold a receive right. Takes the lock; on failure, and
 * for a NULL port, it is not held. invalid: what MACH_PORT_NULL and MACH_PORT_DEAD give.
 */
kern_return_t mio_receive_right_enter(ipc_space_t task, mach_port_name_t name,
                                      kern_return_t invalid, struct mio_port **ret_port);

/* ---- trailer.c ---------------------------------------------------------------------------- */

/* Unlocked. Writes the first `size` bytes of the largest trailer. */
void mio_trailer_write(void *at, mach_msg_size_t size, mach_port_seqno_t seqno,
                       const struct mio_sender *sender, mach_port_context_t context);
audit_token_t mio_audit_token(const struct mio_sender *sender);
security_token_t mio_security_token(const struct mio_sender *sender);

/* ---- queue.c ------------------------------------------------------------------------------ */

/* Puts a message into a local port's own queue and wakes whoever waits for it. Consumes it. */
void mio_port_enqueue(struct mio_port *port, struct mio_kmsg *kmsg);
/* Puts a message that was taken off back to the front of the port's own queue. */
void mio_kmsg_push_front(struct mio_port *port, struct mio_kmsg *kmsg);
/*
 * The next message of a local port, taken off, oldest source first; NULL: none. *ret_shortage:
 * one is there but the descriptors in it could not be installed; it stays queued.
 */
struct mio_kmsg *mio_port_dequeue(struct mio_port *port, bool *ret_shortage);
/* A dying port: all its messages go to mio_task.dying, oldest first. */
void mio_port_abandon(struct mio_port *port);
/* The kernel has just told that a source of the port has something. all: of every source that has.
 */
void mio_port_told(struct mio_port *port, const struct mio_source *source, bool all);
/* Whether the port has a message that no descriptor tells of, or tells of any more. */
bool mio_port_holds_message(const struct mio_port *port);
/* Whether the port has something to receive now (also what only looks so: a dying peer). */
bool mio_port_has_message(struct mio_port *port);
/* How many send-once rights that are elsewhere have sent their message, or were dropped. */
unsigned mio_port_waiting_onces(struct mio_port *port);
/*
 * The descriptors by which a local port's messages come, for poll(); NULL port: none. The first
 * `before` are the caller's to fill in. Valid until the next call; NULL: no memory.
 */
struct pollfd *mio_port_fds(struct mio_port *port, size_t before, size_t *ret_n);

/* ---- memfd.c -------------------------------------------------------------------------------- */

/* Unlocked, all of them. A new file; -1, errno kept. */
int mio_memfd_new(void);
/* KERN_INVALID_ADDRESS: the memory cannot be read. KERN_RESOURCE_SHORTAGE. */
kern_return_t mio_memfd_write(int fd, const void *from, size_t size, uint64_t at);
bool mio_memfd_read(int fd, void *to, size_t size, uint64_t at);
bool mio_memfd_resize(int fd, uint64_t size);
/* From now on its size and its bytes are what they are. false: somebody may still write to it. */
bool mio_memfd_seal(int fd);
/* Such a file with the bytes that another has now. -1: no memory, no descriptors. */
int mio_memfd_sealed_copy(int fd, uint64_t size);
/* Whether a peer's file is such a one, of exactly that size, and can be read. */
bool mio_memfd_is_sealed(int fd, uint64_t size);

/* ---- region.c ------------------------------------------------------------------------------ */

/* Unlocked. Whether this is all of a region, which may go as a message's heap. */
bool mio_region_is(const void *address, size_t length);
/* Unmaps a region. Ownership: its file is the caller's. -1: it is none, and still there. */
int mio_region_take(const void *address, size_t length);
/* Maps an unsealed file as a region. Ownership: consumes *fd, which is -1 then; NULL: it does not.
 */
void *mio_region_return(int *fd, size_t length);
/* Pages are about to be unmapped: regions that have any are none from now on. */
void mio_region_forget(uintptr_t address, size_t length);
void mio_regions_fork_child(void);

/* ---- descriptor.c --------------------------------------------------------------------------- */

struct mio_layout {
    unsigned descriptors;
    unsigned rights; /* that they carry, elements of arrays too */
    unsigned arrays; /* those elements alone */
    uint64_t heap;   /* bytes of out-of-line memory, each piece rounded up to pages */
};

/* Unlocked, all of them. What a complex body of that size, header excluded, says that it holds. */
mach_msg_return_t mio_layout_of(const void *body, size_t size, struct mio_layout *ret);
/* Of a body that was checked. */
unsigned mio_descriptor_count(const void *body);
mach_msg_descriptor_t *mio_descriptor_first(void *body);
mach_msg_descriptor_t *mio_descriptor_next(mach_msg_descriptor_t *descriptor);
size_t mio_descriptor_size(const mach_msg_descriptor_t *descriptor); /* 0: an unknown type */
/* Names, addresses and guards mean nothing to another task. */
void mio_descriptors_blank(void *body);

/* ---- body.c --------------------------------------------------------------------------------- */

/* What was read of a program's memory for a message that is yet to be made. */
struct mio_gathered {
    int heap;                /* see mio_kmsg; -1: none */
    uint64_t size;           /* of the heap */
    bool region;             /* no heap yet: a region becomes it, which is to be all there is */
    mach_port_name_t *names; /* the elements of all arrays */
    unsigned failed;         /* the descriptor whose memory could not be read; or past the last */
    kern_return_t why;
};

/* Unlocked. Reads all out-of-line memory; false: no memory for the names. */
bool mio_gather(void *body, const struct mio_layout *layout, struct mio_gathered *ret);
void mio_gathered_free(struct mio_gathered *gathered);
/*
 * Fills a message from a program's body: phase B of a send. Ownership: the rights that the
 * message holds then, and the heap, are its own, on failure too.
 */
mach_msg_return_t mio_body_take(const void *body, struct mio_gathered *gathered,
                                struct mio_kmsg *kmsg);
enum mio_giving {
    MIO_GIVE,          /* to a receiver */
    MIO_GIVE_GUARDED,  /* to one with MACH_RCV_GUARDED_DESC */
    MIO_GIVE_RETURNED, /* back to the sender */
};
/*
 * Writes the body behind a header. Returns MACH_MSG_*_SPACE and _KERNEL bits for what failed and is
 * NULL. Ownership: rights and memory are the program's; the message holds no right any more.
 */
mach_msg_return_t mio_body_give(struct mio_kmsg *kmsg, mach_msg_header_t *msg, enum mio_giving how);
/* Unlocked. Nobody can change the message's memory any more. false: no memory, no descriptors. */
bool mio_body_seal(struct mio_kmsg *kmsg);
/* A right's name, or such bits. Ownership: consumes the right, on failure too. */
mach_msg_return_t mio_right_give(struct mio_right *right, mach_port_name_t *ret_name);

/* ---- send.c / receive.c -------------------------------------------------------------------- */

/* Unlocked. The two halves of mach_msg. is_answer: the same call has just sent the request. */
mach_msg_return_t mio_send(mach_msg_header_t *msg, mach_msg_option_t option, mach_msg_size_t size,
                           mach_msg_timeout_t timeout);
mach_msg_return_t mio_receive(mach_msg_header_t *msg, mach_msg_option_t option,
                              mach_msg_size_t limit, mach_port_name_t name,
                              mach_msg_timeout_t timeout, bool is_answer);
/*
 * One non-blocking receive for a kqueue's MACH_RCV_MSG: MACH_RCV_TIMED_OUT if empty;
 * *ret_size: message plus trailer, or the size alone when too large; *ret_port: the member.
 */
mach_msg_return_t mio_receive_now(mach_msg_header_t *msg, mach_msg_option_t option,
                                  mach_msg_size_t limit, mach_port_name_t name,
                                  mach_msg_size_t *ret_size, mach_port_name_t *ret_port);
/* The same as mach_msg() does it, with word of whether it was the last: shim.h. */
#define MACHIO_RECEIVED_LAST 1
mach_msg_return_t machio_receive_now(mach_msg_header_t *buffer, mach_msg_option_t option,
                                     mach_msg_size_t size, mach_port_name_t name);
/* Whether a set has something to receive now; *ret_port: the member that has it. */
bool mio_set_has_message(struct mio_set *set, struct mio_port **ret_port);
/* What a blocked sender waits for on a remote port: room. True if a send would find room. */
bool mio_port_has_room(struct mio_port *port);
/* A remote port's queue is empty and yet there is no credit: asks the receiver to restore them. */
void mio_port_nudge(struct mio_port *port);
/* Wakes one local sender, fires armed send-possible requests of a local port. */
void mio_port_room(struct mio_port *port);

/* ---- wire.c -------------------------------------------------------------------------------- */

enum mio_wire_result {
    MIO_WIRE_OK,
    MIO_WIRE_FULL,     /* the socket's buffer is full */
    MIO_WIRE_GONE,     /* nobody can ever receive it */
    MIO_WIRE_SHORTAGE, /* descriptors, in-flight limit, memory */
};
/*
 * Sends a message as one frame. flags: MIO_FRAME_*. Ownership: on OK every right in the message
 * left the task and the kmsg holds none any more; otherwise it is unchanged. kmsg->dest is not
 * looked at.
 */
enum mio_wire_result mio_wire_send(int fd, struct mio_kmsg *kmsg, unsigned flags);
/* A frame without a message. kind: MIO_FRAME_NUDGE, MIO_FRAME_DROPPED. */
enum mio_wire_result mio_wire_signal(int fd, unsigned kind);
/*
 * Takes one frame off a socket. Sets *ret_kmsg for a message; a NULL there with MIO_WIRE_OK is a
 * frame that was dropped as malformed, a nudge or a DROPPED record: *ret_kind tells.
 * MIO_WIRE_FULL: nothing there. MIO_WIRE_GONE: end of file. MIO_WIRE_SHORTAGE: stays queued.
 */
enum mio_wire_result mio_wire_receive(int fd, struct mio_kmsg **ret_kmsg, unsigned *ret_kind,
                                      unsigned *ret_flags);
/* The kernel's stamp of the first frame; 0: none there. */
uint64_t mio_wire_peek_stamp(int fd);
/*
 * For a receiving end that is about to be closed for good: shuts it down and moves what is queued
 * there to mio_task.dying. Closing it with messages in it could block on what they carry.
 */
void mio_wire_drain(int fd);
/* The same for the home end of a send-once right that is used up: what is there is dropped unread.
 */
void mio_wire_discard(int fd);
/* Destroys abandoned messages, first come first; those they contain join the end of the list. */
void mio_reap(void);

enum {
    MIO_FRAME_MESSAGE = 1,
    MIO_FRAME_NUDGE,
    MIO_FRAME_DROPPED,
    MIO_FRAME_ANNOUNCED, /* within wire.c and bundle.c: one with bundles comes next */
    MIO_FRAME_BAD,
};
enum { MIO_FRAME_NO_CREDIT = 1, MIO_FRAME_ONCE = 2 };

/* ---- notify.c ------------------------------------------------------------------------------ */

/*
 * Sends a notification through a send-once right, which is consumed. NULL notify: nothing.
 * when: the time of its cause, or MIO_NOW.
 */
void mio_notify_name(struct mio_once *notify, mach_msg_id_t id, mach_port_name_t name,
                     uint64_t when);
void mio_notify_count(struct mio_once *notify, mach_msg_id_t id, natural_t count, uint64_t when);
/* A LOCAL right was dropped: it becomes MACH_NOTIFY_SEND_ONCE in its port's queue. Consumes it. */
void mio_notify_send_once(struct mio_once *once);
/* An EXPORTED right came to its end without a message: the same, as a message not yet queued. */
struct mio_kmsg *mio_notify_send_once_kmsg(struct mio_once *once);
/* PORT_DESTROYED with the receive right; false: nobody to tell, the right is still the caller's. */
bool mio_notify_port_destroyed(struct mio_once *notify, struct mio_port *port);

/* ---- request.c ----------------------------------------------------------------------------- */

/* Takes the request off the name; what it would have notified is the caller's, or NULL. */
struct mio_once *mio_request_cancel(struct mio_entry *entry);
void mio_request_free(struct mio_request *request); /* drops nothing: memory and lists only */
/* DEAD_NAME for one request; NULL: nothing. when: of the death, or MIO_NOW. */
void mio_request_fire_dead(struct mio_request *request, uint64_t when);
/* The port died: DEAD_NAME to every request on it. */
void mio_requests_port_died(struct mio_port *port, uint64_t when);
/* The port's receive right came to this task, or left it: requests on its name follow. */
void mio_requests_moved(struct mio_port *port);
/* Fires the armed send-possible requests of the port; true if there were any. */
bool mio_requests_room(struct mio_port *port);
/* MACH_SEND_NOTIFY found the queue full: arms the send-possible request on the name, if any. */
void mio_request_arm(struct mio_entry *entry);
/* shim.h */
kern_return_t machio_request_room(mach_port_name_t name, mach_port_name_t notify, int kq, int epfd,
                                  mach_port_t *previous);

/* ---- notice.c ------------------------------------------------------------------------------ */

/* (Un)registers a source with mio_task.notice according to what is armed. */
void mio_notice_update_port(struct mio_port *port);
void mio_notice_update_once(struct mio_once *once);
bool mio_notice_open(void);                      /* false: no descriptors */
void mio_notice_left(struct mio_source *source); /* it was taken out of mio_task.notice */
void mio_notice_start_tick(void);                /* if mio_task.armed is not 0 */
void mio_notice_forget_watcher(void);            /* fork child: the thread is not here */
/* A remote port's tx is about to be closed. */
void mio_notice_forget_room(struct mio_port *port);
/*
 * Looks at everything watched, if it is more than the bootstrap server's life, and sends what is
 * due; true if anything was sent.
 */
bool mio_notice_poll(void);
bool mio_notice_take(void); /* the same, whatever is watched: mio_task.notice became readable */

/* ---- turn.c -------------------------------------------------------------------------------- */

/* The loop waits for room in a remote port's queue; NULL: none does. False: not in turn. */
bool mio_turn_wait(struct mio_port *port, const struct mio_loop *loop);
/* A kqueue is asked: loops that wait are told if there is room. */
void mio_turns_look(void);
/* shim.h */
void machio_pass_room(mach_port_name_t name);

/* ---- fileport.c ---------------------------------------------------------------------------- */

/* Unlocked or not. Whether the file is still in the socket, and nothing else. */
bool mio_file_is_there(int tx);

/* ---- wait.c --------------------------------------------------------------------------------- */

int mio_thread_fd(void); /* Unlocked or not. The thread's eventfd, -1 without descriptors. */
void mio_wake(struct mio_waiter *waiter);
struct mio_deadline {
    bool never;
    int64_t at; /* CLOCK_MONOTONIC, ns */
};
struct mio_deadline mio_deadline_in(mach_msg_timeout_t ms); /* with the TIMEOUT option */
struct mio_deadline mio_deadline_never(void);
/* The deadline, or `ms` from now, whichever comes first. */
struct mio_deadline mio_deadline_sooner(const struct mio_deadline *deadline, mach_msg_timeout_t ms);
void mio_thread_fork_child(void);
/*
 * Lets the lock go, polls, takes it again. fds[0] is the waiter's. Returns KERN_SUCCESS,
 * KERN_OPERATION_TIMED_OUT, or KERN_ABORTED after a signal.
 */
kern_return_t mio_wait(struct mio_waiter *waiter, struct pollfd *fds, unsigned nfds,
                       const struct mio_deadline *deadline);
/*
 * The same, fds[1] being the read end of a pipe at which many tasks wait: each write to it wakes
 * one of them. If that one does not read, the others sleep on: they must look now and then.
 */
kern_return_t mio_wait_in_turn(struct mio_waiter *waiter, struct pollfd *fds,
                               const struct mio_deadline *deadline);

/* ---- kqueue.c ------------------------------------------------------------------------------- */

struct mio_knote;
/* Something happened to a port or set that a kqueue may watch. */
void mio_knotes_activate(struct mio_list *knotes);
/* The object leaves the space or dies: final events. */
void mio_knotes_vanish(struct mio_list *knotes);
/* A port joined or left a set that kqueues watch. On failure nothing changed. */
kern_return_t mio_knotes_member_added(struct mio_set *set, struct mio_port *port);
void mio_knotes_member_removed(struct mio_set *set, struct mio_port *port);
/* mio_task.notice came into being: every kqueue watches it. */
void mio_kqs_watch_notice(void);
void mio_kqs_fork_child(void); /* closes and forgets every kqueue, closes the sets' watches */

/* ---- error.c ---------------------------------------------------------------------------------- */

/* Unlocked or not. The calling thread's sentence for machio_last_error; NULL takes it back. Keeps
 * errno. */
void mio_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *machio_last_error(void);

/* ---- task.c, bootstrap.c -------------------------------------------------------------------- */

void mio_task_sender(struct mio_sender *ret); /* who this task is */
/*
 * A port that this layer keeps, with one reference under *ret_name. NULL: no memory. Ownership:
 * the receive right is the caller's.
 */
struct mio_port *mio_port_well_known(enum mio_port_state state, enum mio_port_kind kind,
                                     mach_port_name_t *ret_name);
/* One more reference to a send right of such a port. KERN_NO_SPACE, KERN_RESOURCE_SHORTAGE. */
kern_return_t mio_port_name(struct mio_port *port, mach_port_name_t *ret_name);
kern_return_t mio_host_port(mach_port_name_t *ret_name); /* as mach_host_self() */
void mio_host_fork_child(void);
/* special.c: a child inherits what its parent set and registered. */
void mio_special_fork_prepare(void);
void mio_special_fork_parent(void);
void mio_special_fork_child(void);
void mio_threads_fork_child(void);
/* Unlocked. Connects the bootstrap port if it is not; may start the server. */
kern_return_t mio_bootstrap_ensure(bool start);
/* Unlocked. Around fork: bootstrap.c's own mutex and lists. */
void mio_bootstrap_fork_prepare(void);
void mio_bootstrap_fork_parent(void);
void mio_bootstrap_fork_child(void);
/* Whether it was connected when that was last asked: a send will see. */
bool mio_bootstrap_seems_ready(void);
/* True if the name is this task's bootstrap port and it is not connected. */
bool mio_bootstrap_pending(mach_port_name_t name);
/* Gives the task's bootstrap port the right that the server sent. Consumes the right. */
void mio_bootstrap_attach(struct mio_right *right);
/* The server died and mio_port_died has closed the port: whoever has names checks them in again. */
void mio_bootstrap_lost(void);
/* True while the task has names, and so has to notice when the server dies. */
bool mio_bootstrap_wants_notice(void);

#endif
