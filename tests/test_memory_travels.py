"""Memory on its way: what is copied and what is not, in what order, and what hostile peers say."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from pathlib import Path

import pytest
from common import LOOPS, filled, leaked_fds, mapped, open_fds, pack_message

import machio
from machio import (
    BadMessageError,
    Disposition,
    Memory,
    Message,
    ReceiveRight,
    RightArray,
    SendRight,
    UsageError,
    _ffi,
    _wire,
)

LINUX = sys.platform == "linux"
PAGE = os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("size", [0, 1, PAGE, PAGE + 1, 3 << 20])
async def test_it_arrives(port, send, size):
    memory = Memory(size)
    if size:
        with memory.view as view:
            view[0], view[-1] = 5, 6
    await send.send(Message(1, b"body", memory=[memory]))
    assert memory.closed
    with await port.receive() as message:
        (got,) = message.memory
        assert (message.body, message.rights, len(got)) == (b"body", (), size)
        if size:
            expected = b"\5" + bytes(size - 2) + b"\6" if size > 1 else b"\6"
            assert bytes(got) == expected
            got.view[0] = 9  # the receiver's own
        assert "out of line=[<Memory" in repr(message)
    assert got.closed


@pytest.mark.skipif(not LINUX, reason="looks at the files behind the pages")
async def test_it_goes_without_being_copied(port, send):
    fds = open_fds()
    memory = filled(PAGE)
    assert len(open_fds()) == len(fds) + 1
    file = mapped()
    await send.send(Message(1, memory=[memory]))
    assert mapped() == []
    with await port.receive() as message:
        assert mapped() == file
        assert leaked_fds(fds) == []
        assert bytes(message.memory[0])[:2] == b"\1\2"


async def test_what_has_a_buffer_is_copied(port, send):
    own, data = filled(PAGE), bytearray(b"abc")
    with own:
        message = Message(1, memory=[b"xyz", data, memoryview(b"__12__")[2:4], own.view])
        data[0:1] = b"A"  # it is copied when it is sent
        with message:
            await send.send(message)
        data += b"."  # and free again
        with await port.receive() as got:
            first, second, third, fourth = map(bytes, got.memory)
            assert (first, second, third) == (b"xyz", b"Abc", b"12")
            assert fourth == bytes(own)
            got.memory[1].view[0] = 0
        assert data == b"Abc."


@pytest.mark.parametrize("wrong", [7, "text", None])
def test_what_has_no_buffer_is_no_memory(wrong):
    with pytest.raises(UsageError, match="buffer"):
        Message(1, memory=[wrong])


def test_bytes_with_gaps_cannot_be_sent(send):
    with Message(1, memory=[memoryview(b"abcdef")[::2]]) as message, pytest.raises(UsageError):
        send.send_nowait(message)


async def test_descriptors_keep_their_order(port, send):
    with ReceiveRight.allocate() as one, ReceiveRight.allocate() as two, filled(256) as memory:
        array = RightArray([one, None, two], Disposition.MAKE_SEND)
        await send.send(
            Message(1, b"....", descriptors=[b"first", (one, Disposition.MAKE_SEND), array, memory])
        )
        with await port.receive() as message:
            first, right, rights, last = message.descriptors
            assert (bytes(first), bytes(last)) == (b"first", bytes(range(1, 256)) + b"\0")
            assert isinstance(right, SendRight)
            assert (rights.disposition, rights.rights[1]) == (Disposition.MOVE_SEND, None)
            assert [rights.rights[0].name, rights.rights[2].name] == [one.name, two.name]
            assert message.memory == (first, last)
            assert message.rights == (right,)
            assert not one.closed
        assert right.closed
        assert rights.rights[2].closed
        assert first.closed


def test_a_message_has_descriptors_or_parts():
    with pytest.raises(UsageError, match="either"):
        Message(1, rights=[None], descriptors=[None])


async def test_arrays_move_rights(port, send):
    limits = list(range(1, 51))
    moved = [ReceiveRight.allocate(queue_limit=limit) for limit in limits]
    await send.send(Message(1, descriptors=[RightArray(moved), RightArray([])]))
    assert all(right.closed for right in moved)
    with await port.receive() as message:
        full, empty = message.descriptors
        assert [right.queue_limit for right in full.rights] == limits
        assert empty.rights == ()


def test_a_kind_that_does_not_go_with_the_others(send):
    with ReceiveRight.allocate() as right, send.copy() as other:
        with pytest.raises(UsageError, match="does not go with"):
            send.send_nowait(Message(1, descriptors=[RightArray([right, other])]))
        assert not right.closed
        assert not other.closed


def test_taken_out_of_a_message_it_stays(port, send):
    send.send_nowait(Message(1, rights=[None], memory=[b"a", b"b"]))
    with port.receive_nowait() as message:
        kept, gone = message.memory
        message.memory = [gone]
        assert message.descriptors == (None, gone)
    assert gone.closed
    assert bytes(kept) == b"a"
    kept.close()


def test_rights_taken_out_leave_the_memory(port, send):
    with ReceiveRight.allocate() as right:
        send.send_nowait(Message(1, rights=[right], memory=[b"a"]))
        with port.receive_nowait() as message:
            (arrived,) = message.rights
            message.rights = ()
            assert len(message.memory) == 1
        assert not arrived.closed
        arrived.close()


# --- hostile peers --------------------------------------------------------------------------------


def raw_message(*descriptors, count=None):
    view = memoryview(bytearray(pack_message((0x103, 17), 1, b"body", descriptors)))
    if count is not None:
        struct.pack_into("=I", view, 24, count)
    return view


@pytest.mark.parametrize("count", [3, 4, 1 << 31])
def test_more_descriptors_than_bytes(count):
    some = (_wire.MemoryAt(0, 8, deallocate=True), (0x203, 17))
    with pytest.raises(_wire.Malformed):
        _wire.unpack(raw_message(*some, count=count))


def test_out_of_line_descriptors_by_offset():
    view = raw_message(
        _wire.MemoryAt(0x7000_0000_1000, 0x1234, deallocate=True),
        _wire.ArrayAt(0x7000_0000_2000, 3, 20, deallocate=False),
    )
    assert bytes(view[28:44]) == bytes.fromhex("0010000000700000 01010001 34120000")
    assert bytes(view[44:60]) == bytes.fromhex("0020000000700000 00011402 03000000")
    incoming = _wire.unpack(view)
    assert incoming.descriptors == (
        (0x7000_0000_1000, 0x1234, True),
        (0x7000_0000_2000, 3, 20, False),
    )
    assert (incoming.rights, incoming.body) == (3, b"body")


def test_a_guarded_right_destroys_the_memory_beside_it(port, send):
    data = _ffi.Pinned.buffer(memoryview(b"x" * PAGE))
    memory = _wire.payload([_wire.MemoryAt(data.address, PAGE, deallocate=False)], b"")
    # A guarded right has 16 bytes: a context, flags, disposition, type, name.
    guarded = struct.pack("=QHBBI", 0, 1, Disposition.MOVE_RECEIVE, 4, 0)
    bits = Disposition.COPY_SEND | _wire.BITS_COMPLEX
    payload = _wire.COUNT.pack(2) + memory[4:] + guarded
    buffer = _ffi.take_buffer()
    code = _ffi.compose_and_send(
        buffer.header, bits, send.name, 0, 1, payload, len(payload), _ffi.SEND_NOW, 0
    )
    _ffi.return_buffer(buffer)
    assert code == 0
    with pytest.raises(BadMessageError, match="type 4"):
        port.receive_nowait()


# --- processes ------------------------------------------------------------------------------------


SENDER = """
import asyncio, sys
import machio

async def main():
    with await machio.parent.serve(machio.PortRightType.SEND) as send:
        before = machio.Memory(10)
        for number in range(1, 21):
            memory = machio.Memory(1 << 20)
            with memory.view as view:
                view[:] = bytes([number]) * len(view)
            await send.send(machio.Message(number, memory=[memory]))
            assert memory.closed
        before.close()

sys.path.insert(0, sys.argv[1])
from common import LOOPS
with asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
    runner.run(main())
"""


def test_frames_from_another_process(loop_name):
    async def main():
        tests = str(Path(__file__).parent)
        command = [sys.executable, "-W", "error", "-c", SENDER, tests, loop_name]
        with ReceiveRight.allocate(queue_limit=2) as port:
            async with machio.spawn(command) as child:
                with port.make_send() as send:
                    await child.give(send)
                fds = len(open_fds())
                for number in range(1, 21):
                    with await port.receive(30) as message:
                        assert message.sender.pid == child.process.pid
                        (memory,) = message.memory
                        assert bytes(memory) == bytes([number]) * (1 << 20)
                        memory.view[0] = 0
                        assert len(open_fds()) == fds
                        assert len(mapped()) == LINUX
                    assert mapped() == []
                assert await child.wait() == 0

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(main())
