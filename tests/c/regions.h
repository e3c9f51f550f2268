/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * regions.h - memory of machio_memory_allocate(), and which file is mapped where.
 */
#ifndef MACHIO_TESTS_REGIONS_H
#define MACHIO_TESTS_REGIONS_H

#include "pages.h"

#include <mach/mach_vm.h>
#include <machio_memory.h>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

static inline uint8_t *region(size_t size) {
    mach_vm_address_t address;
    CHECK_EQ(machio_memory_allocate(size, &address), KERN_SUCCESS);
    return (uint8_t *)(uintptr_t)address;
}

/* The file that is mapped there, by its number; 0: nothing or no file. */
static inline unsigned long file_at(const void *address) {
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned long found = 0, first, end, inode;
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &first, &end, &inode) == 3 &&
            first <= (unsigned long)address && (unsigned long)address < end)
            found = inode;
    fclose(maps);
    return found;
}

/* How many pieces of the task's memory are mapped from such files. */
static inline unsigned count_maps(void) {
    char line[512];
    unsigned found = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        found += strstr(line, "memfd:mach_msg") != NULL;
    fclose(maps);
    return found;
}

/* A descriptor of a region; -1: there is none. */
static inline int last_file(void) {
    int found = -1;
    for (int fd = 0; fd < 256; fd++) {
        char path[32], target[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof target - 1) > 0 && strstr(target, "memfd:mach_msg"))
            found = fd;
    }
    return found;
}

/* Sends the region to the port and receives it; fails unless the file is (not) the same. */
static inline void goes(mach_port_t port, uint8_t *bytes, size_t size, bool as_it_is) {
    unsigned long file = file_at(bytes);
    struct with_memory got,
        message = carrying(port, MACH_MSG_TYPE_MAKE_SEND, bytes, (mach_msg_size_t)size, true);
    CHECK(file != 0);
    int kept = dup(last_file());
    CHECK_EQ(send_now(&message, 1), MACH_MSG_SUCCESS);
    CHECK(!is_mapped(bytes));
    CHECK(!as_it_is || pwrite(kept, "x", 1, 0) < 0);
    close(kept);
    receive_memory(port, &got, 1);
    CHECK_EQ(got.memory[0].size, size);
    CHECK_EQ(got.memory[0].deallocate, 1);
    CHECK_EQ(file_at(got.memory[0].address) == file, as_it_is);
    mach_msg_destroy(&got.header);
    CHECK(!is_mapped(got.memory[0].address));
}

#endif
