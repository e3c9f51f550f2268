"""What the conformance tests are written with: Mach's calls, on plain names.

A call that succeeds returns what it gives; one that fails raises `CallError`. `code(call, ...)`
turns either into the name of the return code, which is what most tests compare.

Nothing here cleans up: after each test everything that its task did not hold before is destroyed,
and what then is left over fails the test (see conftest.py).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from machio._mach import ffi, lib

NULL, DEAD = 0, 0xFFFFFFFF

SEND, RECEIVE, SEND_ONCE, PORT_SET, DEAD_NAME, LABELH = range(6)
MOVE_RECEIVE, MOVE_SEND, MOVE_SEND_ONCE, COPY_SEND, MAKE_SEND, MAKE_SEND_ONCE = range(16, 22)
TYPE_SEND, TYPE_RECEIVE, TYPE_SEND_ONCE, TYPE_PORT_SET, TYPE_DEAD_NAME = (
    0x10000 << right for right in range(5)
)
TYPE_SEND_RECEIVE = TYPE_SEND | TYPE_RECEIVE
DNREQUEST = 0x80000000
PORT_DELETED, SEND_POSSIBLE = 65, 66
PORT_DESTROYED, NO_SENDERS, SEND_ONCE_GONE, DEAD_NAMED = range(69, 73)
LIMITS_INFO, RECEIVE_STATUS = 1, 2


# --- return codes --------------------------------------------------------------------------------


def _in_range(name: str, value: int) -> bool:
    if name.startswith("KERN_"):
        return value <= 56
    if name.startswith(("MACH_SEND_", "MACH_RCV_")):
        return value >= 0x10000000
    return (name.startswith("BOOTSTRAP_") and value >= 1100) or name.startswith("MIG_")


CODES = {
    value: name
    for name in dir(lib)
    if isinstance(value := getattr(lib, name), int) and _in_range(name, value)
}


def code_name(value: int) -> str:
    return CODES.get(value, hex(value & 0xFFFFFFFF))


class CallError(Exception):
    """A call returned something else than success."""

    def __init__(self, value: int, call: str) -> None:
        super().__init__(f"{call}: {code_name(value)}")
        self.value = value


def code(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Make a call and return the name of its code."""
    try:
        call(*arguments, **options)
    except CallError as error:
        return code_name(error.value)
    return "KERN_SUCCESS"


def call(name: str, *arguments: Any) -> None:
    """Call lib's `name` on this task; raises `CallError`."""
    if value := getattr(lib, name)(lib.mach_task_self(), *arguments):
        raise CallError(value, name)


def out(type_: str = "mach_port_name_t *") -> Any:
    return ffi.new(type_)


# --- names ---------------------------------------------------------------------------------------


def allocate(right: int = RECEIVE) -> int:
    name = out()
    call("mach_port_allocate", right, name)
    return name[0]


def allocate_name(right: int, name: int) -> None:
    call("mach_port_allocate_name", right, name)


def receive_right(qlimit: int | None = None) -> int:
    """Make P: a fresh receive right."""
    port = allocate()
    if qlimit is not None:
        set_qlimit(port, qlimit)
    return port


def with_send(qlimit: int | None = None, urefs: int = 1) -> int:
    """Make PS: a fresh receive right with send urefs under the same name."""
    port = receive_right(qlimit)
    for _ in range(urefs):
        insert(port, port, MAKE_SEND)
    return port


def port_set(*members: int) -> int:
    name = allocate(PORT_SET)
    for member in members:
        insert_member(member, name)
    return name


def once(port: int) -> int:
    """Make a send-once right to `port` under a name of its own."""
    return extract(port, MAKE_SEND_ONCE)[0]


def dead_name(urefs: int = 1) -> int:
    name = allocate(DEAD_NAME)
    mod_refs(name, DEAD_NAME, urefs - 1)
    return name


def free_name() -> int:
    """Return a valid name that stands for nothing and is not handed out next."""
    name = allocate(DEAD_NAME)
    deallocate(name)
    return name


def deallocate(name: int) -> None:
    call("mach_port_deallocate", name)


def destroy(name: int) -> None:
    call("mach_port_destroy", name)


def mod_refs(name: int, right: int, delta: int) -> None:
    call("mach_port_mod_refs", name, right, delta)


def kill(port: int) -> None:
    mod_refs(port, RECEIVE, -1)


def refs(name: int, right: int = SEND) -> int:
    count = out("mach_port_urefs_t *")
    call("mach_port_get_refs", name, right, count)
    return count[0]


def type_of(name: int) -> int:
    kind = out("mach_port_type_t *")
    call("mach_port_type", name, kind)
    return kind[0]


def exists(name: int) -> bool:
    return code(type_of, name) != "KERN_INVALID_NAME"


def take_array(address: Any, count: int) -> list[int]:
    """Copy an out-of-line array of words, and free it."""
    words = list(ffi.unpack(address, count)) if count else []
    if count:
        call("vm_deallocate", int(ffi.cast("uintptr_t", address)), 4 * count)
    return words


def all_names() -> dict[int, int]:
    """Map the names of this task to their types, as mach_port_names tells."""
    names, types = out("mach_port_name_array_t *"), out("mach_port_type_array_t *")
    counts = ffi.new("mach_msg_type_number_t[2]")
    call("mach_port_names", names, counts, types, counts + 1)
    assert counts[0] == counts[1]
    return dict(zip(take_array(names[0], counts[0]), take_array(types[0], counts[1]), strict=True))


def insert(name: int, poly: int, disposition: int) -> None:
    call("mach_port_insert_right", name, poly, disposition)


def extract(name: int, disposition: int) -> tuple[int, int]:
    """Return the name and the disposition of what came out."""
    poly, kind = out(), out("mach_msg_type_name_t *")
    call("mach_port_extract_right", name, disposition, poly, kind)
    return poly[0], kind[0]


def move_member(member: int, after: int) -> None:
    call("mach_port_move_member", member, after)


def insert_member(member: int, pset: int) -> None:
    call("mach_port_insert_member", member, pset)


def extract_member(member: int, pset: int) -> None:
    call("mach_port_extract_member", member, pset)


def members(pset: int) -> list[int]:
    names, count = out("mach_port_name_array_t *"), out("mach_msg_type_number_t *")
    call("mach_port_get_set_status", pset, names, count)
    return take_array(names[0], count[0])


# --- what a port knows of itself -----------------------------------------------------------------


def attributes(name: int, flavor: int, count: int) -> list[int]:
    info, counted = ffi.new("integer_t[32]"), ffi.new("mach_msg_type_number_t *", count)
    call("mach_port_get_attributes", name, flavor, info, counted)
    return list(info)[: counted[0]]


_STATUS = ["pset", "seqno", "mscount", "qlimit", "msgcount", "sorights", "srights"]
_STATUS += ["pdrequest", "nsrequest", "flags"]


def status(name: int) -> SimpleNamespace:
    return SimpleNamespace(**dict(zip(_STATUS, attributes(name, RECEIVE_STATUS, 10), strict=True)))


def set_attributes(name: int, flavor: int, words: list[int]) -> None:
    call("mach_port_set_attributes", name, flavor, ffi.new("integer_t[]", words), len(words))


def qlimit(name: int) -> int:
    return attributes(name, LIMITS_INFO, 1)[0]


def set_qlimit(name: int, limit: int) -> None:
    set_attributes(name, LIMITS_INFO, [limit])


def srights(name: int) -> int:
    count = out("mach_port_rights_t *")
    call("mach_port_get_srights", name, count)
    return count[0]


def context(name: int) -> int:
    value = out("mach_port_context_t *")
    call("mach_port_get_context", name, value)
    return value[0]


def set_context(name: int, value: int) -> None:
    call("mach_port_set_context", name, value)


def guard(name: int, value: int, strict: bool = False) -> None:
    call("mach_port_guard", name, value, strict)


def unguard(name: int, value: int) -> None:
    call("mach_port_unguard", name, value)


def construct(flags: int, value: int = 0, limit: int = 0) -> int:
    options, name = out("mach_port_options_t *"), out()
    options.flags, options.mpl.mpl_qlimit = flags, limit
    call("mach_port_construct", options, value, name)
    return name[0]


def destruct(name: int, srdelta: int = 0, value: int = 0) -> None:
    call("mach_port_destruct", name, srdelta, value)


def request(name: int, id: int, sync: int, notify: int, disposition: int = MAKE_SEND_ONCE) -> int:
    """Request a notification and return the right that was registered before."""
    previous = out()
    call("mach_port_request_notification", name, id, sync, notify, disposition, previous)
    return previous[0]


# --- memory --------------------------------------------------------------------------------------


def vm_allocate(size: int, data: bytes = b"") -> int:
    """Allocate whole pages that begin with `data`, and return their address."""
    address = out("vm_address_t *")
    call("vm_allocate", address, size, lib.VM_FLAGS_ANYWHERE)
    ffi.memmove(ffi.cast("char *", address[0]), data, len(data))
    return address[0]


def vm_deallocate(address: int, size: int) -> None:
    call("vm_deallocate", address, size)
