/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The task: its start before main, its fork, mach_msg's entry.
 *
 * A forked child is a new task. It closes every descriptor of the layer, and only closes: the
 * open files behind them are the parent's, and whatever else were done to them (shutdown, removal
 * from an epoll) the parent would feel.
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct mio_task mio_task = {.lock = PTHREAD_MUTEX_INITIALIZER};

mach_port_t mach_task_self_ = MACH_PORT_NULL;
mach_port_t bootstrap_port = MACH_PORT_NULL;
NDR_record_t NDR_record = {.int_rep = NDR_INT_LITTLE_ENDIAN};

void mio_lock(void) {
    pthread_mutex_lock(&mio_task.lock);
    mio_task.hold++;
}

void mio_unlock(void) {
    pthread_mutex_unlock(&mio_task.lock);
}

struct mio_port *mio_port_well_known(enum mio_port_state state, enum mio_port_kind kind,
                                     mach_port_name_t *ret_name) {
    struct mio_port *port = mio_port_new(state);
    if (port == NULL)
        return NULL;
    port->kind = kind;
    port->srights = 1;
    mio_port_ref(port); /* the task's own */
    struct mio_right right = {.kind = MIO_RIGHT_SEND, .port = port};
    if (mio_right_copyout(&right, ret_name) != KERN_SUCCESS)
        *ret_name = MACH_PORT_NULL;
    return port;
}

kern_return_t mio_port_name(struct mio_port *port, mach_port_name_t *ret_name) {
    mio_port_ref(port);
    port->srights++;
    struct mio_right right = {.kind = MIO_RIGHT_SEND, .port = port};
    kern_return_t kr = mio_right_copyout(&right, ret_name);
    if (kr != KERN_SUCCESS)
        mio_right_destroy(&right);
    return kr;
}

static void start(void) {
    mio_task.notice = mio_task.marker = mio_task.null = mio_task.tick = -1;
    mio_task.dying_tail = &mio_task.dying;
    mio_list_init(&mio_task.turns);
    mio_list_init(&mio_task.kqs);
    mio_task.self = mio_port_well_known(MIO_PORT_LOCAL, MIO_PORT_TASK, &mach_task_self_);
    mio_task.bootstrap = mio_port_well_known(MIO_PORT_REMOTE, MIO_PORT_BOOTSTRAP, &bootstrap_port);
}

static void close_quietly(int fd) {
    if (fd >= 0)
        close(fd);
}

/* The parent's objects are unreachable from here on; their memory is given up with them. */
static void fork_child(void) {
    mio_kqs_fork_child();
    mio_thread_fork_child();
    mio_threads_fork_child();
    mio_host_fork_child();
    mio_regions_fork_child();
    mio_notice_forget_watcher();
    for (unsigned i = 0; i < MIO_HASH; i++)
        for (struct mio_port *port = mio_task.by_cookie[i]; port != NULL; port = port->hash_next)
            close_quietly(port->tx);
    for (size_t fd = 0; fd < mio_task.nsources; fd++)
        if (mio_task.sources[fd] != NULL && mio_task.sources[fd]->kind != MIO_SOURCE_TX)
            close((int)fd);
    close_quietly(mio_task.notice);
    close_quietly(mio_task.tick);
    close_quietly(mio_task.marker);
    close_quietly(mio_task.null);
    for (unsigned i = 0; i < MIO_CHUNKS; i++)
        free(mio_task.chunks[i]);
    free(mio_task.sources);
    mio_unlock(); /* taken before the fork */
    memset(&mio_task, 0, sizeof mio_task);
    pthread_mutex_init(&mio_task.lock, NULL);
    start();
    mio_special_fork_child();
    mio_bootstrap_fork_child();
}

static void fork_prepare(void) {
    mio_bootstrap_fork_prepare();
    mio_lock();
    mio_special_fork_prepare();
}

static void fork_parent(void) {
    mio_special_fork_parent();
    mio_unlock();
    mio_bootstrap_fork_parent();
}

__attribute__((constructor)) static void start_layer(void) {
    start();
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}

void mio_task_sender(struct mio_sender *ret) {
    *ret = (struct mio_sender){.uid = getuid(), .gid = getgid(), .pid = getpid()};
}

/* ---- mach_msg ---------------------------------------------------------------------------------- */

mach_msg_return_t mach_msg_overwrite(mach_msg_header_t *msg, mach_msg_option_t option,
                                     mach_msg_size_t send_size, mach_msg_size_t rcv_limit,
                                     mach_port_name_t rcv_name, mach_msg_timeout_t timeout,
                                     mach_port_name_t notify, mach_msg_header_t *rcv_msg,
                                     mach_msg_size_t ignored) {
    (void)notify, (void)ignored;
    if (option & MACH_SEND_MSG) {
        mach_msg_return_t mr = mio_send(msg, option, send_size, timeout);
        if (mr != MACH_MSG_SUCCESS)
            return mr;
    }
    if (option & MACH_RCV_MSG)
        return mio_receive(rcv_msg != NULL ? rcv_msg : msg, option, rcv_limit, rcv_name, timeout,
                           option & MACH_SEND_MSG);
    return MACH_MSG_SUCCESS;
}

mach_msg_return_t mach_msg(mach_msg_header_t *msg, mach_msg_option_t option,
                           mach_msg_size_t send_size, mach_msg_size_t rcv_size,
                           mach_port_name_t rcv_name, mach_msg_timeout_t timeout,
                           mach_port_name_t notify) {
    return mach_msg_overwrite(msg, option, send_size, rcv_size, rcv_name, timeout, notify, NULL, 0);
}

mach_msg_return_t mach_msg_send(mach_msg_header_t *msg) {
    return mach_msg(msg, MACH_SEND_MSG, msg->msgh_size, 0, MACH_PORT_NULL, MACH_MSG_TIMEOUT_NONE,
                    MACH_PORT_NULL);
}

mach_msg_return_t mach_msg_receive(mach_msg_header_t *msg) {
    return mach_msg(msg, MACH_RCV_MSG, 0, msg->msgh_size, msg->msgh_local_port,
                    MACH_MSG_TIMEOUT_NONE, MACH_PORT_NULL);
}

/* One right of a message that is given up, by the disposition it stands there with. */
static void destroy_name(mach_port_name_t name, mach_msg_type_name_t disposition) {
    mach_port_t made;
    mach_msg_type_name_t type;
    if (!MACH_PORT_VALID(name))
        return;
    switch (disposition) {
    case MACH_MSG_TYPE_MOVE_SEND:
    case MACH_MSG_TYPE_MOVE_SEND_ONCE:
        mach_port_deallocate(mach_task_self(), name);
        break;
    case MACH_MSG_TYPE_MOVE_RECEIVE:
        mach_port_mod_refs(mach_task_self(), name, MACH_PORT_RIGHT_RECEIVE, -1);
        break;
    case MACH_MSG_TYPE_MAKE_SEND:
    case MACH_MSG_TYPE_MAKE_SEND_ONCE:
        if (mach_port_extract_right(mach_task_self(), name, disposition, &made, &type) ==
            KERN_SUCCESS)
            mach_port_deallocate(mach_task_self(), made);
        break;
    default:
        break;
    }
}

static void destroy_array(const mach_msg_ool_ports_descriptor_t *array) {
    const mach_port_name_t *names = array->address;
    for (unsigned i = 0; i < array->count; i++)
        destroy_name(names[i], array->disposition);
    if (array->deallocate)
        vm_deallocate(mach_task_self(), (vm_address_t)names, array->count * sizeof *names);
}

void mach_msg_destroy(mach_msg_header_t *msg) {
    destroy_name(msg->msgh_remote_port, MACH_MSGH_BITS_REMOTE(msg->msgh_bits));
    destroy_name(msg->msgh_voucher_port, MACH_MSGH_BITS_VOUCHER(msg->msgh_bits));
    if (!(msg->msgh_bits & MACH_MSGH_BITS_COMPLEX))
        return;
    mach_msg_descriptor_t *descriptor = mio_descriptor_first(msg + 1);
    for (unsigned i = mio_descriptor_count(msg + 1); i > 0; i--) {
        const mach_msg_ool_descriptor_t *memory = &descriptor->out_of_line;
        const mach_msg_guarded_port_descriptor_t *guarded = &descriptor->guarded_port;
        switch (descriptor->type.type) {
        case MACH_MSG_PORT_DESCRIPTOR:
            destroy_name(descriptor->port.name, descriptor->port.disposition);
            break;
        case MACH_MSG_GUARDED_PORT_DESCRIPTOR:
            if (!(guarded->flags & MACH_MSG_GUARD_FLAGS_UNGUARDED_ON_SEND))
                mach_port_unguard(mach_task_self(), guarded->name, guarded->context);
            destroy_name(guarded->name, guarded->disposition);
            break;
        case MACH_MSG_OOL_PORTS_DESCRIPTOR:
            destroy_array(&descriptor->ool_ports);
            break;
        case MACH_MSG_OOL_DESCRIPTOR:
            if (memory->deallocate && memory->size > 0)
                vm_deallocate(mach_task_self(), (vm_address_t)memory->address, memory->size);
            break;
        default: /* volatile memory stays; what is no descriptor ends the walk */
            if (mio_descriptor_size(descriptor) == 0)
                return;
        }
        descriptor = mio_descriptor_next(descriptor);
    }
}
