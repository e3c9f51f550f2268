/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each system call fails in turn while a file port or a region of memory is made, opened or given
 * back: the documented error comes, nothing is left behind, and the same call succeeds afterwards.
 */
#include "faults.h"
#include "ports.h"

#include <mach/mach_vm.h>
#include <machio_memory.h>
#include <sys/fileport.h>
#include <sys/stat.h>
#include <time.h>

#define SIZE 5000

static const struct {
    enum fault_call call;
    int error;
} FAULTS[] = {
    {FAULT_SOCKETPAIR, EMFILE},    {FAULT_SOCKETPAIR, ENFILE},    {FAULT_SOCKETPAIR, ENOMEM},
    {FAULT_SENDMSG, ETOOMANYREFS}, {FAULT_SENDMSG, ENOBUFS},      {FAULT_SENDMSG, ENOMEM},
    {FAULT_SENDMSG, EINTR},        {FAULT_RECVMSG, ENOMEM},       {FAULT_RECVMSG, EINTR},
    {FAULT_MEMFD_CREATE, EMFILE},  {FAULT_MEMFD_CREATE, ENFILE},  {FAULT_MEMFD_CREATE, ENOMEM},
    {FAULT_FTRUNCATE, ENOSPC},     {FAULT_FTRUNCATE, EINTR},      {FAULT_MMAP, ENOMEM},
    {FAULT_MMAP, EAGAIN},          {FAULT_EPOLL_CREATE1, EMFILE}, {FAULT_EPOLL_CTL, ENOSPC},
    {FAULT_OPEN, EMFILE},          {FAULT_EVENTFD, EMFILE},       {FAULT_PWRITE, ENOSPC},
    {FAULT_SEAL, EBUSY},           {FAULT_SENDFILE, ENOMEM},
};

static void wait_for_files(int count) {
    const struct timespec pause = {.tv_nsec = 1000000}; /* another thread closes file ports */
    for (int i = 0; check_fd_count() > count && i < 5000; i++)
        nanosleep(&pause, NULL);
    CHECK_FDS(count);
}

static size_t next_fault;
static int next_nth; /* 0: none fails */

static void arm(void) {
    if (next_nth > 0)
        fault_arm(FAULTS[next_fault].call, FAULTS[next_fault].error, next_nth);
}

/* Whether it was done; if not, a call has failed. */
static bool play(bool (*scene)(void), int files, bool *ret_failed) {
    bool done = scene();
    *ret_failed = fault_fired() && next_nth > 0;
    CHECK(done || *ret_failed);
    wait_for_files(files);
    return done;
}

/* Plays a scene with each call failing at the first, second ... time, and as it is after each. */
static int fail_in_turn(bool (*scene)(void)) {
    int fired = 0, files = check_fd_count();
    bool failed;
    for (next_fault = 0; next_fault < sizeof FAULTS / sizeof *FAULTS; next_fault++) {
        for (next_nth = 1; play(scene, files, &failed), failed; next_nth++)
            fired++;
        next_nth = 0;
        CHECK(play(scene, files, &failed));
    }
    return fired;
}

/* ---- file ports ------------------------------------------------------------------------------ */

static int file;

static bool make_file_port(void) {
    fileport_t name = 77;
    errno = 0;
    arm();
    if (fileport_makeport(file, &name) == 0) {
        CHECK_EQ(mach_port_deallocate(SELF, name), KERN_SUCCESS);
        return true;
    }
    CHECK(errno == EAGAIN || errno == EMFILE || errno == ENFILE);
    CHECK_EQ(name, 77);
    CHECK_EQ(fcntl(file, F_GETFD), 0); /* it is the caller's, whatever happens */
    return false;
}

TEST(a_file_port_is_made_or_not) {
    file = memfd_create("faults", 0);
    CHECK(fail_in_turn(make_file_port) >= 6);
    close(file);
}

static fileport_t port;

static bool open_file_port(void) {
    struct stat before, after;
    errno = 0;
    arm();
    int fd = fileport_makefd(port);
    if (fd < 0) {
        CHECK(errno == EMFILE);
        return false;
    }
    CHECK_EQ(fstat(file, &before), 0);
    CHECK_EQ(fstat(fd, &after), 0);
    CHECK_EQ(before.st_ino, after.st_ino);
    close(fd);
    return true;
}

TEST(a_file_port_is_opened_or_not) {
    file = memfd_create("faults", 0);
    CHECK_EQ(fileport_makeport(file, &port), 0);
    CHECK(fail_in_turn(open_file_port) >= 1);
    CHECK_EQ(mach_port_deallocate(SELF, port), KERN_SUCCESS);
    close(file);
}

/* ---- regions ----------------------------------------------------------------------------------- */

static bool make_region(void) {
    mach_vm_address_t address = 77;
    arm();
    kern_return_t kr = machio_memory_allocate(SIZE, &address);
    if (kr != KERN_SUCCESS) {
        CHECK(kr == KERN_RESOURCE_SHORTAGE || kr == KERN_NO_SPACE);
        CHECK_EQ(address, 77);
        return false;
    }
    memset((void *)(uintptr_t)address, 1, SIZE);
    CHECK_EQ(mach_vm_deallocate(SELF, address, SIZE), KERN_SUCCESS);
    return true;
}

TEST(a_region_is_made_or_not) {
    CHECK(fail_in_turn(make_region) >= 6);
}

struct with_region {
    mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_ool_descriptor_t memory;
    mach_msg_trailer_t trailer;
};

static mach_port_t full; /* a port whose queue is */

/* A send that has to wait and may not gives the region back: as one, or copied, but whole. */
static bool send_region_in_vain(void) {
    mach_vm_address_t address;
    CHECK_EQ(machio_memory_allocate(SIZE, &address), KERN_SUCCESS);
    struct with_region message = {
        .header = {.msgh_bits = MACH_MSGH_BITS_COMPLEX | MACH_MSG_TYPE_MAKE_SEND,
                   .msgh_remote_port = full},
        .body = {1},
        .memory = {.address = memset((void *)(uintptr_t)address, 5, SIZE),
                   .size = SIZE,
                   .deallocate = 1,
                   .copy = MACH_MSG_VIRTUAL_COPY,
                   .type = MACH_MSG_OOL_DESCRIPTOR},
    };
    arm();
    mach_msg_return_t mr = mach_msg(&message.header, MACH_SEND_MSG | MACH_SEND_TIMEOUT,
                                    offsetof(struct with_region, trailer), 0, 0, 0, 0);
    if (mr != MACH_SEND_TIMED_OUT) { /* the memory is gone */
        CHECK(mr == MACH_MSG_VM_KERNEL || mr == (MACH_SEND_TIMED_OUT | MACH_MSG_VM_SPACE));
        CHECK(!is_mapped((void *)(uintptr_t)address));
        return false;
    }
    for (int i = 0; i < SIZE; i++)
        CHECK_EQ(((const uint8_t *)message.memory.address)[i], 5);
    mach_msg_destroy(&message.header);
    return true;
}

TEST(a_region_that_was_not_sent_is_given_back) {
    full = new_port();
    for (int i = 0; i < MACH_PORT_QLIMIT_DEFAULT; i++)
        send_id(full, i);
    CHECK(fail_in_turn(send_region_in_vain) >= 2);
    destroy_port(full);
}

CHECK_MAIN()
