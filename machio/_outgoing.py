"""One message on its way out, and what becomes of everything in it.

`_cargo.py` tells who owns a part at every moment. A message that the kernel returned is complete in
its buffer: it may be sent again as it is, whatever happens to the objects it was made from.

If the kernel refuses a part of the body, it has destroyed the message as far as it had come (phase
B): the objects of what stands before the refused part stay empty, those behind get theirs back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _ffi, _wire, tracing
from ._cargo import Cargo, RightCargo, claim, load, take_all
from ._deadline import Deadline
from ._right import Right
from .codes import SHORTAGE_MASK, SendCode, split
from .errors import UsageError, mach_error
from .messages import Disposition, PortRightType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .messages import Carried, Message

# Looked up once: an enum is slow to tell its members.
_COPY_SEND, _MAKE_SEND_ONCE = Disposition.COPY_SEND, Disposition.MAKE_SEND_ONCE
_FULL = SendCode.TIMED_OUT.value
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


def send_now(
    message: Message, right: Right, disposition: Disposition, reply: Right | None = None
) -> Outgoing | None:
    """Send without waiting; None: sent. Else the queue is full, and this is what came back.

    `reply` is the receive right for the answer, of a message that has no reply right of its own.
    Raises as `Outgoing.load` and `Outgoing.attempt`.
    """
    if message.descriptors or message.reply is not None:
        outgoing = Outgoing.load(message, right, disposition, reply)
        return None if outgoing.attempt() else outgoing
    # What takes nothing along has nothing to give back either, unless the kernel itself returns it.
    body = message.body
    size = len(body)
    room = _wire.HEADER_SIZE + size + 3  # and padding
    try:
        buffer = _ffi.pool.pop() if room <= _ffi.BUFFER_SIZE else _ffi.Buffer(room)
    except IndexError:
        buffer = _ffi.Buffer(_ffi.BUFFER_SIZE)
    moves = disposition is not _COPY_SEND
    bits: int = disposition
    local = _wire.NAME_NULL
    name = right.release() if moves else right._name  # noqa: SLF001 - a call less
    if not name or right._space != _ffi.space:  # noqa: SLF001
        name = right.name  # which raises
    try:
        if reply is not None:
            bits, local = bits | _MAKE_SEND_ONCE << 8, reply.name
        number = _ffi.compose_and_send(
            buffer.header, bits, name, local, message.id, body, size, _ffi.SEND_NOW, 0
        )
    except BaseException:  # nothing was sent: an id of more than 32 bits, say
        if moves:
            right.restore(name)
        raise
    if number == 0:
        if buffer.size == _ffi.BUFFER_SIZE:
            _ffi.pool.append(buffer)
        if tracing.on:
            _trace(message, name, reply=reply is not None)
        return None
    destination = RightCargo(right, disposition)
    destination.name, destination.ours = name, moves
    answer = None if reply is None else RightCargo(reply, _MAKE_SEND_ONCE)
    outgoing = Outgoing(message, destination, (), answer, buffer)
    outgoing.judge(number)
    return outgoing


class Outgoing:
    """A message being sent. Use `attempt` until it succeeds or raises, else `give_back`."""

    __slots__ = ("_buffer", "_cargo", "_destination", "_message", "_parts", "_reply")

    def __init__(
        self,
        message: Message,
        destination: RightCargo,
        cargo: Sequence[Cargo],
        reply: RightCargo | None,
        buffer: _ffi.Buffer | None = None,
    ) -> None:
        self._message = message
        self._destination = destination
        self._cargo = cargo
        self._reply = reply
        self._buffer = buffer  # what was attempted
        self._parts: list[Cargo] = [destination, *cargo]  # all that may have to be given back
        if reply is not None:
            self._parts.append(reply)

    @classmethod
    def load(
        cls, message: Message, right: Right, disposition: Disposition, reply: Carried = None
    ) -> Outgoing:
        """Take what moves; `reply` is that of a message that has none of its own.

        Raises UsageError and RightClosedError, with every object as it was.
        """
        if reply is None:
            reply = message.reply
        elif message.reply is not None:
            raise UsageError("a call makes the reply right of its message; this one has another")
        outgoing = cls(
            message,
            RightCargo(right, disposition),
            [load(carried) for carried in message.descriptors],
            None if reply is None else _claim_reply(reply),
        )
        take_all(outgoing._parts)
        return outgoing

    def attempt(self, option: int = _ffi.SEND_NOW, milliseconds: int = 0) -> bool:
        """Send; False if the queue is full, or a signal came: attempt again or give back.

        Raises MachError after every right was given back, or destroyed if the code says so, and
        RightClosedError, every right given back, if one to be copied was closed since.
        """
        if self._buffer is None:
            try:
                number = self._compose_and_send(option, milliseconds)
            except BaseException:  # nothing was sent: an id of more than 32 bits, say
                self.give_back()
                raise
        else:
            number = _ffi.send(self._buffer, option, milliseconds)
        if number == 0:
            if tracing.on:
                reply = self._reply is not None
                _trace(self._message, self._destination.name, self._cargo, reply=reply)
            self._finish()
            return True
        self.judge(number)
        return False

    def judge(self, number: int) -> None:
        """Take over what has not been sent, and raise unless it may be attempted again."""
        if number == _FULL:
            self._come_back()
            return
        code = split(number)[0]
        if code in _RETURNED:
            self._come_back()
            if not number & SHORTAGE_MASK and code != SendCode.NO_BUFFER:
                return
        if code in _CONSUMED:
            self._salvage(code)
        else:
            self.give_back()
        detail = _ffi.last_error() if code == SendCode.NO_BUFFER else ""
        raise mach_error(number, "mach_msg", detail)

    def _compose_and_send(self, option: int, milliseconds: int) -> int:
        message, payload = self._message, self._message.body
        remote, bits = self._destination.descriptor()
        local = _wire.NAME_NULL
        if self._reply is not None:
            local, kind = self._reply.descriptor()
            bits |= kind << 8
        if self._cargo:
            bits |= _wire.BITS_COMPLEX
            payload = _wire.payload([part.descriptor() for part in self._cargo], payload)
        size = len(payload)
        buffer = self._buffer = _ffi.take_buffer(_wire.HEADER_SIZE + size + 3)  # and padding
        return _ffi.compose_and_send(
            buffer.header, bits, remote, local, message.id, payload, size, option, milliseconds
        )

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

    def _come_back(self) -> None:
        """Read what the kernel has returned."""
        assert self._buffer is not None
        view, at = self._buffer.view, _wire.DESCRIPTORS_AT
        self._destination.come_back(view, _wire.REMOTE_AT)
        if self._reply is not None:
            self._reply.come_back(view, _wire.LOCAL_AT)
        for part in self._cargo:
            part.come_back(view, at)
            at += part.size

    def _salvage(self, code: int) -> None:
        """Give back what stands behind the part that the kernel refused: it is untouched.

        The refused one is the last that is not there, or if there was no memory for a copy, the one
        that was to be copied; if it is unknown, none is safe.
        """
        out_of_line = [part for part in self._cargo if not isinstance(part, RightCargo)]
        refused = out_of_line[0] if code == 0 and len(out_of_line) == 1 else None
        untouched: list[Cargo] = []
        for part in reversed(self._cargo):
            if part is refused or not part.is_there():
                part.give_back_rest()
                for safe in untouched:
                    safe.give_back()
                break
            untouched.append(part)
        self._finish()

    def give_back(self) -> None:
        """Return everything to its owner; nothing if the message was sent or destroyed."""
        for part in self._parts:
            part.give_back()
        self._finish()

    def _finish(self) -> None:
        self._parts = []
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            _ffi.return_buffer(buffer)


def _trace(message: Message, name: int, cargo: Sequence[Cargo] = (), *, reply: bool) -> None:
    tracing.sent(
        message.id,
        name,
        message.body,
        rights=sum(part.rights for part in cargo),
        memory=sum(part.memory for part in cargo),
        reply=reply,
    )


def _claim_reply(carried: Carried) -> RightCargo:
    if isinstance(carried, Right) and carried.kind is PortRightType.RECEIVE:
        return RightCargo(carried, Disposition.MAKE_SEND_ONCE)
    claimed = claim(carried)
    if claimed.disposition is Disposition.MOVE_RECEIVE:
        raise UsageError("a receive right cannot be the reply right of a message; make one from it")
    return claimed
