"""Arguments of routines that travel as descriptors: rights, arrays of rights, memory.

Descriptors lie before all inline data, in the order of the arguments. Rights leave nothing inline;
arrays of rights and memory leave their count, which has to be that of the descriptor.
"""

from __future__ import annotations

from typing import Any

from . import _wire
from ._migtypes import COUNT, Fault, Kind, Reader, kind_of, one_of
from .codes import MigCode
from .errors import UsageError
from .messages import ARRIVES_AS, MEMORY_MAX, Disposition, RightArray, is_memory, payload


class Port(Kind):
    """A port right; `disposition` says what becomes of the sender's, None leaves that to the call.

    A value to be sent is a right, or for None also a pair of right and disposition. `null`: None
    may be sent and may arrive, as a right does whose port has died; else it is refused.
    """

    descriptors: int = 1
    descriptor_type: str = "mach_msg_port_descriptor_t"
    descriptor_size: int = _wire.PORT_DESCRIPTOR.size

    def __init__(self, disposition: Disposition | None, *, null: bool = False) -> None:
        self.disposition = disposition
        self.null = null
        self._kind = None if disposition is None else ARRIVES_AS[_arrival(disposition)]
        word = "poly" if disposition is None else disposition.name.lower()
        self.defs = f"mach_port_{word}_t"

    def pack(self, value: Any, rights: list[Any], body: bytearray) -> None:  # noqa: ARG002
        if value is None and not self.null:
            raise UsageError("a right is wanted here, not None")
        rights.append(value if self.disposition is None else (value, self.disposition))

    def unpack(self, reader: Reader) -> Any:
        return self.check(reader.descriptor())

    def or_none(self) -> Port:
        return Port(self.disposition, null=True)

    def arrives_by(self, disposition: int) -> bool:
        """Tell whether rights of this kind arrive by a disposition."""
        return self._kind is ARRIVES_AS.get(disposition)

    def check(self, right: Any) -> Any:
        """Return the right if it is one that fits. Raises Fault."""
        kind = getattr(right, "kind", None)
        if right is None:
            if not self.null:
                raise Fault(MigCode.TYPE_ERROR)
        elif kind not in ARRIVES_AS.values() or self._kind not in (None, kind):
            raise Fault(MigCode.TYPE_ERROR)
        return right

    def fields(self, name: str) -> list[str]:  # noqa: ARG002
        return []


class Rights(Kind):
    """Rights of one kind: `Rights(CopySend, 3)` always three, `Rights(CopySend, max=9)` up to nine.

    The three have a descriptor each; up to nine have one together, and lie out of line. A value to
    be sent is any sequence, a list arrives. MIG: array[3] of mach_port_copy_send_t, ^array[*:9] of
    it.
    """

    def __init__(self, element: Any, count: int = 0, *, max: int = 0) -> None:  # noqa: A002
        port = kind_of(element)
        if not isinstance(port, Port):
            raise TypeError(f"{element!r} is not a kind of right")
        self.port = port
        self.count: int = one_of(count, max)
        self.variable: bool = bool(max)
        self.defs: str = f"{'^array[*:' if max else 'array['}{self.count}] of {port.defs}"
        if not max:
            self.descriptors: int = count
            self.descriptor_type: str = port.descriptor_type
            self.descriptor_size: int = count * port.descriptor_size
            return
        if port.disposition is None:
            raise TypeError("the rights of an array have one disposition, so Poly is none for them")
        self.descriptors = 1
        self.descriptor_type = "mach_msg_ool_ports_descriptor_t"
        self.descriptor_size = _wire.ARRAY_DESCRIPTOR.size
        self.least: int = COUNT.size
        self.largest: int = COUNT.size

    def pack(self, value: Any, rights: list[Any], body: bytearray) -> None:
        if len(value) > self.count or (not self.variable and len(value) < self.count):
            up_to = "up to " * self.variable
            raise UsageError(f"{up_to}{self.count} rights are wanted here, not {len(value)}")
        each: list[Any] = []
        for one in value:
            self.port.pack(one, each, body)
        if self.variable:
            each = [RightArray([right for right, _ in each], self.port.disposition)]
            body += COUNT.pack(len(value))
        rights += each

    def unpack(self, reader: Reader) -> Any:
        if not self.variable:
            return [self.port.unpack(reader) for _ in range(self.count)]
        array, count = reader.descriptor(), reader.count()
        if not isinstance(array, RightArray) or not self.port.arrives_by(array.disposition):
            raise Fault(MigCode.TYPE_ERROR)
        if len(array.rights) != count:
            raise Fault(MigCode.TYPE_ERROR)
        if count > self.count:
            raise Fault(MigCode.BAD_ARGUMENTS)
        return [self.port.check(right) for right in array.rights]

    def fields(self, name: str) -> list[str]:
        return [f"mach_msg_type_number_t {name}Cnt"] if self.variable else []


class OutOfLine(Kind):
    """Bytes beside the message: `OutOfLine()`, or `OutOfLine(max=2**20)` for a bound.

    A value to be sent is a `Memory`, which moves, or has a buffer, which is copied; a `Memory`
    arrives. MIG: ^array[] of uint8_t, as pointer_t.
    """

    descriptors: int = 1
    descriptor_type: str = "mach_msg_ool_descriptor_t"
    descriptor_size: int = _wire.MEMORY_DESCRIPTOR.size
    least: int = COUNT.size
    largest: int = COUNT.size

    def __init__(self, *, max: int = MEMORY_MAX) -> None:  # noqa: A002
        self._max = max
        bound = "" if max == MEMORY_MAX else f"*:{max}"
        self.defs: str = f"^array[{bound}] of uint8_t"

    def pack(self, value: Any, rights: list[Any], body: bytearray) -> None:
        memory: Any = payload(value)
        if not is_memory(memory):
            raise UsageError(f"{value!r} is no memory")
        if len(memory) > self._max:
            raise UsageError(f"up to {self._max} bytes are wanted here, not {len(memory)}")
        rights.append(memory)
        body += COUNT.pack(len(memory))

    def unpack(self, reader: Reader) -> Any:
        memory, count = reader.descriptor(), reader.count()
        if not is_memory(memory) or len(memory) != count:
            raise Fault(MigCode.TYPE_ERROR)
        if count > self._max:
            raise Fault(MigCode.BAD_ARGUMENTS)
        return memory

    def fields(self, name: str) -> list[str]:
        return [f"mach_msg_type_number_t {name}Cnt"]


def _arrival(disposition: Disposition) -> int:
    if disposition is Disposition.MOVE_RECEIVE:
        return disposition
    once = disposition in (Disposition.MOVE_SEND_ONCE, Disposition.MAKE_SEND_ONCE)
    return Disposition.MOVE_SEND_ONCE if once else Disposition.MOVE_SEND
