/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * Port sets. A set holds its members by a struct mio_member each; a port may be in many sets. The
 * list `ready` has the members that may have a message, in the order in which they got one.
 *
 * Guarded by mio_task.lock. A set owns its watch, an epoll that exists once somebody received from
 * the set, and no other descriptor. Membership holds no reference: a port leaves its sets before
 * it leaves the space.
 */
#include "internal.h"

#include <stdlib.h>

struct mio_set *mio_set_new(void) {
    struct mio_set *set = calloc(1, sizeof *set);
    if (set == NULL)
        return NULL;
    mio_list_init(&set->members);
    mio_list_init(&set->ready);
    mio_list_init(&set->receivers);
    mio_list_init(&set->knotes);
    return set;
}

struct mio_member *mio_set_find(struct mio_set *set, struct mio_port *port) {
    MIO_EACH(item, &port->memberships) {
        struct mio_member *member = MIO_CONTAINER(item, struct mio_member, of_port);
        if (member->set == set)
            return member;
    }
    return NULL;
}

/* Whoever blocks on the set looks again. */
static void wake_receivers(struct mio_set *set) {
    MIO_EACH(item, &set->receivers)
        mio_wake(MIO_CONTAINER(item, struct mio_waiter, link));
}

/* KERN_ALREADY_IN_SET, KERN_RESOURCE_SHORTAGE; then nothing changed. */
kern_return_t mio_set_insert(struct mio_set *set, struct mio_port *port) {
    if (mio_set_find(set, port) != NULL)
        return KERN_ALREADY_IN_SET;
    struct mio_member *member = calloc(1, sizeof *member);
    if (member == NULL)
        return KERN_RESOURCE_SHORTAGE;
    if (set->watch != NULL && mio_watch_add(set->watch, port, false) != KERN_SUCCESS) {
        free(member);
        return KERN_RESOURCE_SHORTAGE;
    }
    if (mio_knotes_member_added(set, port) != KERN_SUCCESS) {
        if (set->watch != NULL)
            mio_watch_remove(set->watch, port, false);
        free(member);
        return KERN_RESOURCE_SHORTAGE;
    }
    member->set = set;
    member->port = port;
    mio_list_init(&member->ready);
    mio_list_append(&set->members, &member->of_set);
    mio_list_append(&port->memberships, &member->of_port);
    if (mio_port_has_message(port)) {
        if (mio_list_empty(&member->ready))
            mio_list_append(&set->ready, &member->ready);
        set->drained++; /* a new member's messages are news also to those with EV_CLEAR */
        wake_receivers(set);
        mio_knotes_activate(&set->knotes);
    }
    return KERN_SUCCESS;
}

void mio_set_remove(struct mio_member *member) {
    struct mio_set *set = member->set;
    struct mio_port *port = member->port;
    mio_list_remove(&member->of_set);
    mio_list_remove(&member->of_port);
    mio_list_remove(&member->ready);
    if (set->watch != NULL)
        mio_watch_remove(set->watch, port, false);
    mio_knotes_member_removed(set, port);
    free(member);
}

void mio_set_destroy(struct mio_set *set) {
    mio_knotes_vanish(&set->knotes);
    MIO_EACH(item, &set->members)
        mio_set_remove(MIO_CONTAINER(item, struct mio_member, of_set));
    MIO_EACH(waiter, &set->receivers) {
        mio_list_remove(waiter); /* the list goes before the thread is up */
        mio_wake(MIO_CONTAINER(waiter, struct mio_waiter, link));
    }
    mio_watch_free(set->watch);
    free(set);
}

/* ---- the calls ------------------------------------------------------------------------------- */

/* A member and a set that are both named: the errors they share. */
static kern_return_t look_up(mach_port_name_t name, mach_port_name_t pset,
                             struct mio_port **ret_port, struct mio_set **ret_set) {
    struct mio_entry *member = mio_entry_get(name);
    struct mio_entry *set = mio_entry_get(pset);
    if (member == NULL || set == NULL)
        return KERN_INVALID_NAME;
    if (!(member->type & MACH_PORT_TYPE_RECEIVE) || !(set->type & MACH_PORT_TYPE_PORT_SET))
        return KERN_INVALID_RIGHT;
    *ret_port = member->port;
    *ret_set = set->set;
    return KERN_SUCCESS;
}

kern_return_t mach_port_insert_member(ipc_space_t task, mach_port_name_t name,
                                      mach_port_name_t pset) {
    struct mio_port *port;
    struct mio_set *set;
    kern_return_t kr = KERN_INVALID_RIGHT;

    mio_lock();
    if (task != mach_task_self())
        kr = MACH_SEND_INVALID_DEST;
    else if (MACH_PORT_VALID(name) && MACH_PORT_VALID(pset))
        kr = look_up(name, pset, &port, &set);
    if (kr == KERN_SUCCESS)
        kr = mio_set_insert(set, port);
    mio_unlock();
    return kr;
}

kern_return_t mach_port_extract_member(ipc_space_t task, mach_port_name_t name,
                                       mach_port_name_t pset) {
    struct mio_port *port;
    struct mio_set *set;
    kern_return_t kr = KERN_INVALID_RIGHT;

    mio_lock();
    if (task != mach_task_self())
        kr = MACH_SEND_INVALID_DEST;
    else if (MACH_PORT_VALID(name) && MACH_PORT_VALID(pset))
        kr = look_up(name, pset, &port, &set);
    if (kr == KERN_SUCCESS) {
        struct mio_member *member = mio_set_find(set, port);
        if (member != NULL)
            mio_set_remove(member);
        else
            kr = KERN_NOT_IN_SET;
    }
    mio_unlock();
    return kr;
}

/* Out of every set but one, which may be NULL; true if it was in any. */
static bool leave_others(struct mio_port *port, const struct mio_set *stays) {
    bool left = false;
    MIO_EACH(item, &port->memberships) {
        struct mio_member *member = MIO_CONTAINER(item, struct mio_member, of_port);
        if (member->set == stays)
            continue;
        mio_set_remove(member);
        left = true;
    }
    return left;
}

/* A member that is moved to where it is comes in anew. */
static void have_turn_last(struct mio_member *member) {
    if (!mio_list_empty(&member->ready)) {
        mio_list_remove(&member->ready);
        mio_list_append(&member->set->ready, &member->ready);
    }
}

static kern_return_t leave_all(mach_port_name_t name) {
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL || entry->type & MACH_PORT_TYPE_DEAD_NAME)
        return KERN_INVALID_NAME;
    if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
        return KERN_INVALID_RIGHT;
    return leave_others(entry->port, NULL) ? KERN_SUCCESS : KERN_NOT_IN_SET;
}

kern_return_t mach_port_move_member(ipc_space_t task, mach_port_name_t member,
                                    mach_port_name_t after) {
    struct mio_port *port;
    struct mio_set *set;
    kern_return_t kr;

    mio_lock();
    if (task != mach_task_self()) {
        kr = MACH_SEND_INVALID_DEST;
    } else if (!MACH_PORT_VALID(member) || after == MACH_PORT_DEAD) {
        kr = KERN_INVALID_RIGHT;
    } else if (after == MACH_PORT_NULL) {
        kr = leave_all(member);
    } else {
        kr = look_up(member, after, &port, &set);
        if (kr == KERN_SUCCESS)
            kr = mio_set_insert(set, port);
        if (kr == KERN_ALREADY_IN_SET) {
            have_turn_last(mio_set_find(set, port));
            kr = KERN_SUCCESS;
        }
        if (kr == KERN_SUCCESS)
            leave_others(port, set);
    }
    mio_unlock();
    return kr;
}

static int by_name(const void *a, const void *b) {
    mach_port_name_t x = *(const mach_port_name_t *)a, y = *(const mach_port_name_t *)b;
    return (x > y) - (x < y);
}

/* Ownership: the array is the caller's, from vm_allocate(). */
static kern_return_t list_members(const struct mio_set *set, mach_port_name_array_t *ret_names,
                                  mach_msg_type_number_t *ret_count) {
    vm_address_t address = 0;
    mach_msg_type_number_t count = 0;

    MIO_EACH(item, &set->members)
        count++;
    if (count > 0) {
        kern_return_t kr = vm_allocate(mach_task_self(), &address, count * sizeof(mach_port_name_t),
                                       VM_FLAGS_ANYWHERE);
        if (kr != KERN_SUCCESS)
            return KERN_RESOURCE_SHORTAGE;
    }
    mach_port_name_t *names = (mach_port_name_t *)address, *name = names;
    MIO_EACH(item, &set->members)
        *name++ = MIO_CONTAINER(item, struct mio_member, of_set)->port->name;
    if (count > 0)
        qsort(names, count, sizeof *names, by_name);
    *ret_names = names;
    *ret_count = count;
    return KERN_SUCCESS;
}

kern_return_t mach_port_get_set_status(ipc_space_read_t task, mach_port_name_t name,
                                       mach_port_name_array_t *members,
                                       mach_msg_type_number_t *membersCnt) {
    kern_return_t kr;

    mio_lock();
    if (task != mach_task_self()) {
        kr = MACH_SEND_INVALID_DEST;
    } else if (!MACH_PORT_VALID(name)) {
        kr = KERN_INVALID_RIGHT;
    } else {
        struct mio_entry *entry = mio_entry_get(name);
        if (entry == NULL || entry->type & MACH_PORT_TYPE_DEAD_NAME)
            kr = KERN_INVALID_NAME;
        else if (!(entry->type & MACH_PORT_TYPE_PORT_SET))
            kr = KERN_INVALID_RIGHT;
        else
            kr = list_members(entry->set, members, membersCnt);
    }
    mio_unlock();
    return kr;
}
