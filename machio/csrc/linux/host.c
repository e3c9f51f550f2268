/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * The host: its port, what it can be asked, its clock.
 *
 * Each task has a host port of its own, made when it is first asked for; nobody receives from it.
 * A host port of another task serves as well: there is one host. Guarded by mio_task.lock.
 */
#include "internal.h"

#include <mach/host_info.h>
#include <mach/mach_time.h>

#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define HOST_CPU_TYPE CPU_TYPE_X86_64
#define HOST_CPU_SUBTYPE CPU_SUBTYPE_X86_64_ALL
#elif defined(__aarch64__)
#define HOST_CPU_TYPE CPU_TYPE_ARM64
#define HOST_CPU_SUBTYPE CPU_SUBTYPE_ARM64_ALL
#else
#define HOST_CPU_TYPE CPU_TYPE_ANY
#define HOST_CPU_SUBTYPE CPU_SUBTYPE_MULTIPLE
#endif

static struct mio_port *host;

void mio_host_fork_child(void) {
    host = NULL;
}

kern_return_t mio_host_port(mach_port_name_t *ret_name) {
    if (host == NULL)
        return (host = mio_port_well_known(MIO_PORT_LOCAL, MIO_PORT_HOST, ret_name)) != NULL
                   ? KERN_SUCCESS
                   : KERN_RESOURCE_SHORTAGE;
    return mio_port_name(host, ret_name);
}

/* Ownership: the caller has one reference more. */
mach_port_t mach_host_self(void) {
    mach_port_name_t name = MACH_PORT_NULL;
    mio_lock();
    mio_host_port(&name);
    mio_unlock();
    return name;
}

static bool is_host(host_t name) {
    mio_lock();
    struct mio_entry *entry = mio_entry_get(name);
    bool yes =
        entry != NULL && entry->type & MACH_PORT_TYPE_SEND && entry->port->kind == MIO_PORT_HOST;
    mio_unlock();
    return yes;
}

static integer_t processors(int which) {
    long n = sysconf(which);
    return n > 0 ? (integer_t)n : 1;
}

static void basic_info(host_basic_info_t info) {
    const uint64_t most = INT32_MAX; /* what memory_size can say */
    uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * vm_page_size;
    integer_t there = processors(_SC_NPROCESSORS_CONF), ready = processors(_SC_NPROCESSORS_ONLN);
    *info = (host_basic_info_data_t){
        .max_cpus = there,
        .avail_cpus = ready,
        .memory_size = (natural_t)(memory < most ? memory : most),
        .cpu_type = HOST_CPU_TYPE,
        .cpu_subtype = HOST_CPU_SUBTYPE,
        .cpu_threadtype = CPU_THREADTYPE_NONE,
        .physical_cpu = ready,
        .physical_cpu_max = there,
        .logical_cpu = ready,
        .logical_cpu_max = there,
        .max_mem = memory,
    };
}

/* An old caller has room for the first five words only. */
kern_return_t host_info(host_t name, host_flavor_t flavor, host_info_t info,
                        mach_msg_type_number_t *count) {
    host_basic_info_data_t basic;
    if (!is_host(name))
        return MACH_SEND_INVALID_DEST;
    if (flavor != HOST_BASIC_INFO)
        return KERN_INVALID_ARGUMENT;
    if (*count < HOST_BASIC_INFO_OLD_COUNT)
        return KERN_FAILURE;
    basic_info(&basic);
    *count = *count < HOST_BASIC_INFO_COUNT ? HOST_BASIC_INFO_OLD_COUNT : HOST_BASIC_INFO_COUNT;
    memcpy(info, &basic, *count * sizeof(integer_t));
    return KERN_SUCCESS;
}

/* ---- the clock: nanoseconds that do not count while the machine sleeps ------------------------ */

uint64_t mach_absolute_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

kern_return_t mach_timebase_info(mach_timebase_info_t info) {
    *info = (struct mach_timebase_info){.numer = 1, .denom = 1};
    return KERN_SUCCESS;
}
