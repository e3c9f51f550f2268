/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each system call fails in turn while a message with every kind of right, a region of memory and
 * an open file leaves a task, arrives in one, or is waited for: the documented code comes back, the
 * same call succeeds when it is tried again, no message is lost, and neither task keeps a
 * descriptor or a name. And the other task dies in the middle of a send, before each of its system
 * calls in turn.
 *
 * Two processes, introduced to each other through a bare socket pair. Only the parent's calls fail.
 */
#include "faults.h"
#include "ports.h"

#include <mach/mach_vm.h>
#include <machio_memory.h>
#include <signal.h>
#include <sys/event.h>
#include <sys/fileport.h>
#include <sys/wait.h>

#define BODY 8192   /* more than fits a frame: it travels in a memfd */
#define MEMORY 5000 /* a region, whose file travels itself */

struct cargo {
    mach_msg_header_t header;
    mach_msg_body_t body;
    mach_msg_port_descriptor_t send, receive, file;
    mach_msg_ool_descriptor_t memory;
    uint8_t data[BODY];
};

struct room {
    struct cargo cargo;
    mach_msg_trailer_t trailer;
};

static const struct {
    enum fault_call call;
    int errors[4];
} FAULTS[] = {
    {FAULT_SOCKETPAIR, {EMFILE, ENFILE, ENOMEM}},
    {FAULT_PIPE2, {EMFILE, ENFILE}},
    {FAULT_BIND, {ENOMEM, EADDRINUSE}},
    {FAULT_OPEN, {EMFILE, ENOENT}}, /* ENOENT: no /proc */
    {FAULT_EVENTFD, {EMFILE}},
    {FAULT_EPOLL_CREATE1, {EMFILE, ENOMEM}},
    {FAULT_EPOLL_CTL, {ENOMEM, ENOSPC}},
    {FAULT_EPOLL_WAIT, {EINTR}},
    {FAULT_TIMERFD_CREATE, {EMFILE}},
    {FAULT_MEMFD_CREATE, {EMFILE, ENOMEM}},
    {FAULT_SENDMSG, {EAGAIN, EINTR, ENOBUFS, ETOOMANYREFS}},
    {FAULT_RECVMSG, {EINTR, ENOMEM}},
    {FAULT_PPOLL, {EINTR}},
    {FAULT_POLL, {EINTR}},
    {FAULT_SPLICE, {EAGAIN, EINTR}},
    {FAULT_PWRITEV2, {EAGAIN, EINTR, EOPNOTSUPP}},
    {FAULT_WRITE, {EINTR, EAGAIN}},
    {FAULT_PREAD, {EINTR}},
    {FAULT_PWRITE, {ENOSPC, EINTR}},
    {FAULT_FTRUNCATE, {ENOSPC}},
    {FAULT_SENDFILE, {ENOMEM, EINTR}},
    {FAULT_SEAL, {EBUSY}},
    {FAULT_DUP, {EMFILE}},
    {FAULT_MMAP, {ENOMEM}},
};

/* ---- both tasks ---------------------------------------------------------------------------- */

static mach_port_t mine, other; /* my port; a send right to the other task's */
static int line;                /* to the other process */

static mach_msg_return_t send_to(mach_port_t name, unsigned disposition, int id) {
    mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(disposition, 0),
                                 .msgh_size = sizeof message,
                                 .msgh_remote_port = name,
                                 .msgh_id = id};
    return mach_msg(&message, MACH_SEND_MSG, sizeof message, 0, 0, 0, 0);
}

static mach_msg_return_t receive_now(mach_port_t name, struct room *room, unsigned timeout) {
    return mach_msg(&room->cargo.header, MACH_RCV_MSG | MACH_RCV_TIMEOUT, 0, sizeof *room, name,
                    timeout, 0);
}

static void expect(mach_port_t name, int id) {
    struct room room;
    CHECK_EQ(receive_now(name, &room, 10000), MACH_MSG_SUCCESS);
    CHECK_EQ(room.cargo.header.msgh_id, id);
}

/* What a task holds: its files and its names. */
struct holdings {
    int files, names;
};

static struct holdings holdings(void) {
    return (struct holdings){.files = check_fd_count(), .names = (int)names_held()};
}

/* A send right to `mine` for the process at the other end of the line, and its for this one. */
static void introduce(void) {
    struct mio_kmsg *kmsg;
    unsigned kind, flags;
    struct pollfd fd = {.fd = line, .events = POLLIN};
    mio_lock();
    mio_pair_receiver(line);
    kmsg = mio_kmsg_new(sizeof(mach_msg_header_t), 0);
    CHECK(kmsg != NULL);
    CHECK_EQ(mio_right_copyin(mine, MACH_MSG_TYPE_MAKE_SEND, &kmsg->reply), KERN_SUCCESS);
    CHECK_EQ(mio_wire_send(line, kmsg, 0), MIO_WIRE_OK);
    mio_kmsg_free(kmsg);
    CHECK_EQ(poll(&fd, 1, 10000), 1);
    CHECK_EQ(mio_wire_receive(line, &kmsg, &kind, &flags), MIO_WIRE_OK);
    CHECK(kmsg != NULL);
    CHECK_EQ(mio_right_copyout(&kmsg->reply, &other), KERN_SUCCESS);
    mio_kmsg_destroy(kmsg);
    mio_unlock();
}

/* ---- a message with everything in it -------------------------------------------------------- */

struct made {
    mach_port_t reply, send, moved; /* ports of the sender; `moved` leaves with two messages */
    struct cargo cargo;
};

static fileport_t new_file_port(void) {
    fileport_t name;
    int fd = memfd_create("faults", MFD_CLOEXEC);
    CHECK_EQ(write(fd, "f", 1), 1);
    CHECK_EQ(fileport_makeport(fd, &name), 0);
    close(fd);
    return name;
}

static void *new_region(void) {
    mach_vm_address_t address;
    CHECK_EQ(machio_memory_allocate(MEMORY, &address), KERN_SUCCESS);
    return memset((void *)(uintptr_t)address, 0x77, MEMORY);
}

static void load(struct made *made) {
    *made = (struct made){.reply = new_port(), .send = new_port(), .moved = new_port()};
    for (int id = 1; id <= 2; id++)
        CHECK_EQ(send_to(made->moved, MACH_MSG_TYPE_MAKE_SEND, id), MACH_MSG_SUCCESS);
    made->cargo = (struct cargo){
        .header = {.msgh_bits =
                       MACH_MSGH_BITS_SET(MACH_MSG_TYPE_COPY_SEND, MACH_MSG_TYPE_MAKE_SEND_ONCE, 0,
                                          MACH_MSGH_BITS_COMPLEX),
                   .msgh_size = sizeof made->cargo,
                   .msgh_remote_port = other,
                   .msgh_local_port = made->reply,
                   .msgh_id = 50},
        .body = {4},
        .send = {.name = made->send, .disposition = MACH_MSG_TYPE_MAKE_SEND},
        .receive = {.name = made->moved, .disposition = MACH_MSG_TYPE_MOVE_RECEIVE},
        .file = {.name = new_file_port(), .disposition = MACH_MSG_TYPE_MOVE_SEND},
        .memory = {.address = new_region(),
                   .size = MEMORY,
                   .deallocate = 1,
                   .copy = MACH_MSG_VIRTUAL_COPY,
                   .type = MACH_MSG_OOL_DESCRIPTOR},
    };
    memset(made->cargo.data, 0x5a, BODY);
}

static mach_msg_return_t ship(struct made *made) {
    return mach_msg(&made->cargo.header, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof made->cargo, 0,
                    0, 0, 0);
}

/* Whether a receive has given the message: without the memory, if it had no room for that. */
static bool is_here(mach_msg_return_t mr) {
    return mr == MACH_MSG_SUCCESS || mr == (MACH_RCV_BODY_ERROR | MACH_MSG_VM_SPACE);
}

/* The receiver's: every right in it works. */
static void unload(const struct cargo *cargo, mach_msg_return_t mr) {
    char byte = 0;
    CHECK_EQ(cargo->header.msgh_id, 50);
    CHECK_EQ(cargo->data[BODY - 1], 0x5a);
    CHECK_EQ(cargo->memory.size, mr == MACH_MSG_SUCCESS ? MEMORY : 0);
    if (mr == MACH_MSG_SUCCESS) {
        CHECK_EQ(((const uint8_t *)cargo->memory.address)[MEMORY - 1], 0x77);
        CHECK_EQ(vm_deallocate(SELF, (vm_address_t)cargo->memory.address, MEMORY), KERN_SUCCESS);
    }
    int fd = fileport_makefd(cargo->file.name);
    CHECK_EQ(pread(fd, &byte, 1, 0), 1);
    CHECK_EQ(byte, 'f');
    close(fd);
    CHECK_EQ(mach_port_deallocate(SELF, cargo->file.name), KERN_SUCCESS);
    CHECK_EQ(send_to(cargo->header.msgh_remote_port, MACH_MSG_TYPE_MOVE_SEND_ONCE, 7),
             MACH_MSG_SUCCESS);
    CHECK_EQ(send_to(cargo->send.name, MACH_MSG_TYPE_MOVE_SEND, 8), MACH_MSG_SUCCESS);
    expect(cargo->receive.name, 1);
    expect(cargo->receive.name, 2);
    destroy_port(cargo->receive.name);
}

/* The sender's: what the receiver did with the rights has come. */
static void settle(const struct made *made) {
    expect(made->reply, 7);
    expect(made->send, 8);
    destroy_port(made->reply);
    destroy_port(made->send);
}

/* ---- the other task -------------------------------------------------------------------------- */

static void other_task(void) {
    char order;
    while (read(line, &order, 1) == 1) {
        if (order == 'r') {
            struct room room;
            CHECK_EQ(receive_now(mine, &room, 10000), MACH_MSG_SUCCESS);
            unload(&room.cargo, MACH_MSG_SUCCESS);
        } else if (order == 's') {
            struct made made;
            load(&made);
            CHECK_EQ(ship(&made), MACH_MSG_SUCCESS);
            CHECK_EQ(write(line, "s", 1), 1);
            settle(&made);
        }
        struct holdings held = holdings();
        CHECK_EQ(write(line, &held, sizeof held), (ssize_t)sizeof held);
    }
    _exit(0);
}

static void tell(char order) {
    CHECK_EQ(write(line, &order, 1), 1);
}

static struct holdings its_holdings(void) {
    struct holdings held;
    CHECK_EQ(read(line, &held, sizeof held), (ssize_t)sizeof held);
    return held;
}

static pid_t start(void) {
    int fds[2];
    CHECK_EQ(mio_pair(fds), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    line = fds[child == 0];
    close(fds[child != 0]);
    mine = new_port();
    struct room room; /* what a thread needs to wait is made */
    CHECK_EQ(receive_now(mine, &room, 1), MACH_RCV_TIMED_OUT);
    introduce();
    if (child == 0)
        other_task();
    return child;
}

static void end(pid_t child) {
    close(line);
    CHECK_CHILD(child);
}

/* ---- what fails -------------------------------------------------------------------------------- */

static void send_all(void (*arm)(void)) {
    struct made made;
    load(&made);
    if (arm != NULL)
        arm();
    mach_msg_return_t mr = ship(&made);
    if (fault_fired() && mr == MACH_MSG_VM_KERNEL) { /* no room for the memory: all is destroyed */
        expect(made.reply, MACH_NOTIFY_SEND_ONCE);
        destroy_port(made.reply);
        destroy_port(made.send);
        tell('?');
        return;
    }
    if (fault_fired() && mr != MACH_MSG_SUCCESS) {
        CHECK((mr & ~MACH_MSG_MASK) == MACH_SEND_NO_BUFFER ||
              (mr & ~MACH_MSG_MASK) == MACH_SEND_TIMED_OUT);
        mr = ship(&made); /* as the failed send has left it in the buffer */
    }
    CHECK_EQ(mr, MACH_MSG_SUCCESS);
    tell('r');
    settle(&made);
}

static void receive_all(void (*arm)(void)) {
    struct room room;
    char sent;
    tell('s');
    CHECK_EQ(read(line, &sent, 1), 1);
    if (arm != NULL)
        arm();
    mach_msg_return_t mr = receive_now(mine, &room, 0);
    if (fault_fired() && !is_here(mr)) {
        CHECK(mr == (MACH_RCV_BODY_ERROR | MACH_MSG_IPC_KERNEL) || mr == MACH_RCV_TIMED_OUT);
        mr = receive_now(mine, &room, 0);
    }
    CHECK(is_here(mr));
    unload(&room.cargo, mr);
}

/* Waits through a kqueue and a set, told of deaths and of senders' ends. */
static void wait_for_all(void (*arm)(void)) {
    struct kevent64_s change, event;
    const struct timespec limit = {.tv_sec = 10};
    struct room room;
    mach_port_t set, previous;
    char sent;
    bool failed = false;
    tell('s');
    CHECK_EQ(read(line, &sent, 1), 1);
    CHECK_EQ(mach_port_allocate(SELF, MACH_PORT_RIGHT_PORT_SET, &set), KERN_SUCCESS);
    if (arm != NULL)
        arm();
    mach_msg_return_t mr = MACH_RCV_TIMED_OUT;
    for (int tries = 0; tries < 2; tries++) {
        kern_return_t kr = mach_port_move_member(SELF, mine, set);
        int kq = kqueue(), count = -1;
        EV_SET64(&change, set, EVFILT_MACHPORT, EV_ADD, 0, 0, 0, 0, 0);
        if (kq >= 0)
            count = kevent64(kq, &change, 1, &event, 1, 0, &limit);
        if (kr == KERN_SUCCESS && count == 1 && !(event.flags & EV_ERROR))
            mr = receive_now(set, &room, 10000);
        if (is_here(mr))
            kr = mach_port_request_notification(SELF, other, MACH_NOTIFY_DEAD_NAME, 0, mine,
                                                MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous);
        if (kq >= 0)
            close(kq);
        failed = fault_fired();
        if (is_here(mr)) {
            CHECK(kr == KERN_SUCCESS || failed);
            break;
        }
        CHECK(failed && tries == 0);
    }
    unload(&room.cargo, mr);
    if (mach_port_request_notification(SELF, other, MACH_NOTIFY_DEAD_NAME, 0, MACH_PORT_NULL,
                                       MACH_MSG_TYPE_MAKE_SEND_ONCE, &previous) == KERN_SUCCESS &&
        previous != MACH_PORT_NULL) {
        CHECK_EQ(mach_port_deallocate(SELF, previous), KERN_SUCCESS);
        CHECK_EQ(receive_now(mine, &room, 10000), MACH_MSG_SUCCESS); /* MACH_NOTIFY_SEND_ONCE */
        CHECK_EQ(room.cargo.header.msgh_id, MACH_NOTIFY_SEND_ONCE);
    }
    CHECK_EQ(mach_port_mod_refs(SELF, set, MACH_PORT_RIGHT_PORT_SET, -1), KERN_SUCCESS);
}

static enum fault_call next_call;
static int next_error, next_nth;

static void arm_next(void) {
    if (getenv("FAULTS_TRACE")) /* which one it is that the test ends with */
        fprintf(stderr, "call %d, error %d, time %d\n", next_call, next_error, next_nth);
    fault_arm(next_call, next_error, next_nth);
}

/* A port's credit pipe may be open for reading or not, as was last needed; what leaks adds up. */
static void check_holdings(struct holdings before, struct holdings after) {
    if (after.files > before.files + 1 || before.names != after.names)
        fprintf(stderr, "call %d, error %d, time %d\n", next_call, next_error, next_nth);
    CHECK_EQ(after.names, before.names);
    CHECK(after.files <= before.files + 1);
}

static struct holdings ask_again(void) {
    tell('?');
    return its_holdings();
}

/* Files that a peer sent, and file ports, may be closed by another thread. */
static struct holdings settled(struct holdings held, struct holdings expected,
                               struct holdings (*again)(void)) {
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 5000 && held.files > expected.files + 1; i++) {
        nanosleep(&pause, NULL);
        held = again();
    }
    return held;
}

/* Every call, every error, at the first, second ... time, until it is not called so often. */
static int fail_in_turn(void (*scene)(void (*arm)(void))) {
    int fired = 0;
    for (int i = 0; i < 3; i++) { /* what lasts is made */
        scene(NULL);
        its_holdings();
    }
    struct holdings here = holdings();
    scene(NULL);
    struct holdings there = its_holdings();
    for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
        next_call = FAULTS[i].call;
        for (int e = 0; e < 4 && FAULTS[i].errors[e] != 0; e++) {
            next_error = FAULTS[i].errors[e];
            for (int n = 2;; n++) {
                next_nth = n / 2; /* twice each: a single file is let pass */
                fault.fired = false;
                scene(arm_next);
                check_holdings(there, settled(its_holdings(), there, ask_again));
                check_holdings(here, settled(holdings(), here, holdings));
                if (!fault.fired)
                    break;
                fired++;
            }
        }
    }
    return fired;
}

TEST(a_send_survives_the_failure_of_any_call) {
    pid_t child = start();
    CHECK(fail_in_turn(send_all) > 60);
    end(child);
}

TEST(a_receive_survives_the_failure_of_any_call) {
    pid_t child = start();
    CHECK(fail_in_turn(receive_all) > 10);
    end(child);
}

TEST(a_wait_survives_the_failure_of_any_call) {
    pid_t child = start();
    CHECK(fail_in_turn(wait_for_all) > 20);
    end(child);
}

static pid_t victim;

static void kill_victim(void) {
    CHECK_EQ(kill(victim, SIGKILL), 0);
    CHECK_EQ(waitpid(victim, NULL, 0), victim);
}

/* Sends to a task that dies meanwhile; whether it did. */
static bool send_to_dying(unsigned disposition, enum fault_call call, int nth) {
    mach_port_type_t type;
    victim = start();
    mach_port_t home = new_port();
    struct holdings before = holdings();
    mach_msg_header_t message = {.msgh_bits =
                                     MACH_MSGH_BITS(disposition, MACH_MSG_TYPE_MAKE_SEND_ONCE),
                                 .msgh_size = sizeof message,
                                 .msgh_remote_port = other,
                                 .msgh_local_port = home};
    fault_before(call, nth, kill_victim);
    mach_msg_return_t mr =
        mach_msg(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof message, 0, 0, 0, 0);
    bool died = fault_fired();
    CHECK(mr == MACH_MSG_SUCCESS || (died && mr == MACH_SEND_INVALID_DEST));
    if (!died)
        kill_victim();
    if (mr == MACH_MSG_SUCCESS) /* the send-once right was destroyed with the message */
        expect(home, MACH_NOTIFY_SEND_ONCE);
    if (mr == MACH_MSG_SUCCESS && disposition == MACH_MSG_TYPE_MOVE_SEND) {
        CHECK_EQ(mach_port_type(SELF, other, &type), KERN_INVALID_NAME);
    } else {
        CHECK_EQ(mach_port_type(SELF, other, &type), KERN_SUCCESS);
        CHECK_EQ(type, MACH_PORT_TYPE_DEAD_NAME);
        CHECK_EQ(mach_port_deallocate(SELF, other), KERN_SUCCESS);
    }
    CHECK_EQ(holdings().names, before.names - 1);
    CHECK(holdings().files < before.files); /* the dead port's */
    destroy_port(home);
    destroy_port(mine);
    close(line);
    return died;
}

TEST(a_receiver_may_die_before_any_call_of_a_send) {
    static const enum fault_call CALLS[] = {FAULT_POLL,       FAULT_SPLICE,    FAULT_PREAD,
                                            FAULT_SOCKETPAIR, FAULT_EPOLL_CTL, FAULT_SENDMSG};
    int all = 0;
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        for (int nth = 1, fired = 1; fired > 0; nth++) {
            fired = send_to_dying(MACH_MSG_TYPE_COPY_SEND, CALLS[i], nth);
            fired += send_to_dying(MACH_MSG_TYPE_MOVE_SEND, CALLS[i], nth);
            all += fired;
        }
    }
    CHECK(all > 6);
}

CHECK_MAIN()
