"""Memory as a buffer: its views, its end, NumPy, a forked child."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import weakref

import numpy as np
import pytest
from common import filled, mapped

from machio import KernError, Memory, MemoryClosedError, Message, UsageError

LINUX = sys.platform == "linux"
PAGE = os.sysconf("SC_PAGESIZE")


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


# --- views never outlive their pages --------------------------------------------------------------


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


def test_memory_with_views_cannot_be_given_away(port, send):
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


# --- NumPy -----------------------------------------------------------------------------------


def picture(memory):
    return np.frombuffer(memory.view, np.uint16).reshape(4, -1)


async def test_an_array_is_the_memory_and_not_a_copy(port, send):
    memory = Memory(2 * PAGE)
    array = picture(memory)
    array[...] = np.arange(array.size, dtype=np.uint16).reshape(4, -1)
    array[1] *= 2
    with pytest.raises(UsageError, match="views"):
        send.send_nowait(Message(1, memory=[memory]))
    expected = array.copy()
    del array
    await send.send(Message(1, memory=[memory]))
    with await port.receive() as message:
        got = picture(message.memory[0])
        assert got.flags.writeable
        assert not got.flags.owndata
        assert np.array_equal(got, expected)
        got[0, 0] = 77
        assert bytes(message.memory[0])[:2] == (77).to_bytes(2, sys.byteorder)
    # The array holds the pages that the message has let go.
    assert message.memory[0].closed
    assert len(mapped()) == LINUX
    assert got[0, 0] == 77
    assert int(got[3, -1]) == expected[3, -1]
    del got
    assert mapped() == []


async def test_an_array_is_sent_as_a_copy_of_its_bytes(port, send):
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    await send.send(Message(1, memory=[array]))
    array[0] = -1
    with await port.receive() as message:
        got = np.frombuffer(message.memory[0].view, np.float64)
        assert got.tolist() == [0, 1, 2, 3, 4, 5]
        del got
    with Message(1, memory=[array.T]) as message, pytest.raises(UsageError, match="one piece"):
        await send.send(message)


if sys.version_info >= (3, 12):

    def test_numpy_takes_memory_itself():
        with Memory(8) as memory:
            array = np.asarray(memory)
            array[:] = 3
            assert (array.dtype, array.shape) == (np.uint8, (8,))
            assert bytes(memory) == b"\3" * 8
            with pytest.raises(UsageError, match="views"):
                memory.release()
            del array
            memory.restore(memory.release())


# --- a forked child -------------------------------------------------------------------------------


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
