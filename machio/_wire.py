"""The bytes of a Mach message: header, descriptors, trailer. Pure; knows no port and calls nothing.

All structures are packed to 4 and in the machine's byte order. A message is header (24), for a
complex one the descriptor count (4) and the descriptors (12 bytes for a right, 16 for memory and
for an array of rights), then the body padded with zeros to a multiple of 4. The trailer follows at
the message's size, not part of it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = struct.Struct("=IIIIIi")  # bits, size, remote, local, voucher, id
COUNT = struct.Struct("=I")
PORT_DESCRIPTOR = struct.Struct("=IIHBB")  # name, pad1, pad2, disposition, type
MEMORY_DESCRIPTOR = struct.Struct("=QBBBBI")  # address, deallocate, copy, pad1, type, size
ARRAY_DESCRIPTOR = struct.Struct("=QBBBBI")  # address, deallocate, copy, disposition, type, count
ADDRESS = struct.Struct("=Q")
AUDIT_TRAILER = struct.Struct("=IIIII8I")  # type, size, seqno, sender uid and gid, audit token
NAME = struct.Struct("=I")
NOTIFICATION = struct.Struct("=8sI")  # NDR, then a name or a count
NDR = bytes((0, 0, 0, 0, 1, 0, 0, 0))  # int_rep 1: little endian, as every supported machine

HEADER_SIZE = HEADER.size
DESCRIPTORS_AT = HEADER_SIZE + COUNT.size
TRAILER_SIZE = AUDIT_TRAILER.size
BITS_AT, REMOTE_AT, LOCAL_AT = 0, 8, 12

AUDIT_TOKEN_AT = 20

BITS_COMPLEX = 0x8000_0000
NAME_NULL = 0
NAME_DEAD = 0xFFFF_FFFF
# MACH_MSG_*_DESCRIPTOR
PORT_TYPE = 0
MEMORY_TYPE = 1
ARRAY_TYPE = 2
VOLATILE_TYPE = 3
VIRTUAL_COPY = 1  # MACH_MSG_VIRTUAL_COPY
_ZERO_TOKEN = bytes(TRAILER_SIZE - AUDIT_TOKEN_AT)


class MemoryAt(NamedTuple):
    """An out-of-line descriptor; `deallocate`: the sender gives the memory up."""

    address: int
    size: int
    deallocate: bool


class ArrayAt(NamedTuple):
    """An out-of-line ports descriptor: an array of names."""

    address: int
    number: int
    disposition: int
    deallocate: bool


# A right is a pair of name and disposition.
Descriptor: TypeAlias = tuple[int, int] | MemoryAt | ArrayAt


class Incoming(NamedTuple):
    """A received message taken apart; the names in it are still raw and still owned by the task."""

    bits: int
    remote: int  # the reply right
    local: int  # the port that the message was sent to
    id: int
    descriptors: tuple[Descriptor, ...]
    body: bytes
    trailer: bytes

    @property
    def rights(self) -> int:
        """How many rights the descriptors stand for."""
        return sum(
            one.number if isinstance(one, ArrayAt) else not isinstance(one, MemoryAt)
            for one in self.descriptors
        )

    @property
    def memory(self) -> int:
        """How many bytes travelled out of line."""
        return sum(one.size for one in self.descriptors if isinstance(one, MemoryAt))


class Malformed(ValueError):  # noqa: N818 - a verdict on bytes
    """The bytes are no message that machio takes."""


def size_of(descriptors: int, body: int) -> int:
    """Return the size of a message with so many bytes of descriptors and so many of body."""
    padded = (body + 3) & ~3
    return (DESCRIPTORS_AT + descriptors if descriptors else HEADER_SIZE) + padded


def payload(descriptors: Sequence[Descriptor], body: bytes) -> bytes:
    """Return what follows the header: the descriptors, if there are any, and the body."""
    if not descriptors:
        return body
    return b"".join((COUNT.pack(len(descriptors)), *map(_pack_descriptor, descriptors), body))


def _pack_descriptor(one: Descriptor) -> bytes:
    if isinstance(one, MemoryAt):
        return MEMORY_DESCRIPTOR.pack(
            one.address, one.deallocate, VIRTUAL_COPY, 0, MEMORY_TYPE, one.size
        )
    if isinstance(one, ArrayAt):
        address, number, disposition, deallocate = one
        return ARRAY_DESCRIPTOR.pack(
            address, deallocate, VIRTUAL_COPY, disposition, ARRAY_TYPE, number
        )
    name, disposition = one
    return PORT_DESCRIPTOR.pack(name, 0, 0, disposition, PORT_TYPE)


def unpack(view: bytes) -> Incoming:
    """Take a received message apart. Raises Malformed for lies, and for guarded rights."""
    bits, size, remote, local, _, message_id = HEADER.unpack_from(view)
    if not HEADER_SIZE <= size <= len(view):
        raise Malformed(f"a message of {size} bytes in a buffer of {len(view)}")
    found: tuple[Descriptor, ...] = ()
    at = HEADER_SIZE
    if bits & BITS_COMPLEX:
        found, at = _unpack_descriptors(view, size)
    body, trailer = view[at:size], view[size : size + TRAILER_SIZE]
    if len(trailer) != TRAILER_SIZE:
        trailer = b""
    return Incoming(bits, remote, local, message_id, found, body, trailer)


def is_from_kernel(trailer: bytes) -> bool:
    """Tell whether a trailer's audit token is all zero: the system itself sent the message."""
    return trailer[AUDIT_TOKEN_AT:TRAILER_SIZE] == _ZERO_TOKEN


def _unpack_descriptors(view: bytes, size: int) -> tuple[tuple[Descriptor, ...], int]:
    if size < DESCRIPTORS_AT:
        raise Malformed("a complex message without a descriptor count")
    (count,) = COUNT.unpack_from(view, HEADER_SIZE)
    found: list[Descriptor] = []
    at = DESCRIPTORS_AT
    for _ in range(count):
        if at + PORT_DESCRIPTOR.size > size:
            raise Malformed(f"{count} descriptors in a message of {size} bytes")
        name, _, _, disposition, kind = PORT_DESCRIPTOR.unpack_from(view, at)
        if kind == PORT_TYPE:
            found.append((name, disposition))
            at += PORT_DESCRIPTOR.size
            continue
        if kind not in (MEMORY_TYPE, VOLATILE_TYPE, ARRAY_TYPE):
            raise Malformed(f"a descriptor of type {kind}; machio takes rights and memory (0 to 3)")
        if at + ARRAY_DESCRIPTOR.size > size:
            raise Malformed(f"{count} descriptors in a message of {size} bytes")
        address, deallocate, _, disposition, _, number = ARRAY_DESCRIPTOR.unpack_from(view, at)
        if kind == ARRAY_TYPE:
            found.append(ArrayAt(address, number, disposition, bool(deallocate)))
        else:
            found.append(MemoryAt(address, number, bool(deallocate)))
        at += ARRAY_DESCRIPTOR.size
    return tuple(found), at
