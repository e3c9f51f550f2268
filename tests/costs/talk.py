"""Two tasks of one loop send each other messages and wait for them, for `test_costs.py`.

    python talk.py SUBJECT syscalls COUNT   between two SIGUSR1, for count.c
    python talk.py SUBJECT calls COUNT      prints how many functions were called, in C too

COUNT round trips: of `messages`, calls of a `service`'s typed routine, or of one that a task runs
`later`, pairs of messages of which the second waits for `room`, or `handshake`s. In one process,
but for the bootstrap server, so that it goes the same way each time. Or it is the `start` of a
child, whose program is the fourth argument, with a handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from machio import (
    ChildPortHandshake,
    Disposition,
    Message,
    PortRightType,
    ReceiveRight,
    Service,
    check_in_fd,
    mig,
    serve_fd,
    spawn,
)

Data = Annotated[bytes, mig.Bytes(64)]
Trip = Callable[[], Awaitable[object]]
BODY = bytes(64)
WARM_UP = 20


class Echo(mig.Subsystem, base=7000):
    """Two routines that give back what they get."""

    @mig.routine
    def echo(self, data: Data) -> Data:
        return data

    @mig.routine
    async def echo_later(self, data: Data) -> Data:
        return data


@contextlib.asynccontextmanager
async def messages() -> AsyncIterator[Trip]:
    """Yield what makes a round trip with two ports."""
    with (
        ReceiveRight.allocate() as here,
        ReceiveRight.allocate() as there,
        here.make_send() as to_here,
        there.make_send() as to_there,
    ):

        async def answer() -> None:
            while True:
                message = await there.receive()
                await to_here.send(Message(1, message.body))

        async def trip() -> None:
            await to_there.send(Message(1, BODY))
            await here.receive()

        answering = asyncio.create_task(answer())
        yield trip
        answering.cancel()


@contextlib.asynccontextmanager
async def service(name: str = "echo") -> AsyncIterator[Trip]:
    """Yield what calls a service's routine."""
    port = ReceiveRight.allocate()
    with port.make_send() as send:
        async with Service(port) as service:
            service.add(Echo())
            serving = asyncio.create_task(service.serve())
            call = getattr(Echo.client(send), name)
            yield lambda: call(BODY)
            service.stop()
            await serving


@contextlib.asynccontextmanager
async def room() -> AsyncIterator[Trip]:
    """Yield what sends two messages to a port that holds one, and receives them."""
    with ReceiveRight.allocate(queue_limit=1) as port, port.make_send() as send:

        async def pour() -> None:
            await send.send(Message(1, BODY))
            await send.send(Message(2, BODY))

        async def trip() -> None:
            pouring = asyncio.create_task(pour())
            await port.receive()
            await port.receive()
            await pouring

        yield trip


@contextlib.asynccontextmanager
async def handshake() -> AsyncIterator[Trip]:
    """Yield what makes a handshake, by a pipe that lasts."""
    reader, writer = os.pipe()
    with ReceiveRight.allocate() as port:

        async def trip() -> None:
            serving = asyncio.create_task(serve_fd(os.dup(writer), PortRightType.SEND))
            await check_in_fd(os.dup(reader), port, Disposition.MAKE_SEND)
            (await serving).close()

        yield trip
    os.close(reader)
    os.close(writer)


@contextlib.asynccontextmanager
async def start() -> AsyncIterator[Trip]:
    """Yield what starts the child of examples/c, takes the right that it gives, and ends it."""
    env = {"MACHIO_BOOTSTRAP": os.environ["MACHIO_BOOTSTRAP"]}

    async def trip() -> None:
        with ChildPortHandshake() as handshake:
            fd = handshake.client_read_fd()
            command = [sys.argv[4], str(fd)]
            async with spawn(command, env=env, pass_fds=[fd], stdout=subprocess.DEVNULL, grace=0):
                os.close(fd)
                (await handshake.serve(PortRightType.SEND)).close()

    yield trip


SUBJECTS = {
    "messages": messages,
    "service": service,
    "later": lambda: service("echo_later"),
    "room": room,
    "handshake": handshake,
    "start": start,
}


async def main(subject: str, what: str, count: int) -> None:
    """Make round trips, counted."""
    calls = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    def mark() -> None:
        if what == "syscalls":
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            sys.setprofile(None if sys.getprofile() else profile)

    async with SUBJECTS[subject]() as trip:
        for _ in range(WARM_UP):
            await trip()
        mark()
        for _ in range(count):
            await trip()
        mark()
    if what == "calls":
        print(calls)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
