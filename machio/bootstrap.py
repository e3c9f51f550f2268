"""The bootstrap server: service names to rights.

Service names are 1 to 127 bytes long. The calls talk to another process and may block, so the
coroutines make them in a worker thread; a right that arrives after its caller was cancelled is
released. Each has a `_blocking` twin for programs without a loop.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio.to_thread

from . import _ffi
from .codes import BootstrapCode
from .errors import BootstrapError, UsageError
from .messages import PortRightType
from .ports import ReceiveRight, SendRight

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NAME = 127

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
    return await _Errand(lambda: ReceiveRight(_ffi.bootstrap_check_in(encoded))).run()


async def look_up(name: str) -> SendRight:
    """Return a send right to the service `name`; the caller owns it.

    Raises UnknownServiceError, BootstrapError. Mach: bootstrap_look_up.
    """
    encoded = _encode(name)
    return await _Errand(lambda: SendRight(_ffi.bootstrap_look_up(encoded))).run()


async def register(name: str, right: SendRight) -> None:
    """Make `right` what others find under `name`; a copy is given, the caller keeps its own.

    Raises BootstrapError. Mach: bootstrap_register.
    """
    encoded = _encode(name)
    # A copy of its own, in case the caller is cancelled and closes the right while the call runs.
    copy = right.copy()

    def call() -> None:
        with copy:
            _ffi.bootstrap_register(encoded, copy.name)

    await _in_worker(call)


def check_in_blocking(name: str) -> ReceiveRight:
    """As `check_in`, blocking the thread."""
    return ReceiveRight(_ffi.bootstrap_check_in(_encode(name)))


def look_up_blocking(name: str) -> SendRight:
    """As `look_up`, blocking the thread."""
    return SendRight(_ffi.bootstrap_look_up(_encode(name)))


def register_blocking(name: str, right: SendRight) -> None:
    """As `register`, blocking the thread."""
    _ffi.bootstrap_register(_encode(name), right.name)


class _Errand(Generic[R]):
    """A call in a worker thread that fetches a right, for a caller who may stop waiting."""

    def __init__(self, call: Callable[[], R]) -> None:
        self._call: Callable[[], R] = call
        self._lock = threading.Lock()
        self._right: R | None = None
        self._abandoned = False

    async def run(self) -> R:
        try:
            # Never in the loop: launchd is asked by a message, and takes its time to answer.
            await _in_worker(self._fetch)
        except BaseException:
            self._abandon()
            raise
        right = self._right
        assert right is not None
        return right

    def _fetch(self) -> None:
        right = self._call()
        with self._lock:
            if not self._abandoned:
                self._right = right
                return
        right.close()

    def _abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            right, self._right = self._right, None
        if right is not None:
            right.close()


async def _in_worker(call: Callable[[], None]) -> None:
    """Make a call in a worker thread, which goes on though the caller be cancelled."""
    abandoned = False

    def work() -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        try:
            call()
        finally:
            # A thread that was abandoned is about to tell a loop that may be closing just now:
            # into a pipe that nobody reads any more.
            if not abandoned:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except BaseException:
        abandoned = True
        raise


def _encode(name: str) -> bytes:
    encoded = name.encode()
    if not 1 <= len(encoded) <= MAX_NAME or b"\0" in encoded:
        raise UsageError(f"a service name has 1 to {MAX_NAME} bytes and no NUL; not {name!r}")
    return encoded
