"""Floors: what the kernel and the event loop cost by themselves."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from contender import BYTES, PAYLOAD, Contender, Trips, now, pair, payload


class Awaited:
    """A bare `add_reader` on a datagram socket, and a future for the task that waits."""

    def __init__(self, sock: socket.socket, take: Callable[[], Any] | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.take = take or partial(sock.recv, 4096)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] | None = None
        self.loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(self.take())

    def receive(self) -> asyncio.Future[Any]:
        """Return what becomes the next message."""
        self.future = self.loop.create_future()
        return self.future

    def close(self) -> None:
        """Close the socket."""
        self.loop.remove_reader(self.sock)
        self.sock.close()


class Floor(Contender):
    """What anything that can be awaited costs at least."""

    def prepare(self) -> tuple[Any, int]:
        return pair(socket.SOCK_SEQPACKET)

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        link = Awaited(first)
        times = []
        for _ in trips:
            start = now()
            first.send(BYTES)
            await link.receive()
            times.append(now() - start)
        link.close()
        return times

    async def echo(self, second: int, count: int) -> None:
        link = Awaited(socket.socket(fileno=second))
        for _ in range(count):
            link.sock.send(await link.receive())
        link.close()

    async def pour(self, second: int, count: int) -> None:
        sock = socket.socket(fileno=second)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        for _ in range(count):
            await loop.sock_sendall(sock, BYTES)
        sock.close()

    async def drain(self, first: Any, trips: Trips) -> list[int]:
        first.setblocking(False)
        loop = asyncio.get_running_loop()
        times = []
        for _ in trips:
            await loop.sock_recv(first, 4096)
            times.append(now())
        return times


class Callbacks(Contender):
    """The same without a task: the callback answers by itself. Nothing awaits anything."""

    def prepare(self) -> tuple[Any, int]:
        return pair(socket.SOCK_SEQPACKET)

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        first.setblocking(False)
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        times: list[int] = []
        start = 0

        def readable() -> None:
            nonlocal start
            first.recv(4096)
            times.append(now() - start)
            if next(trips, None) is None:
                done.set_result(None)
                return
            start = now()
            first.send(BYTES)

        loop.add_reader(first, readable)
        next(trips)
        start = now()
        first.send(BYTES)
        await done
        loop.remove_reader(first)
        return times

    async def echo(self, second: int, count: int) -> None:
        sock = socket.socket(fileno=second)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def readable() -> None:
            nonlocal count
            sock.send(sock.recv(4096))
            count -= 1
            if not count:
                done.set_result(None)

        loop.add_reader(sock, readable)
        await done
        loop.remove_reader(sock)
        sock.close()


class SendFds(Contender):
    """Descriptors go there and come back, by `socket.send_fds` and `recv_fds`."""

    fds: ClassVar[int] = 2  # as many as a send right has

    def prepare(self) -> tuple[Any, int]:
        return pair(socket.SOCK_SEQPACKET)

    def _link(self, sock: socket.socket) -> Awaited:
        return Awaited(sock, partial(socket.recv_fds, sock, 4096, self.fds))

    @staticmethod
    def _send(sock: socket.socket, fds: list[int]) -> None:
        socket.send_fds(sock, [BYTES], fds)
        for fd in fds:
            os.close(fd)

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        link = self._link(first)
        fds = [os.dup(first.fileno()) for _ in range(self.fds)]
        times = []
        for _ in trips:
            start = now()
            self._send(first, fds)
            _, fds, _, _ = await link.receive()
            times.append(now() - start)
        link.close()
        for fd in fds:
            os.close(fd)
        return times

    async def echo(self, second: int, count: int) -> None:
        link = self._link(socket.socket(fileno=second))
        for _ in range(count):
            _, fds, _, _ = await link.receive()
            self._send(link.sock, fds)
        link.close()


class SendThreeFds(SendFds):
    """The same with as many as a receive right has."""

    fds = 3


class Copy(Contender):
    """One memcpy of a large message, into memory that is there already. Nothing is sent."""

    warm_up = 3

    def prepare(self) -> tuple[Any, int]:
        return pair()

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        source, target = payload(), memoryview(bytearray(PAYLOAD))
        times = []
        for _ in trips:
            start = now()
            target[:] = source
            times.append(now() - start)
        first.close()
        return times

    async def echo(self, second: int, count: int) -> None:  # noqa: ARG002
        os.close(second)


class FreshCopy(Copy):
    """The same into memory that the kernel gives page by page, as it must before any is sent."""

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        source = payload()
        times = []
        for _ in trips:
            start = now()
            bytearray(source)
            times.append(now() - start)
        first.close()
        return times
