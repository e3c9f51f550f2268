/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Ports that belong to a task: special ones by number, and up to three that it registered for its
 * children.
 *
 * A forked child inherits them. The parent sends them, as one message, to a socket pair that both
 * will have, and the child takes them from there: so each right is checked, counted and shared as
 * any right that another task sends. Where descriptors are short, the child finds no right. What
 * does not travel is the bootstrap port that a task has from its start: the child has its own.
 *
 * Guarded by mio_task.lock. The slots own their send rights; the pair is open during a fork only.
 */
#include "wire.h"

#include <mach/task_special_ports.h>

#include <string.h>
#include <unistd.h>

enum slot {
    REGISTERED,
    BOOTSTRAP = REGISTERED + TASK_PORT_REGISTER_MAX,
    ACCESS,
    INHERITED, /* how many are */
    DEBUG_CONTROL = INHERITED,
    RESOURCE_NOTIFY,
    SLOTS,
};

static struct mio_right slots[SLOTS];
static bool bootstrap_replaced; /* else it is mio_task.bootstrap */
static bool access_set;         /* once, not again */

static struct mio_right copy_of(const struct mio_right *right) {
    if (right->kind == MIO_RIGHT_SEND) {
        mio_port_ref(right->port);
        right->port->srights++;
    }
    return *right;
}

/* Ownership: consumes the right. */
static void put(enum slot slot, struct mio_right right) {
    struct mio_right old = slots[slot];
    slots[slot] = right;
    mio_right_destroy(&old);
    if (slot == BOOTSTRAP)
        bootstrap_replaced = right.kind != MIO_RIGHT_SEND || right.port != mio_task.bootstrap;
}

/* Ownership: the name has one reference more. */
static kern_return_t name_of(enum slot slot, mach_port_name_t *ret_name) {
    if (slot == BOOTSTRAP && !bootstrap_replaced)
        return mio_port_name(mio_task.bootstrap, ret_name);
    struct mio_right right = copy_of(&slots[slot]);
    kern_return_t kr = mio_right_copyout(&right, ret_name);
    if (kr != KERN_SUCCESS)
        mio_right_destroy(&right);
    return kr;
}

/* ---- special ports ---------------------------------------------------------------------------- */

static bool find_slot(int which, enum slot *ret_slot) {
    switch (which) {
    case TASK_BOOTSTRAP_PORT:
        *ret_slot = BOOTSTRAP;
        return true;
    case TASK_ACCESS_PORT:
        *ret_slot = ACCESS;
        return true;
    case TASK_DEBUG_CONTROL_PORT:
        *ret_slot = DEBUG_CONTROL;
        return true;
    case TASK_RESOURCE_NOTIFY_PORT:
        *ret_slot = RESOURCE_NOTIFY;
        return true;
    default:
        return false;
    }
}

static kern_return_t get_special(int which, mach_port_t *port) {
    enum slot slot;
    switch (which) {
    case TASK_KERNEL_PORT:
    case TASK_NAME_PORT: /* a task has one port here: it gives no power over the task */
    case TASK_INSPECT_PORT:
    case TASK_READ_PORT:
        return mio_port_name(mio_task.self, port);
    case TASK_HOST_PORT:
        return mio_host_port(port);
    default:
        return find_slot(which, &slot) ? name_of(slot, port) : KERN_INVALID_ARGUMENT;
    }
}

kern_return_t task_get_special_port(task_t task, int which, mach_port_t *port) {
    if (!mach_task_is_self(task))
        return MACH_SEND_INVALID_DEST;
    mio_lock();
    return mio_leave(get_special(which, port));
}

static kern_return_t set_special(int which, mach_port_t port) {
    struct mio_right right;
    enum slot slot;
    if (which == TASK_KERNEL_PORT || which == TASK_HOST_PORT)
        return KERN_NO_ACCESS;
    if (!find_slot(which, &slot))
        return KERN_INVALID_ARGUMENT;
    if (slot == ACCESS && access_set)
        return KERN_NO_ACCESS;
    if (mio_right_copyin(port, MACH_MSG_TYPE_COPY_SEND, &right) != KERN_SUCCESS)
        return MACH_SEND_INVALID_RIGHT;
    put(slot, right);
    access_set |= slot == ACCESS;
    return KERN_SUCCESS;
}

/* Ownership: the task has a send right more; the caller's stays. */
kern_return_t task_set_special_port(task_t task, int which, mach_port_t port) {
    if (!mach_task_is_self(task))
        return MACH_SEND_INVALID_DEST;
    mio_lock();
    return mio_leave(set_special(which, port));
}

/* ---- registered ports ------------------------------------------------------------------------- */

/* Ownership: the task has a send right more for each; the caller's stay. */
kern_return_t mach_ports_register(task_t task, mach_port_array_t ports,
                                  mach_msg_type_number_t count) {
    struct mio_right rights[TASK_PORT_REGISTER_MAX] = {{.kind = MIO_RIGHT_NULL}};
    kern_return_t kr = KERN_SUCCESS;
    if (!mach_task_is_self(task))
        return MACH_SEND_INVALID_DEST;
    if (count > TASK_PORT_REGISTER_MAX)
        return KERN_INVALID_ARGUMENT;
    mio_lock();
    for (unsigned i = 0; i < count && kr == KERN_SUCCESS; i++)
        kr = mio_right_copyin(ports[i], MACH_MSG_TYPE_COPY_SEND, &rights[i]);
    for (unsigned i = 0; i < TASK_PORT_REGISTER_MAX; i++) {
        if (kr == KERN_SUCCESS)
            put(REGISTERED + i, rights[i]);
        else
            mio_right_destroy(&rights[i]);
    }
    return mio_leave(kr == KERN_SUCCESS ? kr : MACH_SEND_INVALID_RIGHT);
}

/* Ownership: the array and a reference for each name in it are the caller's. */
kern_return_t mach_ports_lookup(task_t task, mach_port_array_t *ports,
                                mach_msg_type_number_t *count) {
    mach_port_name_t names[TASK_PORT_REGISTER_MAX];
    vm_address_t memory;
    if (!mach_task_is_self(task))
        return MACH_SEND_INVALID_DEST;
    kern_return_t kr = vm_allocate(task, &memory, sizeof names, VM_FLAGS_ANYWHERE);
    if (kr != KERN_SUCCESS)
        return KERN_RESOURCE_SHORTAGE;
    unsigned done = 0;
    mio_lock();
    while (kr == KERN_SUCCESS && done < TASK_PORT_REGISTER_MAX) {
        kr = name_of(REGISTERED + done, &names[done]);
        done += kr == KERN_SUCCESS;
    }
    mio_unlock();
    if (kr != KERN_SUCCESS) {
        while (done > 0)
            mach_port_deallocate(task, names[--done]);
        vm_deallocate(task, memory, sizeof names);
        return kr;
    }
    memcpy((void *)memory, names, sizeof names);
    *ports = (mach_port_array_t)memory;
    *count = TASK_PORT_REGISTER_MAX;
    return KERN_SUCCESS;
}

/* ---- fork --------------------------------------------------------------------------------------- */

static int pair[2] = {-1, -1};
static bool is_bootstrap[INHERITED]; /* slots that hold the very port that does not travel */

static void close_pair(void) {
    for (unsigned i = 0; i < 2; i++) {
        if (pair[i] >= 0)
            close(pair[i]);
        pair[i] = -1;
    }
}

void mio_special_fork_prepare(void) {
    struct mio_kmsg *kmsg;
    bool any = false;
    for (unsigned i = 0; i < INHERITED; i++) {
        bool send = slots[i].kind == MIO_RIGHT_SEND;
        is_bootstrap[i] = send && slots[i].port == mio_task.bootstrap;
        any |= send && !is_bootstrap[i];
    }
    if (!any || mio_pair(pair) != 0)
        return;
    shutdown(pair[0], SHUT_RD);
    mio_pair_receiver(pair[1]);
    kmsg = mio_kmsg_new(sizeof(mach_msg_base_t) + INHERITED * sizeof(mach_msg_port_descriptor_t),
                        INHERITED);
    if (kmsg == NULL)
        return;
    kmsg->complex = true;
    memset(kmsg->body, 0, kmsg->size - sizeof(mach_msg_header_t));
    memcpy(kmsg->body, &(mach_msg_body_t){INHERITED}, sizeof(mach_msg_body_t));
    for (unsigned i = 0; i < INHERITED; i++)
        if (!is_bootstrap[i])
            kmsg->rights[i] = copy_of(&slots[i]);
    if (mio_wire_send(pair[0], kmsg, MIO_FRAME_NO_CREDIT) != MIO_WIRE_OK)
        mio_kmsg_destroy(kmsg);
    else
        mio_kmsg_free(kmsg);
}

void mio_special_fork_parent(void) {
    if (pair[0] < 0)
        return;
    close_pair();
    mio_collect_cycles(); /* the child could not be made: nobody will take the rights */
}

void mio_special_fork_child(void) {
    struct mio_kmsg *kmsg = NULL;
    unsigned kind, flags;
    bool dead[INHERITED];
    for (unsigned i = 0; i < INHERITED; i++)
        dead[i] = slots[i].kind == MIO_RIGHT_DEAD;
    memset(slots, 0, sizeof slots);
    if (pair[1] >= 0)
        mio_wire_receive(pair[1], &kmsg, &kind, &flags);
    close_pair();
    for (unsigned i = 0; i < INHERITED; i++) {
        if (dead[i]) {
            slots[i].kind = MIO_RIGHT_DEAD;
        } else if (is_bootstrap[i]) {
            struct mio_right right = {.kind = MIO_RIGHT_SEND, .port = mio_task.bootstrap};
            slots[i] = copy_of(&right);
        } else if (kmsg != NULL && i < kmsg->nrights && kmsg->rights[i].kind == MIO_RIGHT_SEND) {
            slots[i] = kmsg->rights[i];
            kmsg->rights[i].kind = MIO_RIGHT_NULL;
        }
    }
    if (kmsg != NULL)
        mio_kmsg_destroy(kmsg);
    if (bootstrap_replaced && name_of(BOOTSTRAP, &bootstrap_port) != KERN_SUCCESS)
        bootstrap_port = MACH_PORT_NULL;
}
