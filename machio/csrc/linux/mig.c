/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What MIG's output calls: the thread's reply port, replies, memory, strings.
 *
 * A thread has one reply port, made at its first call and destroyed when the thread ends. A forked
 * child is a new task, where the parent's name means nothing: the pid tells whose it is. Called
 * without mio_task.lock; a thread owns its reply port.
 */
#include "internal.h"

#include <mach/mig.h>
#include <mach/mig_errors.h>

#include <string.h>
#include <unistd.h>

static pthread_key_t reply_key;
static pthread_once_t reply_once = PTHREAD_ONCE_INIT;
static _Thread_local mach_port_name_t reply_port;
static _Thread_local pid_t reply_owner;

/* Ownership: the thread's receive right is gone. */
static void drop_reply_port(void *unused) {
    (void)unused;
    if (reply_port != MACH_PORT_NULL && reply_owner == getpid())
        mach_port_mod_refs(mach_task_self(), reply_port, MACH_PORT_RIGHT_RECEIVE, -1);
    reply_port = MACH_PORT_NULL;
}

static void make_key(void) {
    pthread_key_create(&reply_key, drop_reply_port);
}

mach_port_t mig_get_reply_port(void) {
    if (reply_port == MACH_PORT_NULL || reply_owner != getpid()) {
        pthread_once(&reply_once, make_key);
        reply_port = mach_reply_port();
        reply_owner = getpid();
        pthread_setspecific(reply_key, &reply_port);
    }
    return reply_port;
}

/* Ownership: the cached receive right is gone; of another port, a reference. */
void mig_dealloc_reply_port(mach_port_t port) {
    mach_port_name_t cached = reply_owner == getpid() ? reply_port : MACH_PORT_NULL;
    drop_reply_port(NULL);
    if (port != cached)
        mach_port_deallocate(mach_task_self(), port);
}

void mig_put_reply_port(mach_port_t port) {
    (void)port; /* it stays cached */
}

void mig_reply_setup(mach_msg_header_t *request, mach_msg_header_t *reply) {
    mig_reply_error_t *error = (mig_reply_error_t *)(void *)reply;
    reply->msgh_bits = MACH_MSGH_BITS(MACH_MSGH_BITS_LOCAL(request->msgh_bits), 0);
    reply->msgh_size = sizeof *error;
    reply->msgh_remote_port = request->msgh_local_port;
    reply->msgh_local_port = MACH_PORT_NULL;
    reply->msgh_voucher_port = MACH_PORT_NULL;
    reply->msgh_id = request->msgh_id + 100;
    error->NDR = NDR_record;
}

void mig_allocate(vm_address_t *address, vm_size_t size) {
    if (vm_allocate(mach_task_self(), address, size, VM_FLAGS_ANYWHERE) != KERN_SUCCESS)
        *address = 0;
}

void mig_deallocate(vm_address_t address, vm_size_t size) {
    vm_deallocate(mach_task_self(), address, size);
}

int mig_strncpy(char *dest, const char *src, int len) {
    if (dest == NULL || src == NULL || len <= 0)
        return 0;
    size_t length = strnlen(src, (size_t)len - 1);
    memcpy(dest, src, length);
    dest[length] = '\0';
    return (int)length + 1;
}

int mig_strncpy_zerofill(char *dest, const char *src, int len) {
    int used = mig_strncpy(dest, src, len);
    if (used > 0)
        memset(dest + used, 0, (size_t)(len - used));
    return used;
}
