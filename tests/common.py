"""What tests share with the programs that they start: loops, waits, files, rights, pages held.

It is not in conftest.py, for there is one of that name in other folders too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import machio
from machio import PortRightType, _ffi, _loop, _wire
from machio._mach import ffi, lib
from machio.codes import KernCode

try:
    import uvloop
except ImportError:  # not made for every system that runs asyncio
    uvloop = None

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def _new_eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _new_uvloop() -> asyncio.AbstractEventLoop:
    """Make a uvloop that a test's time limit ends: by itself it logs what a signal raises."""

    def end_at_limit(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if not isinstance(context.get("exception"), Exception | None):
            loop.stop()

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    loop.set_exception_handler(end_at_limit)
    return loop


LOOPS: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
if sys.version_info >= (3, 12):
    LOOPS["eager"] = _new_eager_loop
if uvloop is not None:
    LOOPS["uvloop"] = _new_uvloop


def fill(send: machio.SendRight, port: machio.ReceiveRight) -> None:
    """Send messages 0, 1, ... until the queue is full."""
    for index in range(port.queue_limit - port.status.queued):
        send.send_nowait(machio.Message(index))


async def settle() -> None:
    """Let everything that is ready run, kqueue events included."""
    for _ in range(5):
        await asyncio.sleep(0)


async def start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task and let it come to its first wait."""
    task = asyncio.create_task(coroutine)
    await settle()
    return task


def block_in_vain() -> None:
    """Block in a receive; what that opens lasts as long as the thread.

    Raw: in Python the time may be up before the receive begins, which then does not wait.
    """
    with machio.ReceiveRight.allocate() as port:
        option = _ffi.RECEIVE | _ffi.RECEIVE_TIMEOUT
        assert _ffi.receive(_ffi.Buffer(128), port.name, option, 1) == machio.ReceiveCode.TIMED_OUT


async def wait_in_vain() -> None:
    """Let each kind of wait run into its time limit; what that opens lasts as long as the loop."""
    block_in_vain()
    with machio.ReceiveRight.allocate(queue_limit=1) as port, port.make_send() as send:
        send.send_nowait(machio.Message(1))
        with contextlib.suppress(machio.SendTimedOut):
            send.send_blocking(machio.Message(2), timeout=0.001)
        with contextlib.suppress(machio.SendTimedOut):
            await send.send(machio.Message(2), timeout=0.001)
    with contextlib.suppress(machio.UnknownServiceError):
        await machio.bootstrap.look_up("org.machio.tests.no-such-service")


_FD_DIR = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"

# What the library opens in the course of some test and keeps: its epoll for notifications, and the
# timer of those who wait for room.
_opened_later = Counter(["anon_inode:[eventpoll]", "anon_inode:[timerfd]"])
_kept: set[tuple[int, str]] = set()  # those that it has opened


def open_fds() -> dict[int, str]:
    """Map the open files of this process to what they are, as far as the system tells."""
    fds = {}
    for name in os.listdir(_FD_DIR):
        try:
            os.fstat(int(name))
            fds[int(name)] = os.readlink(f"{_FD_DIR}/{name}")  # noqa: PTH115
        except OSError as error:
            if error.errno != errno.EBADF:  # that of the listing itself is closed by now
                fds[int(name)] = "a file without a name"
    return fds


def leaked_fds(before: dict[int, str], patience: float = 2.0) -> list[str]:
    """Describe the files opened since `before`; those being closed elsewhere get some time."""
    deadline = time.monotonic() + patience
    while True:
        gc.collect()
        after = open_fds()
        if len(after) <= len(before):
            return []
        leaked = {fd: what for fd, what in after.items() if before.get(fd) != what}
        for fd, what in _kept:
            if leaked.get(fd) == what:
                del leaked[fd]
        if (found := Counter(leaked.values())) <= _opened_later:
            _opened_later.subtract(found)
            _kept.update(leaked.items())
            return []
        if time.monotonic() > deadline:
            return [f"fd {fd} -> {what}" for fd, what in leaked.items()]
        time.sleep(0.01)


def mapped() -> list[str]:
    """Return the pages of this process that are files of the layer: by number, sorted. On Linux."""
    if sys.platform != "linux":
        return []
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted(line.split()[4] for line in lines if "memfd:mach_msg" in line)


def filled(size: int, seed: int = 1) -> machio.Memory:
    """Return memory with the bytes `seed`, `seed` + 1, ... in it; a multiple of 256."""
    memory = machio.Memory(size)
    with memory.view as view:
        view[:] = bytes((seed + index) % 256 for index in range(256)) * (size // 256)
    return memory


def rights_held() -> set[tuple[int, int, int]]:
    """Return name, type and send urefs of all in the name space but what loops keep for use."""
    names, types = ffi.new("mach_port_name_array_t *"), ffi.new("mach_port_type_array_t *")
    counts = ffi.new("mach_msg_type_number_t[2]")
    me = lib.mach_task_self()
    assert lib.mach_port_names(me, names, counts, types, counts + 1) == 0
    held, kept = set(), {right.name for right in _loop.kept_rights()}
    for name, kind in zip(names[0][0 : counts[0]], types[0][0 : counts[1]], strict=True):
        try:
            refs = _ffi.get_refs(name, PortRightType.SEND)
        except machio.KernError as error:
            if error.code != KernCode.INVALID_NAME:
                raise
            continue  # gone meanwhile
        if name not in kept:
            held.add((name, kind & 0x1F0000, refs))
    for array, count in ((names[0], counts[0]), (types[0], counts[1])):
        lib.vm_deallocate(me, int(ffi.cast("uintptr_t", array)), count * 4)
    return held


def pack_message(
    destination: tuple[int, int],
    message_id: int,
    body: bytes,
    rights: Sequence[tuple[int, int]] = (),
    reply: tuple[int, int] = (0, 0),
) -> bytes:
    """Return a message as mach_msg takes it; rights are pairs of name and disposition."""
    bits = destination[1] | reply[1] << 8 | (_wire.BITS_COMPLEX if rights else 0)
    payload = _wire.payload(rights, body)
    size = _wire.size_of(0, len(payload))
    header = _wire.HEADER.pack(bits, size, destination[0], reply[0], 0, message_id)
    return (header + payload).ljust(size, b"\0")
