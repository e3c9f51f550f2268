"""The socket between a parent and its child, for one handshake after another, in both directions.

Each side writes its offers into the socket and reads those of the other; what follows is the
handshake as ever. Handshakes of one direction take turns, those of the two do not disturb each
other.

The socket outlives a handshake, and so may an offer: one whose server has stopped waiting is still
there to be read. So a client takes an offer without a service for withdrawn, and reads the next.
What was read of an offer is kept when its reader is cancelled; the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from . import _checkin, _ffi, handshake
from ._loop import Line
from .errors import HandshakeError, ProtocolError, ServerGoneError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._right import Right
    from .messages import Disposition, PortRightType
    from .ports import ReceiveRight, SendOnceRight, SendRight

# In the child's environment: the number of the fd that it inherits, in decimal.
VARIABLE = "MACHIO_PARENT_FD"


class _Turn:
    """What one task at a time has, for as long as its with block: first come, first served."""

    def __init__(self) -> None:
        self._line = Line()
        self._taken = False

    async def __aenter__(self) -> None:
        await self._line.stand(self._take, None)

    def _take(self) -> bool | None:
        if self._taken:
            return None
        self._taken = True
        return True

    async def __aexit__(self, *_: object) -> None:
        self._taken = False
        self._line.wake()


class Link:
    """One end of the socket, which the link owns from then on."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._space = _ffi.space
        self._users = 0
        self._shut = self._closed = False
        self._serving, self._checking_in = _Turn(), _Turn()
        self._client = _checkin.Client()  # with what was read of the next offer
        self._scope: asyncio.Timeout | None = None  # of whoever checks in

    async def serve(
        self, right_type: PortRightType, timeout: float | None
    ) -> ReceiveRight | SendRight | SendOnceRight:
        """Have the other side check a right in; as `machio.serve_fd`, and again if need be."""
        return await handshake.limited(self._serve(right_type), timeout)

    async def check_in(self, right: Right, disposition: Disposition, timeout: float | None) -> None:
        """Check a right in with the other side; as `machio.check_in_fd`, and again if need be."""
        await handshake.limited(self._check_in(right, disposition), timeout)

    def shut(self) -> None:
        """Let all handshakes end now, and those to come: there is nobody at the other end."""
        self._shut = True
        with contextlib.suppress(OSError):  # the other end is closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(0)  # now

    def close(self) -> None:
        """Shut the link, and close the socket as soon as no handshake uses it. Idempotent."""
        self._closed = True
        self.shut()
        self._close_unused()

    def _close_unused(self) -> None:
        if self._closed and not self._users:
            self._socket.close()

    @contextlib.contextmanager
    def _use(self) -> Iterator[int]:
        if self._closed:
            raise UsageError("the child's block was left: there are no more handshakes with it")
        if self._space != _ffi.space:
            raise UsageError("a forked process has no part in the handshakes of the one before")
        self._users += 1
        try:
            yield self._socket.fileno()
        finally:
            self._users -= 1
            self._close_unused()

    async def _serve(self, right_type: PortRightType) -> ReceiveRight | SendRight | SendOnceRight:
        with self._use() as fd:
            async with self._serving:
                return await handshake.serve_on(fd, right_type)

    async def _check_in(self, right: Right, disposition: Disposition) -> None:
        with self._use() as fd:
            async with self._checking_in:
                # The offer may lead anywhere, to a queue that stays full say. So the end of the
                # process that made it does not only end the socket.
                gone = "the other process has ended; the right was not given away"
                if self._shut:
                    raise ServerGoneError(gone)
                scope = asyncio.timeout(None)
                try:
                    async with scope:
                        self._scope = scope
                        await self._answer_next(fd, right, disposition)
                except TimeoutError:
                    if not scope.expired():
                        raise
                    raise ServerGoneError(gone) from None
                finally:
                    self._scope = None

    async def _answer_next(self, fd: int, right: Right, disposition: Disposition) -> None:
        """Check in with the next offer that holds."""
        while True:
            try:
                await handshake.read_offer(fd, self._client)
            except HandshakeError as error:
                self._client = _checkin.Client()
                if isinstance(error, ProtocolError):  # nobody knows where the next offer begins
                    self.shut()
                raise
            client = self._client
            try:
                await handshake.send_check_in(client.name, client.body(), right, disposition)
            except ServerGoneError:
                self._client = _checkin.Client()  # withdrawn
            else:
                self._client = _checkin.Client()
                return
