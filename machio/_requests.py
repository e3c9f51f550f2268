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


class _Member:
    """The tasks of one loop that wait on one name."""

    __slots__ = ("death", "possible", "room")

    def __init__(self, adapter: Adapter) -> None:
        self.room: Line = Line(adapter)
        self.death: Line = Line(adapter)
        self.possible: Line = Line(adapter)

    def __bool__(self) -> bool:
        return any((self.room.first, self.death.first, self.possible.first))

    def wake(self) -> None:
        self.room.wake()
        self.death.wake()
        self.possible.wake()


class _Slot:
    """One name's request: `owner` is the loop whose notify port it names, None if there is none.

    `possible` counts how often the system said that there is room.
    """

    __slots__ = ("members", "name", "owner", "possible")

    def __init__(self, name: int) -> None:
        self.name = name
        self.owner: Adapter | None = None
        self.members: dict[Adapter, _Member] = {}
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
        _ffi.deallocate(previous)

    def wake(self) -> None:
        """Let everybody who waits on the name look for himself."""
        for adapter, member in list(self.members.items()):
            adapter.post(member.wake)


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
        buffer = _ffi.take_buffer()
        # Without MACH_RCV_LARGE: what is too large for a notification is destroyed unread.
        option = _ffi.RECEIVE | _ffi.RECEIVE_TIMEOUT
        try:
            while True:
                code = _ffi.receive_now(buffer.header, option, buffer.size, self.name)
                if code <= _ffi.RECEIVED_LAST:
                    self._deliver(buffer)
                if code not in (0, ReceiveCode.TOO_LARGE):
                    return
        finally:
            _ffi.return_buffer(buffer)

    @staticmethod
    def _deliver(buffer: _ffi.Buffer) -> None:
        try:
            incoming = _wire.unpack(buffer.view)
        except _wire.Malformed:
            _ffi.destroy(buffer)
            return
        if not _wire.is_from_kernel(incoming.trailer):
            _ffi.destroy(buffer)
            return
        if tracing.on:
            tracing.received(incoming)
        counted = _NAMED.get(incoming.id)  # type: ignore[call-overload]
        if counted is None:
            return
        _, name = _wire.NOTIFICATION.unpack_from(incoming.body)
        if counted:
            with contextlib.suppress(MachError):
                _ffi.deallocate(name)
        with _lock:
            slot = _slots.get(name)
            if slot is not None:
                slot.owner = None  # a request fires once
                slot.possible += incoming.id == NotificationId.SEND_POSSIBLE
                slot.wake()

    def _close(self) -> None:
        with _lock:
            for slot in list(_slots.values()):
                slot.members.pop(self._adapter, None)
                if slot.owner is self._adapter:
                    slot.cancel()
                    slot.wake()  # another loop registers its own
                if not slot.members:
                    _slots.pop(slot.name, None)
        self._watch.close()
        _ffi.mod_refs(self.name, PortRightType.RECEIVE, -1)


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
        return any(member.room.first for member in slot.members.values())


async def wait_for_room(
    name: int, attempt: Callable[[], T | None], timeout: float | None, *, attempted: bool = False
) -> T | None:
    """Return what `attempt` returns once it is this task's turn and that is not None.

    `attempt` sends with MACH_SEND_NOTIFY and without blocking; where it did so in vain a request is
    registered, and it is made again. `attempted` says that the caller has just done the first.
    None: the timeout (seconds) has passed. Mach: mach_port_request_notification.
    """
    adapter = _loop.current()
    slot, member = _enter(name, adapter)

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
        return await member.room.stand(armed, timeout)
    finally:
        _leave(slot, adapter)


async def wait_for_death(name: int, is_dead: Callable[[], bool], timeout: float | None) -> bool:
    """Wait until `is_dead` says so; it is asked at the start and after each notification.

    False: the timeout (seconds) has passed. What `is_dead` raises ends the wait.
    """
    adapter = _loop.current()
    slot, member = _enter(name, adapter)

    def look() -> bool | None:
        if is_dead():
            return True
        slot.register(adapter)
        return None

    try:
        return await member.death.stand(look, timeout) is not None
    finally:
        _leave(slot, adapter)


async def wait_until_possible(name: int, check: Callable[[], None], timeout: float | None) -> bool:
    """Wait until the system says that a message sent to `name` would find room.

    `check` is called first each time, and what it raises ends the wait. False: the timeout
    (seconds) has passed. Mach: mach_port_request_notification, SEND_POSSIBLE, sync.
    """
    adapter = _loop.current()
    slot, member = _enter(name, adapter)
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
        return await member.possible.stand(look, timeout) is not None
    finally:
        _leave(slot, adapter)


def _enter(name: int, adapter: Adapter) -> tuple[_Slot, _Member]:
    with _lock:
        slot = _slots.get(name)
        if slot is None:
            slot = _slots[name] = _Slot(name)
        member = slot.members.get(adapter)
        if member is None:
            member = slot.members[adapter] = _Member(adapter)
        return slot, member


def _leave(slot: _Slot, adapter: Adapter) -> None:
    with _lock:
        member = slot.members.get(adapter)
        if member is None or member:
            return
        del slot.members[adapter]
        if not slot.members and _slots.get(slot.name) is slot:
            del _slots[slot.name]
            slot.cancel()
