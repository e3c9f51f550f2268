"""The parts of a message on its way out, each with an owner at every moment.

What moves is taken out of its object before anything else happens (`take`). From then on there are
three states, and `give_back` undoes each of them exactly:

- not attempted yet, or refused before the kernel took anything (phase A): what was taken;
- taken and returned (the queue stayed full, a signal came, no memory): the kernel has rewritten the
  buffer, and `come_back` reads it. COPY and MAKE have become MOVE, each with an extra right that
  belongs to this message alone; a right may have come back under another name, memory at another
  address, and what was to be copied is a copy now.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from . import _ffi, _wire
from .errors import MachError, UsageError
from .memory import Memory
from .messages import MEMORY_MAX, Copied, Disposition, Payload, PortRightType, RightArray

if TYPE_CHECKING:
    from ._right import Right
    from .messages import Carried

_HELD = {kind: 1 << (kind + 16) for kind in PortRightType}  # MACH_PORT_TYPE_*
_NEEDS = {
    Disposition.MOVE_RECEIVE: _HELD[PortRightType.RECEIVE],
    Disposition.MAKE_SEND: _HELD[PortRightType.RECEIVE],
    Disposition.MAKE_SEND_ONCE: _HELD[PortRightType.RECEIVE],
    Disposition.MOVE_SEND: _HELD[PortRightType.SEND] | _HELD[PortRightType.DEAD_NAME],
    Disposition.COPY_SEND: _HELD[PortRightType.SEND] | _HELD[PortRightType.DEAD_NAME],
    Disposition.MOVE_SEND_ONCE: _HELD[PortRightType.SEND_ONCE] | _HELD[PortRightType.DEAD_NAME],
}
_LAST_MOVE = Disposition.MOVE_SEND_ONCE.value
_NO_RIGHT = (_wire.NAME_NULL, _wire.NAME_DEAD)


class Cargo(Protocol):
    """A part of a message: what one descriptor stands for."""

    size: int  # of the descriptor
    rights: int  # how many it stands for
    memory: int  # how many bytes out of line it stands for

    def take(self) -> None:
        """Empty the objects of what moves. Raises UsageError, with all as it was."""

    def descriptor(self) -> _wire.Descriptor:
        """Return what to write into the message. Raises RightClosedError."""
        ...

    def come_back(self, view: memoryview, at: int) -> None:
        """Read at `at` what the kernel returned in the descriptor's place."""

    def give_back(self) -> None:
        """Restore every owner's claim, and give up what belongs to the message alone. Once."""

    def is_there(self) -> bool:
        """Tell whether the task still has what the message names."""
        ...

    def give_back_rest(self) -> None:
        """Of what is there in part only, give back what stands behind the part that is not."""


class RightCargo:
    """One right: its object, what is done with it, its name in the message."""

    __slots__ = ("disposition", "moves", "name", "ours", "right")

    size = _wire.PORT_DESCRIPTOR.size
    rights = 1
    memory = 0

    def __init__(self, right: Right | None, disposition: Disposition) -> None:
        self.right = right
        self.disposition = disposition
        self.moves = disposition <= _LAST_MOVE
        self.name = _wire.NAME_NULL
        self.ours = False  # the name stands for a right that is the message's to give back

    def take(self) -> None:
        if self.right is not None and self.moves:
            self.name = self.right.release()
            self.ours = True

    def descriptor(self) -> tuple[int, int]:
        if self.right is not None and not self.moves:
            self.name = self.right.name
        return self.name, self.disposition

    def come_back(self, view: memoryview, at: int) -> None:
        (name,) = _wire.NAME.unpack_from(view, at)
        self.came_back_as(name)

    def came_back_as(self, name: int) -> None:
        self.name = name
        self.ours = self.right is not None

    def give_back(self) -> None:
        ours, self.ours = self.ours, False
        if not ours or self.right is None or self.name in _NO_RIGHT:
            return
        if self.moves:
            self.right.restore(self.name)
        else:
            with contextlib.suppress(MachError):
                _ffi.deallocate(self.name)

    def is_there(self) -> bool:
        if self.name in _NO_RIGHT:
            return True
        try:
            return bool(_ffi.port_type(self.name) & _NEEDS[self.disposition])
        except MachError:
            return False

    def give_back_rest(self) -> None:
        pass


class MemoryCargo:
    """Memory that moves."""

    size = _wire.MEMORY_DESCRIPTOR.size
    rights = 0

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.memory = len(memory)
        self._address = 0
        self._ours = False

    def take(self) -> None:
        self._address = self._memory.release()
        self._ours = True

    def descriptor(self) -> _wire.MemoryAt:
        return _wire.MemoryAt(self._address, self.memory, deallocate=True)

    def come_back(self, view: memoryview, at: int) -> None:
        (self._address,) = _wire.ADDRESS.unpack_from(view, at)

    def give_back(self) -> None:
        ours, self._ours = self._ours, False
        if ours:
            self._memory.restore(self._address)

    def is_there(self) -> bool:
        return True  # nobody else could have freed it

    def give_back_rest(self) -> None:
        self.give_back()


class CopiedCargo:
    """Bytes of somebody else's, which the kernel copies."""

    size = _wire.MEMORY_DESCRIPTOR.size
    rights = 0

    def __init__(self, copied: Copied) -> None:
        try:
            self.memory = len(copied)
            self._pinned: _ffi.Pinned | None = _ffi.Pinned.buffer(copied.view)
        except (BufferError, ValueError) as error:
            raise UsageError(f"only bytes in one piece can be sent out of line: {error}") from None
        if self.memory > MEMORY_MAX:
            raise UsageError(f"a message carries up to {MEMORY_MAX} bytes in one piece of memory")
        self._copy = 0

    def take(self) -> None:
        pass

    def descriptor(self) -> _wire.MemoryAt:
        assert self._pinned is not None
        return _wire.MemoryAt(self._pinned.address, self.memory, deallocate=False)

    def come_back(self, view: memoryview, at: int) -> None:
        (self._copy,) = _wire.ADDRESS.unpack_from(view, at)

    def give_back(self) -> None:
        copy, self._copy, self._pinned = self._copy, 0, None
        if copy:
            _ffi.free_memory(copy, self.memory)

    def is_there(self) -> bool:
        return True

    def give_back_rest(self) -> None:
        self.give_back()


class ArrayCargo:
    """An array of rights; the kernel reads their names from memory."""

    size = _wire.ARRAY_DESCRIPTOR.size
    memory = 0

    def __init__(self, array: RightArray) -> None:
        self.rights = len(array.rights)
        self._disposition = Disposition(array.disposition)
        self._rights = [claim((one, self._disposition)) for one in array.rights]
        self._pinned: _ffi.Pinned | None = None
        self._returned = 0  # the address of the names as the kernel returned them

    def take(self) -> None:
        take_all(self._rights)

    def descriptor(self) -> _wire.ArrayAt:
        self._pinned = _ffi.Pinned.names([one.descriptor()[0] for one in self._rights])
        return _wire.ArrayAt(
            self._pinned.address, len(self._rights), self._disposition, deallocate=False
        )

    def come_back(self, view: memoryview, at: int) -> None:
        (self._returned,) = _wire.ADDRESS.unpack_from(view, at)
        names = _ffi.read_names(self._returned, len(self._rights) if self._returned else 0)
        for right, name in zip(self._rights, names, strict=False):
            right.came_back_as(name)

    def give_back(self) -> None:
        returned, self._returned, self._pinned = self._returned, 0, None
        if returned:
            _ffi.free_memory(returned, _wire.NAME.size * len(self._rights))
        for right in self._rights:
            right.give_back()

    def is_there(self) -> bool:
        return all(right.is_there() for right in self._rights)

    def give_back_rest(self) -> None:
        for right in reversed(self._rights):
            if not right.is_there():
                break
            right.give_back()


def take_all(parts: list[Any]) -> None:
    """Take every part, or if one raises none."""
    try:
        for part in parts:
            part.take()
    except BaseException:
        for part in parts:
            part.give_back()
        raise


def load(carried: Carried | Payload) -> Cargo:
    """Return the cargo that a descriptor of a message makes. Raises UsageError."""
    if isinstance(carried, Memory):
        return MemoryCargo(carried)
    if isinstance(carried, Copied):
        return CopiedCargo(carried)
    if isinstance(carried, RightArray):
        return ArrayCargo(carried)
    assert not isinstance(carried, Payload)
    return claim(carried)


def claim(carried: Carried) -> RightCargo:
    """Return the cargo of a right. Raises UsageError if its disposition does not go with it."""
    right, disposition = carried if isinstance(carried, tuple) else (carried, None)
    if right is None:
        return RightCargo(None, Disposition.MOVE_SEND if disposition is None else disposition)
    if not getattr(right, "dispositions", ()):
        raise UsageError(f"a message cannot carry {right!r}")
    if disposition is None:
        disposition = right.dispositions[0]
    elif disposition not in right.dispositions:
        raise UsageError(f"{Disposition(disposition)} does not go with a {type(right).__name__}")
    return RightCargo(right, Disposition(disposition))
