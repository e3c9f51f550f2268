"""construct, guard, context, attributes."""

from __future__ import annotations

import struct

import pytest
from kit import (
    LIMITS_INFO,
    MAKE_SEND,
    MOVE_RECEIVE,
    NULL,
    RECEIVE,
    RECEIVE_STATUS,
    TYPE_SEND_RECEIVE,
    attributes,
    call,
    code,
    construct,
    context,
    dead_name,
    destroy,
    destruct,
    exists,
    ffi,
    guard,
    kill,
    lib,
    mod_refs,
    once,
    out,
    qlimit,
    receive_right,
    refs,
    set_attributes,
    set_context,
    srights,
    status,
    type_of,
    unguard,
    with_send,
)
from letters import port, send, take
from tasks import Line, Task

GUARDED, STRICT, IMMOVABLE = 0x02, 0x04, 0x40


def test_S_064_construct_with_a_send_right() -> None:
    """A port can be born with a send right and a context, which is no guard."""
    name = construct(lib.MPO_INSERT_SEND_RIGHT, 0x42)
    assert type_of(name) == TYPE_SEND_RECEIVE
    assert (refs(name), status(name).mscount) == (1, 1)
    assert context(name) == 0x42
    assert status(name).flags == 0


def test_S_065_construct_with_a_queue_limit() -> None:
    """A port can be born with a queue limit of up to 1024."""
    assert qlimit(construct(lib.MPO_QLIMIT, limit=1024)) == 1024
    assert code(construct, lib.MPO_QLIMIT, limit=1025) == "KERN_INVALID_VALUE"


def test_S_066_construct_with_two_kinds_of_reply_port() -> None:
    """A port cannot be a reply port and demand reply ports of its senders."""
    flags = 0x1000 | 0x2000  # MPO_REPLY_PORT, MPO_ENFORCE_REPLY_PORT_SEMANTICS
    assert code(construct, flags) == "KERN_INVALID_ARGUMENT"


def test_S_067_construct_with_a_guard() -> None:
    """The context becomes the guard on demand; a strict guard does not show."""
    name = construct(lib.MPO_CONTEXT_AS_GUARD, 7)
    assert (status(name).flags, context(name)) == (GUARDED, 7)
    strict = construct(lib.MPO_CONTEXT_AS_GUARD | lib.MPO_STRICT, 7)
    assert (status(strict).flags, context(strict)) == (GUARDED | STRICT, 0)
    destruct(name, 0, 7)
    destruct(strict, 0, 7)


@pytest.mark.apart
def test_S_068_a_guard_keeps_the_receive_right() -> None:
    """A guarded port is destroyed only by who knows the guard."""
    name = construct(lib.MPO_CONTEXT_AS_GUARD, 7)
    assert code(mod_refs, name, RECEIVE, -1) == "KERN_INVALID_RIGHT"
    assert code(destroy, name) == "KERN_INVALID_RIGHT"
    assert code(destruct, name, 0, 8) == "KERN_INVALID_ARGUMENT"
    destruct(name, 0, 7)
    assert not exists(name)


@pytest.mark.apart
def test_S_069_contexts_of_guarded_ports() -> None:
    """A strict guard keeps the context too; setting it changes a plain guard."""
    strict = construct(lib.MPO_CONTEXT_AS_GUARD | lib.MPO_STRICT, 7)
    assert code(set_context, strict, 9) == "KERN_INVALID_ARGUMENT"
    destruct(strict, 0, 7)
    plain = construct(lib.MPO_CONTEXT_AS_GUARD, 7)
    set_context(plain, 9)
    destruct(plain, 0, 9)


@pytest.mark.apart
def test_S_070_guard_and_unguard() -> None:
    """A port is guarded once, and unguarded once by who knows the guard."""
    name = receive_right()
    guard(name, 5)
    assert code(guard, name, 5) == "KERN_INVALID_ARGUMENT"
    assert code(unguard, name, 6) == "KERN_INVALID_ARGUMENT"
    unguard(name, 5)
    assert context(name) == 0
    assert code(unguard, name, 5) == "KERN_INVALID_ARGUMENT"


@pytest.mark.apart
def test_S_071_a_guard_needs_a_free_context() -> None:
    """A port whose context is not 0 cannot be guarded."""
    name = receive_right()
    set_context(name, 5)
    assert code(guard, name, 5) == "KERN_INVALID_ARGUMENT"
    assert status(name).flags == 0


def test_S_072_a_move_drops_the_guard() -> None:
    """A guarded receive right that may move loses its guard on the way."""
    name, carrier = receive_right(), with_send()
    guard(name, 5)
    assert send(carrier, rights=[port(name, MOVE_RECEIVE)]) == "KERN_SUCCESS"
    (moved,) = take(carrier).descriptors
    assert (status(moved.name).flags, context(moved.name)) == (0, 0)
    kill(moved.name)


@pytest.mark.apart
def test_S_073_an_immovable_right_stays() -> None:
    """A receive right guarded as immovable is not moved: MACH_SEND_INVALID_RIGHT."""
    name, carrier = receive_right(), with_send()
    call("mach_port_guard_with_flags", name, 5, lib.MPG_IMMOVABLE_RECEIVE)
    assert status(name).flags == GUARDED | IMMOVABLE
    refused = send(carrier, rights=[port(name, MOVE_RECEIVE)])
    assert refused == "MACH_SEND_INVALID_RIGHT"
    destruct(name, 0, 5)


def test_S_074_attributes_of_nothing() -> None:
    """Too small counts, unknown flavors, and what the flavors say of MACH_PORT_NULL."""
    name = receive_right()
    assert code(attributes, name, LIMITS_INFO, 0) == "KERN_FAILURE"
    assert code(attributes, name, 99, 10) == "KERN_INVALID_ARGUMENT"
    assert attributes(NULL, LIMITS_INFO, 1) == []
    assert code(attributes, NULL, RECEIVE_STATUS, 10) == "KERN_INVALID_RIGHT"


def test_S_075_attributes_without_a_receive_right() -> None:
    """A send right has no status: KERN_INVALID_RIGHT; nor has a dead name: KERN_INVALID_NAME."""

    def holder(line: Line):
        yield code(status, line.take())

    name = receive_right()
    with Task(holder) as task:
        task.give(name, MAKE_SEND)
        assert task.answer() == "KERN_INVALID_RIGHT"
    assert code(status, dead_name()) == "KERN_INVALID_NAME"


def test_S_076_attributes_that_are_not_set() -> None:
    """A limit above 1024 is no value, the status cannot be set, and NULL is no receive right."""
    name = receive_right()
    assert code(set_attributes, name, LIMITS_INFO, [1025]) == "KERN_INVALID_VALUE"
    assert code(set_attributes, name, RECEIVE_STATUS, [0] * 10) == "KERN_INVALID_ARGUMENT"
    assert code(set_attributes, NULL, LIMITS_INFO, [1]) == "KERN_INVALID_RIGHT"
    assert qlimit(name) == 5


def test_S_077_set_the_counts() -> None:
    """mscount and seqno can be set; the next message received has the number that was set."""
    name = with_send()
    call("mach_port_set_mscount", name, 9)
    call("mach_port_set_seqno", name, 40)
    assert (status(name).mscount, status(name).seqno) == (9, 40)
    assert send(name) == "KERN_SUCCESS"
    trailer = take(name, lib.MACH_RCV_TRAILER_ELEMENTS(lib.MACH_RCV_TRAILER_SEQNO)).trailer
    assert struct.unpack_from("=I", trailer, 8) == (40,)


def test_S_078_counts_of_null() -> None:
    """MACH_PORT_NULL is no name to mach_port_get_srights and no right to set_mscount."""
    assert code(srights, NULL) == "KERN_INVALID_NAME"
    assert code(call, "mach_port_set_mscount", NULL, 1) == "KERN_INVALID_RIGHT"


def test_S_079_an_ordinary_port_is_no_kernel_object() -> None:
    """mach_port_kobject tells type 0 for a port, and wants a send or receive right."""
    name = receive_right()
    kind, address = out("natural_t *"), out("mach_vm_address_t *")
    kind[0] = 99
    call("mach_port_kobject", name, kind, address)
    assert kind[0] == 0
    assert code(call, "mach_port_kobject", once(name), kind, address) == "KERN_INVALID_RIGHT"


def peek(name: int, elements: int = 0) -> tuple[int, int, int]:
    """Return the number, the size and the id of the first message."""
    seqno, size, id_ = out("mach_port_seqno_t *"), out("mach_msg_size_t *"), out("mach_msg_id_t *")
    trailer, trailer_size = ffi.new("char[68]"), ffi.new("mach_msg_type_number_t *", 68)
    kind = lib.MACH_RCV_TRAILER_ELEMENTS(elements)
    call("mach_port_peek", name, kind, seqno, size, id_, trailer, trailer_size)
    return seqno[0], size[0], id_[0]


def test_S_080_peek() -> None:
    """A look at the first message tells its id and its size (and 8 more), and leaves it there."""
    name = with_send()
    assert code(peek, name) == "KERN_FAILURE"
    assert send(name, id=5) == "KERN_SUCCESS"
    assert peek(name) == (0, 24 + 8, 5)
    assert status(name).msgcount == 1
    assert take(name).header.msgh_id == 5


@pytest.mark.apart
def test_S_081_peek_shows_no_context() -> None:
    """A trailer with a context cannot be peeked at."""
    name = with_send()
    assert send(name) == "KERN_SUCCESS"
    assert code(peek, name, lib.MACH_RCV_TRAILER_CTX) == "KERN_INVALID_VALUE"
