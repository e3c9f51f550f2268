"""The bootstrap server: service names to rights.

Service names are 1 to 127 bytes long. A server that is there is asked by a message and answers by
one, for which the coroutines wait in the loop, as for any. Where that cannot be (one has to be
started, or told of this task's names first, or it is the system's own) they make the call that
blocks in a worker thread. A right that arrives after its caller was cancelled is released. Each has
a `_blocking` twin for programs without a loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, TypeVar

from . import _ffi, _loop
from .codes import BootstrapCode
from .errors import BootstrapError, UsageError
from .messages import PortRightType
from .ports import ReceiveRight, SendRight, return_reply_port, take_reply_port

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NAME = 127
# How long, in seconds, a server may take to welcome this task before a thread waits for it.
_PATIENCE = 1.0
# Threads that a loop has under way; who is cancelled does not wait for his.
_MOST_THREADS = 40

R = TypeVar("R", bound="ReceiveRight | SendRight")


def port() -> SendRight:
    """Return a send right to this task's bootstrap port; the caller owns it (uref + 1).

    Raises BootstrapError if the task has none.
    """
    name = _ffi.bootstrap_port()
    if not name:
        raise BootstrapError(BootstrapCode.NOT_PRIVILEGED, "bootstrap_port", "The task has none.")
    _ffi.mod_refs(name, PortRightType.SEND, 1)
    return SendRight(name)


async def check_in(name: str) -> ReceiveRight:
    """Become the receiver of the service `name`; the caller owns the receive right.

    Raises BootstrapError: SERVICE_ACTIVE, NOT_PRIVILEGED (another job's name), or a code of
    mach_msg if the server cannot be reached. Mach: bootstrap_check_in.
    """
    encoded = _encode(name)
    port = ReceiveRight.allocate()
    try:
        found = await _ask(_ffi.ASK_CHECK_IN, encoded, port.name)
        if found == port.name:
            return port
    except BaseException:
        port.close()
        raise
    port.close()
    if found:  # that of a service which was created before
        return ReceiveRight(found)
    return await _fetch(lambda: ReceiveRight(_ffi.bootstrap_check_in(encoded)))


async def look_up(name: str) -> SendRight:
    """Return a send right to the service `name`; the caller owns it.

    Raises UnknownServiceError, BootstrapError. Mach: bootstrap_look_up.
    """
    encoded = _encode(name)
    found = await _ask(_ffi.ASK_LOOK_UP, encoded)
    if found:
        return SendRight(found)
    return await _fetch(lambda: SendRight(_ffi.bootstrap_look_up(encoded)))


async def register(name: str, right: SendRight) -> None:
    """Make `right` what others find under `name`; a copy is given, the caller keeps its own.

    Raises BootstrapError. Mach: bootstrap_register.
    """
    encoded = _encode(name)
    # A copy of its own, in case the caller is cancelled and closes the right while the call runs.
    with right.copy() as copy:
        if await _ask(_ffi.ASK_REGISTER, encoded, copy.name):
            return
    copy = right.copy()

    def call() -> None:
        with copy:
            _ffi.bootstrap_register(encoded, copy.name)

    await _in_thread(call)


def check_in_blocking(name: str) -> ReceiveRight:
    """As `check_in`, blocking the thread."""
    return ReceiveRight(_ffi.bootstrap_check_in(_encode(name)))


def look_up_blocking(name: str) -> SendRight:
    """As `look_up`, blocking the thread."""
    return SendRight(_ffi.bootstrap_look_up(_encode(name)))


def register_blocking(name: str, right: SendRight) -> None:
    """As `register`, blocking the thread."""
    _ffi.bootstrap_register(_encode(name), right.name)


async def _ask(what: int, name: bytes, port: int = 0) -> int | None:
    """Ask the server: the right that its answer brings, which the caller owns, or `port`.

    None or 0: it cannot be asked so; the call that blocks will do. Cancelled, an answer that comes
    is destroyed with the right in it.
    """
    adapter = _loop.current()
    found = await _ask_connected(adapter, what, name, port)
    if not found and await _connect(adapter):
        found = await _ask_connected(adapter, what, name, port)
    return found


async def _connect(adapter: _loop.Adapter) -> bool:
    """Connect to a server that is there. False: there is none, or it takes its time."""
    fd = _ffi.bootstrap_knock()
    if fd is None:
        return False
    try:
        with contextlib.closing(adapter.watch_reader(fd)) as watch:
            return await watch.stand(lambda: _ffi.bootstrap_enter(fd), _PATIENCE) is True
    finally:
        os.close(fd)


async def _ask_connected(adapter: _loop.Adapter, what: int, name: bytes, port: int) -> int | None:
    """Ask the server as `_ask`, if this task is connected to one; 0: it has died meanwhile."""
    reply = take_reply_port(adapter)
    try:
        connection = _ffi.bootstrap_ask(what, name, port, reply.name)
        if connection is None:
            reply.close()  # if the request came back, it holds the word that its right was dropped
            return None
        arguments = (what, name, port, reply.name, connection)
        watch = reply.watch()
        found = await watch.stand(lambda: _ffi.bootstrap_answer(*arguments), None, attempted=True)
    except BaseException:
        reply.close()
        raise
    watch.quiet = True
    return_reply_port(adapter, reply)
    return found


async def _fetch(call: Callable[[], R]) -> R:
    """Return the right that a call in a thread fetches; that of a caller who is gone is closed."""
    lock = threading.Lock()
    fetched: list[R] = []
    abandoned = False

    def fetch() -> None:
        right = call()
        with lock:
            if not abandoned:
                fetched.append(right)
                return
        right.close()

    try:
        await _in_thread(fetch)
    except BaseException:
        with lock:
            abandoned = True
        for right in fetched:
            right.close()
        raise
    return fetched[0]


async def _in_thread(call: Callable[[], None]) -> None:
    """Make a call in a thread, which goes on though the caller be cancelled.

    A thread of its own: such calls are rare, and may be under way when the loop has long gone.
    """
    adapter, loop = _loop.current(), asyncio.get_running_loop()
    if adapter.threads is None:
        adapter.threads = asyncio.Semaphore(_MOST_THREADS)
    done = loop.create_future()

    def tell(problem: BaseException | None) -> None:
        if done.cancelled():
            return
        if problem is None:
            done.set_result(None)
        else:
            done.set_exception(problem)

    def work() -> None:
        # To tell a loop that is closing just now is to write into a pipe that nobody reads.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        problem = None
        try:
            call()
        except BaseException as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, problem)

    async with adapter.threads:
        threading.Thread(target=work, name="machio bootstrap call").start()
        await done


def _encode(name: str) -> bytes:
    encoded = name.encode()
    if not 1 <= len(encoded) <= MAX_NAME or b"\0" in encoded:
        raise UsageError(f"a service name has 1 to {MAX_NAME} bytes and no NUL; not {name!r}")
    return encoded
