"""What is measured: a way in which two processes can talk.

A contender makes, in the first process, what the second inherits, and gives each side its part of
a job: `echo` answers what `ask` asks, `drain` takes what `pour` sends as fast as it goes. Each is
written as a user of that library would write it, loops included, so that nothing which is shared
costs anybody anything. They are found in `floors.py`, `ours.py` and `peers.py`.

`ask` returns how long each round trip took, `drain` when each message came; in nanoseconds.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from time import perf_counter_ns as now
from typing import Any, ClassVar

SIZE = 64  # bytes of a message
BYTES = bytes(range(SIZE))
PAYLOAD = 64 << 20  # bytes of a large one
PAGE = 4096
Trips = Iterator[object]

__all__ = [
    "BYTES",
    "PAGE",
    "PAYLOAD",
    "SIZE",
    "Contender",
    "Missing",
    "Trips",
    "now",
    "pair",
    "payload",
]


class Missing(Exception):  # noqa: N818 - not an error: the table says so
    """What a contender needs is not on this machine."""


class Contender:
    """Two ends of a connection; `first` and `second` are what the processes get of it."""

    warm_up: ClassVar[int] = 300  # trips that do not count

    def prepare(self) -> tuple[Any, int]:
        """Return the first process's part, and the descriptor that the second inherits."""
        raise NotImplementedError

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        """Make a round trip for each element of `trips`; return how long each took."""
        raise NotImplementedError

    async def echo(self, second: int, count: int) -> None:
        """Answer `count` messages."""
        raise NotImplementedError

    async def drain(self, first: Any, trips: Trips) -> list[int]:
        """Take a message for each element of `trips`; return when each came."""
        raise NotImplementedError

    async def pour(self, second: int, count: int) -> None:
        """Send `count` messages as fast as it goes."""
        raise NotImplementedError


def payload() -> bytes:
    """Return a large message."""
    return bytes(range(256)) * (PAYLOAD // 256)


def pair(kind: socket.SocketKind = socket.SOCK_STREAM) -> tuple[socket.socket, int]:
    """Return one end of a socket pair, and the descriptor of the other."""
    first, second = socket.socketpair(socket.AF_UNIX, kind)
    return first, second.detach()
