/*
 * SPDX-License-Identifier: Apache-2.0
 *
 * mach_port_*: the calls on names and rights. Each checks its arguments in Mach's order and then
 * calls on right.c, port.c and notify.c. Port sets have their calls in portset.c, attributes and
 * guards in attr.c.
 */
#include "internal.h"

#include <stdlib.h>

/* Takes the lock for one call on this task; anything else than this task is no destination. */
#define ENTER(task)                                                \
    do {                                                           \
        if ((task) != mach_task_self_ || (task) == MACH_PORT_NULL) \
            return MACH_SEND_INVALID_DEST;                         \
        mio_lock();                                                \
    } while (0)

static kern_return_t leave(kern_return_t kr) {
    mio_unlock();
    return kr;
}

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
    ENTER(task);
    return leave(allocate(right, name, &entry));
}

kern_return_t mach_port_allocate_name(ipc_space_t task, mach_port_right_t right,
                                      mach_port_name_t name) {
    struct mio_entry *entry;
    struct content content;
    ENTER(task);
    if (!MACH_PORT_VALID(name))
        return leave(KERN_INVALID_VALUE);
    if (right == MACH_PORT_RIGHT_DEAD_NAME) /* Mach picks another name for it */
        return leave(allocate(right, &name, &entry));
    kern_return_t kr = make_content(right, &content);
    if (kr != KERN_SUCCESS)
        return leave(kr);
    kr = mio_space_alloc_name(name, &entry);
    if (kr == KERN_SUCCESS)
        settle(name, entry, &content);
    else
        drop_content(&content);
    return leave(kr);
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
    ENTER(task);
    if (more_than_one(flags & (MPO_SERVICE_PORT | MPO_CONNECTION_PORT | MPO_TG_BLOCK_TRACKING)) ||
        more_than_one(flags & (MPO_REPLY_PORT | MPO_ENFORCE_REPLY_PORT_SEMANTICS |
                               MPO_EXCEPTION_PORT | MPO_PROVISIONAL_REPLY_PORT)))
        return leave(KERN_INVALID_ARGUMENT);
    if (flags & (MPO_TG_BLOCK_TRACKING | MPO_SERVICE_PORT))
        return leave(KERN_DENIED);
    if (flags & MPO_CONNECTION_PORT && options->service_port_name == MACH_PORT_NULL)
        return leave(KERN_INVALID_ARGUMENT);
    if (flags & MPO_QLIMIT && options->mpl.mpl_qlimit > MACH_PORT_QLIMIT_MAX)
        return leave(KERN_INVALID_VALUE);
    kern_return_t kr = allocate(MACH_PORT_RIGHT_RECEIVE, name, &entry);
    if (kr != KERN_SUCCESS)
        return leave(kr);
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
    return leave(KERN_SUCCESS);
}

/* ---- dropping ------------------------------------------------------------------------------------ */

/*
 * The receive right dies. The name keeps its send references, soon of a dead name. Where a name
 * goes with its right, PORT_DELETED is told last, here and in the next function.
 */
static void destroy_receive(mach_port_name_t name, struct mio_entry *entry) {
    struct mio_port *port = entry->port;
    if (entry->type & MACH_PORT_TYPE_SEND) {
        mio_entry_take_receive(name, entry);
        mio_port_destroy(port);
        return;
    }
    struct mio_once *notify = mio_request_cancel(entry);
    mio_entry_take_receive(name, entry);
    mio_port_destroy(port);
    mio_notify_name(notify, MACH_NOTIFY_PORT_DELETED, name);
}

static void destroy_once(mach_port_name_t name, struct mio_entry *entry) {
    struct mio_once *notify = mio_request_cancel(entry), *once = entry->once;
    mio_entry_free(name, entry);
    mio_once_drop(once);
    mio_notify_name(notify, MACH_NOTIFY_PORT_DELETED, name);
}

static void destroy_set(mach_port_name_t name, struct mio_entry *entry) {
    struct mio_set *set = entry->set;
    mio_space_free(name);
    mio_set_destroy(set);
}

static void drop_dead_name(mach_port_name_t name, struct mio_entry *entry, unsigned urefs) {
    if (entry->urefs == MIO_UREFS_MAX && urefs != MIO_UREFS_MAX)
        return;
    entry->urefs -= urefs;
    if (entry->urefs == 0)
        mio_entry_free(name, entry);
}

kern_return_t mach_port_deallocate(ipc_space_t task, mach_port_name_t name) {
    if (!MACH_PORT_VALID(name))
        return task == mach_task_self_ ? KERN_SUCCESS : MACH_SEND_INVALID_DEST;
    ENTER(task);
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return leave(KERN_INVALID_NAME);
    if (entry->type & MACH_PORT_TYPE_SEND)
        mio_entry_drop_send(name, entry, 1);
    else if (entry->type & MACH_PORT_TYPE_SEND_ONCE)
        destroy_once(name, entry);
    else if (entry->type & MACH_PORT_TYPE_PORT_SET)
        destroy_set(name, entry);
    else if (entry->type & MACH_PORT_TYPE_DEAD_NAME)
        drop_dead_name(name, entry, 1);
    else
        return leave(KERN_INVALID_RIGHT);
    return leave(KERN_SUCCESS);
}

kern_return_t mach_port_destroy(ipc_space_t task, mach_port_name_t name) {
    if (!MACH_PORT_VALID(name))
        return task == mach_task_self_ ? KERN_SUCCESS : MACH_SEND_INVALID_DEST;
    ENTER(task);
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return leave(KERN_INVALID_NAME);
    if (entry->type & MACH_PORT_TYPE_RECEIVE && entry->port->guarded && entry->port->context != 0)
        return leave(KERN_INVALID_RIGHT);
    switch (entry->type & MACH_PORT_TYPE_ALL_RIGHTS) {
    case MACH_PORT_TYPE_SEND:
        mio_entry_drop_send(name, entry, entry->urefs);
        break;
    case MACH_PORT_TYPE_SEND_RECEIVE: {
        /* The send right goes first, but NO_SENDERS is told after the port's death. */
        struct mio_port *port = entry->port;
        struct mio_once *no_senders = NULL;
        natural_t mscount = port->mscount;
        if (port->srights == 1 && port->no_senders != NULL) {
            port->srights--;
            if (!mio_port_has_senders(port)) {
                no_senders = port->no_senders;
                port->no_senders = NULL;
                mio_notice_update_port(port);
            }
            port->srights++;
        }
        mio_entry_drop_send(name, entry, entry->urefs);
        destroy_receive(name, entry);
        mio_notify_count(no_senders, MACH_NOTIFY_NO_SENDERS, mscount);
        break;
    }
    case MACH_PORT_TYPE_RECEIVE:
        destroy_receive(name, entry);
        break;
    case MACH_PORT_TYPE_SEND_ONCE:
        destroy_once(name, entry);
        break;
    case MACH_PORT_TYPE_PORT_SET:
        destroy_set(name, entry);
        break;
    default:
        mio_entry_free(name, entry);
        break;
    }
    return leave(KERN_SUCCESS);
}

kern_return_t mach_port_destruct(ipc_space_t task, mach_port_name_t name, mach_port_delta_t srdelta,
                                 mach_port_context_t guard) {
    ENTER(task);
    struct mio_entry *entry = MACH_PORT_VALID(name) ? mio_entry_get(name) : NULL;
    if (entry == NULL)
        return leave(KERN_INVALID_NAME);
    if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
        return leave(KERN_INVALID_RIGHT);
    if (srdelta != 0 && !(entry->type & MACH_PORT_TYPE_SEND))
        return leave(KERN_INVALID_RIGHT);
    if (srdelta > 0)
        return leave(KERN_INVALID_VALUE);
    if (entry->port->guarded && guard != entry->port->context)
        return leave(KERN_INVALID_ARGUMENT);
    unsigned drop = (unsigned)-(int64_t)srdelta;
    if (drop > entry->urefs)
        return leave(KERN_INVALID_VALUE);
    if (drop > 0)
        mio_entry_drop_send(name, entry, drop);
    destroy_receive(name, entry);
    return leave(KERN_SUCCESS);
}

/* ---- counts ---------------------------------------------------------------------------------------- */

static mach_port_type_t type_of(mach_port_right_t right) {
    return right < MACH_PORT_RIGHT_NUMBER ? MACH_PORT_TYPE(right) : MACH_PORT_TYPE_NONE;
}

/* A right that can only be kept or dropped. */
static kern_return_t mod_single(mach_port_name_t name, struct mio_entry *entry,
                                mach_port_right_t right, mach_port_delta_t delta) {
    if (delta == 0)
        return KERN_SUCCESS;
    if (delta != -1)
        return KERN_INVALID_VALUE;
    switch (right) {
    case MACH_PORT_RIGHT_RECEIVE:
        if (entry->port->guarded)
            return KERN_INVALID_RIGHT;
        destroy_receive(name, entry);
        break;
    case MACH_PORT_RIGHT_SEND_ONCE:
        destroy_once(name, entry);
        break;
    default:
        destroy_set(name, entry);
        break;
    }
    return KERN_SUCCESS;
}

/* Send rights and dead names, which are counted. */
static kern_return_t mod_counted(mach_port_name_t name, struct mio_entry *entry,
                                 mach_port_delta_t delta) {
    int64_t wide = delta;
    if (wide > MIO_UREFS_MAX || wide < -(int64_t)MIO_UREFS_MAX || -wide > (int64_t)entry->urefs)
        return KERN_INVALID_VALUE;
    if (delta < 0) {
        if (entry->type & MACH_PORT_TYPE_SEND)
            mio_entry_drop_send(name, entry, (unsigned)-wide);
        else
            drop_dead_name(name, entry, (unsigned)-wide);
    } else if (entry->urefs + (unsigned)delta >= MIO_UREFS_MAX) {
        entry->urefs = MIO_UREFS_MAX;
    } else {
        entry->urefs += (unsigned)delta;
    }
    return KERN_SUCCESS;
}

kern_return_t mach_port_mod_refs(ipc_space_t task, mach_port_name_t name, mach_port_right_t right,
                                 mach_port_delta_t delta) {
    ENTER(task);
    if (right >= MACH_PORT_RIGHT_NUMBER)
        return leave(KERN_INVALID_VALUE);
    if (!MACH_PORT_VALID(name))
        return leave(right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_SEND_ONCE
                         ? KERN_SUCCESS
                         : KERN_INVALID_NAME);
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return leave(KERN_INVALID_NAME);
    if (!(entry->type & type_of(right)))
        return leave(KERN_INVALID_RIGHT);
    if (right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_DEAD_NAME)
        return leave(mod_counted(name, entry, delta));
    return leave(mod_single(name, entry, right, delta));
}

kern_return_t mach_port_get_refs(ipc_space_t task, mach_port_name_t name, mach_port_right_t right,
                                 mach_port_urefs_t *refs) {
    ENTER(task);
    if (right >= MACH_PORT_RIGHT_NUMBER)
        return leave(KERN_INVALID_VALUE);
    if (!MACH_PORT_VALID(name)) {
        if (right != MACH_PORT_RIGHT_SEND && right != MACH_PORT_RIGHT_SEND_ONCE)
            return leave(KERN_INVALID_NAME);
        *refs = 1;
        return leave(KERN_SUCCESS);
    }
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return leave(KERN_INVALID_NAME);
    bool counted = right == MACH_PORT_RIGHT_SEND || right == MACH_PORT_RIGHT_DEAD_NAME;
    *refs = !(entry->type & type_of(right)) ? 0 : counted ? entry->urefs : 1;
    return leave(KERN_SUCCESS);
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
    ENTER(task);
    if (name == MACH_PORT_DEAD) {
        *type = MACH_PORT_TYPE_DEAD_NAME;
        return leave(KERN_SUCCESS);
    }
    struct mio_entry *entry = mio_entry_get(name);
    if (entry == NULL)
        return leave(KERN_INVALID_NAME);
    *type = full_type(entry) & ~(MACH_PORT_TYPE_SPREQUEST | MACH_PORT_TYPE_SPREQUEST_DELAYED);
    return leave(KERN_SUCCESS);
}

kern_return_t mach_port_names(ipc_space_t task, mach_port_name_array_t *names,
                              mach_msg_type_number_t *names_count, mach_port_type_array_t *types,
                              mach_msg_type_number_t *types_count) {
    ENTER(task);
    uint32_t cursor = 0;
    struct mio_entry *entry;
    mach_msg_type_number_t n = 0;
    while (mio_space_next(&cursor, &entry) != MACH_PORT_NULL)
        n++;
    vm_address_t name_memory = 0, type_memory = 0;
    if (vm_allocate(mach_task_self(), &name_memory, n * sizeof(mach_port_name_t),
                    VM_FLAGS_ANYWHERE) != KERN_SUCCESS)
        return leave(KERN_RESOURCE_SHORTAGE);
    if (vm_allocate(mach_task_self(), &type_memory, n * sizeof(mach_port_type_t),
                    VM_FLAGS_ANYWHERE) != KERN_SUCCESS) {
        vm_deallocate(mach_task_self(), name_memory, n * sizeof(mach_port_name_t));
        return leave(KERN_RESOURCE_SHORTAGE);
    }
    cursor = 0;
    *names = (mach_port_name_array_t)name_memory;
    *types = (mach_port_type_array_t)type_memory;
    for (mach_msg_type_number_t i = 0; i < n; i++) {
        (*names)[i] = mio_space_next(&cursor, &entry);
        (*types)[i] = full_type(mio_entry_get((*names)[i]));
    }
    *names_count = *types_count = n;
    return leave(KERN_SUCCESS);
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
    ENTER(task);
    if (name == poly &&
        (poly_poly == MACH_MSG_TYPE_MAKE_SEND || poly_poly == MACH_MSG_TYPE_COPY_SEND))
        return leave(add_send(name, poly_poly));
    if (!MACH_PORT_VALID(poly) || mio_entry_get(poly) == NULL)
        return leave(KERN_INVALID_NAME);
    kern_return_t kr = mio_right_copyin(poly, poly_poly, &right);
    return leave(kr == KERN_SUCCESS ? mio_right_copyout_as(&right, name) : kr);
}

kern_return_t mach_port_extract_right(ipc_space_t task, mach_port_name_t name,
                                      mach_msg_type_name_t msgt_name, mach_port_t *poly,
                                      mach_msg_type_name_t *poly_poly) {
    struct mio_right right;
    ENTER(task);
    if (!MACH_MSG_TYPE_PORT_ANY(msgt_name))
        return leave(KERN_INVALID_VALUE);
    if (!MACH_PORT_VALID(name))
        return leave(KERN_INVALID_RIGHT);
    kern_return_t kr = mio_right_copyin(name, msgt_name, &right);
    if (kr != KERN_SUCCESS)
        return leave(kr);
    mach_msg_type_name_t type = right.disposition;
    mach_port_name_t new_name;
    kr = mio_right_copyout(&right, &new_name);
    if (kr != KERN_SUCCESS) {
        mio_right_destroy(&right);
        return leave(kr);
    }
    *poly = new_name;
    *poly_poly = type;
    return leave(KERN_SUCCESS);
}

/* ---- notifications ------------------------------------------------------------------------------------- */

static kern_return_t request_on_receive(struct mio_entry *entry, mach_msg_id_t id,
                                        mach_port_mscount_t sync, struct mio_once *notify,
                                        struct mio_once **ret_previous) {
    if (entry->type & MACH_PORT_TYPE_DEAD_NAME)
        return KERN_INVALID_NAME;
    if (!(entry->type & MACH_PORT_TYPE_RECEIVE))
        return KERN_INVALID_RIGHT;
    struct mio_port *port = entry->port;
    if (id == MACH_NOTIFY_PORT_DESTROYED) {
        if (port->destroyed != NULL)
            return KERN_FAILURE;
        port->destroyed = notify;
        return KERN_SUCCESS;
    }
    *ret_previous = port->no_senders;
    port->no_senders = NULL;
    bool senders = mio_port_has_senders(port);
    if (!senders && sync <= port->mscount && notify != NULL) {
        mio_notify_count(notify, MACH_NOTIFY_NO_SENDERS, port->mscount);
    } else {
        port->no_senders = notify;
        port->senders_seen = senders;
    }
    mio_notice_update_port(port);
    return KERN_SUCCESS;
}

static kern_return_t request(mach_port_name_t name, mach_msg_id_t id, mach_port_mscount_t sync,
                             struct mio_once *notify, struct mio_once **ret_previous) {
    struct mio_entry *entry = MACH_PORT_VALID(name) ? mio_entry_get(name) : NULL;
    switch (id) {
    case MACH_NOTIFY_PORT_DESTROYED:
        if (sync != 0)
            return KERN_INVALID_VALUE;
        /* fall through */
    case MACH_NOTIFY_NO_SENDERS:
        if (!MACH_PORT_VALID(name))
            return KERN_INVALID_RIGHT;
        return entry == NULL ? KERN_INVALID_NAME
                             : request_on_receive(entry, id, sync, notify, ret_previous);
    case MACH_NOTIFY_DEAD_NAME:
    case MACH_NOTIFY_SEND_POSSIBLE:
        if (!MACH_PORT_VALID(name))
            return KERN_INVALID_ARGUMENT;
        return entry == NULL ? KERN_INVALID_NAME
                             : mio_request_set(name, entry, id == MACH_NOTIFY_SEND_POSSIBLE,
                                               sync != 0, notify, ret_previous);
    default:
        return KERN_INVALID_VALUE;
    }
}

kern_return_t mach_port_request_notification(ipc_space_t task, mach_port_name_t name,
                                             mach_msg_id_t id, mach_port_mscount_t sync,
                                             mach_port_t notify, mach_msg_type_name_t notify_poly,
                                             mach_port_t *previous) {
    struct mio_right right = {.kind = MIO_RIGHT_NULL};
    struct mio_once *old = NULL;
    ENTER(task);
    if (notify_poly != MACH_MSG_TYPE_MAKE_SEND_ONCE && notify_poly != MACH_MSG_TYPE_MOVE_SEND_ONCE)
        return leave(MIG_TYPE_ERROR);
    if (notify == MACH_PORT_DEAD)
        return leave(KERN_INVALID_CAPABILITY);
    kern_return_t kr = mio_right_copyin(notify, notify_poly, &right);
    if (kr != KERN_SUCCESS)
        return leave(kr);
    if (right.kind == MIO_RIGHT_DEAD)
        return leave(KERN_INVALID_CAPABILITY);
    kr = request(name, id, sync, right.kind == MIO_RIGHT_ONCE ? right.once : NULL, &old);
    if (kr != KERN_SUCCESS) {
        mio_right_destroy(&right);
        return leave(kr);
    }
    struct mio_right old_right = {.kind = old != NULL ? MIO_RIGHT_ONCE : MIO_RIGHT_NULL,
                                  .once = old};
    mach_port_name_t old_name;
    kr = mio_right_copyout(&old_right, &old_name);
    if (kr != KERN_SUCCESS) {
        mio_right_destroy(&old_right);
        return leave(kr);
    }
    if (old_name == MACH_PORT_DEAD)
        return leave(KERN_INVALID_CAPABILITY);
    *previous = old_name;
    return leave(KERN_SUCCESS);
}
