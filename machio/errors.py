"""One exception tree, split by blame.

::

    MachioError
    ├── UsageError                 this program called machio wrongly
    │   ├── RightClosedError       the right was closed, given away or left behind by a fork
    │   └── MemoryClosedError      the memory was closed or given away
    ├── MachError                  a Mach call returned a code: ``.code``
    │   ├── KernError              ... of the calls on ports and rights
    │   ├── SendError              ... of sending
    │   │   ├── DeadDestinationError
    │   │   └── SendTimedOut           (also a TimeoutError)
    │   │       └── WouldBlock             send_nowait found the queue full
    │   ├── ReceiveError           ... of receiving
    │   │   └── ReceiveTimedOut        (also a TimeoutError)
    │   ├── BootstrapError         ... of the bootstrap server
    │   │   └── UnknownServiceError
    │   └── MigError               ... of a call, or of a routine in MIG's format
    │       ├── ServerDiedError        the request was dropped unanswered
    │       └── RoutineError           the server's routine returned a code
    ├── BadMessageError            a peer sent a message of a shape that machio does not take
    └── HandshakeError             the other side of a child port handshake failed
        ├── NoCheckInError         the pipe ended, and nobody had checked in
        ├── WrongRightError        the check-in brought another kind of right, or a dead one
        ├── ServerGoneError        the server ended before the client could check in
        ├── ProtocolError          the pipe held bytes that are not the protocol's
        └── HandshakeTimedOut          (also a TimeoutError)

Where anyio has a word for it the error is anyio's too: RightClosedError is a ClosedResourceError,
DeadDestinationError a BrokenResourceError, WouldBlock a WouldBlock. What may be blamed on nobody
(memory, open files) comes as the MachError of the call that met it.
"""

from __future__ import annotations

import anyio

from .codes import (
    BootstrapCode,
    KernCode,
    MigCode,
    ReceiveCode,
    ReturnCode,
    SendCode,
    explain,
    lookup,
)


class MachioError(Exception):
    """Root of everything that machio raises on purpose."""


class UsageError(MachioError):
    """This program used machio wrongly; nothing was sent, received or consumed."""


class RightClosedError(UsageError, anyio.ClosedResourceError):
    """The object holds no right: closed, given away, released, or inherited through a fork."""


class MemoryClosedError(UsageError, anyio.ClosedResourceError):
    """The Memory holds no pages: closed, given away, or released."""


class MachError(MachioError):
    """A Mach call returned a code other than success.

    `code` is the member of its enum, or a bare int where machio knows no name for it; `number` is
    exactly what the call returned; `call` is the call's name in C.
    """

    def __init__(self, number: int, call: str, detail: str = "") -> None:
        super().__init__(number, call, detail)
        self.number: int = int(number)
        self.code: ReturnCode | int = self.number if (known := lookup(number)) is None else known
        self.call = call
        self.detail = detail

    def __str__(self) -> str:
        # Who knows the details knows better what to do, unless the code is about a service name.
        general = not self.detail or isinstance(self.code, BootstrapCode)
        text = f"{self.call}: {explain(self.number, advice=general)}"
        if not self.detail:
            return text
        detail = self.detail[0].upper() + self.detail[1:]
        return f"{text} {detail}" if detail.endswith(".") else f"{text} {detail}."


class KernError(MachError):
    """A call on ports or rights failed."""


class SendError(MachError):
    """A message was not sent; `explain` of the code says what became of the rights in it."""


class DeadDestinationError(SendError, anyio.BrokenResourceError):
    """The destination's port is dead; rights that were to move are still the caller's."""


class SendTimedOut(SendError, TimeoutError):  # noqa: N818 - named as the code
    """The queue stayed full; rights that were to move are still the caller's."""


class WouldBlock(SendTimedOut, anyio.WouldBlock):
    """`send_nowait` found the queue full; rights that were to move are still the caller's."""


class ReceiveError(MachError):
    """A receive failed for good: the right is gone, or what it delivered was incomplete."""


class ReceiveTimedOut(ReceiveError, TimeoutError):  # noqa: N818 - named as the code
    """No message arrived in time; none was lost."""


class BootstrapError(MachError):
    """The bootstrap server refused, or could not be reached (then the code is one of mach_msg)."""


class UnknownServiceError(BootstrapError):
    """No service has the name that was looked up."""


class MigError(MachError):
    """A call, or a routine in MIG's format, failed."""


class ServerDiedError(MigError):
    """The receiver of a request dropped it, or died, before it answered."""


class RoutineError(MigError):
    """A server's routine returned a code other than success: raise it there, meet it at the caller.

    `code` is the KernCode, MigCode or bare int that travels; a detail stays where it was raised.
    """

    def __init__(self, code: int, call: str = "routine", detail: str = "") -> None:
        super().__init__(code, call, detail)


class BadMessageError(MachioError):
    """A peer sent a message of a shape that machio does not take; all in it was released."""


class HandshakeError(MachioError):
    """A child port handshake failed; the children say how. Nothing was leaked."""


class NoCheckInError(HandshakeError):
    """Server side: the pipe has no reader any more, and no valid check-in had come."""


class WrongRightError(HandshakeError):
    """Server side: the check-in was genuine but brought the wrong kind of right, now destroyed."""


class ServerGoneError(HandshakeError):
    """Client side: the server ended, or its service is gone; a right to be moved is still held."""


class ProtocolError(HandshakeError):
    """Client side: the pipe's bytes are not a child port handshake."""


class HandshakeTimedOut(HandshakeError, TimeoutError):  # noqa: N818 - as its siblings
    """The time allowed ended before the handshake did."""


_CLASSES: dict[int, type[MachError]] = {
    SendCode.INVALID_DEST: DeadDestinationError,
    SendCode.TIMED_OUT: SendTimedOut,
    ReceiveCode.TIMED_OUT: ReceiveTimedOut,
    BootstrapCode.UNKNOWN_SERVICE: UnknownServiceError,
    MigCode.SERVER_DIED: ServerDiedError,
}
_FAMILIES: dict[type[ReturnCode], type[MachError]] = {
    KernCode: KernError,
    SendCode: SendError,
    ReceiveCode: ReceiveError,
    BootstrapCode: BootstrapError,
    MigCode: MigError,
}


def mach_error(number: int, call: str, detail: str = "") -> MachError:
    """Return the exception that fits what `call` returned; `detail` is appended to its text."""
    code = lookup(number)
    if code is None:
        return MachError(number, call, detail)
    return _CLASSES.get(code.value, _FAMILIES[type(code)])(number, call, detail)


def bootstrap_error(number: int, call: str, detail: str = "") -> BootstrapError:
    """Return the exception for a bootstrap call, whose code may also be one of mach_msg."""
    found = _CLASSES.get(number)
    if found is not None and issubclass(found, BootstrapError):
        return found(number, call, detail)
    return BootstrapError(number, call, detail)
