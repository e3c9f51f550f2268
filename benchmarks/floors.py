"""Floors: what the kernel and the event loop cost by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from contender import BYTES, PAYLOAD, Contender, Take, Trips, pair, payload


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
    """What anything that can be awaited costs at least; `size` senders share one socket."""

    fds = 1

    def prepare(self) -> tuple[Any, list[int]]:
        first, second = pair(socket.SOCK_SEQPACKET)
        return first, [second, *(os.dup(second) for _ in range(1, self.size))]

    async def ask(self, first: Any, trips: Trips) -> None:
        link = Awaited(first)
        for _ in trips:
            first.send(BYTES)
            await link.receive()
        link.close()

    async def echo(self, second: int) -> None:
        link = Awaited(socket.socket(fileno=second))
        while True:
            link.sock.send(await link.receive())

    async def pour(self, second: int, bodies: Iterable[bytes]) -> None:
        sock = socket.socket(fileno=second)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        for body in bodies:
            await loop.sock_sendall(sock, body)

    async def drain(self, first: Any, trips: Trips, take: Take) -> None:
        first.setblocking(False)
        loop = asyncio.get_running_loop()
        for _ in trips:
            take(await loop.sock_recv(first, 4096))
        first.close()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[tuple[str, str]]:
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def answer(client: Awaited) -> None:
            while message := await client.receive():
                client.sock.send(message)
            client.close()

        def accept() -> None:
            tasks.add(asyncio.create_task(answer(Awaited(listener.accept()[0]))))

        with (
            tempfile.TemporaryDirectory() as directory,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        ):
            place = str(Path(directory, "socket"))
            listener.bind(place)
            listener.listen(self.size)
            loop.add_reader(listener, accept)
            yield "packets", place
            loop.remove_reader(listener)
            await asyncio.gather(*tasks)  # the clients are gone


@contextlib.asynccontextmanager
async def waiting(receives: Iterable[Any]) -> AsyncIterator[None]:
    """Have tasks wait for something that does not come, in the block."""
    tasks = [asyncio.create_task(receive) for receive in receives]
    await asyncio.sleep(0)
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Waiting(Contender):
    """`size` sockets with a bare `add_reader`, each awaited by a task."""

    fds = 2

    def prepare(self) -> tuple[Any, list[int]]:
        return None, []

    @contextlib.asynccontextmanager
    async def wait(self, first: Any) -> AsyncIterator[None]:  # noqa: ARG002
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(self.size)]
        links = [Awaited(mine) for mine, _ in pairs]

        async def receive(link: Awaited) -> None:
            await link.receive()

        async with waiting(receive(link) for link in links):
            yield
        for link, (_, theirs) in zip(links, pairs, strict=True):
            link.close()
            theirs.close()


class Callbacks(Contender):
    """The same without a task: the callback answers by itself. Nothing awaits anything."""

    def prepare(self) -> tuple[Any, list[int]]:
        first, second = pair(socket.SOCK_SEQPACKET)
        return first, [second]

    async def ask(self, first: Any, trips: Trips) -> None:
        first.setblocking(False)
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        left = iter(trips)

        def readable() -> None:
            first.recv(4096)
            if next(left, None) is None:
                done.set_result(None)
                loop.remove_reader(first)
            else:
                first.send(BYTES)

        loop.add_reader(first, readable)
        next(left)
        first.send(BYTES)
        await done
        first.close()

    async def echo(self, second: int) -> None:
        sock = socket.socket(fileno=second)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()

        def readable() -> None:
            sock.send(sock.recv(4096))

        loop.add_reader(sock, readable)
        await loop.create_future()


class SendFds(Contender):
    """`size` descriptors go there and come back, by `socket.send_fds` and `recv_fds`."""

    def prepare(self) -> tuple[Any, list[int]]:
        first, second = pair(socket.SOCK_SEQPACKET)
        return first, [second]

    def _link(self, sock: socket.socket) -> Awaited:
        return Awaited(sock, partial(socket.recv_fds, sock, 4096, self.size))

    async def ask(self, first: Any, trips: Trips) -> None:
        link = self._link(first)
        fds = [os.dup(first.fileno()) for _ in range(self.size)]
        for _ in trips:
            send_away(first, BYTES, fds)
            _, fds, _, _ = await link.receive()
        link.close()
        close_all(fds)

    async def echo(self, second: int) -> None:
        link = self._link(socket.socket(fileno=second))
        while True:
            _, fds, _, _ = await link.receive()
            send_away(link.sock, BYTES, fds)


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def send_away(sock: socket.socket, body: bytes, fds: list[int]) -> None:
    """Send descriptors, which are closed here."""
    socket.send_fds(sock, [body], fds)
    close_all(fds)


class Rendezvous(Contender):
    """What a handshake does, with bare sockets and no more calls than that takes.

    A server makes a socket and has a directory keep the other end under a name. It writes the name
    into a pipe; the client reads it, gets the end from the directory, and sends two descriptors, as
    many as a send right has, through it. Three processes, one name at a time.
    """

    CLIENT: ClassVar[bytes] = b"client"
    DIRECTORY: ClassVar[bytes] = b"directory"

    def prepare(self) -> tuple[Any, list[int]]:
        to_client, client = pair(socket.SOCK_SEQPACKET)
        to_directory, directory = pair(socket.SOCK_SEQPACKET)
        ours, theirs = pair(socket.SOCK_SEQPACKET)
        send_away(to_client, self.CLIENT, [ours.detach()])
        send_away(to_directory, self.DIRECTORY, [theirs])
        return (to_client, to_directory), [client, directory]

    async def ask(self, first: Any, trips: Trips) -> None:
        pipe, directory = first[0], Awaited(first[1])
        for _ in trips:
            service, theirs = pair(socket.SOCK_SEQPACKET)
            send_away(directory.sock, BYTES, [theirs])
            await directory.receive()
            queue = Awaited(service, partial(socket.recv_fds, service, 4096, 2))
            pipe.send(BYTES)
            close_all((await queue.receive())[1])
            queue.close()
        pipe.close()
        directory.close()

    async def echo(self, second: int) -> None:
        mine = socket.socket(fileno=second)
        role, fds, _, _ = socket.recv_fds(mine, 4096, 1)
        other = socket.socket(fileno=fds[0])
        await (self._look_up if role == self.CLIENT else self._keep)(mine, other)

    async def _look_up(self, pipe: socket.socket, directory: socket.socket) -> None:
        right = [os.dup(pipe.fileno()) for _ in range(2)]
        offer = Awaited(pipe)
        answer = Awaited(directory, partial(socket.recv_fds, directory, 4096, 1))
        while True:
            name = await offer.receive()
            directory.send(name)
            _, (fd,), _, _ = await answer.receive()
            with socket.socket(fileno=fd) as service:
                socket.send_fds(service, [name], right)

    async def _keep(self, server: socket.socket, client: socket.socket) -> None:
        checking_in = Awaited(server, partial(socket.recv_fds, server, 4096, 1))
        looking_up = Awaited(client)
        while True:
            _, kept, _, _ = await checking_in.receive()
            look_up = looking_up.receive()
            server.send(BYTES)
            send_away(client, await look_up, kept)


class Copy(Contender):
    """One memcpy of a large message, into memory that is there already. Nothing is sent."""

    warm_up = 3

    def prepare(self) -> tuple[Any, list[int]]:
        return None, []

    async def ask(self, first: Any, trips: Trips) -> None:  # noqa: ARG002
        source, target = payload(), memoryview(bytearray(PAYLOAD))
        for _ in trips:
            target[:] = source


class FreshCopy(Copy):
    """The same into memory that the kernel gives page by page, as it must before any is sent."""

    async def ask(self, first: Any, trips: Trips) -> None:  # noqa: ARG002
        source = payload()
        for _ in trips:
            bytearray(source)
