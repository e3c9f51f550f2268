/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Many threads at the same ports: they make, send, receive, watch and destroy what the others use.
 * Each call may fail as one does whose port was taken away; nothing is lost or left over.
 */
#include "ports.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/event.h>

enum { THREADS = 6, SLOTS = 8, TURNS = 1500 };

static _Atomic mach_port_t slots[SLOTS];
static _Atomic unsigned sent, received;

static bool is_gone(kern_return_t kr) {
    return kr == KERN_INVALID_NAME || kr == KERN_INVALID_RIGHT || kr == KERN_NOT_IN_SET;
}

static void replace(int slot) {
    mach_port_t old = atomic_exchange(&slots[slot], new_port());
    kern_return_t kr = mach_port_destroy(SELF, old);
    CHECK(kr == KERN_SUCCESS || is_gone(kr));
}

static void send_one(mach_port_t port) {
    mach_msg_header_t message = {.msgh_bits = MACH_MSGH_BITS(MACH_MSG_TYPE_MAKE_SEND, 0),
                                 .msgh_size = sizeof message,
                                 .msgh_remote_port = port,
                                 .msgh_id = 7};
    mach_msg_return_t mr =
        mach_msg(&message, MACH_SEND_MSG | MACH_SEND_TIMEOUT, sizeof message, 0, 0, 1, 0);
    CHECK(mr == MACH_MSG_SUCCESS || mr == MACH_SEND_INVALID_DEST || mr == MACH_SEND_TIMED_OUT);
    if (mr == MACH_MSG_SUCCESS)
        sent++;
    if (mr == MACH_SEND_TIMED_OUT) /* a send right has come back; its port may be gone */
        mach_port_deallocate(SELF, message.msgh_remote_port);
}

static void receive_one(mach_port_t name) {
    struct message message;
    mach_msg_return_t mr = receive(name, &message, 1);
    CHECK(mr == MACH_MSG_SUCCESS || mr == MACH_RCV_TIMED_OUT || mr == MACH_RCV_INVALID_NAME ||
          mr == MACH_RCV_PORT_CHANGED || mr == MACH_RCV_PORT_DIED);
    if (mr == MACH_MSG_SUCCESS) {
        CHECK_EQ(message.header.msgh_id, 7);
        received++;
    }
}

static void wire(mach_port_t name) {
    mio_lock();
    struct mio_entry *entry = mio_entry_get(name);
    if (entry != NULL && entry->type & MACH_PORT_TYPE_RECEIVE)
        CHECK_EQ(mio_channel_open(entry->port), KERN_SUCCESS);
    mio_unlock();
}

static void use_kqueue(mach_port_t name) {
    struct kevent64_s change, event;
    int kq = kqueue();
    CHECK(kq >= 0);
    EV_SET64(&change, name, EVFILT_MACHPORT, EV_ADD, 0, 0, 0, 0, 0);
    CHECK(kevent64(kq, &change, 1, &event, 1, KEVENT_FLAG_IMMEDIATE, NULL) >= 0);
    close(kq);
}

static void *work(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    mach_port_t set = new_set();
    for (int turn = 0; turn < TURNS; turn++) {
        int slot = rand_r(&seed) % SLOTS;
        mach_port_t port = slots[slot];
        kern_return_t kr;
        switch (rand_r(&seed) % 16) {
        case 0:
            replace(slot);
            break;
        case 1:
            wire(port);
            break;
        case 2:
            kr = mach_port_insert_member(SELF, port, set);
            CHECK(kr == KERN_SUCCESS || kr == KERN_ALREADY_IN_SET || is_gone(kr));
            break;
        case 3:
            kr = mach_port_extract_member(SELF, port, set);
            CHECK(kr == KERN_SUCCESS || is_gone(kr));
            break;
        case 4:
            receive_one(set);
            break;
        case 5:
            use_kqueue(port);
            break;
        case 6:
        case 7:
        case 8:
        case 9:
            receive_one(port);
            break;
        default:
            send_one(port);
        }
    }
    CHECK_EQ(mach_port_destroy(SELF, set), KERN_SUCCESS);
    return NULL;
}

TEST(threads_send_receive_and_destroy_the_same_ports) {
    pthread_t threads[THREADS];
    struct message message;
    mach_port_t first = new_port();
    CHECK_EQ(receive(first, &message, 1), MACH_RCV_TIMED_OUT); /* what lasts is made */
    wire(first);
    send_one(first);
    receive_one(first);
    use_kqueue(first);
    destroy_port(first);
    sent = received = 0;
    unsigned names = names_held();
    int files = check_fd_count();
    for (int i = 0; i < SLOTS; i++)
        slots[i] = new_port();
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK(received > 100 && received <= sent);
    for (int i = 0; i < SLOTS; i++)
        CHECK_EQ(mach_port_destroy(SELF, slots[i]), KERN_SUCCESS);
    CHECK_EQ(names_held(), names);
    CHECK_FDS(files);
}

CHECK_MAIN()
