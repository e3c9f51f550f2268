"""The bytes of a Mach message: header, descriptors, trailer. Pure; knows no port and calls nothing.

All structures are packed to 4 and in the machine's byte order. A message is header (24), for a
complex one the descriptor count (4) and the descriptors (port descriptors: 12 each), then the body
padded with zeros to a multiple of 4. The trailer follows at the message's size, not part of it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = struct.Struct("=IIIIIi")  # bits, size, remote, local, voucher, id
COUNT = struct.Struct("=I")
PORT_DESCRIPTOR = struct.Struct("=IIHBB")  # name, pad1, pad2, disposition, type
AUDIT_TRAILER = struct.Struct("=IIIII8I")  # type, size, seqno, sender uid and gid, audit token
NAME = struct.Struct("=I")
NOTIFICATION = struct.Struct("=8sI")  # NDR, then a name or a count

HEADER_SIZE = HEADER.size
DESCRIPTORS_AT = HEADER_SIZE + COUNT.size
TRAILER_SIZE = AUDIT_TRAILER.size
BITS_AT, REMOTE_AT, LOCAL_AT = 0, 8, 12

AUDIT_TOKEN_AT = 20

BITS_COMPLEX = 0x8000_0000
NAME_NULL = 0
NAME_DEAD = 0xFFFF_FFFF
PORT_TYPE = 0  # MACH_MSG_PORT_DESCRIPTOR
_ZERO_TOKEN = bytes(TRAILER_SIZE - AUDIT_TOKEN_AT)


class Incoming(NamedTuple):
    """A received message taken apart; the names in it are still raw and still owned by the task."""

    bits: int
    remote: int  # the reply right
    local: int  # the port that the message was sent to
    id: int
    rights: tuple[tuple[int, int], ...]  # (name, disposition) in the order of the descriptors
    body: bytes
    trailer: bytes


class Malformed(ValueError):  # noqa: N818 - a verdict on bytes
    """The bytes are no message that machio takes."""


def size_of(rights: int, body: int) -> int:
    """Return the size of a message that carries so many rights and so many bytes of body."""
    padded = (body + 3) & ~3
    return (DESCRIPTORS_AT + PORT_DESCRIPTOR.size * rights if rights else HEADER_SIZE) + padded


def descriptor_at(index: int) -> int:
    """Return the offset of a port descriptor, which begins with its name."""
    return DESCRIPTORS_AT + PORT_DESCRIPTOR.size * index


def bits_of(remote: int, local: int, rights: bool) -> int:
    """Return msgh_bits: two dispositions, and whether the payload begins with descriptors."""
    return remote | local << 8 | (BITS_COMPLEX if rights else 0)


def payload(rights: Sequence[tuple[int, int]], body: bytes) -> bytes:
    """Return what follows the header: a descriptor for each name and disposition, and the body."""
    if not rights:
        return body
    descriptors = [PORT_DESCRIPTOR.pack(name, 0, 0, kind, PORT_TYPE) for name, kind in rights]
    return b"".join((COUNT.pack(len(rights)), *descriptors, body))


def unpack(view: memoryview) -> Incoming:
    """Take a received message apart. Raises Malformed for descriptors other than port rights."""
    bits, size, remote, local, _, message_id = HEADER.unpack_from(view)
    if not HEADER_SIZE <= size <= len(view):
        raise Malformed(f"a message of {size} bytes in a buffer of {len(view)}")
    rights: tuple[tuple[int, int], ...] = ()
    at = HEADER_SIZE
    if bits & BITS_COMPLEX:
        rights, at = _descriptors(view, size)
    return Incoming(
        bits, remote, local, message_id, rights, bytes(view[at:size]), trailer_of(view, size)
    )


def trailer_of(view: memoryview, size: int) -> bytes:
    """Return the audit trailer behind a message of `size` bytes, or nothing if there is none."""
    trailer = bytes(view[size : size + TRAILER_SIZE])
    return trailer if len(trailer) == TRAILER_SIZE else b""


def is_from_kernel(trailer: bytes) -> bool:
    """Tell whether a trailer's audit token is all zero: the system itself sent the message."""
    return trailer[AUDIT_TOKEN_AT:TRAILER_SIZE] == _ZERO_TOKEN


def _descriptors(view: memoryview, size: int) -> tuple[tuple[tuple[int, int], ...], int]:
    if size < DESCRIPTORS_AT:
        raise Malformed("a complex message without a descriptor count")
    (count,) = COUNT.unpack_from(view, HEADER_SIZE)
    end = DESCRIPTORS_AT + PORT_DESCRIPTOR.size * count
    if end > size:
        raise Malformed(f"{count} descriptors in a message of {size} bytes")
    rights = []
    for at in range(DESCRIPTORS_AT, end, PORT_DESCRIPTOR.size):
        name, _, _, disposition, kind = PORT_DESCRIPTOR.unpack_from(view, at)
        if kind != PORT_TYPE:
            raise Malformed(f"a descriptor of type {kind}; machio takes port rights (0)")
        rights.append((name, disposition))
    return tuple(rights), end
