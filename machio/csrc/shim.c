/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the system does by itself: it has a bootstrap server, so there is nothing to start and
 * nothing to serve, and it moves memory by pages. These definitions are weak; a system's folder
 * that has better ones replaces them.
 */
#include "shim.h"

#include <mach/mach_vm.h>
#include <mach/notify.h>
#include <stddef.h>
#include <sys/event.h>

#define WEAK __attribute__((weak))

WEAK mach_msg_return_t machio_receive_now(mach_msg_header_t *buffer, mach_msg_option_t option,
                                          mach_msg_size_t size, mach_port_name_t name) {
    return mach_msg(buffer, option | MACH_RCV_TIMEOUT, 0, size, name, 0, MACH_PORT_NULL);
}

WEAK kern_return_t machio_request_room(mach_port_name_t name, mach_port_name_t notify, int kq,
                                       int epfd, mach_port_t *previous) {
    (void)kq, (void)epfd;
    return mach_port_request_notification(mach_task_self(), name, MACH_NOTIFY_SEND_POSSIBLE, 1,
                                          notify, MACH_MSG_TYPE_MAKE_SEND_ONCE, previous);
}

WEAK void machio_pass_room(mach_port_name_t name) {
    (void)name;
}

WEAK int machio_watch_end(int kq, int fd, uint64_t udata) {
    const struct kevent64_s change = {
        .ident = (uint64_t)fd, .filter = EVFILT_WRITE, .flags = EV_ADD | EV_CLEAR, .udata = udata};
    return kevent64(kq, &change, 1, NULL, 0, 0, NULL);
}

WEAK const char *machio_last_error(void) {
    return NULL;
}

WEAK kern_return_t machio_set_bootstrap_command(const char *const argv[]) {
    (void)argv;
    return KERN_SUCCESS;
}

WEAK kern_return_t machio_memory_allocate(mach_vm_size_t size, mach_vm_address_t *address) {
    *address = 0;
    return mach_vm_allocate(mach_task_self(), address, size, VM_FLAGS_ANYWHERE);
}

WEAK kern_return_t machio_bootstrap_connect(int start) {
    (void)start;
    return KERN_SUCCESS;
}

WEAK kern_return_t machio_bootstrap_knock(int *ret_fd) {
    (void)ret_fd;
    return KERN_NOT_SUPPORTED;
}

WEAK kern_return_t machio_bootstrap_enter(int fd) {
    (void)fd;
    return KERN_NOT_SUPPORTED;
}

WEAK kern_return_t machio_bootstrap_ask(int what, const char *service_name, mach_port_t port,
                                        mach_port_t reply, unsigned *ret_connection) {
    (void)what, (void)service_name, (void)port, (void)reply, (void)ret_connection;
    return KERN_NOT_SUPPORTED;
}

WEAK kern_return_t machio_bootstrap_answer(int what, const char *service_name, mach_port_t port,
                                           mach_port_t reply, unsigned connection,
                                           mach_port_t *sp) {
    (void)what, (void)service_name, (void)port, (void)reply, (void)connection, (void)sp;
    return KERN_NOT_SUPPORTED;
}

WEAK kern_return_t machio_bootstrap_directory(char *path, unsigned int size) {
    (void)path, (void)size;
    return KERN_NOT_SUPPORTED;
}

WEAK kern_return_t machio_bootstrap_listen(int *ret_listener) {
    (void)ret_listener;
    return KERN_NOT_SUPPORTED;
}

WEAK kern_return_t machio_bootstrap_claim(int *ret_crashed) {
    (void)ret_crashed;
    return KERN_NOT_SUPPORTED;
}

WEAK kern_return_t machio_bootstrap_welcome(int connection, mach_port_name_t name) {
    (void)connection, (void)name;
    return KERN_NOT_SUPPORTED;
}

WEAK kern_return_t machio_bootstrap_leave(int listener, int how) {
    (void)listener, (void)how;
    return KERN_NOT_SUPPORTED;
}
