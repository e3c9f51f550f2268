/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Threads as ports. A thread's port is made when somebody first asks for it, and dies with the
 * thread: at its end if it asked itself, else when the next port is made. Nobody receives from it.
 *
 * Guarded by mio_task.lock. The list owns each port's receive right and one reference of its name.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct thread {
    struct thread *next;
    pid_t tid;
    struct mio_port *port;
};

static struct thread *threads;
static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;

/* Ownership: consumes what `link` points to, and the port with it. */
static void end(struct thread **link) {
    struct thread *thread = *link;
    *link = thread->next;
    mio_port_destroy(thread->port);
    free(thread);
}

static pid_t own_tid(void) {
    return (pid_t)syscall(SYS_gettid);
}

static void thread_ends(void *unused) {
    (void)unused;
    pid_t tid = own_tid();
    mio_lock();
    for (struct thread **link = &threads; *link != NULL; link = &(*link)->next) {
        if ((*link)->tid == tid) {
            end(link);
            break;
        }
    }
    mio_unlock();
}

static void make_key(void) {
    pthread_key_create(&thread_key, thread_ends);
}

static void end_those_gone(void) {
    for (struct thread **link = &threads; *link != NULL;) {
        if (syscall(SYS_tgkill, getpid(), (*link)->tid, 0) != 0 && errno == ESRCH)
            end(link);
        else
            link = &(*link)->next;
    }
}

static struct thread *make(pid_t tid) {
    mach_port_name_t name;
    struct thread *thread = malloc(sizeof *thread);
    if (thread == NULL)
        return NULL;
    thread->tid = tid;
    thread->port = mio_port_well_known(MIO_PORT_LOCAL, MIO_PORT_THREAD, &name);
    if (thread->port == NULL) {
        free(thread);
        return NULL;
    }
    thread->next = threads;
    threads = thread;
    return thread;
}

static struct thread *find(pid_t tid) {
    for (struct thread *thread = threads; thread != NULL; thread = thread->next)
        if (thread->tid == tid)
            return thread;
    end_those_gone();
    return make(tid);
}

void mio_threads_fork_child(void) {
    threads = NULL; /* the memory is given up with the other objects of the parent */
}

/* Ownership: the caller has one reference more. */
mach_port_t mach_thread_self(void) {
    mach_port_name_t name = MACH_PORT_NULL;
    pthread_once(&thread_once, make_key);
    pthread_setspecific(thread_key, &threads);
    mio_lock();
    struct thread *thread = find(own_tid());
    if (thread != NULL)
        mio_port_name(thread->port, &name);
    mio_unlock();
    return name;
}

/* 0 if the thread has ended. */
static pid_t tid_of(pthread_t which) {
    clockid_t clock;
    if (pthread_getcpuclockid(which, &clock) != 0)
        return 0;
    return (pid_t) ~(clock >> 3); /* the kernel's form of a thread's clock */
}

int pthread_threadid_np(pthread_t which, uint64_t *thread_id) {
    if (thread_id == NULL)
        return EINVAL;
    pid_t tid = which == 0 ? own_tid() : tid_of(which);
    if (tid == 0)
        return ESRCH;
    *thread_id = (uint64_t)tid;
    return 0;
}

/* Ownership: no right moves; the name is the library's. */
mach_port_t pthread_mach_thread_np(pthread_t which) {
    mach_port_name_t name = MACH_PORT_NULL;
    pid_t tid = tid_of(which);
    if (tid == 0)
        return MACH_PORT_NULL;
    mio_lock();
    struct thread *thread = find(tid);
    if (thread != NULL)
        name = thread->port->name;
    mio_unlock();
    return name;
}

/* Linux schedules as it sees fit: the arguments are checked, and that is all. */
kern_return_t thread_policy_set(thread_act_t thread, thread_policy_flavor_t flavor,
                                thread_policy_t info, mach_msg_type_number_t count) {
    mach_msg_type_number_t needed;
    (void)info;
    mio_lock();
    struct mio_entry *entry = mio_entry_get(thread);
    bool is_thread =
        entry != NULL && entry->type & MACH_PORT_TYPE_SEND && entry->port->kind == MIO_PORT_THREAD;
    mio_unlock();
    if (!is_thread)
        return MACH_SEND_INVALID_DEST;
    switch (flavor) {
    case THREAD_STANDARD_POLICY: /* THREAD_EXTENDED_POLICY: the same number, at its shortest */
        needed = 0;
        break;
    case THREAD_TIME_CONSTRAINT_POLICY:
        needed = THREAD_TIME_CONSTRAINT_POLICY_COUNT;
        break;
    case THREAD_PRECEDENCE_POLICY:
        needed = THREAD_PRECEDENCE_POLICY_COUNT;
        break;
    default:
        return KERN_INVALID_ARGUMENT;
    }
    return count < needed ? KERN_INVALID_ARGUMENT : KERN_SUCCESS;
}
