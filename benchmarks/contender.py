"""What is measured: a way in which processes can talk.

A contender makes, in the first process, what the others inherit, and gives each side its part of a
job: `echo` answers what `ask` asks, `drain` takes what `pour` sends as fast as it goes. Each is
written as a user of that library would write it, loops included, so that nothing which is shared
costs anybody anything. They are found in `floors.py`, `ours.py` and `peers.py`; `worker.py` runs
them.

The first process's part goes through its `trips`, which measure by themselves and come to an end;
`echo` and `pour` go on until they are killed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from time import perf_counter_ns as now
from typing import Any, ClassVar, Protocol

SIZE = 64  # bytes of a message
BYTES = bytes(range(SIZE))
PAYLOAD = 64 << 20  # bytes of a large one
PAGE = 4096

__all__ = [
    "BYTES",
    "PAGE",
    "PAYLOAD",
    "SIZE",
    "Contender",
    "Missing",
    "Take",
    "Trips",
    "Uncounted",
    "now",
    "pair",
    "payload",
]

Take = Callable[[bytes], object]


class Missing(Exception):  # noqa: N818 - not an error: the table says so
    """What a contender needs is not on this machine."""


class Trips(Protocol):
    """What is measured once more and once more; from one element to the next is a trip."""

    def __iter__(self) -> Iterator[int]: ...

    def over(self) -> None:
        """Have this trip end here: what follows until the next does not count."""


class Uncounted:
    """Trips that are only made."""

    def __init__(self, trips: Iterable[int]) -> None:
        self.trips = trips

    def __iter__(self) -> Iterator[int]:
        return iter(self.trips)

    def over(self) -> None:
        pass


class Contender:
    """Ends of a connection. Which methods there are depends on the jobs it is for.

    size: of what the job is about, the number of senders, of clients, of ports that wait.
    """

    warm_up: ClassVar[int] = 300  # trips that do not count

    fds: ClassVar[int] = 0  # descriptors of the first process for each of `size`

    def __init__(self, size: int = 1) -> None:
        self.size = size

    def prepare(self) -> tuple[Any, list[int]]:
        """Return the first process's part, and a descriptor for each process that there is then."""
        raise NotImplementedError

    async def ask(self, first: Any, trips: Trips) -> None:
        """Make a round trip for each element of `trips`."""
        raise NotImplementedError

    async def echo(self, second: int) -> None:
        """Answer messages."""
        raise NotImplementedError

    async def drain(self, first: Any, trips: Trips, take: Take) -> None:
        """Give `take` a message for each element of `trips`."""
        raise NotImplementedError

    async def pour(self, second: int, bodies: Iterable[bytes]) -> None:
        """Send messages as fast as it goes."""
        raise NotImplementedError

    def wait(self, first: Any) -> AbstractAsyncContextManager[None]:
        """Have `size` tasks wait for a message each, in the block."""
        raise NotImplementedError

    def serve(self) -> AbstractAsyncContextManager[tuple[str, str]]:
        """Answer clients in the block; yield how `clients` (in C) reaches it: a way, a place."""
        raise NotImplementedError


def payload() -> bytes:
    """Return a large message."""
    return bytes(range(256)) * (PAYLOAD // 256)


def pair(kind: socket.SocketKind = socket.SOCK_STREAM) -> tuple[socket.socket, int]:
    """Return one end of a socket pair, and the descriptor of the other."""
    first, second = socket.socketpair(socket.AF_UNIX, kind)
    return first, second.detach()
