"""What all owned rights have in common: a name that belongs to exactly one Python object.

An object owns one right (for send rights: one user reference) under a name of this task. Closing
it, giving it away in a message and `release` all empty it first, so that no failure and no other
thread can make two owners out of one. After a fork the child's objects are empty: the names are the
parent's.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, ClassVar, Self

from . import _ffi, _wire
from ._closable import Closable
from .codes import KernCode
from .errors import KernError, RightClosedError

if TYPE_CHECKING:
    from .messages import Disposition, PortRightType


class Right(Closable):
    """An owned right or port set. Context manager; a forgotten one warns and is closed.

    Two objects are equal while both are open and hold the same kind of right under the same name.
    """

    __slots__ = ("__weakref__", "_first_name", "_name", "_space")

    kind: ClassVar[PortRightType]
    dispositions: ClassVar[tuple[Disposition, ...]] = ()  # the first is how it moves

    def __init__(self, name: int) -> None:
        self._name = 0
        if name in (_wire.NAME_NULL, _wire.NAME_DEAD):
            raise ValueError(f"{name:#x} is not the name of a right")
        self._name = self._first_name = name
        self._space = _ffi.space

    @classmethod
    def from_name(cls, name: int) -> Self:
        """Take over a raw name: its right (of a send right: one uref) belongs to the object now.

        Raises KernError if the name stands for nothing, or for another kind of right; then the
        caller still owns whatever it is. Mach: mach_port_type.
        """
        bits = _ffi.port_type(name)
        if not bits & cls._accepted_types():
            raise KernError(KernCode.INVALID_RIGHT, "mach_port_type", f"Not a {cls.__name__}.")
        return cls(name)

    @classmethod
    def _accepted_types(cls) -> int:
        return 1 << (cls.kind + 16)

    @property
    def name(self) -> int:
        """The right's name in this task. Raises RightClosedError if the object holds none."""
        if not self._name or self._space != _ffi.space:
            raise RightClosedError(f"this {type(self).__name__} holds no right any more")
        return self._name

    @property
    def closed(self) -> bool:
        """True once the right was closed, given away, released, or left behind by a fork."""
        return not self._name or self._space != _ffi.space

    def release(self) -> int:
        """Empty the object and return the name, which now belongs to the caller.

        Raises RightClosedError if the object holds none.
        """
        name = self._name
        if not name or self._space != _ffi.space:
            name = self.name  # which raises
        self._name = 0
        self._let_go(name)
        return name

    def restore(self, name: int) -> None:
        """Put a name back into an emptied object, which owns it again. The inverse of `release`.

        Raises ValueError if it holds a right already.
        """
        if not self.closed:
            raise ValueError(f"{self!r} holds a right already")
        self._name = name
        self._space = _ffi.space

    def close(self) -> None:
        """Give the right up. Idempotent; does nothing in a forked child."""
        if self._name and self._space == _ffi.space:  # as `closed`, without a call
            self._destroy(self.release())

    def _let_go(self, name: int) -> None:
        """Do what has to be done when the object has just been emptied of `name`, still valid."""

    def _destroy(self, name: int) -> None:
        raise NotImplementedError

    def __del__(self) -> None:
        if not getattr(self, "_name", 0):
            return
        with contextlib.suppress(AttributeError, TypeError):  # the interpreter is going down
            if not self.closed:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
                with contextlib.suppress(Exception):
                    self.close()

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, Right)
        return not self.closed and not other.closed and self._name == other._name

    def __hash__(self) -> int:
        # The first name, so that closing does not move an object to another place in a dict.
        return hash((type(self), self._first_name))

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self._name:#x}"
        return f"<{type(self).__name__} {state}>"
