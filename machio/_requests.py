"""Waiting on a send right's name: for room in the port's queue, and for the port's death.

Mach keeps one request slot a name for both (MACH_NOTIFY_SEND_POSSIBLE also reports DEAD_NAME), and
a task has one slot however many event loops it runs. So this registry owns the slots: it registers
a request when someone begins to wait, registers it again after it has fired if someone still waits,
and cancels it when the last has gone. Notifications arrive at a port of the loop's own, in the
loop's kqueue; they bypass its queue limit. One that does not come from the system is dropped.

As everywhere in the adapter a notification only wakes; who is woken looks for himself. Thus a stale
one (of a request cancelled while it was on its way) does no harm.

A request for room is registered armed, as Mach calls it: it fires at once if there is room by now.
So whoever has found a queue full need not look again before he sleeps.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Protocol

from . import _ffi, _loop, _wire, tracing
from ._loop import Adapter, Line
from .codes import SendCode
from .errors import MachError, mach_error
from .messages import Disposition, NotificationId, PortRightType

if TYPE_CHECKING:
    from collections.abc import Callable

_NAMED = {
    NotificationId.PORT_DELETED: False,
    NotificationId.SEND_POSSIBLE: False,
    NotificationId.DEAD_NAME: True,  # the name has gained a uref for whoever is told
}
# Looked up once: an enum is slow to tell its members.
_SEND_POSSIBLE, _MAKE_ONCE = NotificationId.SEND_POSSIBLE, Disposition.MAKE_SEND_ONCE
# What tasks wait for.
_ROOM, _DEATH, _POSSIBLE = "room", "death", "possible"


class Sending(Protocol):
    """A message on its way out (`machio._outgoing.Outgoing`)."""

    def attempt(self) -> bool:
        """Send without blocking; False: there is no room."""
        ...

    def give_back(self) -> None:
        """Return everything to its owner."""


class _Slot:
    """One name's request: `owner` is the loop whose notify port it names, None if there is none.

    armed: it fires for room, too, not only for the port's death. lines: who waits, by the loop and
    by what for; made for the first and gone with the last. possible: how often the system said that
    there is room.
    """

    __slots__ = ("armed", "lines", "name", "owner", "possible")

    def __init__(self, name: int) -> None:
        self.name = name
        self.owner: Adapter | None = None
        self.armed = False
        self.lines: dict[tuple[Adapter, str], Line] = {}
        self.possible = 0

    def register(self, adapter: Adapter) -> None:
        """Make sure that a request is registered. Raises MachError, for example on a gone name."""
        with _lock:
            if self.owner is None:
                self._request(adapter, armed=False)

    def awaits(self, what: str) -> bool:
        """Tell whether somebody waits for it."""
        return any(key[1] is what and line.first for key, line in self.lines.items())

    def arm(self, adapter: Adapter, *, anew: bool = False) -> None:
        """Make sure that one is that fires for room: at once if there is some.

        anew: also if there is one that has not fired. Raises as `register`.
        """
        with _lock:
            if anew or not self.armed:
                self._request(adapter, armed=True)

    def cancel(self) -> None:
        """Take the request back that there is, if the name still exists."""
        with contextlib.suppress(MachError):
            self._request(None, armed=False)
        self.owner, self.armed = None, False

    def _request(self, adapter: Adapter | None, *, armed: bool) -> None:
        notify = _wire.NAME_NULL if adapter is None else (adapter.mailbox or _Mailbox(adapter)).name
        if armed and adapter is not None and not (len(self.lines) > 1 and self.awaits(_POSSIBLE)):
            # Whoever is told will send.
            previous = _ffi.request_room(self.name, notify, adapter.kqueue, adapter.sleeper)
        else:
            previous = _ffi.request_notification(
                self.name, _SEND_POSSIBLE, armed, notify, _MAKE_ONCE
            )
        self.owner, self.armed = adapter, armed
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
        adapter.mailbox = self
        adapter.at_close(self._close)

    def _collect(self) -> None:
        told: list[_Slot] = []
        for word in _ffi.notifications(self.name):
            slot = _deliver(self.name, word >> 32, word & 0xFFFFFFFF)
            if slot is not None:
                told.append(slot)
        for slot in told:
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


def _deliver(notify: int, message_id: int, name: int) -> _Slot | None:
    """Take note of a notification; return the slot that it is for, whose waiters are to look."""
    if tracing.on:
        tracing.notified(message_id, notify, name)
    counted = _NAMED.get(message_id)  # type: ignore[call-overload]
    if counted is None:
        return None
    if counted:
        with contextlib.suppress(MachError):
            _ffi.deallocate(name)
    with _lock:
        slot = _slots.get(name)
        if slot is not None:
            slot.owner, slot.armed = None, False  # a request fires once
            slot.possible += message_id == _SEND_POSSIBLE
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
        return slot.awaits(_ROOM)


async def wait_for_room(
    name: int, sending: Sending, timeout: float | None, *, attempted: bool = False
) -> None:
    """Send once it is this task's turn and there is room; or give back what was to be sent.

    `attempted` says that the caller has just attempted in vain. Raises SendTimedOut after `timeout`
    seconds, and what the attempt raises. Mach: mach_port_request_notification, SEND_POSSIBLE, sync.
    """
    adapter = _loop.current()
    slot, line = _enter(name, adapter, _ROOM)
    sent = False
    try:
        place = line.join(timeout)
        try:
            while True:
                if line.first is place:
                    if not attempted and (sent := sending.attempt()):
                        return
                    attempted = False
                    try:
                        slot.arm(adapter)
                    except MachError:
                        # The name may be gone or dead; the attempt says so in terms of sending.
                        if sent := sending.attempt():
                            return
                        raise
                if place.limit is True:
                    raise mach_error(SendCode.TIMED_OUT, "mach_msg")
                await place
        finally:
            line.leave(place)
    finally:
        _leave(slot, adapter, _ROOM)
        if not sent:
            sending.give_back()
            if not slot.awaits(_ROOM):
                _ffi.pass_room(name)


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
        slot.arm(adapter, anew=not asked)
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
            if slot.owner is not None:
                slot.cancel()
