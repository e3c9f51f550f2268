"""The messages of a routine in MIG's format: request, reply, and the reply that tells an error.

A request is header, descriptors, and (if anything is inline) NDR and the inline arguments. A reply
without descriptors is header, NDR, return code, inline results; one with them has no code, for
it means success. An error is always header, NDR, code: mig_reply_error_t. All packed to 4.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _wire
from ._migtypes import Fault, Fixed, Kind, Reader, padded
from ._wire import NDR
from .codes import MigCode
from .errors import MigError, RoutineError, UsageError
from .messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_INT_REP = slice(4, 7)
_LITTLE_ENDIAN = NDR[_INT_REP]
_CODE = struct.Struct("=i")
_NO_ERROR = _CODE.pack(0)
_SUCCESS = NDR + _NO_ERROR
_ERROR_SIZE = len(_SUCCESS)
_PADDING = (b"", bytes(3), bytes(2), bytes(1))  # by the last bits of a size
# The id of a reply is that of its request and this.
REPLY_OFFSET = 100


class _Flat:
    """What writes and reads a body in one call of `struct`: all of it, but for bytes at the end.

    pack: None if that cannot be, since something varies in length before the end. before: what is
    to be done with the values of some places before they are packed; only: the same if there is but
    one value, of one size. after: the same when they were read. size: without the bytes at the end,
    whose count is the last to be packed. unit: how many there are of them for each; 0 if none are.
    """

    __slots__ = ("after", "before", "most", "only", "pack", "size", "unit", "unpack_from")

    def __init__(self, head: bytes, kinds: Sequence[Kind]) -> None:
        self.pack: Callable[..., bytes] | None = None
        self.only: Callable[[Any], Any] | None = None
        self.before: list[tuple[int, Callable[[Any], Any]]] = []
        self.after: list[tuple[int, Callable[[Any], Any]]] = []
        self.unit = self.most = 0
        form = ""
        for place, kind in enumerate(kinds):
            if not isinstance(kind, Fixed) or self.unit:
                return
            if kind.variable:
                code, to_code, from_code, self.unit, self.most = kind.tail()
                form += code
                if not self.unit:  # elements of nothing
                    return
            else:
                code, to_code, from_code = kind.flat()
                form += f"{code}{padded(kind.size) - kind.size}x"
            if to_code is not None:
                self.before.append((place, to_code))
            if from_code is not None:
                self.after.append((place, from_code))
        if self.before and len(kinds) == 1 and not self.unit:
            self.only = self.before[0][1]
        self.pack = struct.Struct(f"={len(head)}s{form}").pack
        rest = struct.Struct(f"={len(head)}x{form}")
        self.size, self.unpack_from = rest.size, rest.unpack_from


class Layout:
    """The arguments of a message with an id, which is a request or (`is_reply`) a reply.

    A body in which nothing varies in length, but perhaps its end, is written and read by one call
    of the struct module. What that cannot do is left to the kinds, one by one: they know what is
    wrong.
    """

    def __init__(
        self, message_id: int, arguments: Sequence[tuple[str, Kind]], *, is_reply: bool = False
    ) -> None:
        self.id = message_id
        self.arguments = tuple(arguments)
        self._kinds = tuple(kind for _, kind in self.arguments)
        self.descriptors = sum(kind.descriptors for kind in self._kinds)
        described = sum(kind.descriptor_size for kind in self._kinds)
        inline = sum(kind.largest for kind in self._kinds)
        if is_reply and not self.descriptors:
            self.head = _SUCCESS
        else:
            self.head = NDR if inline else b""
        self._least = len(self.head) + sum(kind.least for kind in self._kinds)
        self.size = _wire.size_of(described, len(self.head) + inline)

    @functools.cached_property
    def _flat(self) -> _Flat:
        return _Flat(self.head, self._kinds)

    def write(self, values: Sequence[Any]) -> Message:
        """Return a message with the values. Raises UsageError."""
        flat = self._flat
        if flat.pack is not None:
            try:
                if flat.only is not None:
                    (value,) = values
                    return Message(self.id, flat.pack(self.head, flat.only(value)))
                ready = list(values)
                for place, step in flat.before:
                    ready[place] = step(ready[place])
                data = b""
                if flat.unit:
                    data = ready[-1] + _PADDING[len(ready[-1]) & 3]
                    ready[-1] = len(ready[-1]) // flat.unit
                return Message(self.id, flat.pack(self.head, *ready) + data)
            except (UsageError, TypeError, ValueError, struct.error):
                pass
        descriptors, body = self.pack(values)
        return Message(self.id, body, descriptors=descriptors)

    def read_flat(self, message: Message) -> Sequence[Any] | None:
        """Return the values in a message that is as it should be; None: `unpack` has to look."""
        flat = self._flat
        body = message.body
        end = len(body)
        if flat.pack is None or end < flat.size or message.descriptors:
            return None
        if body[: len(self.head)] != self.head:
            return None
        values: Sequence[Any] = flat.unpack_from(body)
        if flat.unit:
            count = values[-1]
            end = flat.size + count * flat.unit
            if count > flat.most or len(body) != padded(end):
                return None
            values = (*values[:-1], body[flat.size : end])
        elif end != flat.size:
            return None
        if flat.after:
            values = list(values)
            try:
                for place, step in flat.after:
                    values[place] = step(values[place])
            except Fault:
                return None
        return values

    def pack(self, values: Sequence[Any]) -> tuple[list[Any], bytes]:
        """Return the descriptors and the body of a message. Raises UsageError."""
        descriptors: list[Any] = []
        body = bytearray(self.head)
        for (name, kind), value in zip(self.arguments, values, strict=True):
            try:
                kind.pack(value, descriptors, body)
            except (UsageError, TypeError, ValueError) as error:
                raise UsageError(f"{name}: {error}") from None
        return descriptors, bytes(body)

    def unpack(self, descriptors: Sequence[Any], body: bytes) -> list[Any]:
        """Return the values in a message. Raises Fault; takes no ownership."""
        if len(descriptors) != self.descriptors or len(body) < self._least:
            raise Fault(MigCode.BAD_ARGUMENTS)
        if self.head and body[_INT_REP] != _LITTLE_ENDIAN:
            raise Fault(MigCode.BAD_ARGUMENTS)
        reader = Reader(descriptors, body, len(self.head))
        values = [kind.unpack(reader) for kind in self._kinds]
        if reader.at != len(body):
            raise Fault(MigCode.BAD_ARGUMENTS)
        return values


class Routine(NamedTuple):
    """A routine: its place in the subsystem, its messages, what is written about it."""

    name: str
    id: int
    doc: str
    request: Layout
    reply: Layout | None  # None: a simpleroutine, which has no reply
    many: bool  # the results are a tuple

    def make_reply(self, result: Any) -> Message | None:
        """Return the reply message for what the routine returned. Raises UsageError."""
        if self.reply is None:
            return None
        if not self.many:
            result = (result,) if self.reply.arguments else ()
        elif not isinstance(result, tuple) or len(result) != len(self.reply.arguments):
            raise UsageError(f"{self.name} returns a tuple of {len(self.reply.arguments)}")
        return self.reply.write(result)

    def refuse(self, error: Exception) -> Message | None:
        """Return the reply for a request that does not fit, or that the routine refuses."""
        if self.reply is None:
            return None
        if isinstance(error, RoutineError):
            return make_error(self.id, error.number)
        return make_error(self.id, error.code if isinstance(error, Fault) else MigCode.BAD_ID)

    def read_reply(self, message: Message) -> Any:
        """Return the result in a reply, which owns its rights then.

        Raises RoutineError for the server's error, MigError for a message that is no such reply;
        what it brought is closed.
        """
        values: Sequence[Any] | None = None
        reply = self.reply
        assert reply is not None
        if message.id == reply.id and message.reply is None:
            values = reply.read_flat(message)
        if values is None:
            try:
                values = self._results(message)
            except BaseException:
                message.close()
                raise
            message.descriptors = ()
            message.close()
        if self.many:
            return tuple(values)
        return values[0] if values else None

    def _results(self, message: Message) -> list[Any]:
        assert self.reply is not None
        if message.id != self.reply.id:
            raise MigError(MigCode.REPLY_MISMATCH, self.name)
        if not message.descriptors and len(message.body) == _ERROR_SIZE:
            (code,) = _CODE.unpack_from(message.body, len(NDR))
            if code and (self.reply.descriptors or self.reply.head is _SUCCESS):
                raise RoutineError(code, self.name)
        try:
            values = self.reply.unpack(message.descriptors, message.body)
        except Fault:
            raise MigError(MigCode.TYPE_ERROR, self.name, "The reply is malformed") from None
        if self.reply.head is _SUCCESS and message.body[len(NDR) : _ERROR_SIZE] != _NO_ERROR:
            raise MigError(MigCode.TYPE_ERROR, self.name, "The reply is malformed")
        return values


def make_error(request_id: int, code: int) -> Message:
    """Return the reply that tells a code: mig_reply_error_t."""
    return Message(request_id + REPLY_OFFSET, NDR + _CODE.pack(code))
