"""One message on its way in, and what can be received from: receive rights and port sets.

A message is taken off its queue into a buffer and turned into objects at once, in one step without
an await: whoever is cancelled has either not received, or returns what he received. If its bytes
are none that machio takes, or a right cannot be delivered, all that arrived with it is released.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from . import _ffi, _loop, _wire, tracing
from ._deadline import Deadline
from ._right import Right
from .codes import ReceiveCode, split
from .errors import BadMessageError, UsageError, mach_error
from .memory import Memory
from .messages import ARRIVES_AS, Disposition, Message, Payload, PortRightType, RightArray

if TYPE_CHECKING:
    from .ports import ReceiveRight, SendOnceRight, SendRight

# A task that always finds a message would keep all others from running: see `Receiver._receive`.
_UNINTERRUPTED = 64

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


def _adopt(buffer: _ffi.Buffer) -> Message:
    """Turn a received message into objects. Raises BadMessageError, everything in it released."""
    try:
        incoming = _wire.unpack(buffer.view)
    except _wire.Malformed as problem:
        _ffi.destroy(buffer)
        raise BadMessageError(f"a peer sent {problem}; it was destroyed") from None
    if tracing.on:
        tracing.received(incoming)
    return Message(
        incoming.id,
        incoming.body,
        reply=own(incoming.remote, incoming.bits & 0x1F) if incoming.remote else None,
        descriptors=map(_own_descriptor, incoming.descriptors) if incoming.descriptors else (),
        port=incoming.local,
        trailer=incoming.trailer,
    )


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


class Receiver(Right):
    """What can be received from."""

    __slots__ = ("_streak", "_watch")

    def __init__(self, name: int) -> None:
        self._watch: _loop.Watch | None = None
        self._streak = 0
        super().__init__(name)

    def watch(self) -> _loop.Watch:
        """Return the registration with the running loop, made on first use; owned by this object.

        Raises UsageError while tasks of another loop wait here, and RightClosedError.
        """
        name = self.name
        adapter = _loop.current()
        watch = self._watch
        if watch is not None and watch.adapter is not adapter:
            if watch.line and watch.adapter.alive():
                raise UsageError(f"tasks of another event loop wait on {self!r}")
            self._unwatch()
            watch = None
        if watch is None:
            watch = self._watch = adapter.watch_port(name)
        return watch

    def _unwatch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _let_go(self, name: int) -> None:  # noqa: ARG002
        self._unwatch()

    def _attempt(self) -> Message | None:
        """Receive if a message is there. Raises ReceiveError, BadMessageError, RightClosedError."""
        name = self.name
        buffer = _ffi.take_buffer()
        try:
            while (code := _ffi.receive(buffer, name, _ffi.RECEIVE_NOW)) != 0:
                if code == ReceiveCode.TIMED_OUT:
                    return None
                buffer = _recover(code, buffer)
            return _adopt(buffer)
        finally:
            _ffi.return_buffer(buffer)

    async def _receive(self, timeout: float | None) -> Message:
        self._streak += 1
        if self._streak > _UNINTERRUPTED:
            self._streak = 0
            await asyncio.sleep(0)  # before the attempt: after it, cancellation loses a message
        watch = self._watch
        if watch is None or not watch.line:
            message = self._attempt()
            if message is not None:
                return message
        self._streak = 0
        try:
            watch = self.watch()
        except OSError:
            # The port may have died meanwhile, which receiving reports in Mach's own words.
            message = self._attempt()
            if message is None:
                raise
            return message
        attempted = not watch.line
        found = await watch.line.stand(self._attempt, timeout, attempted=attempted)
        if found is None:
            raise mach_error(ReceiveCode.TIMED_OUT, "mach_msg")
        assert isinstance(found, Message)
        return found

    async def aclose(self) -> None:
        """Close, as anyio calls it; the same as `close`, and never waits."""
        self.close()

    def _receive_blocking(self, timeout: float | None) -> Message:
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
            return _adopt(buffer)
        finally:
            _ffi.return_buffer(buffer)
