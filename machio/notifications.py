"""Waiting for what the system tells of: a port that died, a port that nobody can send to.

Both waits may be cancelled, leave no request behind, and use no thread.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from . import _ffi, _requests, _wire
from .codes import ReceiveCode
from .errors import MachError, RightClosedError, UsageError, mach_error
from .messages import Disposition, NotificationId
from .ports import ReceiveRight

if TYPE_CHECKING:
    from .messages import Message
    from .ports import SendOnceRight, SendRight


async def dead_name(right: SendRight | SendOnceRight, timeout: float | None = None) -> None:
    """Wait until the port that `right` sends to has died; at once if it has.

    The right stays the caller's, as a dead name. Raises RightClosedError if it is closed or given
    away meanwhile, ReceiveTimedOut. Mach: MACH_NOTIFY_DEAD_NAME, by way of SEND_POSSIBLE.
    """
    if not await _requests.wait_for_death(right.name, lambda: right.is_dead, timeout):
        raise mach_error(ReceiveCode.TIMED_OUT, "dead_name")


async def no_senders(port: ReceiveRight, timeout: float | None = None) -> int:
    """Wait until no send right to `port` is left, at once if there is none.

    Returns the make-send count. Send-once rights do not count, messages in the queue do. The right
    stays the caller's. One task at a time may wait. Raises UsageError if another waits,
    RightClosedError if the port is closed meanwhile, ReceiveTimedOut. Mach: MACH_NOTIFY_NO_SENDERS.
    """
    name = port.name
    with ReceiveRight.allocate() as notify:
        _register(name, notify)
        try:
            while True:
                with await notify.receive(timeout) as message:
                    count = _count_of(message)
                if count is not None:
                    return count
        finally:
            # If it has fired there is nothing to cancel; if the port is gone, no name.
            if not port.closed:
                with contextlib.suppress(MachError):
                    _ffi.deallocate(_request(name, _wire.NAME_NULL, Disposition.MAKE_SEND_ONCE))


def _register(name: int, notify: ReceiveRight) -> None:
    displaced = _request(name, notify.name, Disposition.MAKE_SEND_ONCE)
    if displaced:
        # Another waits: put its request back, and drop ours.
        _ffi.deallocate(_request(name, displaced, Disposition.MOVE_SEND_ONCE))
        raise UsageError("another task waits for the end of this port's senders already")


def _request(name: int, notify: int, poly: Disposition) -> int:
    return _ffi.request_notification(name, NotificationId.NO_SENDERS, 0, notify, poly)


def _count_of(message: Message) -> int | None:
    if not message.is_notification:
        return None  # the notify port is nobody else's; believe the system only
    if message.id == NotificationId.SEND_ONCE:
        raise RightClosedError("the port whose senders were awaited is closed")
    if message.id != NotificationId.NO_SENDERS:
        return None
    count: int = _wire.NOTIFICATION.unpack_from(message.body)[1]
    return count
