"""Pseudo-receive."""

from __future__ import annotations

import pytest
from kit import (
    COPY_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    SEND_ONCE_GONE,
    TYPE_RECEIVE,
    TYPE_SEND_ONCE,
    call,
    dead_name,
    exists,
    ffi,
    free_name,
    lib,
    receive_right,
    refs,
    status,
    type_of,
    vm_allocate,
    vm_deallocate,
    with_send,
)
from letters import Buffer, fill, ids, message, ool, port, take

PAGE = lib.vm_page_size
TIMED_OUT = "MACH_SEND_TIMED_OUT"


def full_port() -> int:
    name = with_send(qlimit=1)
    fill(name)
    return name


def timed_out(*arguments: int, **fields: object) -> Buffer:
    """Send to a full port, and return the buffer as the call left it."""
    buffer = message(*arguments, **fields)
    assert buffer.send() == TIMED_OUT
    return buffer


def is_mapped(address: int) -> bool:
    """Tell whether memory at an address can be sent."""
    sink = with_send()
    buffer = message(sink, rights=[ool(address, 1)])
    return buffer.send() == "KERN_SUCCESS"


def test_S_126_the_destination_comes_back() -> None:
    """A timed-out COPY_SEND gives the sender a send uref more, as a right to move."""
    name = full_port()
    before = refs(name)
    buffer = timed_out(name, COPY_SEND)
    assert lib.MACH_MSGH_BITS_REMOTE(buffer.header.msgh_bits) == 17
    assert buffer.header.msgh_remote_port == name
    assert refs(name) == before + 1
    assert buffer.header.msgh_size == 24


def test_S_127_the_reply_right_comes_back() -> None:
    """A reply right made as send-once comes back under a new name, and is not dropped."""
    name, reply = full_port(), receive_right()
    buffer = timed_out(name, COPY_SEND, reply, MAKE_SEND_ONCE)
    assert type_of(buffer.header.msgh_local_port) == TYPE_SEND_ONCE
    assert lib.MACH_MSGH_BITS_LOCAL(buffer.header.msgh_bits) == 18
    assert ids(reply) == []
    assert status(reply).sorights == 1


def test_S_128_a_copied_right_comes_back() -> None:
    """A send right copied into the body comes back as one uref more, to be moved."""
    carried = with_send()
    buffer = timed_out(full_port(), rights=[port(carried, COPY_SEND)])
    (right,) = buffer.descriptors
    assert (right.name, right.disposition) == (carried, MOVE_SEND)
    assert refs(carried) == 2


def test_S_129_a_receive_right_comes_back() -> None:
    """A receive right moved into the body comes back under a new name, with its counts reset."""
    carried = receive_right()
    call("mach_port_set_mscount", carried, 9)
    call("mach_port_set_seqno", carried, 9)
    buffer = timed_out(full_port(), rights=[port(carried, MOVE_RECEIVE)])
    (right,) = buffer.descriptors
    assert right.name != carried
    assert not exists(carried)
    assert type_of(right.name) == TYPE_RECEIVE
    assert (status(right.name).mscount, status(right.name).seqno) == (0, 0)


def test_S_130_copied_memory_comes_back_as_a_copy() -> None:
    """Memory that the sender kept comes back as a copy of its own at another address."""
    original = vm_allocate(PAGE, b"out of line")
    buffer = timed_out(full_port(), rights=[ool(original, PAGE)])
    (copy,) = buffer.descriptors
    assert copy.address != original
    assert copy.data()[:11] == b"out of line"
    assert ffi.string(ffi.cast("char *", original)) == b"out of line"
    vm_deallocate(copy.address, PAGE)
    vm_deallocate(original, PAGE)


def test_S_131_given_memory_comes_back_once() -> None:
    """Memory that the sender gave away comes back, once, where the descriptor says."""
    original = vm_allocate(PAGE, b"out of line")
    buffer = timed_out(full_port(), rights=[ool(original, PAGE, deallocate=1)])
    (copy,) = buffer.descriptors
    assert copy.data()[:11] == b"out of line"
    assert copy.deallocate == 1
    assert copy.address == original or not is_mapped(original)
    vm_deallocate(copy.address, PAGE)


def test_S_132_send_again_what_came_back() -> None:
    """The buffer of a timed-out send can be sent as it is, and then no uref is left over."""
    name, reply, carried = full_port(), receive_right(), with_send()
    before = refs(name), refs(carried)
    buffer = timed_out(name, COPY_SEND, reply, MAKE_SEND_ONCE, rights=[port(carried, COPY_SEND)])
    take(name)
    assert buffer.send() == "KERN_SUCCESS"
    assert (refs(name), refs(carried)) == before
    received = take(name)
    assert lib.MACH_MSGH_BITS_REMOTE(received.header.msgh_bits) == MOVE_SEND_ONCE
    assert received.descriptors[0].name == carried


@pytest.mark.apart
def test_S_133_a_bad_right_in_the_body() -> None:
    """A bad descriptor destroys the message with all before it; the buffer stays as it was."""
    name, reply, carried = with_send(), receive_right(), with_send(urefs=2)
    rights = [port(carried, MOVE_SEND), port(free_name(), COPY_SEND)]
    buffer = message(name, COPY_SEND, reply, MAKE_SEND_ONCE, rights=rights)
    before = buffer.bytes[:]
    assert buffer.send() == "MACH_SEND_INVALID_RIGHT"
    assert buffer.bytes[:] == before
    assert refs(carried) == 1
    assert ids(reply) == [SEND_ONCE_GONE]
    assert status(name).msgcount == 0


def test_S_134_an_unknown_descriptor() -> None:
    """An unknown type of descriptor is found first of all, and nothing is taken."""
    name, reply = with_send(), receive_right()
    unknown = bytes(11) + b"\x09"
    for dest in (name, dead_name()):
        buffer = message(dest, COPY_SEND, reply, MAKE_SEND_ONCE, rights=[unknown])
        assert buffer.send() == "MACH_SEND_INVALID_TYPE"
    assert ids(reply) == []
    assert status(reply).sorights == 0


def test_S_135_bad_memory() -> None:
    """An unknown copy option is no type; unmapped memory fails after the rights were taken."""
    name, reply = with_send(), receive_right()
    address = vm_allocate(PAGE)
    buffer = message(name, COPY_SEND, reply, MAKE_SEND_ONCE, rights=[ool(address, PAGE, copy=2)])
    assert buffer.send() == "MACH_SEND_INVALID_TYPE"
    assert ids(reply) == []
    vm_deallocate(address, PAGE)
    buffer = message(name, COPY_SEND, reply, MAKE_SEND_ONCE, rights=[ool(address, PAGE)])
    assert buffer.send() == "MACH_SEND_INVALID_MEMORY"
    assert ids(reply) == [SEND_ONCE_GONE]
