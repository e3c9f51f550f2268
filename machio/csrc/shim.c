/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The bootstrap server where the system has its own: nothing to start, nothing to serve. These
 * definitions are weak; a system's folder that has better ones replaces them.
 */
#include "shim.h"

#include <stddef.h>

#define WEAK __attribute__((weak))

WEAK const char *machio_last_error(void) {
    return NULL;
}

WEAK kern_return_t machio_set_bootstrap_command(const char *const argv[]) {
    (void)argv;
    return KERN_SUCCESS;
}

WEAK kern_return_t machio_bootstrap_connect(int start) {
    (void)start;
    return KERN_SUCCESS;
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
