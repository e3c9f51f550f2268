"""Watching the messages that this process sends and receives.

With the level of the logger "machio" at DEBUG each message is one line there::

    sent Echo.shout (7000) to 0x203: 24 bytes, wants a reply
    received MACH_NOTIFY_DEAD_NAME (72) at 0x303 from the system: 12 bytes

and `trace` calls a function with the same in fields::

    with machio.trace(lambda trace: counts.update([trace.name])):
        ...

Routines of a `mig.Subsystem` and the system's notifications have names by themselves, and so has
the check-in of the handshake; `name_ids` names the ids of other messages. What is told is what
mach_msg did: sends that succeeded and messages taken off a queue, the system's included. What the
C library does by itself, as for the calls of `machio.bootstrap`, is not seen.

While nobody listens a message costs one look at `on`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

from . import _wire
from .messages import NotificationId, Sender, sender_of

log: logging.Logger = logging.getLogger("machio")

# False only if nobody listens for sure. Who has a message to tell looks here first.
on: bool = True


class Trace(NamedTuple):
    """One message that was sent or received.

    name: that of the id, "" if it has none. port: the name of the right that it was sent by, or of
    the port that it arrived at. body: without descriptors. rights: how many it carries, the reply
    right not counted; `reply` tells of that. memory: how many bytes it carries out of line. sender:
    None for a message that was sent.
    """

    direction: Literal["sent", "received"]
    id: int
    name: str
    port: int
    body: bytes
    rights: int
    memory: int
    reply: bool
    sender: Sender | None

    def __str__(self) -> str:
        what = f"{self.name} ({self.id})" if self.name else str(self.id)
        where = f"{'to' if self.direction == 'sent' else 'at'} {self.port:#x}"
        if self.sender is not None:
            where += " from the system" if self.sender.is_kernel else f" from pid {self.sender.pid}"
        text = f"{self.direction} {what} {where}: {len(self.body)} bytes"
        if self.memory:
            text += f", {self.memory} out of line"
        if self.rights:
            text += f", {self.rights} right{'s' * (self.rights > 1)}"
        return text + ", wants a reply" * self.reply


Callback: TypeAlias = Callable[[Trace], object]

_lock = threading.Lock()  # for those who change `_callbacks`
_callbacks: tuple[Callback, ...] = ()
_SYSTEMS_TRAILER = bytes(_wire.TRAILER_SIZE)
_names: dict[int, str] = {one.value: one.c_name for one in NotificationId}


class _Levels(dict[int, bool]):
    """What the logger remembers of its levels, which logging clears when one has changed."""

    def clear(self) -> None:
        super().clear()
        _look_again()


def _look_again() -> None:
    global on
    on = True


def _listening() -> bool:
    """Find out whether somebody does, and keep that in `on`."""
    global on
    on = not _settles  # first: a level that changes from here on sets it again
    listening = bool(_callbacks) or log.isEnabledFor(logging.DEBUG)
    if listening:
        on = True
    return listening


# Were logging to remember in another way, `on` would stay true: slower, and right.
_settles = isinstance(getattr(log, "_cache", None), dict)
if _settles:
    log._cache = _Levels()  # type: ignore[attr-defined]  # noqa: SLF001


@contextlib.contextmanager
def trace(callback: Callback) -> Iterator[None]:
    """Call `callback` with a Trace of each message until the block is left, in whatever thread.

    It should be quick, for the sender or receiver waits for it; what it raises is logged, and the
    message goes on its way. Messages that it sends itself are traced too.
    """
    global _callbacks
    with _lock:
        _callbacks = (*_callbacks, callback)
    _look_again()
    try:
        yield
    finally:
        with _lock:
            kept = list(_callbacks)
            kept.remove(callback)
            _callbacks = tuple(kept)


def name_ids(names: Mapping[int, str]) -> None:
    """Give ids of messages a name, for this process. Where an id has several, all are told."""
    for number, name in names.items():
        known = _names.get(number)
        if known is None:
            _names[number] = name
        elif name not in known.split(" or "):
            _names[number] = f"{known} or {name}"


def sent(message_id: int, port: int, body: bytes, *, rights: int, memory: int, reply: bool) -> None:
    """Tell of a message that the kernel has taken."""
    if _listening():
        name = _names.get(message_id, "")
        _tell(Trace("sent", message_id, name, port, body, rights, memory, reply, None))


def received(incoming: _wire.Incoming) -> None:
    """Tell of a message that was taken off a queue."""
    if _listening():
        name = _names.get(incoming.id, "")
        _tell(
            Trace(
                "received",
                incoming.id,
                name,
                incoming.local,
                incoming.body,
                incoming.rights,
                incoming.memory,
                incoming.remote != _wire.NAME_NULL,
                sender_of(incoming.trailer),
            )
        )


def notified(message_id: int, port: int, word: int) -> None:
    """Tell of a notification of the system's; `word`: the name or the count in it, if any."""
    bare = message_id == NotificationId.SEND_ONCE
    body = b"" if bare else _wire.NOTIFICATION.pack(bytes(8), word)
    received(_wire.Incoming(0, _wire.NAME_NULL, port, message_id, (), body, _SYSTEMS_TRAILER))


def _tell(what: Trace) -> None:
    log.debug("%s", what)
    for callback in _callbacks:
        try:
            callback(what)
        except Exception:
            log.exception("a trace callback failed")
