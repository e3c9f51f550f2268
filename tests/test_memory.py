"""Memory: as a buffer, on its way, given back, at its end; and what hostile peers say of it."""

import asyncio
import ctypes
import gc
import os
import struct
import sys
import weakref
from pathlib import Path

import pytest
from common import LOOPS, leaked_fds, open_fds, pack_message

import machio
from machio import (
    BadMessageError,
    Disposition,
    KernError,
    Memory,
    MemoryClosedError,
    Message,
    ReceiveRight,
    RightArray,
    RightClosedError,
    SendError,
    SendRight,
    SendTimedOut,
    UsageError,
    _ffi,
    _wire,
)
from machio._cargo import load

LINUX = sys.platform == "linux"
PAGE = os.sysconf("SC_PAGESIZE")


def mapped() -> list[str]:
    """The pieces of this process's memory that are files of the layer, by number."""
    lines = Path("/proc/self/maps").read_text().splitlines() if LINUX else []
    return [line.split()[4] for line in lines if "memfd:mach_msg" in line]


@pytest.fixture(autouse=True)
def _no_memory_left():
    gc.collect()
    before = mapped()
    yield
    gc.collect()
    assert mapped() == before


@pytest.fixture
def pair():
    with ReceiveRight.allocate() as port, port.make_send() as send:
        yield port, send


def filled(size, seed=1):
    memory = Memory(size)
    with memory.view as view:
        view[:] = bytes((seed + index) % 256 for index in range(256)) * (size // 256)
    return memory


# --- a buffer --------------------------------------------------------------------------------


def test_a_buffer_of_zeros_to_read_and_write():
    with Memory(10) as memory:
        assert (len(memory), bytes(memory), memory.closed) == (10, bytes(10), False)
        view = memory.view
        assert (view.readonly, view.format, view.nbytes, view.contiguous) == (False, "B", 10, True)
        view[2:5] = b"abc"
        assert bytes(memory) == b"\0\0abc\0\0\0\0\0"
        assert repr(memory) == "<Memory 10 bytes>"
    assert memory.closed
    memory.close()
    assert repr(memory) == "<Memory closed>"
    with pytest.raises(MemoryClosedError):
        _ = memory.view
    with pytest.raises(MemoryClosedError):
        memory.release()


if sys.version_info >= (3, 12):  # before, a class in Python cannot be a buffer

    def test_it_is_a_buffer_itself():
        with Memory(4) as memory:
            with memoryview(memory) as view:
                view[0] = 7
                with pytest.raises(UsageError, match="views"):
                    memory.release()
            assert bytes(memory) == b"\7\0\0\0"
            memory.restore(memory.release())


@pytest.mark.parametrize("size", [-1, 1 << 32])
def test_sizes_that_no_message_carries(size):
    with pytest.raises(UsageError, match="bytes"):
        Memory(size)


def test_empty_memory():
    with Memory(0) as memory:
        assert (len(memory), bytes(memory), memory.view.nbytes) == (0, b"", 0)
        memory.restore(memory.release())


def test_forgotten_memory_warns_and_is_freed():
    memory = Memory(PAGE)
    with pytest.warns(ResourceWarning, match=f"unclosed <Memory {PAGE} bytes>"):
        del memory


@pytest.mark.skipif(not LINUX, reason="elsewhere it takes none")
def test_without_a_descriptor_there_is_no_memory():
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(KernError):
            Memory(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# --- views never outlive their pages ---------------------------------------------------------


def test_views_keep_closed_memory():
    memory = filled(PAGE)
    view = memory.view
    part = view[1:3]
    watch = weakref.ref(view.obj)
    memory.close()
    assert bytes(part) == b"\2\3"
    view.release()
    part[0] = 9  # a slice is a view of its own
    assert watch() is not None
    del view, part
    assert watch() is None


def test_memory_with_views_cannot_be_given_away(pair):
    port, send = pair
    memory = filled(PAGE)
    for exported in (lambda: memory.view, lambda: memory.view[5:], lambda: memory.view.cast("H")):
        view = exported()
        with pytest.raises(UsageError, match="views"):
            send.send_nowait(Message(1, memory=[memory]))
        assert not memory.closed
        assert (view[0] == bytes(memory) and False) or view.nbytes
        view[0] = 1  # still there
        view.release()
        del view
    send.send_nowait(Message(1, memory=[memory]))
    assert memory.closed
    with port.receive_nowait() as message:
        assert message.memory[0].view[0] == 1


def test_arrays_are_views():
    with Memory(16) as memory:
        array = (ctypes.c_uint32 * 4).from_buffer(memory.view)  # as NumPy's frombuffer
        array[1] = 0x01020304
        with pytest.raises(UsageError, match="views"):
            memory.release()
        del array
        assert bytes(memory)[4:8] == struct.pack("=I", 0x01020304)
        memory.restore(memory.release())


# --- on its way ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PAGE, PAGE + 1, 3 << 20])
async def test_it_arrives(pair, size):
    port, send = pair
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
async def test_it_goes_without_being_copied(pair):
    port, send = pair
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


async def test_what_has_a_buffer_is_copied(pair):
    port, send = pair
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


def test_bytes_with_gaps_cannot_be_sent(pair):
    with Message(1, memory=[memoryview(b"abcdef")[::2]]) as message, pytest.raises(UsageError):
        pair[1].send_nowait(message)


async def test_descriptors_keep_their_order(pair):
    port, send = pair
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


async def test_arrays_move_rights(pair):
    port, send = pair
    limits = list(range(1, 51))
    moved = [ReceiveRight.allocate(queue_limit=limit) for limit in limits]
    await send.send(Message(1, descriptors=[RightArray(moved), RightArray([])]))
    assert all(right.closed for right in moved)
    with await port.receive() as message:
        full, empty = message.descriptors
        assert [right.queue_limit for right in full.rights] == limits
        assert empty.rights == ()


def test_a_kind_that_does_not_go_with_the_others(pair):
    _, send = pair
    with ReceiveRight.allocate() as right, send.copy() as other:
        with pytest.raises(UsageError, match="does not go with"):
            send.send_nowait(Message(1, descriptors=[RightArray([right, other])]))
        assert not right.closed
        assert not other.closed


def test_taken_out_of_a_message_it_stays(pair):
    port, send = pair
    send.send_nowait(Message(1, rights=[None], memory=[b"a", b"b"]))
    with port.receive_nowait() as message:
        kept, gone = message.memory
        message.memory = [gone]
        assert message.descriptors == (None, gone)
    assert gone.closed
    assert bytes(kept) == b"a"
    kept.close()


def test_rights_taken_out_leave_the_memory(pair):
    port, send = pair
    with ReceiveRight.allocate() as right:
        send.send_nowait(Message(1, rights=[right], memory=[b"a"]))
        with port.receive_nowait() as message:
            (arrived,) = message.rights
            message.rights = ()
            assert len(message.memory) == 1
        assert not arrived.closed
        arrived.close()


# --- given back ------------------------------------------------------------------------------


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


def test_an_object_that_holds_nothing_leaves_the_others(pair):
    _, send = pair
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


def test_the_same_memory_twice(pair):
    memory = filled(PAGE, 3)
    with pytest.raises(MemoryClosedError):
        pair[1].send_nowait(Message(1, memory=[memory, memory]))
    check_given_back(memory, [])


def test_a_refused_right_destroys_what_stands_before_it(pair):
    _, send = pair
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
def test_without_a_descriptor_for_a_copy_all_comes_back(pair):
    import resource

    right = ReceiveRight.allocate()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(KernError, match="VM_KERNEL"):
            pair[1].send_nowait(Message(1, descriptors=[b"copied", right]))
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


# --- hostile peers ---------------------------------------------------------------------------


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


def test_a_guarded_right_destroys_the_memory_beside_it(pair):
    port, send = pair
    data = _ffi.Pinned.buffer(memoryview(b"x" * PAGE))
    memory = _wire.payload([_wire.MemoryAt(data.address, PAGE, deallocate=False)], b"")
    # A guarded right has 16 bytes: a context, flags, disposition, type, name.
    guarded = struct.pack("=QHBBI", 0, 1, Disposition.MOVE_RECEIVE, 4, 0)
    bits = _wire.bits_of(Disposition.COPY_SEND, 0, has_descriptors=True)
    payload = _wire.COUNT.pack(2) + memory[4:] + guarded
    buffer = _ffi.take_buffer()
    code = _ffi.compose_and_send(buffer, bits, send.name, 0, 1, payload, _ffi.SEND_NOW, 0)
    _ffi.return_buffer(buffer)
    assert code == 0
    with pytest.raises(BadMessageError, match="type 4"):
        port.receive_nowait()


# --- processes -------------------------------------------------------------------------------


@pytest.mark.skipif(not LINUX, reason="forks")
def test_a_forked_child_has_a_view_of_its_own():
    with filled(PAGE) as memory:
        pid = os.fork()
        if pid == 0:
            memory.view[0] = 99
            ok = memory.view[1] == 2
            memory.close()
            os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert memory.view[0] == 1


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
                        assert len(mapped()) == 1
                    assert mapped() == []
                assert await child.wait() == 0

    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(main())
