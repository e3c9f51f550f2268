"""A notify port of its own for one wait: what the system's notification does not tell by itself.

A no-senders notification has no name in it, only a count; the port that it arrives at says whose
senders are gone. So each wait makes such a port, and closes it whatever the outcome.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from . import _ffi, _loop, _wire, tracing
from .errors import MachError, RightClosedError, UsageError
from .messages import Disposition, NotificationId, PortRightType

if TYPE_CHECKING:
    from collections.abc import Callable


async def wait_for_no_senders(
    name: int, is_closed: Callable[[], bool], timeout: float | None
) -> int | None:
    """Wait until the port `name` has no send right; returns the make-send count.

    None: the timeout (seconds) has passed. Raises UsageError if another waits, RightClosedError if
    the port goes away, MachError. The request is taken back at the end unless `is_closed` says
    that `name` is not the port's any more. Mach: MACH_NOTIFY_NO_SENDERS.
    """
    notify = _ffi.allocate(PortRightType.RECEIVE)
    try:
        with contextlib.closing(_loop.current().watch_port(notify)) as watch:
            _register(name, notify)
            try:
                found = await watch.stand(lambda: _next_count(notify), timeout)
            finally:
                # If it has fired there is nothing to cancel; if the port is gone, no name.
                if not is_closed():
                    with contextlib.suppress(MachError):
                        _ffi.deallocate(_request(name, _wire.NAME_NULL, Disposition.MAKE_SEND_ONCE))
    finally:
        _ffi.mod_refs(notify, PortRightType.RECEIVE, -1)
    return found


def _register(name: int, notify: int) -> None:
    displaced = _request(name, notify, Disposition.MAKE_SEND_ONCE)
    if displaced:
        # Another waits: put its request back, and drop ours.
        _ffi.deallocate(_request(name, displaced, Disposition.MOVE_SEND_ONCE))
        raise UsageError("another task waits for the end of this port's senders already")


def _request(name: int, notify: int, poly: Disposition) -> int:
    return _ffi.request_notification(name, NotificationId.NO_SENDERS, 0, notify, poly)


def _next_count(notify: int) -> int | None:
    """Take notifications off the port until one is about senders. Raises RightClosedError."""
    for word in _ffi.notifications(notify):
        message_id, count = word >> 32, word & 0xFFFFFFFF
        if tracing.on:
            tracing.notified(message_id, notify, count)
        if message_id == NotificationId.SEND_ONCE:
            raise RightClosedError("the port whose senders were awaited is closed")
        if message_id == NotificationId.NO_SENDERS:
            return count
    return None
