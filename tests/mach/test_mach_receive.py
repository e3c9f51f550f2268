"""Receive errors and sizes."""

from __future__ import annotations

import os
import struct

import pytest
from kit import (
    COPY_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    NULL,
    SEND_ONCE_GONE,
    dead_name,
    deallocate,
    free_name,
    insert_member,
    kill,
    lib,
    move_member,
    once,
    port_set,
    receive_right,
    set_context,
    status,
    with_send,
)
from letters import Buffer, ids, port, send, take
from tasks import Line, Task
from threads import Blocked

TOO_LARGE = "MACH_RCV_TOO_LARGE"
INVALID_NAME = "MACH_RCV_INVALID_NAME"
LARGE, IDENTITY = lib.MACH_RCV_LARGE, lib.MACH_RCV_LARGE_IDENTITY


def trailer(elements: int) -> int:
    return lib.MACH_RCV_TRAILER_ELEMENTS(elements)


AUDIT = trailer(lib.MACH_RCV_TRAILER_AUDIT)


@pytest.mark.apart
def test_S_157_nothing_to_receive_from() -> None:
    """Unused names, NULL, dead names, send and send-once rights: MACH_RCV_INVALID_NAME."""
    buffer = Buffer()
    for name in (free_name(), NULL, dead_name(), once(receive_right())):
        assert buffer.receive(name) == INVALID_NAME

    def holder(line: Line):
        yield Buffer().receive(line.outbox)

    with Task(holder) as task:
        assert task.answer() == INVALID_NAME


def test_S_158_a_buffer_that_is_too_small() -> None:
    """A message that does not fit with its trailer is destroyed; its header tells its id."""
    name = with_send()
    assert send(name, id=158) == "KERN_SUCCESS"
    buffer = Buffer()
    assert buffer.receive(name, size=31) == TOO_LARGE
    assert (buffer.header.msgh_size, buffer.header.msgh_id) == (24, 158)
    assert status(name).msgcount == 0


def test_S_159_a_large_message_stays() -> None:
    """With MACH_RCV_LARGE it stays queued, and its size is told; its port only on demand."""
    name = with_send()
    assert send(name) == "KERN_SUCCESS"
    buffer = Buffer()
    assert buffer.receive(name, LARGE, size=31) == TOO_LARGE
    assert buffer.header.msgh_size == 24
    assert buffer.header.msgh_local_port == 0xA5A5A5A5
    assert status(name).msgcount == 1
    assert buffer.receive(name, LARGE | IDENTITY, size=31) == TOO_LARGE
    assert buffer.header.msgh_local_port == name


def test_S_160_room_for_message_and_trailer() -> None:
    """24 bytes need 32 for the smallest trailer, and 76 for the audit trailer."""
    name, buffer = with_send(), Buffer()
    assert send(name) == send(name) == "KERN_SUCCESS"
    assert buffer.receive(name, size=32) == "KERN_SUCCESS"
    assert buffer.receive(name, AUDIT | LARGE, size=75) == TOO_LARGE
    assert buffer.receive(name, AUDIT, size=76) == "KERN_SUCCESS"


def test_S_161_rights_of_a_destroyed_message() -> None:
    """The send-once reply right of a message that did not fit ends as message 71."""
    name, reply = with_send(), receive_right()
    assert send(name, COPY_SEND, reply, MAKE_SEND_ONCE) == "KERN_SUCCESS"
    assert Buffer().receive(name, size=31) == TOO_LARGE
    assert ids(reply) == [SEND_ONCE_GONE]


def test_S_162_no_room_for_a_header() -> None:
    """Size 0 asks whether a message is there; without MACH_RCV_LARGE a small buffer loses it."""
    name, buffer = with_send(), Buffer()
    assert send(name) == "KERN_SUCCESS"
    assert buffer.receive(name, LARGE, size=0) == TOO_LARGE
    assert set(buffer.bytes[:]) == {0xA5}
    assert status(name).msgcount == 1
    assert buffer.receive(name, size=16) == "MACH_RCV_INVALID_DATA"
    assert status(name).msgcount == 0


def test_S_163_a_large_message_in_a_set() -> None:
    """On a set MACH_RCV_LARGE_IDENTITY tells the member that has the message."""
    name = with_send()
    pset = port_set(name, receive_right())
    assert send(name) == "KERN_SUCCESS"
    buffer = Buffer()
    assert buffer.receive(pset, LARGE | IDENTITY, size=31) == TOO_LARGE
    assert buffer.header.msgh_local_port == name


def test_S_164_who_sent_it() -> None:
    """The trailer tells the sender's effective ids and, in the audit token, its pid."""

    def sender(line: Line):
        assert send(line.outbox) == "KERN_SUCCESS"
        yield os.geteuid(), os.getegid()

    with Task(sender) as task:
        euid, egid = task.answer()
        received = take(task.inbox, AUDIT)
        kind, size, _, *sent = struct.unpack("=3I2I8I", received.trailer)
        assert (kind, size) == (0, 52)
        assert sent[:2] == [euid, egid]
        assert sent[2 + 5] == task.pid


def test_S_165_the_context_in_the_trailer() -> None:
    """The context trailer holds the port's context."""
    name = with_send()
    set_context(name, 0x1234567890)
    assert send(name) == "KERN_SUCCESS"
    received = take(name, trailer(lib.MACH_RCV_TRAILER_CTX)).trailer
    assert struct.unpack_from("=Q", received, 52) == (0x1234567890,)


def test_S_166_what_the_kernel_sent() -> None:
    """A notification comes from the kernel: its tokens are {0, 1} and zero."""
    name = receive_right()
    deallocate(once(name))
    received = take(name, AUDIT).trailer
    assert struct.unpack_from("=2I8I", received, 12) == (0, 1, *[0] * 8)


def test_S_167_the_port_goes_away() -> None:
    """A thread that waits on a port learns that the port was destroyed, or sent away."""
    name = receive_right()
    with Blocked(Buffer().receive, name, timeout=None) as blocked:
        kill(name)
        assert blocked.join() == "MACH_RCV_PORT_CHANGED"
    name, carrier = receive_right(), with_send()
    with Blocked(Buffer().receive, name, timeout=None) as blocked:
        assert send(carrier, rights=[port(name, MOVE_RECEIVE)]) == "KERN_SUCCESS"
        assert blocked.join() == "MACH_RCV_PORT_CHANGED"


def test_S_168_sets_do_not_disturb() -> None:
    """A thread that waits on a port goes on waiting when the port joins or leaves a set."""
    name, pset, buffer = with_send(), port_set(), Buffer()
    with Blocked(buffer.receive, name, timeout=None) as blocked:
        insert_member(name, pset)
        assert blocked.is_waiting
        move_member(name, NULL)
        assert blocked.is_waiting
        assert send(name, id=168) == "KERN_SUCCESS"
        assert blocked.join() == "KERN_SUCCESS"
    assert buffer.header.msgh_id == 168


def test_S_169_numbers_of_large_messages() -> None:
    """A message that stays queued keeps its number; a destroyed one has used it up."""
    name, buffer = with_send(), Buffer()
    assert send(name) == "KERN_SUCCESS"
    assert buffer.receive(name, LARGE, size=31) == TOO_LARGE
    assert status(name).seqno == 0
    assert buffer.receive(name, size=31) == TOO_LARGE
    assert status(name).seqno == 1
