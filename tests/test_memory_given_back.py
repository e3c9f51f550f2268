"""Memory, and what goes with it, when a message was not sent: it comes back whole."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from pathlib import Path

import pytest
from common import filled

from machio import (
    Disposition,
    KernError,
    Memory,
    MemoryClosedError,
    Message,
    ReceiveRight,
    RightArray,
    RightClosedError,
    SendError,
    SendTimedOut,
    _ffi,
)
from machio._cargo import load

LINUX = sys.platform == "linux"
PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def full():
    with ReceiveRight.allocate(queue_limit=1) as port, port.make_send() as send:
        send.send_nowait(Message(0))
        yield port, send


def parcel():
    """A message with something of each kind, and the objects in it."""
    port = ReceiveRight.allocate()
    memory, rights = filled(PAGE, 3), [ReceiveRight.allocate() for _ in range(3)]
    copies = RightArray([port], Disposition.MAKE_SEND)
    message = Message(1, descriptors=[memory, RightArray(rights), b"copied", copies])
    return message, memory, [port, *rights]


def check_given_back(memory, rights):
    assert bytes(memory)[:3] == b"\3\4\5"
    memory.view[0] = 0
    memory.close()
    for right in rights:
        assert right.status.has_send_rights == 0
        right.close()


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_full_queue_gives_all_back(full, attempts):
    _, send = full
    message, memory, rights = parcel()
    for _ in range(attempts):
        with pytest.raises(SendTimedOut):
            send.send_nowait(message)
    check_given_back(memory, rights)


async def test_a_timeout_gives_all_back(full):
    message, memory, rights = parcel()
    with pytest.raises(SendTimedOut):
        await full[1].send(message, timeout=0.01)
    check_given_back(memory, rights)


async def test_a_cancelled_send_gives_all_back(full):
    message, memory, rights = parcel()
    sending = asyncio.ensure_future(full[1].send(message))
    while not memory.closed:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    check_given_back(memory, rights)


async def test_a_send_that_waited_arrives_whole(full):
    port, send = full
    message, memory, rights = parcel()
    sending = asyncio.ensure_future(send.send(message))
    while not memory.closed:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    (await port.receive()).close()
    await sending
    with await port.receive() as got:
        first, moved, second, made = got.descriptors
        assert bytes(first)[:3] == b"\3\4\5"
        assert all(isinstance(right, ReceiveRight) for right in moved.rights)
        assert len(moved.rights) == 3
        assert bytes(second) == b"copied"
        assert made.rights[0].name == rights[0].name
    rights[0].close()
    assert memory.closed


def test_a_refusal_before_anything_was_taken_gives_all_back():
    message, memory, rights = parcel()
    with ReceiveRight.allocate() as port, port.make_send() as send:
        port.close()
        with pytest.raises(SendError):
            send.send_nowait(message)
    check_given_back(memory, rights)


def test_an_object_that_holds_nothing_leaves_the_others(send):
    memory, right = filled(PAGE, 3), ReceiveRight.allocate()
    closed = Memory(1)
    closed.close()
    with pytest.raises(MemoryClosedError):
        send.send_nowait(Message(1, descriptors=[memory, right, closed]))
    right_closed = ReceiveRight.allocate()
    right_closed.close()
    with pytest.raises(RightClosedError):
        send.send_nowait(Message(1, descriptors=[memory, RightArray([right, right_closed])]))
    check_given_back(memory, [right])


def test_the_same_memory_twice(send):
    memory = filled(PAGE, 3)
    with pytest.raises(MemoryClosedError):
        send.send_nowait(Message(1, memory=[memory, memory]))
    check_given_back(memory, [])


def test_a_refused_right_destroys_what_stands_before_it(send):
    before, behind = filled(PAGE), filled(PAGE, 3)
    raw = ReceiveRight.allocate()
    _ffi.mod_refs(raw.name, raw.kind, -1)  # somebody destroyed it by its name
    rights = [ReceiveRight.allocate() for _ in range(3)]
    spoilt = RightArray([rights[0], raw, rights[1]])
    with pytest.raises(SendError):
        send.send_nowait(Message(1, descriptors=[before, spoilt, behind, rights[2]]))
    assert before.closed
    assert rights[0].closed
    assert raw.closed
    check_given_back(behind, rights[1:])


@pytest.mark.skipif(not LINUX, reason="elsewhere it takes none")
def test_without_a_descriptor_for_a_copy_all_comes_back(send):
    import resource

    right = ReceiveRight.allocate()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(KernError, match="VM_KERNEL"):
            send.send_nowait(Message(1, descriptors=[b"copied", right]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert right.status.queued == 0
    right.close()


def test_memory_may_come_back_elsewhere():
    memory, other = filled(PAGE, 1), filled(PAGE, 3)
    cargo = load(memory)
    cargo.take()
    descriptor, elsewhere = cargo.descriptor(), other.release()
    cargo.come_back(memoryview(struct.pack("=16xQ", elsewhere)), 16)
    cargo.give_back()
    check_given_back(memory, [])
    _ffi.free_memory(descriptor.address, descriptor.size)


@pytest.mark.skipif(not LINUX, reason="reads /proc")
def test_the_memory_of_arrays_is_freed(full):
    port, send = full

    def pages():
        return int(Path("/proc/self/statm").read_text().split()[0])

    def once():
        message = Message(1, descriptors=[RightArray([send], Disposition.COPY_SEND)])
        with pytest.raises(SendTimedOut):
            send.send_nowait(message)
        port.receive_nowait().close()
        send.send_nowait(message)

    for _ in range(20):
        once()
    before = pages()
    for _ in range(1000):
        once()
    assert pages() < before + 500
