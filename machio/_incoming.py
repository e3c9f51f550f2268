"""One message on its way in, and what can be received from: receive rights and port sets.

A message is taken off its queue into a buffer and turned into objects at once, in one step without
an await: whoever is cancelled has either not received, or returns what he received. If its bytes
are none that machio takes, or a right cannot be delivered, all that arrived with it is released.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self, TypeVar

from anyio.abc import ObjectReceiveStream

from . import _ffi, _loop, _wire, tracing
from ._deadline import Deadline
from ._right import Right
from .codes import ReceiveCode, split
from .errors import BadMessageError, RightClosedError, UsageError, mach_error
from .memory import Memory
from .messages import ARRIVES_AS, Disposition, Message, Payload, PortRightType, RightArray

if TYPE_CHECKING:
    from .ports import ReceiveRight, SendOnceRight, SendRight

T_co = TypeVar("T_co", covariant=True)

# A task that always finds a message would keep all others from running: see `Receiver.receive`.
_UNINTERRUPTED = 64

_TIMED_OUT: int = ReceiveCode.TIMED_OUT.value

# The objects that own what arrives; ports.py puts its classes here.
CLASSES: dict[PortRightType, type[ReceiveRight | SendRight | SendOnceRight]] = {}


def own(name: int, disposition: int) -> ReceiveRight | SendRight | SendOnceRight | None:
    """Wrap a right as received; None for one that was null or had died on the way."""
    if name in (_wire.NAME_NULL, _wire.NAME_DEAD):
        return None
    return CLASSES[ARRIVES_AS[disposition]](name)


def _own_descriptor(descriptor: _wire.Descriptor) -> Right | Payload | None:
    if isinstance(descriptor, _wire.MemoryAt):
        return Memory.adopt(descriptor.address, descriptor.size)
    if isinstance(descriptor, _wire.ArrayAt):
        address, number, disposition, _ = descriptor
        names = _ffi.read_names(address, number)
        _ffi.free_memory(address, _wire.NAME.size * number)
        rights = [own(name, disposition) for name in names]
        return RightArray(rights, Disposition(disposition))
    return own(*descriptor)


def adopt(buffer: _ffi.Buffer) -> Message:
    """Turn a received message into objects. Raises BadMessageError, everything in it released."""
    view = buffer.view
    bits, size, remote, local, _, message_id = _wire.HEADER.unpack_from(view)
    message = Message.__new__(Message)  # there is nothing to check or to convert
    message.id, message.port = message_id, local
    if tracing.on or bits & _wire.BITS_COMPLEX:
        _adopt_rest(message, buffer)
    else:
        message.descriptors = ()
        message.body = view[_wire.HEADER_SIZE : size]
        message._trailer = view[size : size + _wire.TRAILER_SIZE]  # noqa: SLF001
    message.reply = own(remote, bits & 0x1F) if remote else None
    return message


def _adopt_rest(message: Message, buffer: _ffi.Buffer) -> None:
    """Do it for any message, one with descriptors and one that is to be traced as well."""
    try:
        incoming = _wire.unpack(buffer.view)
    except _wire.Malformed as problem:
        _ffi.destroy(buffer)
        raise BadMessageError(f"a peer sent {problem}; it was destroyed") from None
    if tracing.on:
        tracing.received(incoming)
    message.descriptors = tuple(map(_own_descriptor, incoming.descriptors))
    message.body = incoming.body
    message._trailer = incoming.trailer  # noqa: SLF001


def _recover(code: int, buffer: _ffi.Buffer) -> _ffi.Buffer:
    """After a failed receive: return a buffer to try again with, or raise the error."""
    if code == ReceiveCode.TOO_LARGE:
        needed = _wire.HEADER.unpack_from(buffer.view)[1] + _wire.TRAILER_SIZE
        larger = _ffi.Buffer(needed)
        _ffi.return_buffer(buffer)
        return larger
    if split(code)[0] == ReceiveCode.BODY_ERROR:
        _ffi.destroy(buffer)  # what of it did arrive
    raise mach_error(code, "mach_msg")


class Receiver(Right, ObjectReceiveStream[T_co]):
    """What can be received from: a message, or what the class makes of one, at a time."""

    __slots__ = ("_streak", "_watch")

    def __init__(self, name: int) -> None:
        self._watch: _loop.Watch | None = None
        self._streak = 0
        super().__init__(name)

    def _adopt(self, buffer: _ffi.Buffer) -> T_co:
        """Turn a received message into what the receiver gets; raises as `adopt`."""
        raise NotImplementedError

    def watch(self) -> _loop.Watch:
        """Return the registration with the running loop, made on first use; owned by this object.

        Raises UsageError while tasks of another loop wait here, and RightClosedError.
        """
        watch = self._watch
        if watch is not None and watch.adapter.is_here():
            return watch
        name = self.name
        if watch is not None:
            if watch.first is not None and watch.adapter.alive():
                raise UsageError(f"tasks of another event loop wait on {self!r}")
            self._unwatch()
        watch = self._watch = _loop.current().watch_port(name)
        return watch

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _let_go(self, name: int) -> None:  # noqa: ARG002
        self._unwatch()

    def _attempt(self, *, noted: bool = True) -> T_co | None:
        """Receive if a message is there; `noted` in the watch, whose loop is the caller's.

        Raises ReceiveError, BadMessageError, RightClosedError.
        """
        name = self._name
        if not name or self._space != _ffi.space:
            name = self.name  # which raises
        try:
            buffer = _ffi.pool.pop()
        except IndexError:
            buffer = _ffi.Buffer(_ffi.BUFFER_SIZE)
        try:
            while True:
                code = _ffi.receive_now(buffer.header, _ffi.RECEIVE_NOW, buffer.size, name)
                if code <= _ffi.RECEIVED_LAST or code == _TIMED_OUT:
                    break
                buffer = _recover(code, buffer)
            if noted and self._watch is not None:
                self._watch.quiet = code != 0
            return None if code == _TIMED_OUT else self._adopt(buffer)
        finally:
            if buffer.size == _ffi.BUFFER_SIZE:
                _ffi.pool.append(buffer)

    async def receive(self, timeout: float | None = None) -> T_co:
        """Return the next message; the caller owns the rights in it. First waiter, first served.

        Raises ReceiveTimedOut, ReceiveError (the right is gone; a right could not be delivered),
        BadMessageError, RightClosedError (also if the right is closed or given away meanwhile).
        """
        if self._streak == _UNINTERRUPTED:
            self._streak = 0
            await asyncio.sleep(0)  # before the attempt: after it, cancellation loses a message
        watch = self._watch
        if watch is None or not (watch.quiet or watch.first):
            found = self._attempt()
            if found is not None:
                self._streak += 1
                return found
        self._streak = 0
        if watch is None or not watch.adapter.is_here():
            try:
                watch = self.watch()
            except OSError:
                # The port may have died meanwhile, which receiving reports in Mach's own words.
                found = self._attempt()
                if found is None:
                    raise
                return found
        # As `Line.stand` does it, from here on, but that whoever comes first has looked already.
        place = watch.join(timeout)
        try:
            while True:
                await place
                if watch.first is place:
                    found = self._attempt()
                    if found is not None:
                        return found
                if place.limit is True:
                    raise mach_error(ReceiveCode.TIMED_OUT, "mach_msg")
        finally:
            watch.leave(place)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        """As `receive`; the iteration ends when the right is closed or given away."""
        try:
            return await self.receive()
        except RightClosedError:
            raise StopAsyncIteration from None

    def receive_nowait(self) -> T_co:
        """As `receive`, but raise ReceiveTimedOut at once if there is no message."""
        found = self._attempt(noted=False)
        if found is None:
            raise mach_error(ReceiveCode.TIMED_OUT, "mach_msg")
        return found

    async def aclose(self) -> None:
        """Close, as anyio calls it; the same as `close`, and never waits."""
        self.close()

    def receive_blocking(self, timeout: float | None = None) -> T_co:
        """As `receive`, blocking the thread meanwhile."""
        deadline = Deadline(timeout)
        name = self.name
        # Interrupted receives come back here, so that Python's signal handlers run.
        option = _ffi.RECEIVE | _ffi.RECEIVE_LARGE | _ffi.RECEIVE_INTERRUPT
        if timeout is not None:
            option |= _ffi.RECEIVE_TIMEOUT
        buffer = _ffi.take_buffer()
        try:
            while (code := _ffi.receive(buffer, name, option, deadline.milliseconds())) != 0:
                if code != ReceiveCode.INTERRUPTED:
                    buffer = _recover(code, buffer)
            return self._adopt(buffer)
        finally:
            _ffi.return_buffer(buffer)
