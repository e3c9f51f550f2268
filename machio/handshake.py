"""Crashpad's child port handshake: two related processes that share one pipe exchange a port right.

The server writes a secret token and the name of a fresh service into the pipe. The client reads
them, looks the service up and sends the token with a port right. Nobody else knows the token, so
the right is the client's; and the pipe tells the server when there is no client any more. Either
process may be the server. A parent that wants a right from its child::

    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        child = subprocess.Popen([sys.executable, "child.py", str(fd)], pass_fds=[fd])
        os.close(fd)
        port = await handshake.serve(machio.PortRightType.RECEIVE)

and the child::

    await machio.check_in_fd(int(sys.argv[1]), port, machio.Disposition.MOVE_RECEIVE)

The other way round the parent hands out `server_write_fd` and calls `check_in`, the child calls
`serve_fd`. On the wire it is Crashpad's, whose processes may be the other side.

What the server promises: messages with a wrong token, id, size or shape are destroyed with all
rights in them, and the wait goes on; the end of the pipe ends it, but not before the queue was
looked at once more, since a check-in may have been sent just before; the first genuine check-in
ends it too, for good or (wrong kind of right) ill. Whatever the outcome, the service and the pipe
are closed then.

A pipe, where Crashpad has a socket pair with its wrong directions shut down: a pipe has no wrong
directions, its end is unmistakable, and SIGPIPE is kept off here by other means.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import warnings
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from . import _checkin, _ffi, _loop, _pipes, _wire, bootstrap, tracing
from ._closable import Closable
from ._incoming import own
from .codes import ReceiveCode, split
from .errors import (
    DeadDestinationError,
    HandshakeTimedOut,
    MachioError,
    NoCheckInError,
    ServerGoneError,
    UnknownServiceError,
    UsageError,
    WrongRightError,
    mach_error,
)
from .messages import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._right import Right
    from .messages import Disposition, PortRightType
    from .ports import ReceiveRight, SendOnceRight, SendRight

T = TypeVar("T")

# How many messages the server looks at before it lets the loop see the pipe, and a cancellation.
_BATCH = 32
# The least number of messages looked at after the pipe's end, should the queue's own count be off.
_LAST_LOOK = 1024
# How long, in seconds, a message may wait for room in this process before that is an error.
_PATIENCE = 1.0


class ChildPortHandshake(Closable):
    """A handshake's pipe, and either role in it. For one handshake; context manager.

    Whoever takes an end owns it, passes it to the other process and closes his own copy.
    """

    def __init__(self) -> None:
        self._read_fd = self._write_fd = -1
        self._read_fd, self._write_fd = os.pipe()

    def client_read_fd(self) -> int:
        """Give away the client's end; the caller owns the fd. Raises UsageError the second time."""
        fd, self._read_fd = self._read_fd, -1
        return _taken(fd, "client_read_fd")

    def server_write_fd(self) -> int:
        """Give away the server's end; the caller owns the fd. Raises UsageError the second time."""
        fd, self._write_fd = self._write_fd, -1
        return _taken(fd, "server_write_fd")

    @overload
    async def serve(
        self, right_type: Literal[PortRightType.RECEIVE], timeout: float | None = None
    ) -> ReceiveRight: ...
    @overload
    async def serve(
        self, right_type: PortRightType, timeout: float | None = None
    ) -> ReceiveRight | SendRight | SendOnceRight: ...

    async def serve(
        self, right_type: PortRightType, timeout: float | None = None
    ) -> ReceiveRight | SendRight | SendOnceRight:
        """Be the server; see `serve_fd`. Both ends of the pipe are closed here afterwards."""
        fd = self.server_write_fd()
        # A client's end that is still here would keep the pipe from ever ending.
        self.close()
        return await serve_fd(fd, right_type, timeout)

    async def check_in(
        self, right: Right, disposition: Disposition, timeout: float | None = None
    ) -> None:
        """Be the client; see `check_in_fd`. Both ends of the pipe are closed here afterwards."""
        fd = self.client_read_fd()
        self.close()
        await check_in_fd(fd, right, disposition, timeout)

    def close(self) -> None:
        """Close the ends that were not taken; idempotent."""
        fds = (self._read_fd, self._write_fd)
        self._read_fd = self._write_fd = -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        if self._read_fd >= 0 or self._write_fd >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
            self.close()


@overload
async def serve_fd(
    fd: int, right_type: Literal[PortRightType.RECEIVE], timeout: float | None = None
) -> ReceiveRight: ...
@overload
async def serve_fd(
    fd: int, right_type: PortRightType, timeout: float | None = None
) -> ReceiveRight | SendRight | SendOnceRight: ...


async def serve_fd(
    fd: int, right_type: PortRightType, timeout: float | None = None
) -> ReceiveRight | SendRight | SendOnceRight:
    """Offer a service through the pipe or socket `fd`, and return the right that is checked in.

    right_type: RECEIVE, SEND (a send-once right is welcome as well) or SEND_ONCE. The caller owns
    the right. `fd` is consumed: closed at the end, whatever that is, as is the service.

    Raises NoCheckInError (nobody reads the pipe any more), WrongRightError, HandshakeTimedOut,
    BootstrapError, ReceiveError (no room for the right), OSError (`fd` is not fit for it).
    """
    with _Closing(fd):
        return await limited(serve_on(fd, right_type), timeout)


async def check_in_fd(
    fd: int, right: Right, disposition: Disposition, timeout: float | None = None
) -> None:
    """Read the offer from `fd` (anything readable) and check in with `right`.

    `fd` is consumed: closed at the end, whatever that is. On success a right that moves is gone
    from its object; on any failure, and on cancellation, it is still there.

    Raises ServerGoneError (the pipe ended, the service is gone), ProtocolError, HandshakeTimedOut,
    UsageError (the disposition does not go with the right), BootstrapError, SendError, OSError.
    """
    with _Closing(fd):
        await limited(_check_in(fd, right, disposition), timeout)


class _Closing:
    """Closes an fd at the end of a with statement, once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


def _taken(fd: int, what: str) -> int:
    if fd < 0:
        raise UsageError(f"{what}: this end of the pipe was taken, used or closed before")
    return fd


def service_name() -> str:
    """Return a name that nobody has and nobody guesses."""
    where = f"{os.getpid()}.{threading.get_native_id()}"
    return f"org.machio.child_port_handshake.{where}.{os.urandom(16).hex()}"


async def limited(work: Awaitable[T], timeout: float | None) -> T:
    """Await `work` for that many seconds at most. Raises HandshakeTimedOut."""
    if timeout is None:
        return await work
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if isinstance(error, MachioError) or not scope.expired():
            raise
        raise HandshakeTimedOut(f"the handshake did not end within {timeout} seconds") from None


async def serve_on(fd: int, right_type: PortRightType) -> ReceiveRight | SendRight | SendOnceRight:
    """Do what `serve_fd` does, but for the time limit, on an fd that stays the caller's."""
    server = _checkin.Server(os.urandom(8), service_name(), right_type)
    with await bootstrap.check_in(server.service_name) as service:
        with contextlib.suppress(BrokenPipeError):
            await _offer(fd, server.offer())
        with contextlib.closing(_loop.current().watch_end(fd)) as pipe:
            queue = _Queue(service, pipe, server)
            line = service.watch()

            def look_if_ended() -> None:
                if pipe.eof:
                    line.wake()

            # From here the pipe's end makes the server look at the queue, for the last time.
            pipe.on_event = look_if_ended
            while True:
                await line.stand(queue.look, None)
                if server.done:
                    return queue.outcome()
                await asyncio.sleep(0)


async def _offer(fd: int, data: bytes) -> None:
    adapter = _loop.current()
    while data:
        written = await _when_ready(partial(_pipes.write_now, fd, data), adapter.watch_writer, fd)
        data = data[written:]


async def _when_ready(
    attempt: Callable[[], T | None], watch: Callable[[int], _loop.FileWatch], fd: int
) -> T:
    """Return what `attempt` returns as soon as that is not None: at once, as a rule."""
    result = attempt()
    if result is None:
        with contextlib.closing(watch(fd)) as file:
            result = await file.stand(attempt, None)
    assert result is not None
    return result


class _Queue:
    """The service's queue as the server looks at it: one small buffer, one message at a time."""

    def __init__(
        self, service: ReceiveRight, pipe: _loop.FileWatch, server: _checkin.Server
    ) -> None:
        self._service = service
        self._pipe = pipe
        self._server = server
        self._right: ReceiveRight | SendRight | SendOnceRight | None = None
        # No room for more than a check-in: what is larger is destroyed by the kernel, unread.
        self._buffer = _ffi.Buffer(_checkin.CHECK_IN_SIZE + _wire.TRAILER_SIZE)
        self._no_room_since: float | None = None

    def look(self) -> bool | None:
        """Look at some messages. None: there are none, wait; True: done, or there may be more."""
        if self._pipe.eof:
            # Before the queue is looked at: what was sent before the end is in it by now.
            self._server.hang_up(max(self._service.status.queued, _LAST_LOOK))
        for _ in range(_BATCH):
            if not self._next():
                return True if self._server.done else None
            if self._server.done:
                return True
        return True

    def outcome(self) -> ReceiveRight | SendRight | SendOnceRight:
        """Return the right, or raise what happened instead."""
        if self._server.state == "wrong right":
            raise WrongRightError(
                "the client checked in, but with another kind of right than expected, or one whose"
                " port has died; the right was destroyed"
            )
        if self._right is None:
            refused = self._server.refused
            raise NoCheckInError(
                "the client closed the pipe, or never was, and had not checked in"
                + (f"; messages refused and destroyed: {refused}" if refused else "")
            )
        return self._right

    def _next(self) -> bool:
        """Receive and judge one message; False if there is none."""
        option = _ffi.RECEIVE | _ffi.RECEIVE_TIMEOUT
        # Not every error comes with a message: the one before shall not be taken for it.
        _wire.HEADER.pack_into(self._buffer.view, 0, 0, 0, 0, 0, 0, 0)
        code = _ffi.receive(self._buffer, self._service.name, option)
        if split(code)[0] == ReceiveCode.BODY_ERROR and not self._message():
            self._wait_for_room(code)
            return True
        self._no_room_since = None
        if code == ReceiveCode.TIMED_OUT:
            self._server.empty()
            return False
        if code == 0:
            self._judge()
        elif code == ReceiveCode.TOO_LARGE or split(code)[0] == ReceiveCode.HEADER_ERROR:
            self._server.refuse()  # it was destroyed already
        elif split(code)[0] == ReceiveCode.BODY_ERROR:
            self._judge_incomplete(code)
        else:
            raise mach_error(code, "mach_msg")
        return True

    def _judge(self) -> None:
        view = self._message()
        if tracing.on:
            with contextlib.suppress(_wire.Malformed):
                tracing.received(_wire.unpack(self._buffer.view))
        if self._server.judge(view) != "accepted":
            _ffi.destroy(self._buffer)
            return
        self._right = own(*_checkin.right_of(view))
        # A check-in has no reply; a right that came as one is not wanted.
        _ffi.deallocate(_wire.NAME.unpack_from(view, _wire.REMOTE_AT)[0])

    def _wait_for_room(self, code: int) -> None:
        """Take note that a message stays in the queue for want of file descriptors here.

        Strange ones are closed by another thread, so room may come; raises ReceiveError if not.
        """
        now = time.monotonic()
        if self._no_room_since is None:
            self._no_room_since = now
        elif now - self._no_room_since > _PATIENCE:
            raise mach_error(code, "mach_msg")

    def _judge_incomplete(self, code: int) -> None:
        """Judge a message whose right could not be delivered: misfortune if it was the client's."""
        state = self._server.judge(self._message())
        _ffi.destroy(self._buffer)
        if state in ("accepted", "wrong right"):
            raise mach_error(code, "mach_msg")

    def _message(self) -> bytes:
        view = self._buffer.view
        return bytes(view[: _wire.HEADER.unpack_from(view)[1]])


async def _check_in(fd: int, right: Right, disposition: Disposition) -> None:
    client = _checkin.Client()
    await read_offer(fd, client)
    await send_check_in(client.name, client.body(), right, disposition)


async def send_check_in(name: str, body: bytes, right: Right, disposition: Disposition) -> None:
    """Send a check-in to the service of that name; it fails as `check_in_fd` does."""
    message = Message(_checkin.CHECK_IN_ID, body, rights=[(right, disposition)])
    try:
        with await bootstrap.look_up(name) as service:
            await service.send(message)
    except (UnknownServiceError, DeadDestinationError) as error:
        raise ServerGoneError(
            "the handshake's server is gone, or has had its check-in already;"
            " the right was not given away"
        ) from error


async def read_offer(fd: int, client: _checkin.Client) -> None:
    """Read from `fd`, which stays the caller's, what the client needs and nothing beyond.

    Raises ServerGoneError, ProtocolError. After a cancellation it may be called again.
    """
    adapter = _loop.current()
    while client.needed:
        attempt = partial(_pipes.read_now, fd, client.needed)
        client.feed(await _when_ready(attempt, adapter.watch_reader, fd))
