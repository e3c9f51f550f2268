"""The parent of this process, if `machio.spawn` started it: rights to it and from it.

::

    await machio.parent.check_in(send)  # the parent: await child.receive_right()
    port = await machio.parent.serve(PortRightType.RECEIVE)  # the parent: await child.give(port)

The first of these calls takes over the file descriptor that MACHIO_PARENT_FD tells: it is closed on
exec from then on, and the variable is taken out of `os.environ`. So it is this process's alone, and
what it starts later has neither. When the parent ends, or leaves the child's block, a handshake
with it fails at once.
"""

from __future__ import annotations

import atexit
import os
import socket
from typing import TYPE_CHECKING, Literal, overload

from ._link import VARIABLE, Link
from .errors import UsageError
from .messages import PortRightType

if TYPE_CHECKING:
    from ._right import Right
    from .messages import Disposition
    from .ports import ReceiveRight, SendOnceRight, SendRight

_link: Link | None = None


async def check_in(
    right: Right, disposition: Disposition | None = None, timeout: float | None = None
) -> None:
    """Give the parent a right; it calls `Child.receive_right`.

    disposition: what is done with the right, which moves if that is None. timeout: seconds. On
    failure, and on cancellation, a right that was to move is still in its object.

    Raises UsageError (no parent that wants it, a disposition that does not fit), ServerGoneError
    (the parent has gone), ProtocolError, HandshakeTimedOut, BootstrapError, SendError.
    """
    chosen = right.dispositions[0] if disposition is None else disposition
    await _parent().check_in(right, chosen, timeout)


@overload
async def serve(
    right_type: Literal[PortRightType.RECEIVE], timeout: float | None = None
) -> ReceiveRight: ...
@overload
async def serve(
    right_type: PortRightType = PortRightType.SEND, timeout: float | None = None
) -> ReceiveRight | SendRight | SendOnceRight: ...


async def serve(
    right_type: PortRightType = PortRightType.SEND, timeout: float | None = None
) -> ReceiveRight | SendRight | SendOnceRight:
    """Return a right that the parent gives, which the caller owns; it calls `Child.give`.

    right_type: SEND (a send-once right is welcome as well), RECEIVE or SEND_ONCE. timeout: seconds.

    Raises UsageError (no parent that could give one), NoCheckInError (the parent has gone),
    WrongRightError, HandshakeTimedOut, BootstrapError, ReceiveError.
    """
    return await _parent().serve(right_type, timeout)


def _parent() -> Link:
    global _link
    if _link is None:
        _link = Link(_adopt())
    return _link


def _adopt() -> socket.socket:
    """Take over the inherited socket. Raises UsageError, and leaves alone what it is not."""
    value = os.environ.get(VARIABLE)
    if value is None:
        raise UsageError(f"machio.spawn did not start this process: {VARIABLE} is not set")
    trouble = f"{VARIABLE} is {value!r}, and should be the number of an inherited socket"
    if not (value.isascii() and value.isdecimal() and len(value) <= 9):
        raise UsageError(trouble)
    try:
        end = socket.socket(fileno=int(value))
    except OSError as error:
        raise UsageError(f"{trouble}: {error.strerror}") from None
    if (end.family, end.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        end.detach()
        raise UsageError(f"{trouble} made by machio.spawn")
    end.set_inheritable(False)
    atexit.register(end.close)  # it stays open until then, and is no leak
    del os.environ[VARIABLE]
    return end
