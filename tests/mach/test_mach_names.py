"""Names, allocate, type, refs."""

from __future__ import annotations

from kit import (
    DEAD,
    DEAD_NAME,
    LABELH,
    NULL,
    PORT_SET,
    RECEIVE,
    SEND,
    SEND_ONCE,
    TYPE_DEAD_NAME,
    TYPE_PORT_SET,
    TYPE_RECEIVE,
    all_names,
    allocate,
    allocate_name,
    attributes,
    call,
    code,
    ffi,
    kill,
    lib,
    out,
    receive_right,
    refs,
    type_of,
)


def test_S_009_allocate_a_receive_right() -> None:
    """A new receive right has a name whose low bits are set and whose index is not 0."""
    port = allocate(RECEIVE)
    assert port & 3 == 3
    assert port >= 0x100
    assert type_of(port) == TYPE_RECEIVE == 0x20000


def test_S_010_allocate_sets_and_dead_names() -> None:
    """Port sets and dead names can be allocated; a dead name is born with one uref."""
    assert type_of(allocate(PORT_SET)) == TYPE_PORT_SET == 0x80000
    dead = allocate(DEAD_NAME)
    assert type_of(dead) == TYPE_DEAD_NAME == 0x100000
    assert refs(dead, DEAD_NAME) == 1


def test_S_011_other_rights_are_not_allocated() -> None:
    """Send rights, send-once rights and unknown kinds give KERN_INVALID_VALUE."""
    for right in (SEND, SEND_ONCE, 99):
        assert code(allocate, right) == "KERN_INVALID_VALUE"


def test_S_012_refs_of_a_fresh_port() -> None:
    """A fresh port has one receive reference and none of any other kind."""
    port = receive_right()
    counts = [refs(port, right) for right in (RECEIVE, SEND, SEND_ONCE, PORT_SET, DEAD_NAME)]
    assert counts == [1, 0, 0, 0, 0]
    assert refs(port, LABELH) == 0
    assert code(refs, port, 6) == "KERN_INVALID_VALUE"


def test_S_013_status_of_a_fresh_port() -> None:
    """All counts of a fresh port are 0, but for its queue limit of 5."""
    status = attributes(receive_right(), lib.MACH_PORT_RECEIVE_STATUS, 10)
    assert status == [0, 0, 0, 5, 0, 0, 0, 0, 0, 0]


def test_S_014_types_of_null_and_dead() -> None:
    """MACH_PORT_NULL has no type; MACH_PORT_DEAD is a dead name."""
    assert code(type_of, NULL) == "KERN_INVALID_NAME"
    assert type_of(DEAD) == TYPE_DEAD_NAME


def test_S_015_refs_of_null_and_dead() -> None:
    """NULL and DEAD count as one send and one send-once reference, and as nothing else."""
    assert refs(NULL, SEND) == 1
    assert refs(DEAD, SEND_ONCE) == 1
    assert code(refs, NULL, RECEIVE) == "KERN_INVALID_NAME"


def test_S_016_a_freed_name_is_not_reused_at_once() -> None:
    """The allocation after a free gives another name, and the freed one stands for nothing."""
    freed = receive_right()
    kill(freed)
    assert receive_right() != freed
    assert code(type_of, freed) == "KERN_INVALID_NAME"


def test_S_017_impossible_names() -> None:
    """A chosen name needs its low bits set and an index other than 0."""
    assert code(allocate_name, RECEIVE, 0x7B) == "KERN_FAILURE"
    assert code(allocate_name, RECEIVE, 0x7A) == "KERN_INVALID_VALUE"
    assert code(allocate_name, RECEIVE, 0) == "KERN_INVALID_VALUE"


def test_S_018_a_chosen_name() -> None:
    """A right is made under the name asked for, unless that name or its index is in use."""
    allocate_name(RECEIVE, 0x10003)
    assert type_of(0x10003) == TYPE_RECEIVE
    assert code(allocate_name, RECEIVE, 0x10003) == "KERN_NAME_EXISTS"
    assert code(allocate_name, RECEIVE, 0x10007) == "KERN_FAILURE"


def test_S_019_a_dead_name_cannot_be_chosen() -> None:
    """Allocating a dead name under a chosen name succeeds under another one."""
    before = set(all_names())
    allocate_name(DEAD_NAME, 0x11003)
    assert code(type_of, 0x11003) == "KERN_INVALID_NAME"
    (made,) = set(all_names()) - before
    assert type_of(made) == TYPE_DEAD_NAME


def test_S_020_qos_and_protocols() -> None:
    """allocate_qos takes no chosen name, and allocate_full takes no protocol."""
    name, qos = out(), out("mach_port_qos_t *")
    ffi.buffer(qos)[0] = b"\x01"  # name: 1, the lowest of the bit-fields
    asked = RECEIVE, qos, name
    assert code(call, "mach_port_allocate_qos", *asked) == "KERN_INVALID_ARGUMENT"
    qos = out("mach_port_qos_t *")
    proto = receive_right()
    full = RECEIVE, proto, qos, name
    assert code(call, "mach_port_allocate_full", *full) == "KERN_INVALID_VALUE"


def test_S_021_all_names() -> None:
    """mach_port_names lists the port with its type, in arrays of one length."""
    port = receive_right()
    assert all_names()[port] == TYPE_RECEIVE


def test_S_022_names_are_not_changed() -> None:
    """mach_port_rename is refused: MIG_BAD_ID or KERN_NOT_SUPPORTED."""
    port = receive_right()
    refused = code(call, "mach_port_rename", port, 0x12003)
    assert refused in ("MIG_BAD_ID", "KERN_NOT_SUPPORTED")
    assert type_of(port) == TYPE_RECEIVE


def test_S_023_no_task() -> None:
    """Without a task the calls fail as a message to nobody does: MACH_SEND_INVALID_DEST."""
    port = receive_right()
    refused = lib.MACH_SEND_INVALID_DEST
    assert lib.mach_port_allocate(NULL, RECEIVE, out()) == refused
    assert lib.mach_port_deallocate(NULL, port) == refused
    assert lib.mach_port_mod_refs(NULL, port, RECEIVE, -1) == refused
    assert type_of(port) == TYPE_RECEIVE
