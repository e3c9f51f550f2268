"""machio, as its users write it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar

from contender import BYTES, PAGE, PAYLOAD, SIZE, Contender, Trips, now, payload

import machio
from machio import Disposition, Message, PortRightType, ReceiveRight, SendRight, mig

Ends = tuple[ReceiveRight, SendRight]


@contextlib.asynccontextmanager
async def first_end(handshake: machio.ChildPortHandshake) -> AsyncIterator[Ends]:
    """Yield a port, and a right to the second process's port."""
    with handshake, ReceiveRight.allocate() as port, port.make_send() as send:
        await handshake.check_in(send, Disposition.MOVE_SEND)
        with await port.receive() as hello:
            yield port, hello.reply


@contextlib.asynccontextmanager
async def second_end(fd: int) -> AsyncIterator[Ends]:
    """Yield a port, and a right to the first process's port."""
    with (
        await machio.serve_fd(fd, PortRightType.SEND) as right,
        ReceiveRight.allocate() as port,
    ):
        await right.send(Message(0, reply=(port, Disposition.MAKE_SEND)))
        yield port, right


class Machio(Contender):
    """`await right.send(message)`, `await port.receive()`; rights exchanged by the handshake."""

    def prepare(self) -> tuple[Any, int]:
        handshake = machio.ChildPortHandshake()
        return handshake, handshake.server_write_fd()

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        async with first_end(first) as (port, right):
            times = []
            for _ in trips:
                start = now()
                await right.send(Message(1, BYTES))
                await port.receive()
                times.append(now() - start)
            return times

    async def echo(self, second: int, count: int) -> None:
        async with second_end(second) as (port, right):
            for _ in range(count):
                message = await port.receive()
                await right.send(Message(2, message.body))

    async def pour(self, second: int, count: int) -> None:
        async with second_end(second) as (_, right):
            for _ in range(count):
                await right.send(Message(1, BYTES))

    async def drain(self, first: Any, trips: Trips) -> list[int]:
        async with first_end(first) as (port, _):
            times = []
            for _ in trips:
                await port.receive()
                times.append(now())
            return times


class Wide(Machio):
    """The same with a queue of 1024 messages, Mach's largest; one way."""

    async def drain(self, first: Any, trips: Trips) -> list[int]:
        async with first_end(first) as (port, _):
            port.queue_limit = 1024
            times = []
            for _ in trips:
                await port.receive()
                times.append(now())
            return times


Data = Annotated[bytes, mig.Bytes(SIZE)]


class Echo(mig.Subsystem, base=7000):
    """A typed routine that gives back what it gets."""

    @mig.routine
    async def echo(self, data: Data) -> Data:
        return data


class Service(Machio):
    """A call of a typed routine of a `machio.Service`."""

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        async with first_end(first) as (_, right):
            client = Echo.client(right)
            times = []
            for _ in trips:
                start = now()
                await client.echo(BYTES)
                times.append(now() - start)
            return times

    async def echo(self, second: int, count: int) -> None:  # noqa: ARG002
        async with second_end(second) as (port, right), machio.Service(port) as service:
            service.add(Echo())
            serving = asyncio.create_task(service.serve())
            await right.died()
            service.stop()
            await serving


class PassSend(Machio):
    """A send right goes there and comes back."""

    made: ClassVar[Disposition] = Disposition.MAKE_SEND

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        async with first_end(first) as (port, right):
            carried = ReceiveRight.allocate()
            moving: Any = (carried, self.made)
            times = []
            for _ in trips:
                start = now()
                await right.send(Message(1, BYTES, [moving]))
                message = await port.receive()
                moving = message.rights[0]
                times.append(now() - start)
            moving.close()
            carried.close()
            return times

    async def echo(self, second: int, count: int) -> None:
        async with second_end(second) as (port, right):
            for _ in range(count):
                message = await port.receive()
                await right.send(Message(2, message.body, message.rights))


class PassReceive(PassSend):
    """A receive right goes there and comes back."""

    made = Disposition.MOVE_RECEIVE


class Idle(Machio):
    """The second process waits on more ports than the one that messages come to."""

    idle: ClassVar[int] = 1

    async def echo(self, second: int, count: int) -> None:
        async with second_end(second) as (port, right):
            ports = [ReceiveRight.allocate() for _ in range(self.idle - 1)]
            tasks = [asyncio.create_task(idle.receive()) for idle in ports]
            await asyncio.sleep(0)
            for _ in range(count):
                message = await port.receive()
                await right.send(Message(2, message.body))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for idle in ports:
                idle.close()


class Idle100(Idle):
    """A hundred ports."""

    idle = 100


class Idle10000(Idle):
    """Ten thousand ports."""

    idle = 10_000


class LookUp(Machio):
    """A name looked up at the bootstrap server."""

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        name = f"org.machio.benchmark.{os.getpid()}"
        with first, await machio.bootstrap.check_in(name):
            times = []
            for _ in trips:
                start = now()
                right = await machio.bootstrap.look_up(name)
                times.append(now() - start)
                right.close()
            return times

    async def echo(self, second: int, count: int) -> None:  # noqa: ARG002
        os.close(second)


class Payload(Machio):
    """A large message built in place; the receiver reads a byte of each page, and answers."""

    warm_up = 3

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        source = payload()
        async with first_end(first) as (port, right):
            times = []
            for _ in trips:
                start = now()
                memory = machio.Memory(PAYLOAD)
                with memory.view as view:
                    view[:] = source
                await right.send(Message(1, memory=[memory]))
                await port.receive()
                times.append(now() - start)
            return times

    async def echo(self, second: int, count: int) -> None:
        async with second_end(second) as (port, right):
            for _ in range(count):
                with await port.receive() as message, message.memory[0].view as view:
                    answer = Message(2, bytes(view[::PAGE])[:SIZE])
                await right.send(answer)
