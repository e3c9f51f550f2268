/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * layout.h - all Mach headers, and what is said of them when a file compiles.
 */
#ifndef MACHIO_TESTS_LAYOUT_H
#define MACHIO_TESTS_LAYOUT_H

#include <assert.h>
#include <bsm/libbsm.h>
#include <mach/error.h>
#include <mach/exception_types.h>
#include <mach/mach.h>
#include <mach/mach_time.h>
#include <mach/mach_vm.h>
#include <mach/notify.h>
#include <mach/vm_param.h>
#include <servers/bootstrap.h>
#include <stddef.h>
#include <string.h>
#include <sys/event.h>

#define SIZE(type, size) static_assert(sizeof(type) == (size), #type)
#define AT(type, member, offset) \
    static_assert(offsetof(type, member) == (offset), #type "." #member)
#define IS(name, value) static_assert((name) == (value), #name)
#define SIGNED(type) static_assert((type) - 1 < 0, #type)
#define UNSIGNED(type) static_assert((type) - 1 > 0, #type)

#endif
