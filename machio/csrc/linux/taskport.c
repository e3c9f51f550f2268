/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * What can be asked of a task by its port, one's own or another's. The process behind another's is
 * the one that made its socket, attested by the kernel; what /proc tells of that pid counts only
 * if the port is alive afterwards, so that it cannot be a pid's next user.
 *
 * Guarded by mio_task.lock; owns nothing.
 */
#include "internal.h"

#include <mach/task_info.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

boolean_t mach_task_is_self(task_t task) {
    return task != MACH_PORT_NULL && task == mach_task_self_;
}

mach_port_t task_self_trap(void) {
    mach_port_name_t name = MACH_PORT_NULL;
    mio_lock();
    mio_port_name(mio_task.self, &name);
    mio_unlock();
    return name;
}

/* Who is behind a task's port, as long as it lives. */
static bool find_process(mach_port_name_t task, struct mio_sender *ret) {
    struct mio_entry *entry = mio_entry_get(task);
    struct ucred creator;
    socklen_t size = sizeof creator;
    if (entry == NULL || !(entry->type & MACH_PORT_TYPE_SEND) || entry->port->kind != MIO_PORT_TASK)
        return false;
    if (entry->port == mio_task.self) {
        mio_task_sender(ret);
        return true;
    }
    if (getsockopt(entry->port->tx, SOL_SOCKET, SO_PEERCRED, &creator, &size) != 0 ||
        creator.pid <= 0 || mio_port_is_dead(entry->port))
        return false;
    *ret = (struct mio_sender){.uid = creator.uid, .gid = creator.gid, .pid = creator.pid};
    return true;
}

kern_return_t pid_for_task(mach_port_name_t task, int *pid) {
    struct mio_sender process;
    mio_lock();
    bool found = find_process(task, &process);
    mio_unlock();
    *pid = found ? process.pid : -1;
    return found ? KERN_SUCCESS : KERN_FAILURE;
}

/* ---- task_info ---------------------------------------------------------------------------------- */

/* Reads a small file of /proc whole, as text. */
static bool read_proc(pid_t pid, const char *file, char *text, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *stream = fopen(path, "re");
    if (stream == NULL)
        return false;
    size_t n = fread(text, 1, size - 1, stream);
    fclose(stream);
    text[n] = '\0';
    return n > 0;
}

static time_value_t from_ticks(unsigned long ticks) {
    unsigned long second = (unsigned long)sysconf(_SC_CLK_TCK);
    return (time_value_t){.seconds = (integer_t)(ticks / second),
                          .microseconds = (integer_t)(ticks % second * 1000000 / second)};
}

static bool basic_info(pid_t pid, mach_task_basic_info_t info) {
    char text[4096], *at;
    unsigned long virtual_pages, resident_pages, user, system, peak = 0;
    if (!read_proc(pid, "statm", text, sizeof text) ||
        sscanf(text, "%lu %lu", &virtual_pages, &resident_pages) != 2)
        return false;
    if (read_proc(pid, "status", text, sizeof text) && (at = strstr(text, "\nVmHWM:")) != NULL)
        sscanf(at, " VmHWM: %lu", &peak); /* in KiB */
    /* The name of the command is in parentheses and may hold some itself. */
    if (!read_proc(pid, "stat", text, sizeof text) || (at = strrchr(text, ')')) == NULL ||
        sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return false;
    mach_vm_size_t resident = (mach_vm_size_t)resident_pages * vm_page_size;
    *info = (mach_task_basic_info_data_t){
        .virtual_size = (mach_vm_size_t)virtual_pages * vm_page_size,
        .resident_size = resident,
        .resident_size_max = peak * 1024 > resident ? peak * 1024 : resident,
        .user_time = from_ticks(user),
        .system_time = from_ticks(system),
        .policy = POLICY_TIMESHARE,
    };
    return true;
}

kern_return_t task_info(task_name_t task, task_flavor_t flavor, task_info_t info,
                        mach_msg_type_number_t *count) {
    union {
        audit_token_t audit;
        security_token_t security;
        mach_task_basic_info_data_t basic;
    } answer;
    mach_msg_type_number_t size;
    struct mio_sender process, again;
    mio_lock();
    bool found = find_process(task, &process);
    mio_unlock();
    if (!found)
        return MACH_SEND_INVALID_DEST;
    switch (flavor) {
    case TASK_AUDIT_TOKEN:
        answer.audit = mio_audit_token(&process);
        size = TASK_AUDIT_TOKEN_COUNT;
        break;
    case TASK_SECURITY_TOKEN:
        answer.security = mio_security_token(&process);
        size = TASK_SECURITY_TOKEN_COUNT;
        break;
    case MACH_TASK_BASIC_INFO:
        size = MACH_TASK_BASIC_INFO_COUNT;
        break;
    default:
        return KERN_INVALID_ARGUMENT;
    }
    if (*count < size)
        return KERN_INVALID_ARGUMENT;
    if (flavor == MACH_TASK_BASIC_INFO) {
        if (!basic_info(process.pid, &answer.basic))
            return KERN_FAILURE;
        mio_lock();
        found = find_process(task, &again);
        mio_unlock();
        if (!found)
            return MACH_SEND_INVALID_DEST;
    }
    memcpy(info, &answer, size * sizeof(natural_t));
    *count = size;
    return KERN_SUCCESS;
}

/* ---- guard exceptions: there are none, so the setting is kept and that is all ------------------ */

static task_exc_guard_behavior_t exc_guard; /* a forked child inherits it */

kern_return_t task_get_exc_guard_behavior(task_inspect_t task,
                                          task_exc_guard_behavior_t *behavior) {
    if (!mach_task_is_self(task))
        return MACH_SEND_INVALID_DEST;
    mio_lock();
    *behavior = exc_guard;
    return mio_leave(KERN_SUCCESS);
}

kern_return_t task_set_exc_guard_behavior(task_t task, task_exc_guard_behavior_t behavior) {
    if (!mach_task_is_self(task))
        return MACH_SEND_INVALID_DEST;
    if (behavior & ~(task_exc_guard_behavior_t)TASK_EXC_GUARD_ALL)
        return KERN_INVALID_VALUE;
    mio_lock();
    exc_guard = behavior;
    return mio_leave(KERN_SUCCESS);
}
