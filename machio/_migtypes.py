"""How the arguments of a routine look on the wire, in MIG's format. Pure: bytes and objects.

MIG packs structures to 4 bytes: each inline argument begins at a multiple of 4 and is padded to
one. What varies in length takes no more room than it needs, and has its count before it. Here are
the inline ones; `_migdescriptors.py` has those that travel as descriptors.

A `Kind` writes and reads one argument. What is wrong with a value to be sent is a UsageError that
names no argument (the layout adds that); what is wrong with one that arrived is a `Fault`. Kinds of
a fixed size also say how the struct module would do it (`flat`), for a whole message at once, and
those that vary in length how they would end one (`tail`).
"""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, Union, dataclass_transform

from .codes import MigCode
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Step: TypeAlias = "Callable[[Any], Any] | None"  # what is done with a value, if anything

COUNT = struct.Struct("=I")
_VARIABLE_STRING = struct.Struct("=II")  # an offset that MIG does not use, and the length


class Fault(Exception):  # noqa: N818 - a verdict on a peer's message
    """What arrived does not fit the routine; `code` is what MIG calls it."""

    def __init__(self, code: MigCode) -> None:
        super().__init__(code)
        self.code = code


class Reader:
    """A message being read: its descriptors and its inline bytes, each from the front."""

    __slots__ = ("_body", "_descriptors", "at")

    def __init__(self, descriptors: Sequence[Any], body: bytes, at: int) -> None:
        self._descriptors: Iterator[Any] = iter(descriptors)
        self._body = body
        self.at: int = at  # what was read of the bytes

    def descriptor(self) -> Any:
        """Return what the next descriptor brought."""
        return next(self._descriptors)

    def count(self) -> int:
        """Return the count of something whose length varies."""
        count: int = COUNT.unpack(self.take(COUNT.size))[0]
        return count

    def take(self, size: int) -> bytes:
        """Return so many inline bytes, and pass over their padding as well."""
        start = self.at
        self.at = end = start + (size + 3 & ~3)  # `padded`, without the call
        if end > len(self._body):
            raise Fault(MigCode.BAD_ARGUMENTS)
        return self._body[start : start + size]


class Kind:
    """How an argument travels: its `descriptors`, its `least` and `largest` size among the rest."""

    descriptors: int = 0
    descriptor_type: str = ""  # in C
    descriptor_size: int = 0  # of all of them
    least: int = 0
    largest: int = 0
    defs: str = ""  # MIG's name of the type, as in a .defs file

    def pack(self, value: Any, rights: list[Any], body: bytearray) -> None:
        """Add a value to a message."""
        raise NotImplementedError

    def unpack(self, reader: Reader) -> Any:
        """Take a value from a message. Raises Fault."""
        raise NotImplementedError

    def fields(self, name: str) -> list[str]:
        """Return the C declarations of the argument's fields among the inline data."""
        raise NotImplementedError

    def or_none(self) -> Kind | None:
        """Return the kind that takes None as well, if there is one."""
        return None


class Fixed(Kind):
    """An inline value that always has the same size; may be an element of arrays and structs."""

    size: int = 0
    align: int = 1
    variable: bool = False  # as a whole argument it has a length before it, and may be shorter

    def flat(self) -> tuple[str, Step, Step]:
        """Return a format of `struct` for one value, and what is to be done before and after.

        What it packs is made of a value by the first function, and a value of what it unpacks by
        the second; None: they are the same.
        """
        return f"{self.size}s", self.encode, self.decode

    def tail(self) -> tuple[str, Step, Step, int, int]:
        """Return the same of a variable one: a format for its count, and functions of its bytes.

        Then how many bytes an element has, and how many elements there may be.
        """
        raise NotImplementedError

    def encode(self, value: Any) -> bytes:
        """Return exactly `size` bytes."""
        raise NotImplementedError

    def decode(self, data: bytes) -> Any:
        """Return the value of `size` bytes. Raises Fault."""
        raise NotImplementedError

    def declare(self, name: str) -> str:
        """Return the C declaration of a field."""
        raise NotImplementedError

    def pack(self, value: Any, rights: list[Any], body: bytearray) -> None:  # noqa: ARG002
        body += self.encode(value)
        if padding := -len(body) % 4:
            body += bytes(padding)

    def unpack(self, reader: Reader) -> Any:
        return self.decode(reader.take(self.size))

    def fields(self, name: str) -> list[str]:
        padding = -self.size % 4
        return [self.declare(name), *([f"char {name}Pad[{padding}]"] if padding else [])]

    def _is(self, size: int, align: int, length: int = 0) -> None:
        """`length` is the size of the length that goes before a value of variable size."""
        self.size, self.align = size, align
        self.least: int = length or padded(size)
        self.largest: int = length + padded(size)


class Number(Fixed):
    """An integer or float: its type in C and its letter in the struct module."""

    def __init__(self, c_type: str, letter: str) -> None:
        self.defs = c_type
        self._letter = letter
        self._struct = struct.Struct(f"={letter}")
        self._is(self._struct.size, self._struct.size)

    def encode(self, value: Any) -> bytes:
        try:
            return self._struct.pack(value)
        except struct.error as error:
            raise UsageError(f"{value!r} is no {self.defs}: {error}") from None

    def decode(self, data: bytes) -> Any:
        return self._struct.unpack(data)[0]

    def flat(self) -> tuple[str, Step, Step]:
        return self._letter, None, None

    def declare(self, name: str) -> str:
        return f"{self.defs} {name}"


class Boolean(Number):
    """boolean_t, an int: True is written as 1, and all but 0 is read as True."""

    def __init__(self) -> None:
        super().__init__("boolean_t", "i")

    def encode(self, value: Any) -> bytes:
        return super().encode(bool(value))

    def decode(self, data: bytes) -> Any:
        return bool(super().decode(data))

    def flat(self) -> tuple[str, Step, Step]:
        return self._letter, bool, bool


class CString(Fixed):
    """A string that ends with a NUL: `CString(128)` takes 128 bytes, `CString(max=128)` up to them.

    The size counts the NUL. Text is UTF-8. MIG: c_string[128], c_string[*:128].
    """

    def __init__(self, size: int = 0, *, max: int = 0) -> None:  # noqa: A002 - as a user reads it
        self.variable: bool = bool(max)
        self._is(one_of(size, max), 1, _VARIABLE_STRING.size if max else 0)
        self.defs: str = f"c_string[{'*:' if max else ''}{self.size}]"

    def encode(self, value: Any) -> bytes:
        text = self._text(value)
        return text + bytes(self.size - len(text))

    def decode(self, data: bytes) -> str:
        text, nul, _ = data.partition(b"\0")
        try:
            if nul:
                return text.decode()
        except UnicodeDecodeError:
            pass
        raise Fault(MigCode.BAD_ARGUMENTS)

    def declare(self, name: str) -> str:
        return f"char {name}[{self.size}]"

    def pack(self, value: Any, rights: list[Any], body: bytearray) -> None:
        if not self.variable:
            super().pack(value, rights, body)
            return
        text = self._with_nul(value)
        body += _VARIABLE_STRING.pack(0, len(text)) + text
        body += bytes(-len(body) % 4)

    def unpack(self, reader: Reader) -> str:
        if not self.variable:
            return self.decode(reader.take(self.size))
        _, length = _VARIABLE_STRING.unpack(reader.take(_VARIABLE_STRING.size))
        if length > self.size:
            raise Fault(MigCode.BAD_ARGUMENTS)
        return self.decode(reader.take(length))

    def fields(self, name: str) -> list[str]:
        counts = [f"mach_msg_type_number_t {name}{what}" for what in ("Offset", "Cnt")]
        return [*(counts if self.variable else []), *super().fields(name)]

    def tail(self) -> tuple[str, Step, Step, int, int]:
        return "4xI", self._with_nul, self.decode, 1, self.size

    def _with_nul(self, value: Any) -> bytes:
        return self._text(value) + b"\0"

    def _text(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise UsageError(f"{value!r} is no string")
        text = value.encode()
        if b"\0" in text or len(text) >= self.size:
            raise UsageError(f"a string of up to {self.size - 1} bytes without NUL is wanted here")
        return text


class Array(Fixed):
    """Elements of one kind: `Array(int32, 4)` always four, `Array(int32, max=4)` up to four.

    A value to be sent is any sequence; a list arrives. MIG: array[4] of, array[*:4] of.
    """

    def __init__(self, element: Any, count: int = 0, *, max: int = 0) -> None:  # noqa: A002
        self.element: Fixed = fixed(element)
        self.variable: bool = bool(max)
        self.count: int = one_of(count, max)
        length = COUNT.size if max else 0
        self._is(self.count * self.element.size, self.element.align, length)
        self.defs: str = f"array[{'*:' if max else ''}{self.count}] of {self.element.defs}"

    def encode(self, value: Any) -> bytes:
        if len(value) != self.count:
            raise UsageError(f"{self.count} elements are wanted here, not {len(value)}")
        return self._join(value)

    def decode(self, data: bytes) -> Any:
        size, decode = self.element.size, self.element.decode
        return [decode(data[at : at + size]) for at in range(0, len(data), size)]

    def declare(self, name: str) -> str:
        return self.element.declare(f"{name}[{self.count}]")

    def pack(self, value: Any, rights: list[Any], body: bytearray) -> None:
        if not self.variable:
            Fixed.pack(self, value, rights, body)  # as super(), which is slow before Python 3.12
            return
        data = self._some(value)
        body += COUNT.pack(len(value)) + data
        body += bytes(-len(body) % 4)

    def unpack(self, reader: Reader) -> Any:
        if not self.variable:
            return self.decode(reader.take(self.size))
        count = reader.count()
        if count > self.count:
            raise Fault(MigCode.BAD_ARGUMENTS)
        return self.decode(reader.take(count * self.element.size))

    def fields(self, name: str) -> list[str]:
        count = [f"mach_msg_type_number_t {name}Cnt"] if self.variable else []
        return [*count, *super().fields(name)]

    def tail(self) -> tuple[str, Step, Step, int, int]:
        return "I", self._some, self.decode, self.element.size, self.count

    def _some(self, value: Any) -> bytes:
        if len(value) > self.count:
            raise UsageError(f"up to {self.count} elements are wanted here, not {len(value)}")
        return self._join(value)

    def _join(self, value: Any) -> bytes:
        return b"".join(map(self.element.encode, value))


class Bytes(Array):
    """An array of uint8_t whose values are bytes: `Bytes(16)`, `Bytes(max=4096)`."""

    def __init__(self, count: int = 0, *, max: int = 0) -> None:  # noqa: A002
        super().__init__(Number("uint8_t", "B"), count, max=max)

    def decode(self, data: bytes) -> Any:
        return data

    def flat(self) -> tuple[str, Step, Step]:
        return f"{self.size}s", self.encode, None

    def tail(self) -> tuple[str, Step, Step, int, int]:
        return "I", self._some, None, 1, self.count

    def encode(self, value: Any) -> bytes:
        if type(value) is bytes and len(value) == self.count:
            return value
        return super().encode(value)

    def _join(self, value: Any) -> bytes:
        data = bytes(value)
        if len(data) != len(value):
            raise UsageError(f"bytes are wanted here, and {value!r} has larger elements")
        return data


@dataclass_transform(frozen_default=True)
class Struct:
    """Base of C structures: a frozen dataclass whose fields are of fixed kinds, in C's layout.

    ::

        class Point(mig.Struct):
            x: mig.int32
            y: mig.float64
    """

    _kind: ClassVar[_StructKind]

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True)(cls)

    @classmethod
    def wire_kind(cls) -> Fixed:
        """Return how the structure travels; `size` and `align` are as in C."""
        if "_kind" not in vars(cls):
            cls._kind = _StructKind(cls)
        return cls._kind


class _StructKind(Fixed):
    """The kind of a `Struct` class."""

    def __init__(self, struct_class: type[Struct]) -> None:
        self._class = struct_class
        self.defs = struct_class.__name__
        self.members: list[tuple[str, Fixed, int]] = []
        hints = typing.get_type_hints(struct_class, include_extras=True)
        at, align = 0, 1
        for field in dataclasses.fields(struct_class):  # type: ignore[arg-type]
            kind = fixed(hints[field.name])
            at += -at % kind.align
            self.members.append((field.name, kind, at))
            at += kind.size
            align = max(align, kind.align)
        self._is(at + -at % align, align)

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, self._class):
            raise UsageError(f"{value!r} is no {self.defs}")
        data = bytearray(self.size)
        for name, kind, at in self.members:
            data[at : at + kind.size] = kind.encode(getattr(value, name))
        return bytes(data)

    def decode(self, data: bytes) -> Any:
        return self._class(
            *(kind.decode(data[at : at + kind.size]) for _, kind, at in self.members)
        )

    def declare(self, name: str) -> str:
        return f"{self.defs} {name}"


def padded(size: int) -> int:
    """Return the size with its padding to a multiple of 4."""
    return (size + 3) & ~3


def kind_of(annotation: Any) -> Kind:
    """Return the kind that an annotation means. Raises TypeError if it means none."""
    if isinstance(annotation, Kind):
        return annotation
    if typing.get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            if isinstance(extra, Kind):
                return extra
    if typing.get_origin(annotation) in (Union, types.UnionType):
        members = [one for one in typing.get_args(annotation) if one is not type(None)]
        if len(members) == 1 and (kind := kind_of(members[0]).or_none()) is not None:
            return kind
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return annotation.wire_kind()
    raise TypeError(f"{annotation!r} is no type of machio.mig, so it does not say how to travel")


def fixed(annotation: Any) -> Fixed:
    """Return the kind of an annotation that has a fixed size. Raises TypeError for others."""
    kind = kind_of(annotation)
    if not isinstance(kind, Fixed) or kind.variable:
        raise TypeError(f"{annotation!r} has no fixed size")
    return kind


def structs_in(kind: Kind) -> Iterator[_StructKind]:
    """Return every struct that a kind is made of, the inner ones first."""
    if isinstance(kind, Array):
        yield from structs_in(kind.element)
    if isinstance(kind, _StructKind):
        for _, member, _ in kind.members:
            yield from structs_in(member)
        yield kind


def one_of(size: int, maximum: int) -> int:
    """Return the one of them that is given. Raises TypeError unless exactly one is."""
    if (size > 0) == (maximum > 0):
        raise TypeError("give a positive size, or a positive max=")
    return size or maximum
