"""machio, as its users write it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, ClassVar

from contender import BYTES, PAGE, PAYLOAD, SIZE, Contender, Take, Trips, payload
from floors import waiting

import machio
from machio import Disposition, Message, PortRightType, ReceiveRight, SendRight, mig

HELLO = 0
Ends = tuple[ReceiveRight, SendRight]


@contextlib.asynccontextmanager
async def first_end(handshakes: list[machio.ChildPortHandshake]) -> AsyncIterator[Ends]:
    """Yield a port that all the others can send to, and a right to the port of one of them."""
    with ReceiveRight.allocate() as port, contextlib.ExitStack() as rights:
        for handshake in handshakes:
            with handshake:
                await handshake.check_in(port, Disposition.MAKE_SEND)
        hellos: list[Message] = []
        while len(hellos) < len(handshakes):
            message = await port.receive()
            if message.id == HELLO:  # who said it may be pouring already
                hellos.append(rights.enter_context(message))
        assert isinstance(hellos[0].reply, SendRight)
        yield port, hellos[0].reply


@contextlib.asynccontextmanager
async def second_end(fd: int) -> AsyncIterator[Ends]:
    """Yield a port, and a right to the first process's port."""
    with (
        await machio.serve_fd(fd, PortRightType.SEND) as right,
        ReceiveRight.allocate() as port,
    ):
        assert isinstance(right, SendRight)
        await right.send(Message(HELLO, reply=(port, Disposition.MAKE_SEND)))
        yield port, right


class Machio(Contender):
    """`await right.send(message)`, `await port.receive()`; rights exchanged by the handshake."""

    def prepare(self) -> tuple[Any, list[int]]:
        handshakes = [machio.ChildPortHandshake() for _ in range(self.size)]
        return handshakes, [handshake.server_write_fd() for handshake in handshakes]

    async def ask(self, first: Any, trips: Trips) -> None:
        async with first_end(first) as (port, right):
            for _ in trips:
                await right.send(Message(1, BYTES))
                await port.receive()

    async def echo(self, second: int) -> None:
        async with second_end(second) as (port, right):
            while True:
                message = await port.receive()
                await right.send(Message(2, message.body))

    async def pour(self, second: int, bodies: Iterable[bytes]) -> None:
        async with second_end(second) as (_, right):
            for body in bodies:
                await right.send(Message(1, body))

    async def drain(self, first: Any, trips: Trips, take: Take) -> None:
        async with first_end(first) as (port, _):
            for _ in trips:
                take((await port.receive()).body)


class Wide(Machio):
    """The same with a queue of 1024 messages, Mach's largest; one way."""

    async def drain(self, first: Any, trips: Trips, take: Take) -> None:
        async with first_end(first) as (port, _):
            port.queue_limit = 1024
            for _ in trips:
                take((await port.receive()).body)


Data = Annotated[bytes, mig.Bytes(SIZE)]


class Echo(mig.Subsystem, base=7000):
    """A typed routine that gives back what it gets."""

    @mig.routine
    def echo(self, data: Data) -> Data:
        return data


class Service(Machio):
    """A call of a typed routine of a `machio.Service`; `size` clients of it, in C."""

    queue_limit: ClassVar[int | None] = None

    async def ask(self, first: Any, trips: Trips) -> None:
        async with first_end(first) as (_, right):
            client = Echo.client(right)
            for _ in trips:
                await client.echo(BYTES)

    async def echo(self, second: int) -> None:
        async with second_end(second) as (port, _), machio.Service(port) as service:
            service.add(Echo())
            await service.serve()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[tuple[str, str]]:
        name = f"org.machio.benchmark.{os.getpid()}"
        async with machio.Service(name, queue_limit=self.queue_limit) as service:
            service.add(Echo())
            serving = asyncio.create_task(service.serve())
            yield "mach", name
            service.stop()
            await serving


class Handler(Machio):
    """A call without types, of a handler that a `machio.Service` has for the message's id."""

    async def ask(self, first: Any, trips: Trips) -> None:
        async with first_end(first) as (_, right):
            for _ in trips:
                await right.call(Message(1, BYTES))

    async def echo(self, second: int) -> None:
        async with second_end(second) as (port, _), machio.Service(port) as service:

            @service.on(1)
            def answer(request: Message) -> Message:
                return Message(2, request.body)

            await service.serve()


class WideService(Service):
    """The same with a queue of 1024 messages."""

    queue_limit = 1024


class PassSend(Machio):
    """A send right goes there and comes back."""

    made: ClassVar[Disposition] = Disposition.MAKE_SEND

    async def ask(self, first: Any, trips: Trips) -> None:
        async with first_end(first) as (port, right):
            carried = ReceiveRight.allocate()
            moving: Any = (carried, self.made)
            for _ in trips:
                await right.send(Message(1, BYTES, [moving]))
                message = await port.receive()
                moving = message.rights[0]
            moving.close()
            carried.close()

    async def echo(self, second: int) -> None:
        async with second_end(second) as (port, right):
            while True:
                message = await port.receive()
                await right.send(Message(2, message.body, message.rights))


class PassReceive(PassSend):
    """A receive right goes there and comes back."""

    made = Disposition.MOVE_RECEIVE


class Idle(Machio):
    """The second process waits on `size` ports; messages come to one."""

    def prepare(self) -> tuple[Any, list[int]]:
        handshake = machio.ChildPortHandshake()
        return [handshake], [handshake.server_write_fd()]

    async def echo(self, second: int) -> None:
        async with second_end(second) as (port, right):
            ports = [ReceiveRight.allocate() for _ in range(self.size - 1)]
            async with waiting(idle.receive() for idle in ports):
                while True:
                    message = await port.receive()
                    await right.send(Message(2, message.body))


class Waiting(Idle):
    """`size` ports that tasks wait on, each with a right in another process, which can send."""

    fds = 3
    at_once: ClassVar[int] = 50  # rights in a message

    @contextlib.asynccontextmanager
    async def wait(self, first: Any) -> AsyncIterator[None]:
        async with first_end(first) as (port, right):
            ports = [ReceiveRight.allocate() for _ in range(self.size)]
            await self._share(right, ports)
            await port.receive()  # the other side has them all
            async with waiting(idle.receive() for idle in ports):
                yield
            for idle in ports:
                idle.close()

    async def _share(self, right: SendRight, ports: list[ReceiveRight]) -> None:
        for start in range(0, len(ports), self.at_once):
            some = [(port, Disposition.MAKE_SEND) for port in ports[start : start + self.at_once]]
            await right.send(Message(1, rights=some))
        await right.send(Message(2))

    async def echo(self, second: int) -> None:
        async with second_end(second) as (port, right):
            kept: list[object] = []
            while (message := await port.receive()).id == 1:
                kept += message.rights
            await right.send(Message(2))
            await asyncio.get_running_loop().create_future()


class WaitingAlone(Waiting):
    """The same with ports that only their own process can send to."""

    fds = 0

    async def _share(self, right: SendRight, ports: list[ReceiveRight]) -> None:  # noqa: ARG002
        await right.send(Message(2))


class LookUp(Contender):
    """A name looked up at the bootstrap server."""

    def prepare(self) -> tuple[Any, list[int]]:
        return None, []

    async def ask(self, first: Any, trips: Trips) -> None:  # noqa: ARG002
        name = f"org.machio.benchmark.{os.getpid()}"
        with await machio.bootstrap.check_in(name):
            for _ in trips:
                right = await machio.bootstrap.look_up(name)
                trips.over()
                right.close()


class Handshake(Contender):
    """The child port handshake between two processes that run; the first is the server."""

    def prepare(self) -> tuple[Any, list[int]]:
        read_fd, write_fd = os.pipe()
        return write_fd, [read_fd]

    async def ask(self, first: Any, trips: Trips) -> None:
        for _ in trips:
            (await machio.serve_fd(os.dup(first), PortRightType.SEND)).close()
        os.close(first)

    async def echo(self, second: int) -> None:
        with ReceiveRight.allocate() as port:
            while True:
                await machio.check_in_fd(os.dup(second), port, Disposition.MAKE_SEND)


class Payload(Machio):
    """A large message built in place; the receiver reads a byte of each page, and answers."""

    warm_up = 3

    async def ask(self, first: Any, trips: Trips) -> None:
        source = payload()
        async with first_end(first) as (port, right):
            for _ in trips:
                memory = machio.Memory(PAYLOAD)
                with memory.view as view:
                    view[:] = source
                await right.send(Message(1, memory=[memory]))
                await port.receive()

    async def echo(self, second: int) -> None:
        async with second_end(second) as (port, right):
            while True:
                with await port.receive() as message, message.memory[0].view as view:
                    answer = Message(2, bytes(view[::PAGE])[:SIZE])
                await right.send(answer)


class CopiedPayload(Payload):
    """The same of bytes that are there already, as peers send them: they are copied once."""

    async def ask(self, first: Any, trips: Trips) -> None:
        source = payload()
        async with first_end(first) as (port, right):
            for _ in trips:
                await right.send(Message(1, memory=[source]))
                await port.receive()
