"""What tests of programs that use machio need: a server of their own, a leak check, pairs, faults.

As a plugin of pytest, in the topmost conftest.py::

    pytest_plugins = ["machio.testing"]

From then on the test process, and what it starts, never meets the user's bootstrap server: it has
a private one from the first to the last test. A test that wants a server nobody else uses passes
the fixture `bootstrap_env` to the processes it starts; the fixture `leak_check` fails a test that
forgets a right or memory, and names the line that made it.

The rest works without pytest, too: `leak_check` as a with statement, `pair` for two connected ends
in one process, and what goes wrong on purpose: `relay` for messages, `check_in_fd` and `serve_fd`
for one side of the handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from . import _checkin, _loop, handshake
from ._right import Right
from .errors import DeadDestinationError
from .memory import Memory
from .messages import Disposition, Message, PortRightType
from .ports import ReceiveRight, SendRight

if TYPE_CHECKING:
    from types import FrameType

    import pytest

# --- bootstrap servers ----------------------------------------------------------------------------


@contextlib.contextmanager
def bootstrap_directory() -> Iterator[Path]:
    """Yield a new directory for MACHIO_BOOTSTRAP, in which a server of its own lives.

    It is removed at the end, and the server leaves then. Linux; elsewhere the system has one server
    for all.
    """
    # Short enough for the address of a socket, wherever TMPDIR is; mode 0700.
    path = Path(tempfile.mkdtemp(prefix="machio-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# --- what was forgotten ---------------------------------------------------------------------------

_OURS = str(Path(__file__).parent) + os.sep
_PYTHONS = sysconfig.get_path("stdlib") + os.sep


class LeakError(AssertionError):
    """Rights or memory were made and neither closed nor given away; the message says where."""


@contextlib.contextmanager
def leak_check() -> Iterator[None]:
    """Raise LeakError at the end of the block if it made a right or memory that is still open.

    For each the message has the file and line that made it: where a port or memory was allocated, a
    right copied, a file port made, or a message with it in it received. All are closed then. File
    descriptors are not looked at: Python warns of those of files and sockets by itself. If the
    block raises, that is what is raised.
    """
    made: list[tuple[Right | Memory, str]] = []
    with _noting(Right, "__init__", made), _noting(Memory, "_begin", made):
        yield
    kept = {id(right) for right in _loop.kept_rights()}
    leaks = [(one, line) for one, line in made if not one.closed and id(one) not in kept]
    if leaks:
        message = "".join(f"\n  {line}: {one!r}" for one, line in leaks)
        for one, _ in leaks:
            one.close()
        raise LeakError(f"neither closed nor given away:{message}")


@contextlib.contextmanager
def _noting(kind: type, maker: str, made: list[tuple[Any, str]]) -> Iterator[None]:
    """Until the block is left, note the objects that a method begins, and which line made them."""
    begin = getattr(kind, maker)

    def note(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        made.append((self, _line(sys._getframe(1))))  # noqa: SLF001 - as inspect and logging do

    setattr(kind, maker, note)
    try:
        yield
    finally:
        setattr(kind, maker, begin)


def _line(frame: FrameType | None) -> str:
    """Return file and line of the innermost frame that is neither machio's nor Python's own."""
    inner = frame
    while frame is not None:
        file = frame.f_code.co_filename
        own = file.startswith((_OURS, "<")) or (
            file.startswith(_PYTHONS) and "site-packages" not in file
        )
        if not own:
            break
        frame = frame.f_back
    frame = frame or inner
    return "an unknown line" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --- two ends -------------------------------------------------------------------------------------


class End(NamedTuple):
    """One of two connected ends: what is sent by `peer` arrives at the other's `port`."""

    port: ReceiveRight
    peer: SendRight


@contextlib.contextmanager
def pair(queue_limit: int | None = None) -> Iterator[tuple[End, End]]:
    """Yield two connected ends in this process; closed at the end, where they are not yet."""
    with (
        ReceiveRight.allocate(queue_limit) as left,
        ReceiveRight.allocate(queue_limit) as right,
        left.make_send() as to_left,
        right.make_send() as to_right,
    ):
        yield End(left, to_right), End(right, to_left)


# --- faults of messages ---------------------------------------------------------------------------


class Fault(enum.Enum):
    """What may become of a message, or of one side of the handshake."""

    DROP = enum.auto()
    """The message is destroyed, and every right in it."""
    DIE = enum.auto()
    """So is the port it was sent to, with all messages in its queue."""


Fate: TypeAlias = "Fault | float | Callable[[Message], Message] | None"


@contextlib.asynccontextmanager
async def relay(target: SendRight, fates: Iterable[Fate]) -> AsyncIterator[SendRight]:
    """Yield a send right whose messages come to `target`, but for what `fates` does to them.

    The first message meets the first fate, and so on; those for which none is left arrive. None:
    it arrives; seconds: it does so later, and what is behind it waits; a function: what it returns
    arrives instead; a Fault. Rights and reply rights pass through, so calls work; the sender that
    is attested to `target` is this process. `target` and the yielded right stay the caller's, to
    give away as he likes; at the end the yielded one is closed and the relay's port is gone.
    """
    with ReceiveRight.allocate() as port, port.make_send() as send:
        task = asyncio.create_task(_pass_on(port, target, iter(fates)))
        try:
            yield send
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()


async def _pass_on(port: ReceiveRight, target: SendRight, fates: Iterator[Fate]) -> None:
    with port:  # its end is what senders see of the target's, and of a function that failed
        async for message in port:
            with message:
                fate = next(fates, None)
                if fate is Fault.DIE:
                    return
                if fate is Fault.DROP or message.is_notification:
                    continue
                changed = message
                if callable(fate):
                    changed = fate(message)
                elif isinstance(fate, (int, float)):
                    await asyncio.sleep(fate)
                try:
                    await target.send(changed)
                except DeadDestinationError:
                    return


# --- faults of the handshake ----------------------------------------------------------------------


class Step(enum.IntEnum):
    """How far a side of the handshake comes before it is gone, with its end of the pipe."""

    BEFORE_THE_OFFER = 0
    """Not a byte of the offer was written or read."""
    WITHIN_THE_OFFER = 1
    """Some bytes were."""
    BEFORE_THE_CHECK_IN = 2
    """The offer was written or read, but there is no check-in any more."""


class _Hasty(_checkin.Client):
    """Reads a part of the offer and no more."""

    def feed(self, data: bytes) -> _checkin.ClientState:
        state = super().feed(data)
        self.needed = 0
        return state


async def check_in_fd(
    fd: int,
    right: Right,
    disposition: Disposition,
    *,
    dies: Step | None = None,
    delay: float = 0,
    wrong_token: bool = False,
) -> None:
    """Be a client that goes wrong; otherwise as `machio.check_in_fd`, and `fd` is consumed.

    dies: return at that step, the pipe closed and the right not given. delay: seconds between the
    offer and the check-in. wrong_token: check in with another token than was offered; what the
    right was to do happens, and the server destroys it.
    """
    client = _checkin.Client()
    try:
        if dies is Step.BEFORE_THE_OFFER:
            return
        if dies is Step.WITHIN_THE_OFFER:
            await handshake.read_offer(fd, _Hasty())
            return
        await handshake.read_offer(fd, client)
        await asyncio.sleep(delay)
        if dies is Step.BEFORE_THE_CHECK_IN:
            return
        body = client.body()
        if wrong_token:
            body = body[:-1] + bytes((body[-1] ^ 1,))
        await handshake.send_check_in(client.name, body, right, disposition)
    finally:
        os.close(fd)


async def serve_fd(fd: int, *, dies: Step, delay: float = 0) -> None:
    """Be a server that goes wrong: the pipe `fd` is closed at a step, after `delay` seconds.

    Its service is gone then: with BEFORE_THE_CHECK_IN the offer is whole, and leads nowhere.
    """
    offer = _checkin.Server(os.urandom(8), handshake.service_name(), PortRightType.SEND).offer()
    size = {Step.BEFORE_THE_OFFER: 0, Step.WITHIN_THE_OFFER: len(offer) // 2}.get(dies, len(offer))
    try:
        await asyncio.sleep(delay)
        os.write(fd, offer[:size])  # less than a pipe always takes
    finally:
        os.close(fd)


# --- pytest ---------------------------------------------------------------------------------------

_session = contextlib.ExitStack()


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001
    """Give the test process a private bootstrap server, before anything can meet the user's."""
    os.environ["MACHIO_BOOTSTRAP"] = str(_session.enter_context(bootstrap_directory()))


def pytest_unconfigure(config: pytest.Config) -> None:  # noqa: ARG001
    """Let that server go."""
    _session.close()


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def bootstrap_dir() -> Iterator[Path]:
        """Yield the directory of a bootstrap server that no other test uses."""
        with bootstrap_directory() as path:
            yield path

    @pytest.fixture
    def bootstrap_env(bootstrap_dir: Path) -> dict[str, str]:
        """Return an environment for processes that are to use `bootstrap_dir`."""
        return {**os.environ, "MACHIO_BOOTSTRAP": str(bootstrap_dir)}

    @pytest.fixture(name="leak_check")
    def _leak_check() -> Iterator[None]:
        """Fail the test if it forgets a right or memory."""
        with leak_check():
            yield
