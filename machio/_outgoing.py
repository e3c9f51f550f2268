"""One message on its way out: who owns each right in it, at every moment.

Rights that move are taken out of their objects before anything else happens. From then on there are
three states, and `give_back` undoes each of them exactly:

- not attempted yet: the names are the ones taken;
- refused before the kernel took anything (phase A): the same;
- taken and returned (the queue stayed full, a signal came, no memory): the kernel has rewritten the
  buffer. COPY and MAKE have become MOVE, each with an extra right that belongs to this message
  alone, and a right may have come back under another name. The buffer is a complete message now:
  it may be sent again as it is, whatever happens to the objects it was made from.

If the kernel refuses a right in the body, it has destroyed the message as far as it had come (phase
B): the objects of the rights before the refused one stay empty, those behind get theirs back.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from . import _ffi, _wire, tracing
from ._deadline import Deadline
from ._right import Right
from .codes import SHORTAGE_MASK, SendCode, split
from .errors import MachError, UsageError, mach_error
from .messages import Disposition, PortRightType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .messages import Carried, Message

# What the kernel returned to the sender, in the buffer (pseudo-receive).
_RETURNED = frozenset((SendCode.TIMED_OUT, SendCode.INTERRUPTED, SendCode.NO_BUFFER))
# What the kernel took and destroyed; 0 is the bare code of MACH_MSG_VM_KERNEL on its own.
_CONSUMED = frozenset(
    (
        0,
        SendCode.INVALID_RIGHT,
        SendCode.INVALID_MEMORY,
        SendCode.NO_GRANT_DEST,
        SendCode.MSG_FILTERED,
        SendCode.INVALID_OPTIONS,
    )
)
_HELD = {kind: 1 << (kind + 16) for kind in PortRightType}  # MACH_PORT_TYPE_*
_NEEDS = {
    Disposition.MOVE_RECEIVE: _HELD[PortRightType.RECEIVE],
    Disposition.MAKE_SEND: _HELD[PortRightType.RECEIVE],
    Disposition.MAKE_SEND_ONCE: _HELD[PortRightType.RECEIVE],
    Disposition.MOVE_SEND: _HELD[PortRightType.SEND] | _HELD[PortRightType.DEAD_NAME],
    Disposition.COPY_SEND: _HELD[PortRightType.SEND] | _HELD[PortRightType.DEAD_NAME],
    Disposition.MOVE_SEND_ONCE: _HELD[PortRightType.SEND_ONCE] | _HELD[PortRightType.DEAD_NAME],
}


class _Cargo:
    """One right in the message: its object, what is done with it, where its name stands."""

    __slots__ = ("at", "disposition", "moves", "name", "right")

    def __init__(self, right: Right | None, disposition: Disposition, at: int) -> None:
        self.right = right
        self.disposition = disposition
        self.moves = disposition <= Disposition.MOVE_SEND_ONCE
        self.at = at
        self.name = _wire.NAME_NULL  # filled in when a right that moves is taken

    def take(self) -> None:
        if self.right is not None and self.moves:
            self.name = self.right.release()

    def entry(self) -> tuple[int, int]:
        if self.right is None or self.moves:
            return self.name, self.disposition
        return self.right.name, self.disposition

    def is_there(self, name: int) -> bool:
        """Tell whether the task still has the right that the message names."""
        if name in (_wire.NAME_NULL, _wire.NAME_DEAD):
            return True
        try:
            return bool(_ffi.port_type(name) & _NEEDS[self.disposition])
        except MachError:
            return False

    def give_back(self, name: int, rewritten: bool) -> None:
        """Restore one owner's claim; `name` is what stands in the buffer."""
        if self.right is None or name in (_wire.NAME_NULL, _wire.NAME_DEAD):
            return
        if self.moves:
            self.right.restore(name)
        elif rewritten:
            with contextlib.suppress(MachError):
                _ffi.deallocate(name)


class Outgoing:
    """A message being sent. Use `attempt` until it succeeds or raises, else `give_back`.

    `reply` is that of a message that has none of its own. Raises UsageError and RightClosedError
    when it is made, with every object as it was.
    """

    __slots__ = ("_buffer", "_cargo", "_destination", "_done", "_message", "_reply", "_rewritten")

    def __init__(
        self,
        message: Message,
        destination: Right,
        disposition: Disposition,
        reply: Carried = None,
    ) -> None:
        if reply is None:
            reply = message.reply
        elif message.reply is not None:
            raise UsageError("a call makes the reply right of its message; this one has another")
        self._message = message
        self._buffer: _ffi.Buffer | None = None
        self._rewritten = self._done = False
        self._destination = _Cargo(destination, disposition, _wire.REMOTE_AT)
        self._reply = None if reply is None else _claim_reply(reply)
        self._cargo: Sequence[_Cargo] = ()
        if message.rights:
            self._cargo = [
                _claim(carried, _wire.descriptor_at(index))
                for index, carried in enumerate(message.rights)
            ]
        taken: list[_Cargo] = []
        try:
            for cargo in self._all():
                cargo.take()
                taken.append(cargo)
        except BaseException:
            for cargo in taken:
                cargo.give_back(cargo.name, rewritten=False)
            raise

    def _all(self) -> list[_Cargo]:
        everything = [self._destination, *self._cargo]
        return everything if self._reply is None else [*everything, self._reply]

    def attempt(self, option: int, milliseconds: int = 0) -> bool:
        """Send; False if the queue is full, or a signal came: attempt again or give back.

        Raises MachError after every right was given back, or destroyed if the code says so, and
        RightClosedError if a right to be copied was closed since.
        """
        buffer = self._buffer
        if buffer is None:
            number = self._compose_and_send(option, milliseconds)
        else:
            number = _ffi.send(buffer, option, milliseconds)
        if number == 0:
            if tracing.on:
                self._trace()
            self._finish()
            return True
        code = split(number)[0]
        if code in _RETURNED:
            self._rewritten = True
            if not number & SHORTAGE_MASK and code != SendCode.NO_BUFFER:
                return False
        if code in _CONSUMED:
            self._salvage()
        else:
            self.give_back()
        detail = _ffi.last_error() if code == SendCode.NO_BUFFER else ""
        raise mach_error(number, "mach_msg", detail)

    def _compose_and_send(self, option: int, milliseconds: int) -> int:
        message = self._message
        remote, remote_kind = self._destination.entry()
        local, local_kind = (_wire.NAME_NULL, 0) if self._reply is None else self._reply.entry()
        payload = message.body
        if self._cargo:
            payload = _wire.payload([cargo.entry() for cargo in self._cargo], payload)
        bits = _wire.bits_of(remote_kind, local_kind, bool(self._cargo))
        buffer = _ffi.take_buffer(_wire.size_of(0, len(payload)))
        try:
            number = _ffi.compose_and_send(
                buffer, bits, remote, local, message.id, payload, option, milliseconds
            )
        except BaseException:
            _ffi.return_buffer(buffer)  # nothing was sent: an id of more than 32 bits, say
            raise
        self._buffer = buffer
        return number

    def send_blocking(self, timeout: float | None) -> None:
        """Send, blocking the thread while the queue is full, at most `timeout` seconds.

        Raises SendTimedOut, and otherwise as `attempt`; then every right was given back.
        """
        deadline = Deadline(timeout)
        option = _ffi.SEND | _ffi.SEND_INTERRUPT
        if timeout is not None:
            option |= _ffi.SEND_TIMEOUT
        try:
            while not self.attempt(option, left := deadline.milliseconds()):
                if timeout is not None and left == 0:
                    raise mach_error(SendCode.TIMED_OUT, "mach_msg")
        finally:
            self.give_back()

    def _salvage(self) -> None:
        """Give back what stands behind the right that the kernel refused: it is untouched.

        The refused one is the last that is not there; if all are, it is unknown, and none is safe.
        """
        untouched: list[tuple[_Cargo, int]] = []
        for item in reversed(self._cargo):
            name = self._name_in_buffer(item)
            if not item.is_there(name):
                for safe, its_name in untouched:
                    safe.give_back(its_name, self._rewritten)
                break
            untouched.append((item, name))
        self._finish()

    def give_back(self) -> None:
        """Return every right to its owner; nothing if the message was sent or destroyed."""
        if self._done:
            return
        self._done = True
        for item in self._all():
            name = item.name if self._buffer is None else self._name_in_buffer(item)
            item.give_back(name, self._rewritten)
        self._finish()

    def _name_in_buffer(self, item: _Cargo) -> int:
        assert self._buffer is not None
        name: int = _wire.NAME.unpack_from(self._buffer.view, item.at)[0]
        return name

    def _trace(self) -> None:
        message, port = self._message, self._name_in_buffer(self._destination)
        tracing.sent(message.id, port, message.body, len(self._cargo), self._reply is not None)

    def _finish(self) -> None:
        self._done = True
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            _ffi.return_buffer(buffer)


def _claim(carried: Carried, at: int) -> _Cargo:
    right, disposition = carried if isinstance(carried, tuple) else (carried, None)
    if right is None:
        return _Cargo(None, Disposition.MOVE_SEND if disposition is None else disposition, at)
    if not getattr(right, "dispositions", ()):
        raise UsageError(f"a message cannot carry {right!r}")
    if disposition is None:
        disposition = right.dispositions[0]
    elif disposition not in right.dispositions:
        raise UsageError(f"{Disposition(disposition)} does not go with a {type(right).__name__}")
    return _Cargo(right, Disposition(disposition), at)


def _claim_reply(carried: Carried) -> _Cargo:
    if isinstance(carried, Right) and carried.kind is PortRightType.RECEIVE:
        return _claim((carried, Disposition.MAKE_SEND_ONCE), _wire.LOCAL_AT)
    claimed = _claim(carried, _wire.LOCAL_AT)
    if claimed.disposition is Disposition.MOVE_RECEIVE:
        raise UsageError("a receive right cannot be the reply right of a message; make one from it")
    return claimed
