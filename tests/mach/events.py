"""kqueues for the conformance tests: register, and take what has happened."""

from __future__ import annotations

import errno
import os
import select
from dataclasses import dataclass
from typing import Any, Self

from machio._mach import ffi, lib

NOW = ffi.new("struct timespec *")


@dataclass(frozen=True)
class Event:
    ident: int
    filter: int
    flags: int
    fflags: int
    data: int
    udata: int
    size: int  # ext[1]


class Kqueue:
    """A kqueue that is closed at the end of the block. A change returns the name of its error."""

    def __init__(self) -> None:
        self.fd = lib.kqueue()
        assert self.fd >= 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def change(
        self,
        ident: int,
        flags: int = lib.EV_ADD,
        filter: int = lib.EVFILT_MACHPORT,
        fflags: int = 0,
        buffer: Any = None,
        size: int = 0,
    ) -> str:
        event = ffi.new("struct kevent64_s *")
        address = buffer.address if buffer else 0
        lib.EV_SET64(event, ident, filter, flags, fflags, 0, ident + 1, address, size)
        if lib.kevent64(self.fd, event, 1, ffi.NULL, 0, 0, ffi.NULL) < 0:
            return errno.errorcode[ffi.errno]
        return "OK"

    def add(self, ident: int, flags: int = 0, **more: Any) -> None:
        assert self.change(ident, lib.EV_ADD | flags, **more) == "OK"

    def events(self, room: int = 16) -> list[Event]:
        """Return what kevent64 tells without waiting."""
        events = ffi.new("struct kevent64_s[]", room)
        count = lib.kevent64(self.fd, ffi.NULL, 0, events, room, 0, NOW)
        assert count >= 0, errno.errorcode[ffi.errno]
        return [
            Event(e.ident, e.filter, e.flags, e.fflags, e.data, e.udata, e.ext[1])
            for e in events[0:count]
        ]

    def plain_events(self) -> list[Event]:
        """The same by kevent."""
        events = ffi.new("struct kevent[16]")
        count = lib.kevent(self.fd, ffi.NULL, 0, events, 16, NOW)
        assert count >= 0, errno.errorcode[ffi.errno]
        return [Event(e.ident, e.filter, e.flags, e.fflags, e.data, 0, 0) for e in events[0:count]]

    @property
    def is_readable(self) -> bool:
        return select.select([self.fd], [], [], 0)[0] == [self.fd]
