"""Waiting on a send right's name: for room in the port's queue, and for the port's death.

Mach keeps one request slot a name for both (MACH_NOTIFY_SEND_POSSIBLE also reports DEAD_NAME), and
a task has one slot however many event loops it runs. So this registry owns the slots: it registers
a request when someone begins to wait, registers it again after it has fired if someone still waits,
and cancels it when the last has gone. Notifications arrive at a port of the loop's own, in the
loop's kqueue; they bypass its queue limit. One that does not come from the system is dropped.

As everywhere in the adapter a notification only wakes; who is woken looks for himself. Thus a stale
one (of a request cancelled while it was on its way) does no harm.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, TypeVar

from . import _ffi, _loop, _wire, tracing
from ._loop import Adapter, Line
from .codes import ReceiveCode
from .errors import MachError
from .messages import Disposition, NotificationId, PortRightType

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_NAMED = {
    NotificationId.PORT_DELETED: False,
    NotificationId.SEND_POSSIBLE: False,
    NotificationId.DEAD_NAME: True,  # the name has gained a uref for whoever is told
}
# What tasks wait for.
_ROOM, _DEATH, _POSSIBLE = "room", "death", "possible"


class _Slot:
    """One name's request: `owner` is the loop whose notify port it names, None if there is none.

    lines: who waits, by the loop and by what for; made for the first and gone with the last.
    possible: how often the system said that there is room.
    """

    __slots__ = ("lines", "name", "owner", "possible")

    def __init__(self, name: int) -> None:
        self.name = name
        self.owner: Adapter | None = None
        self.lines: dict[tuple[Adapter, str], Line] = {}
        self.possible = 0

    def register(self, adapter: Adapter, *, at_once: bool = False) -> None:
        """Make sure that a request is registered. Raises MachError, for example on a gone name.

        at_once: register anew, and be told at once if there is room already.
        """
        with _lock:
            if self.owner is None or at_once:
                self._request(_Mailbox.of(adapter).name, at_once)
                self.owner = adapter

    def cancel(self) -> None:
        """Take the request back, if there is one and the name still exists."""
        if self.owner is not None:
            self.owner = None
            with contextlib.suppress(MachError):
                self._request(_wire.NAME_NULL)

    def _request(self, notify: int, at_once: bool = False) -> None:
        previous = _ffi.request_notification(
            self.name, NotificationId.SEND_POSSIBLE, at_once, notify, Disposition.MAKE_SEND_ONCE
        )
        if previous:
            _ffi.deallocate(previous)

    def wake(self, here: Adapter | None = None) -> None:
        """Let the first of each line look; those `here` before this returns, where no task runs."""
        with _lock:
            lines = list(self.lines.items())
        for (adapter, _), line in lines:
            if adapter is not here:
                adapter.post(line.wake)
            elif line.first is not None:
                line.first.resume_now()


# The lock guards the registry and the slots; nothing blocks under it. Reentrant: a right that is
# collected as garbage meanwhile comes through `touch`.
_lock = threading.RLock()
_slots: dict[int, _Slot] = {}


def _forget_parent() -> None:
    global _lock
    _lock = threading.RLock()
    _slots.clear()


os.register_at_fork(after_in_child=_forget_parent)


class _Mailbox:
    """A loop's notify port. Ownership: closed with the adapter."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self.name = _ffi.allocate(PortRightType.RECEIVE)
        try:
            self._watch = adapter.watch_port(self.name)
        except BaseException:
            _ffi.mod_refs(self.name, PortRightType.RECEIVE, -1)
            raise
        self._watch.on_event = self._collect
        adapter.at_close(self._close)

    @staticmethod
    def of(adapter: Adapter) -> _Mailbox:
        """Return the adapter's mailbox, made on first use."""
        if adapter.mailbox is None:
            adapter.mailbox = _Mailbox(adapter)
        mailbox: _Mailbox = adapter.mailbox
        return mailbox

    def _collect(self) -> None:
        buffer, told = _ffi.take_buffer(), []
        # Without MACH_RCV_LARGE: what is too large for a notification is destroyed unread.
        option = _ffi.RECEIVE | _ffi.RECEIVE_TIMEOUT
        try:
            while True:
                code = _ffi.receive_now(buffer.header, option, buffer.size, self.name)
                if code <= _ffi.RECEIVED_LAST:
                    told.append(_deliver(buffer))
                if code not in (0, ReceiveCode.TOO_LARGE):
                    break
        finally:
            _ffi.return_buffer(buffer)
        for slot in told:
            if slot is not None:
                slot.wake(self._adapter)

    def _close(self) -> None:
        with _lock:
            for slot in list(_slots.values()):
                for key in [key for key in slot.lines if key[0] is self._adapter]:
                    del slot.lines[key]
                if slot.owner is self._adapter:
                    slot.cancel()
                    slot.wake()  # another loop registers its own
                if not slot.lines:
                    _slots.pop(slot.name, None)
        self._watch.close()
        _ffi.mod_refs(self.name, PortRightType.RECEIVE, -1)


def _deliver(buffer: _ffi.Buffer) -> _Slot | None:
    """Take note of a notification; return the slot that it is for, whose waiters are to look."""
    try:
        incoming = _wire.unpack(buffer.view)
    except _wire.Malformed:
        _ffi.destroy(buffer)
        return None
    if not _wire.is_from_kernel(incoming.trailer):
        _ffi.destroy(buffer)
        return None
    if tracing.on:
        tracing.received(incoming)
    counted = _NAMED.get(incoming.id)  # type: ignore[call-overload]
    if counted is None:
        return None
    _, name = _wire.NOTIFICATION.unpack_from(incoming.body)
    if counted:
        with contextlib.suppress(MachError):
            _ffi.deallocate(name)
    with _lock:
        slot = _slots.get(name)
        if slot is not None:
            slot.owner = None  # a request fires once
            slot.possible += incoming.id == NotificationId.SEND_POSSIBLE
        return slot


def touch(name: int) -> None:
    """Let whoever waits on `name` look: a right under it was closed or given away."""
    if name in _slots:
        with _lock:
            slot = _slots.get(name)
            if slot is not None:
                slot.wake()


def is_awaited(name: int) -> bool:
    """Tell whether somebody waits to send to `name`, so that a newcomer has to stand in line."""
    slot = _slots.get(name)
    if slot is None:
        return False
    with _lock:
        return any(what is _ROOM and line.first for (_, what), line in slot.lines.items())


async def wait_for_room(
    name: int, attempt: Callable[[], T | None], timeout: float | None, *, attempted: bool = False
) -> T | None:
    """Return what `attempt` returns once it is this task's turn and that is not None.

    `attempt` sends with MACH_SEND_NOTIFY and without blocking; where it did so in vain a request is
    registered, and it is made again. `attempted` says that the caller has just done the first.
    None: the timeout (seconds) has passed. Mach: mach_port_request_notification.
    """
    adapter = _loop.current()
    slot, line = _enter(name, adapter, _ROOM)

    def armed() -> T | None:
        nonlocal attempted
        result = None if attempted else attempt()
        attempted = False
        if result is not None:
            return result
        try:
            slot.register(adapter)
        except MachError:
            # The name may be gone or dead; the attempt says so in terms of sending.
            result = attempt()
            if result is None:
                raise
            return result
        return attempt()

    try:
        return await line.stand(armed, timeout)
    finally:
        _leave(slot, adapter, _ROOM)


async def wait_for_death(name: int, is_dead: Callable[[], bool], timeout: float | None) -> bool:
    """Wait until `is_dead` says so; it is asked at the start and after each notification.

    False: the timeout (seconds) has passed. What `is_dead` raises ends the wait.
    """
    adapter = _loop.current()
    slot, line = _enter(name, adapter, _DEATH)

    def look() -> bool | None:
        if is_dead():
            return True
        slot.register(adapter)
        return None

    try:
        return await line.stand(look, timeout) is not None
    finally:
        _leave(slot, adapter, _DEATH)


async def wait_until_possible(name: int, check: Callable[[], None], timeout: float | None) -> bool:
    """Wait until the system says that a message sent to `name` would find room.

    `check` is called first each time, and what it raises ends the wait. False: the timeout
    (seconds) has passed. Mach: mach_port_request_notification, SEND_POSSIBLE, sync.
    """
    adapter = _loop.current()
    slot, line = _enter(name, adapter, _POSSIBLE)
    seen, asked = slot.possible, False

    def look() -> bool | None:
        nonlocal asked
        check()
        if slot.possible != seen:
            return True
        if slot.owner is None or not asked:
            slot.register(adapter, at_once=True)
            asked = True
        return None

    try:
        return await line.stand(look, timeout) is not None
    finally:
        _leave(slot, adapter, _POSSIBLE)


def _enter(name: int, adapter: Adapter, what: str) -> tuple[_Slot, Line]:
    with _lock:
        slot = _slots.get(name)
        if slot is None:
            slot = _slots[name] = _Slot(name)
        line = slot.lines.get((adapter, what))
        if line is None:
            line = slot.lines[adapter, what] = Line(adapter)
        return slot, line


def _leave(slot: _Slot, adapter: Adapter, what: str) -> None:
    with _lock:
        line = slot.lines.get((adapter, what))
        if line is None or line.first is not None:
            return
        del slot.lines[adapter, what]
        if not slot.lines and _slots.get(slot.name) is slot:
            del _slots[slot.name]
            slot.cancel()
