"""Messages for the conformance tests: packed from Python, sent, received and taken apart."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kit import COPY_SEND, MOVE_RECEIVE, NULL, code_name, qlimit, status

from machio._mach import ffi, lib

PATIENCE = 10_000  # ms: what a test gives a message of another task or thread to arrive
COMPLEX = 0x80000000


def bits(remote: int, local: int = 0, other: int = 0) -> int:
    return remote | local << 8 | other


def port(name: int, disposition: int) -> bytes:
    """Pack a port descriptor."""
    return struct.pack("=IIHBB", name, 0, 0, disposition, lib.MACH_MSG_PORT_DESCRIPTOR)


def ool(address: int, size: int, copy: int = 1, deallocate: int = 0, type: int = 1) -> bytes:
    """Pack an out-of-line descriptor."""
    return struct.pack("=QBBBBI", address, deallocate, copy, 0, type, size)


def ool_ports(address: int, count: int, disposition: int, deallocate: int = 0) -> bytes:
    kind = lib.MACH_MSG_OOL_PORTS_DESCRIPTOR
    return struct.pack("=QBBBBI", address, deallocate, 1, disposition, kind, count)


def guarded(name: int, value: int, flags: int, disposition: int = MOVE_RECEIVE) -> bytes:
    kind = lib.MACH_MSG_GUARDED_PORT_DESCRIPTOR
    return struct.pack("=QHBBI", value, flags, disposition, kind, name)


@dataclass(frozen=True)
class Descriptor:
    """A descriptor as it lies in a buffer; which fields count depends on `type`."""

    type: int
    name: int = 0
    disposition: int = 0
    address: int = 0
    size: int = 0  # bytes, or the number of ports
    copy: int = 0
    deallocate: int = 0
    context: int = 0
    flags: int = 0

    def data(self) -> bytes:
        """Return a copy of the memory that an out-of-line descriptor points to."""
        return bytes(ffi.buffer(ffi.cast("char *", self.address), self.size)) if self.size else b""

    def names(self) -> list[int]:
        return list(ffi.unpack(ffi.cast("mach_port_name_t *", self.address), self.size))


def unpack_descriptor(data: bytes) -> tuple[Descriptor, int]:
    """Return the descriptor at the start of `data`, and its length."""
    kind = data[11]
    if kind == lib.MACH_MSG_PORT_DESCRIPTOR:
        return Descriptor(kind, struct.unpack_from("=I", data)[0], data[10]), 12
    if kind == lib.MACH_MSG_GUARDED_PORT_DESCRIPTOR:
        value, flags, disposition, _, name = struct.unpack_from("=QHBBI", data)
        return Descriptor(kind, name, disposition, context=value, flags=flags), 16
    address, deallocate, copy, disposition, _, size = struct.unpack_from("=QBBBBI", data)
    return Descriptor(kind, 0, disposition, address, size, copy, deallocate), 16


class Buffer:
    """Memory for one message; filled with 0xa5, so that what a call wrote can be seen."""

    def __init__(self, data: bytes = b"", size: int = 8192) -> None:
        size = max(size, len(data))
        self.memory = ffi.new("uint8_t[]", size)
        self.bytes = ffi.buffer(self.memory)
        self.bytes[:] = data.ljust(size, b"\xa5")

    @property
    def header(self) -> Any:
        return ffi.from_buffer("mach_msg_header_t *", self.bytes)  # which keeps the memory

    @property
    def address(self) -> int:
        return int(ffi.cast("uintptr_t", self.memory))

    @property
    def body(self) -> bytes:
        return self.bytes[24 : self.header.msgh_size]

    @property
    def trailer(self) -> bytes:
        """The trailer, as long as its own size tells."""
        at = self.header.msgh_size
        return self.bytes[at : at + struct.unpack_from("=I", self.bytes, at + 4)[0]]

    @property
    def descriptors(self) -> list[Descriptor]:
        found, at = [], 28
        for _ in range(struct.unpack_from("=I", self.bytes, 24)[0]):
            descriptor, length = unpack_descriptor(self.bytes[at : at + 16])
            found.append(descriptor)
            at += length
        return found

    def word(self, at: int) -> int:
        return struct.unpack_from("=I", self.bytes, at)[0]

    def mach_msg(
        self,
        options: int,
        send_size: int = 0,
        receive_size: int = 0,
        name: int = NULL,
        timeout: int = 0,
    ) -> str:
        """Call mach_msg and return the name of its code."""
        value = lib.mach_msg(self.header, options, send_size, receive_size, name, timeout, NULL)
        return code_name(value)

    def send(self, options: int = 0, timeout: int | None = 0) -> str:
        """Send what lies here; a timeout of None waits without end."""
        options |= lib.MACH_SEND_MSG | (0 if timeout is None else lib.MACH_SEND_TIMEOUT)
        return self.mach_msg(options, self.header.msgh_size, timeout=timeout or 0)

    def receive(
        self, name: int, options: int = 0, timeout: int | None = 0, size: int | None = None
    ) -> str:
        options |= lib.MACH_RCV_MSG | (0 if timeout is None else lib.MACH_RCV_TIMEOUT)
        size = len(self.bytes) if size is None else size
        return self.mach_msg(options, 0, size, name, timeout or 0)


def message(
    dest: int,
    disposition: int = COPY_SEND,
    reply: int = NULL,
    reply_disposition: int = 0,
    id: int = 0,
    body: bytes = b"",
    rights: list[bytes] | None = None,
    other: int = 0,
    voucher: int = 0,
) -> Buffer:
    """Pack a message. `rights` are descriptors and make it complex; `body` follows them."""
    if rights is not None:
        body = struct.pack("=I", len(rights)) + b"".join(rights) + body
        other |= COMPLEX
    head = bits(disposition, reply_disposition, other), 24 + len(body), dest, reply, voucher, id
    return Buffer(struct.pack("=IIIIIi", *head) + body)


def send(*arguments: Any, options: int = 0, timeout: int | None = 0, **fields: Any) -> str:
    """Send a message as `message` packs it; returns the name of the code."""
    return message(*arguments, **fields).send(options, timeout)


def take(name: int, options: int = 0, timeout: int = PATIENCE) -> Buffer:
    """Receive the next message, which must be there or come."""
    buffer = Buffer()
    assert buffer.receive(name, options, timeout) == "KERN_SUCCESS"
    return buffer


def drain(name: int) -> Iterator[Buffer]:
    """Yield the messages that are queued now."""
    while True:
        buffer = Buffer()
        if (code := buffer.receive(name)) != "KERN_SUCCESS":
            assert code == "MACH_RCV_TIMED_OUT"
            return
        yield buffer


def ids(name: int) -> list[int]:
    """Receive what is queued now, and return the ids in order."""
    return [buffer.header.msgh_id for buffer in drain(name)]


def fill(port: int) -> None:
    """Send until the queue is full."""
    for _ in range(qlimit(port) - status(port).msgcount):
        assert send(port) == "KERN_SUCCESS"
