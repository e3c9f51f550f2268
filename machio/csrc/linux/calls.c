/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_port_*: the calls that make names, tell about them, and give rights to names. Each checks
 * its arguments in Mach's order and then calls on space.c and right.c. Names lose their rights in
 * release.c; port sets have their calls in portset.c, attributes and guards in attr.c, requests for
 * notifications in request.c.
 */
#include "internal.h"

/* Of the kernel's objects, as mach_port_kobject() tells them. */
#define IKOT_NONE 0
#define IKOT_TASK_CONTROL 2

#include <stdlib.h>

/* ---- making names ------------------------------------------------------------------------------ */

/* What lives under a fresh name. Memory is had before the name, so that nothing is undone. */
struct content {
    mach_port_type_t type;
    void *object;
};

static kern_return_t make_content(mach_port_right_t right, struct content *ret) {
    switch (right) {
    case MACH_PORT_RIGHT_RECEIVE:
        *ret = (struct content){MACH_PORT_TYPE_RECEIVE, mio_port_new(MIO_PORT_LOCAL)};
        break;
    case MACH_PORT_RIGHT_PORT_SET:
        *ret = (struct content){MACH_PORT_TYPE_PORT_SET, mio_set_new()};
        break;
    case MACH_PORT_RIGHT_DEAD_NAME:
        *ret = (struct content){MACH_PORT_TYPE_DEAD_NAME, NULL};
        return KERN_SUCCESS;
    default:
        return KERN_INVALID_VALUE;
    }
    return ret->object == NULL ? KERN_RESOURCE_SHORTAGE : KERN_SUCCESS;
}

static void drop_content(const struct content *content) {
    if (content->type == MACH_PORT_TYPE_RECEIVE)
        mio_port_unref(content->object);
    else if (content->type == MACH_PORT_TYPE_PORT_SET)
        mio_set_destroy(content->object);
}

static void settle(mach_port_name_t name, struct mio_entry *entry, const struct content *content) {
    entry->type = content->type;
    if (content->type == MACH_PORT_TYPE_RECEIVE) {
        entry->port = content->object;
        entry->port->name = name;
    } else if (content->type == MACH_PORT_TYPE_PORT_SET) {
        entry->set = content->object;
        entry->set->name = name;
    } else {
        entry->urefs = 1;
    }
}

static kern_return_t allocate(mach_port_right_t right, mach_port_name_t *ret_name,
                              struct mio_entry **ret_entry) {
    struct content content;
    kern_return_t kr = make_content(right, &content);
    if (kr != KERN_SUCCESS)
        return kr;
    mach_port_name_t name;
    kr = mio_space_alloc(&name, ret_entry);
    if (kr != KERN_SUCCESS) {
        drop_content(&content);
        return kr;
    }
    settle(name, *ret_entry, &content);
    *ret_name = name;
    return KERN_SUCCESS;
}

kern_return_t mach_port_allocate(ipc_space_t task, mach_port_right_t right,
                                 mach_port_name_t *name) {
    struct mio_entry *entry;
    MIO_ENTER(task);
    return mio_leave(allocate(right, name, &entry));
}

kern_return_t mach_port_allocate_name(ipc_space_t task, mach_port_right_t right,
                                      mach_port_name_t name) {
    struct mio_entry *entry;
    struct content content;
    MIO_ENTER(task);
    if (!MACH_PORT_VALID(name))
        return mio_leave(KERN_INVALID_VALUE);
    if (right == MACH_PORT_RIGHT_DEAD_NAME) /* Mach picks another name for it */
        return mio_leave(allocate(right, &name, &entry));
    kern_return_t kr = make_content(right, &content);
    if (kr != KERN_SUCCESS)
        return mio_leave(kr);
    kr = mio_space_alloc_name(name, &entry);
    if (kr == KERN_SUCCESS)
        settle(name, entry, &content);
    else
        drop_content(&content);
    return mio_leave(kr);
}

kern_return_t mach_port_rename(ipc_space_t task, mach_port_name_t old, mach_port_name_t new) {
    (void)old, (void)new;
    return task == mach_task_self_ ? MIG_BAD_ID : MACH_SEND_INVALID_DEST;
}

kern_return_t mach_port_allocate_full(ipc_space_t task, mach_port_right_t right, mach_port_t proto,
                                      mach_port_qos_t *qos, mach_port_name_t *name) {
    if (proto != MACH_PORT_NULL || (qos->name && !MACH_PORT_VALID(*name)))
        return KERN_INVALID_VALUE;
    if (qos->prealloc && qos->len > MACH_MSG_SIZE_MAX - MAX_TRAILER_SIZE)
        return KERN_RESOURCE_SHORTAGE;
    if (qos->prealloc && right != MACH_PORT_RIGHT_RECEIVE)
        return KERN_INVALID_VALUE;
    return qos->name ? mach_port_allocate_name(task, right, *name)
                     : mach_port_allocate(task, right, name);
}

kern_return_t mach_port_allocate_qos(ipc_space_t task, mach_port_right_t right,
                                     mach_port_qos_t *qos, mach_port_name_t *name) {
    return qos->name ? KERN_INVALID_ARGUMENT
                     : mach_port_allocate_full(task, right, MACH_PORT_NULL, qos, name);
}

mach_port_name_t mach_reply_port(void) {
    mach_port_name_t name = MACH_PORT_NULL;
    mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &name);
    return name;
}

static bool more_than_one(uint32_t flags) {
    return (flags & (flags - 1)) != 0;
}

kern_return_t mach_port_construct(ipc_space_t task, mach_port_options_t *options,
                                  mach_port_context_t context, mach_port_name_t *name) {
    uint32_t flags = options->flags;
    struct mio_entry *entry;
    MIO_ENTER(task);
    if (more_than_one(flags & (MPO_SERVICE_PORT | MPO_CONNECTION_PORT | MPO_TG_BLOCK_TRACKING)) ||
        more_than_one(flags & (MPO_REPLY_PORT | MPO_ENFORCE_REPLY_PORT_SEMANTICS |
                               MPO_EXCEPTION_PORT | MPO_PROVISIONAL_REPLY_PORT)))
        return mio_leave(KERN_INVALID_ARGUMENT);
    if (flags & (MPO_TG_BLOCK_TRACKING | MPO_SERVICE_PORT))
        return mio_leave(KERN_DENIED);
    if (flags & MPO_CONNECTION_PORT && options->service_port_name == MACH_PORT_NULL)
        return mio_leave(KERN_INVALID_ARGUMENT);
    if (flags & MPO_QLIMIT && options->mpl.mpl_qlimit > MACH_PORT_QLIMIT_MAX)
        return mio_leave(KERN_INVALID_VALUE);
    kern_return_t kr = allocate(MACH_PORT_RIGHT_RECEIVE, name, &entry);
    if (kr != KERN_SUCCESS)
        return mio_leave(kr);
    struct mio_port *port = entry->port;
    port->context = context;
    if (flags & MPO_CONTEXT_AS_GUARD) {
        port->guarded = true;
        port->strict = flags & MPO_STRICT;
        port->immovable = flags & MPO_IMMOVABLE_RECEIVE;
    }
    if (flags & MPO_QLIMIT)
        port->qlimit = options->mpl.mpl_qlimit;
    if (flags & MPO_INSERT_SEND_RIGHT) {
        struct mio_right right;
        mio_right_copyin(*name, MACH_MSG_TYPE_MAKE_SEND, &right);
        mio_right_copyout_as(&right, *name);
    }
    return mio_leave(KERN_SUCCESS);
}

/* ---- telling about names ------------------------------------------------------------------------ */

kern_return_t mach_port_get_refs(ipc_space_t task, mach_port_name_t name, mach_port_right_t right,
                                 mach_port_urefs_t *refs) {
    MIO_ENTER(task);
    if (right >= MACH_PORT_RIGHT_NUMBER)
        return mio_leave(KERN_INVALID_VALUE);
    if (!MACH_PORT_VALID(name)) {
        if (right != MACH_PORT_RIGHT_SEND && right != MACH_PORT_RIGHT_SEND_ONCE)
            return mio_leave(KERN_INVALID_NAME);
        *refs = 1;
        return mio_leave(KERN_SUCCESS);
    }
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return mio_leave(KERN_INVALID_NAME);
    bool counted = right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_DEAD_NAME;
    *refs = !(entry->type & MACH_PORT_TYPE(right)) ? 0 : counted ? entry->urefs : 1;
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_kobject(ipc_space_t task, mach_port_name_t name, natural_t *object_type,
                                mach_vm_address_t *object_addr) {
    MIO_ENTER(task);
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL || entry->type & MACH_PORT_TYPE_DEAD_NAME)
        return mio_leave(KERN_INVALID_NAME);
    if (!(entry->type & MACH_PORT_TYPE_SEND_RECEIVE))
        return mio_leave(KERN_INVALID_RIGHT);
    *object_type = entry->port->kind == MIO_PORT_TASK ? IKOT_TASK_CONTROL : IKOT_NONE;
    *object_addr = 0; /* which kernels tell to nobody */
    return mio_leave(KERN_SUCCESS);
}

static mach_port_type_t full_type(const struct mio_entry *entry) {
    mach_port_type_t type = entry->type;
    const struct mio_request *request = entry->request;
    if (request != NULL && request->notify != NULL)
        type |= MACH_PORT_TYPE_DNREQUEST | (!request->send_possible ? 0u
                                            : request->armed ? MACH_PORT_TYPE_SPREQUEST
                                                             : MACH_PORT_TYPE_SPREQUEST_DELAYED);
    return type;
}

kern_return_t mach_port_type(ipc_space_t task, mach_port_name_t name, mach_port_type_t *type) {
    MIO_ENTER(task);
    if (name == MACH_PORT_DEAD) {
        *type = MACH_PORT_TYPE_DEAD_NAME;
        return mio_leave(KERN_SUCCESS);
    }
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return mio_leave(KERN_INVALID_NAME);
    *type = full_type(entry) & ~(MACH_PORT_TYPE_SPREQUEST | MACH_PORT_TYPE_SPREQUEST_DELAYED);
    return mio_leave(KERN_SUCCESS);
}

kern_return_t mach_port_names(ipc_space_t task, mach_port_name_array_t *names,
                              mach_msg_type_number_t *names_count, mach_port_type_array_t *types,
                              mach_msg_type_number_t *types_count) {
    MIO_ENTER(task);
    uint32_t cursor = 0;
    struct mio_entry *entry;
    mach_msg_type_number_t n = 0;
    while (mio_space_next(&cursor, &entry) != MACH_PORT_NULL)
        n++;
    vm_address_t name_memory = 0, type_memory = 0;
    if (vm_allocate(mach_task_self(), &name_memory, n * sizeof(mach_port_name_t),
                    VM_FLAGS_ANYWHERE) != KERN_SUCCESS)
        return mio_leave(KERN_RESOURCE_SHORTAGE);
    if (vm_allocate(mach_task_self(), &type_memory, n * sizeof(mach_port_type_t),
                    VM_FLAGS_ANYWHERE) != KERN_SUCCESS) {
        vm_deallocate(mach_task_self(), name_memory, n * sizeof(mach_port_name_t));
        return mio_leave(KERN_RESOURCE_SHORTAGE);
    }
    cursor = 0;
    *names = (mach_port_name_array_t)name_memory;
    *types = (mach_port_type_array_t)type_memory;
    for (mach_msg_type_number_t i = 0; i < n; i++) {
        (*names)[i] = mio_space_next(&cursor, &entry);
        (*types)[i] = full_type(mio_entry_get((*names)[i]));
    }
    *names_count = *types_count = n;
    return mio_leave(KERN_SUCCESS);
}

/* ---- inserting, extracting --------------------------------------------------------------------------- */

/* One more reference under the name a right already has. */
static kern_return_t add_send(mach_port_name_t name, mach_msg_type_name_t disposition) {
    struct mio_right right;
    struct mio_entry *entry = MACH_PORT_VALID(name) ? mio_entry_get(name) : NULL;
    if (entry == NULL)
        return KERN_INVALID_NAME;
    if (entry->type & MACH_PORT_TYPE_DEAD_NAME)
        return KERN_INVALID_CAPABILITY;
    kern_return_t kr = mio_right_copyin(name, disposition, &right);
    return kr == KERN_SUCCESS ? mio_right_copyout_as(&right, name) : kr;
}

kern_return_t mach_port_insert_right(ipc_space_t task, mach_port_name_t name, mach_port_t poly,
                                     mach_msg_type_name_t poly_poly) {
    struct mio_right right;
    MIO_ENTER(task);
    if (name == poly &&
        (poly_poly == MACH_MSG_TYPE_MAKE_SEND || poly_poly == MACH_MSG_TYPE_COPY_SEND))
        return mio_leave(add_send(name, poly_poly));
    if (!MACH_PORT_VALID(poly) || mio_entry_get(poly) == NULL)
        return mio_leave(KERN_INVALID_NAME);
    kern_return_t kr = mio_right_copyin(poly, poly_poly, &right);
    return mio_leave(kr == KERN_SUCCESS ? mio_right_copyout_as(&right, name) : kr);
}

kern_return_t mach_port_extract_right(ipc_space_t task, mach_port_name_t name,
                                      mach_msg_type_name_t msgt_name, mach_port_t *poly,
                                      mach_msg_type_name_t *poly_poly) {
    struct mio_right right;
    MIO_ENTER(task);
    if (!MACH_MSG_TYPE_PORT_ANY(msgt_name))
        return mio_leave(KERN_INVALID_VALUE);
    if (!MACH_PORT_VALID(name))
        return mio_leave(KERN_INVALID_RIGHT);
    kern_return_t kr = mio_right_copyin(name, msgt_name, &right);
    if (kr != KERN_SUCCESS)
        return mio_leave(kr);
    mach_msg_type_name_t type = right.disposition;
    mach_port_name_t new_name;
    kr = mio_right_copyout(&right, &new_name);
    if (kr != KERN_SUCCESS) {
        mio_right_destroy(&right);
        return mio_leave(kr);
    }
    *poly = new_name;
    *poly_poly = type;
    return mio_leave(KERN_SUCCESS);
}
