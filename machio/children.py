"""Child processes, and the rights that they and their parent exchange.

::

    async with machio.spawn([sys.executable, "worker.py"]) as child:
        await child.give(port)  # the child: await machio.parent.serve(PortRightType.RECEIVE)
        worker = await child.receive_right()  # the child: await machio.parent.check_in(right)
        ...
        print(await child.wait())

The child inherits one end of a socket; the environment variable MACHIO_PARENT_FD has its number.
Over it go any number of child port handshakes (see `machio.handshake`), one after the other, either
process being the server. A child that is not written with machio reads and writes what
docs/children.md says.

While the child lives, a handshake waits for it, for as long as its time limit allows. When it ends,
however it does, every handshake with it ends at once, even if some process that it started has
inherited the socket. Only a right that it checked in before is received.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import anyio

from ._link import VARIABLE, Link
from .errors import NoCheckInError, ServerGoneError
from .messages import PortRightType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
    from typing import TypeAlias

    from ._right import Right
    from .messages import Disposition
    from .ports import ReceiveRight, SendOnceRight, SendRight

    Argument: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

T = TypeVar("T")

# How long, in seconds, a child that has closed its end of the socket may take to end, so that the
# error can tell how it did.
_PATIENCE = 1.0
# The size of the buffers of stdout and stderr, if they are pipes: asyncio's own.
_LIMIT = 2**16


@contextlib.asynccontextmanager
async def spawn(
    command: Sequence[Argument],
    *,
    grace: float = 5.0,
    env: Mapping[str, str] | None = None,
    pass_fds: Collection[int] = (),
    **options: Any,
) -> AsyncIterator[Child]:
    """Start a process and yield it as a `Child`; when the block is left it is ended and reaped.

    command: the program and its arguments. env: the child's environment, this process's by default;
    MACHIO_PARENT_FD is added. pass_fds: what else it inherits. The other options are those of
    asyncio.create_subprocess_exec: cwd, stdin, stdout, stderr, start_new_session ...

    Leaving the block, in whatever way, sends SIGTERM to a child that runs still, and SIGKILL if it
    does so after `grace` seconds, or when the one who leaves is cancelled (again) meanwhile; 0 is
    SIGKILL at once. Wait for it before, with `Child.wait`, if it shall end by itself. Its own
    children are its business.

    Raises OSError (the program cannot be started, no file descriptors).
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    child = Child(Link(ours), grace)
    try:
        with theirs:
            fd = theirs.fileno()
            options |= {"env": _environment(env, fd), "pass_fds": (*pass_fds, fd)}
            await child._start(command, options)  # noqa: SLF001 - of this module
        yield child
    finally:
        await child._end()  # noqa: SLF001


def _environment(
    env: Mapping[str, str] | None, fd: int
) -> Mapping[str, str] | Mapping[bytes, bytes]:
    if env is not None:
        return {**env, VARIABLE: str(fd)}
    # As bytes, which is what the system has: decoded they would be encoded again.
    return {**os.environb, VARIABLE.encode(): str(fd).encode()}


class Child:
    """A process that `spawn` started.

    pid: its number. process: asyncio's view of it, with the streams of those of its standard files
    that are pipes.
    """

    pid: int
    process: asyncio.subprocess.Process

    def __init__(self, link: Link, grace: float) -> None:
        self._link = link
        self._grace = grace
        self._transport: asyncio.SubprocessTransport | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        """Its exit status; negative: the signal that killed it; None while it runs."""
        return None if self._transport is None else self._transport.get_returncode()

    async def wait(self) -> int:
        """Wait for its end and return its exit status, as `returncode`. Ends nothing by itself."""
        await asyncio.wait([self._ended])
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended. Raises PermissionError."""
        # Not the transport's method: in some Pythons that one may reap the process by itself, and
        # then nobody learns its status. Until the loop has reaped it, the number is its own.
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    @overload
    async def receive_right(
        self, right_type: Literal[PortRightType.RECEIVE], timeout: float | None = None
    ) -> ReceiveRight: ...
    @overload
    async def receive_right(
        self, right_type: PortRightType = PortRightType.SEND, timeout: float | None = None
    ) -> ReceiveRight | SendRight | SendOnceRight: ...

    async def receive_right(
        self, right_type: PortRightType = PortRightType.SEND, timeout: float | None = None
    ) -> ReceiveRight | SendRight | SendOnceRight:
        """Return the right that the child checks in, which the caller owns.

        right_type: SEND (a send-once right is welcome as well), RECEIVE or SEND_ONCE. timeout:
        seconds. The child calls `machio.parent.check_in`. A right that comes when the caller has
        been cancelled is destroyed. Callers take turns.

        Raises NoCheckInError (the child has ended, and the error tells how), WrongRightError,
        HandshakeTimedOut, BootstrapError, ReceiveError; UsageError after the block.
        """
        return await self._explain(self._link.serve(right_type, timeout))

    async def give(
        self, *rights: Right | tuple[Right, Disposition], timeout: float | None = None
    ) -> None:
        """Check rights in with the child, one after the other.

        A right alone moves, and its object is empty then; a pair says what is done with it, for
        instance ``(port, Disposition.MAKE_SEND)``. timeout: seconds for each. The child calls
        `machio.parent.serve` once for each. On failure, and on cancellation, this right and those
        after it are still the caller's. Callers take turns.

        Raises ServerGoneError (the child has ended, and the error tells how), ProtocolError (it
        does not speak it; no handshake with it is possible any more), HandshakeTimedOut,
        BootstrapError, SendError, UsageError.
        """
        for carried in rights:
            pair = carried if isinstance(carried, tuple) else (carried, carried.dispositions[0])
            await self._explain(self._link.check_in(*pair, timeout))

    def __repr__(self) -> str:
        return f"<Child {'not started' if self._transport is None else self._state()}>"

    def _state(self) -> str:
        status = self.returncode
        if status is None:
            return f"pid {self.pid} runs"
        if status >= 0:
            return f"pid {self.pid} ended with status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else -status
        return f"pid {self.pid} was killed by signal {name}"

    async def _explain(self, work: Awaitable[T]) -> T:
        """Await a handshake; if the socket has ended, say what became of the child."""
        try:
            return await work
        except (NoCheckInError, ServerGoneError) as error:
            # As a rule it is just ending: its files are closed before its status is known.
            with anyio.move_on_after(_PATIENCE):
                await self.wait()
            raise type(error)(f"{error}; the child, {self._state()}") from error.__cause__

    async def _start(self, command: Sequence[Argument], options: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        options = {"stdin": None, "stdout": None, "stderr": None, **options}
        starting = asyncio.ensure_future(
            loop.subprocess_exec(lambda: _Protocol(loop, self._has_ended), *command, **options)
        )
        # A start that was cancelled half-way would leave a process that nobody knows.
        cancelled = None
        while not starting.done():
            cancelled = await _outlast(starting) or cancelled
        self._transport, protocol = starting.result()
        self.pid = self._transport.get_pid()
        self.process = asyncio.subprocess.Process(self._transport, protocol, loop)
        if cancelled is not None:
            raise cancelled

    def _has_ended(self) -> None:
        self._link.shut()
        if not self._ended.done():
            self._ended.set_result(None)

    async def _end(self) -> None:
        cancelled = None
        try:
            if self._transport is None:
                return
            # The signal first: a child that waits for us does not see us go, but its own end.
            if self._grace > 0:
                self.send_signal(signal.SIGTERM)
            self._link.shut()
            if not self._ended.done():
                cancelled = await _outlast(self._ended, self._grace)
            while not self._ended.done():
                self.send_signal(signal.SIGKILL)
                cancelled = await _outlast(self._ended) or cancelled
            self._transport.close()
        finally:
            self._link.close()
        if cancelled is not None:
            raise cancelled


class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """What asyncio has for a process with streams, which in addition tells of its end at once.

    `Process.wait` may wait for the end of the pipes too, and others may hold them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
        super().__init__(_LIMIT, loop)
        self._tell = ended

    def process_exited(self) -> None:
        super().process_exited()
        self._tell()


async def _outlast(
    future: asyncio.Future[Any], timeout: float | None = None
) -> asyncio.CancelledError | None:
    """Wait for a future, though the task be cancelled; return a cancellation that came meanwhile.

    A scope of anyio that is cancelled already does not disturb either.
    """
    with anyio.CancelScope(shield=True):
        try:
            await asyncio.wait([future], timeout=timeout)
        except asyncio.CancelledError as error:
            return error
    return None
