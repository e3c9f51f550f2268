"""Either side is killed with -9, at each step: the other ends cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import machio
from machio import (
    Message,
    ReceiveRight,
    SendRight,
    _checkin,
    _pipes,
    bootstrap,
)
from machio.handshake import _Queue

from .acts import (
    MOVE_RECEIVE,
    RECEIVE,
    check_in_with,
    die,
    name_in,
    patched,
    serve_in_vain,
    still_works,
)
from .stage import LIMIT, Scenario, Stage, variants


@variants(
    BeforeReading=("It has read nothing.", 0),
    InTheOffer=("It has read the token.", 1),
    AfterTheOffer=("It has read the offer.", 2),
    AfterLookUp=("It holds a right to the service.", 3),
    WaitingForRoom=("It waits for room in the service's queue.", 4),
)
class ClientKilled:
    """The client is killed with -9 at a step before the check-in."""

    dies = "client"

    async def server(stage, step):
        if step == 4:
            with held_up_until_dead(stage):
                await serve_in_vain(stage)
        else:
            await serve_in_vain(stage)

    async def client(stage, step):
        if step == 1:
            fd = stage.take_fd()
            await asyncio.to_thread(os.read, fd, 8)
        elif step == 2:
            async with stage.offer():
                die()
        elif step == 3:
            async with stage.offer() as offer:
                with await bootstrap.look_up(name_in(offer)):
                    die()
        elif step == 4:
            async with stage.offer() as offer:
                with await bootstrap.look_up(name_in(offer)) as service:
                    await stage.hear("server")
                    with pytest.raises(machio.SendTimedOut):
                        while True:
                            service.send_nowait(Message(1))
                    with ReceiveRight.allocate() as port:
                        waiting = asyncio.create_task(check_in_with(offer, port, MOVE_RECEIVE))
                        await asyncio.sleep(0)
                        with patched(SendRight, "send", lambda *_: die()):
                            await waiting
        die()


@contextlib.contextmanager
def held_up_until_dead(stage: Stage) -> Iterator[None]:
    """Stop the server's loop after its first look until the client's process has ended."""
    held = False

    def empty(original, server):
        nonlocal held
        state = original(server)
        if not held:
            held = True
            stage.tell("client")
            assert stage.hear_now("client") == ""
        return state

    with patched(_checkin.Server, "empty", empty):
        yield


class ClientKilledAfterCheckIn(Scenario):
    """The client is killed with -9 when it has checked in: the right in the message is good."""

    dies = "client"

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            assert await stage.hear("client") == ""
            assert (await port.receive(LIMIT)).id == 1
            await port.no_senders(LIMIT)

    async def client(stage):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            await send.send(Message(1), LIMIT)
            await stage.check_in(port, MOVE_RECEIVE)
            die()


@variants(
    BeforeItsWrites=("Before its writes.", 0),
    BetweenItsWrites=("Between its writes, the token being in the pipe.", 8),
    InTheLength=("In the length of the name.", 10),
    InTheName=("In the name.", 40),
)
class ServerKilled:
    """The server is killed with -9: the client fails cleanly and keeps the right to be moved."""

    dies = "server"

    async def server(stage, written):
        def write(original, fd, data):
            if written:
                assert original(fd, data[:written]) == written
            die()

        with patched(_pipes, "write_now", write):
            await stage.serve(RECEIVE)

    async def client(stage, written):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            with pytest.raises(machio.ServerGoneError):
                await stage.check_in(port, MOVE_RECEIVE)
            await still_works(port, send)


@variants(
    BeforeLookUp=("Before the client looks the service up.", 0),
    AfterLookUp=("After the client has looked the service up.", 1),
    WhileQueueFull=("While the client waits for room in the service's queue.", 2),
)
class ServerKilledAfterItsWrites:
    """The server is killed with -9 after its writes: the client keeps the right to be moved."""

    dies = "server"

    async def server(stage, step):
        def look(original, queue):
            stage.tell("client")
            stage.hear_now("client")
            die()

        with patched(_Queue, "look", look):
            await stage.serve(RECEIVE)

    async def client(stage, step):
        async with stage.offer() as offer:
            await stage.hear("server")
            with contextlib.ExitStack() as stack:
                if step == 0:
                    await end_of_server(stage)
                elif step == 1:
                    stack.enter_context(patched(bootstrap, "look_up", _found(stage)))
                else:
                    service = stack.enter_context(await bootstrap.look_up(name_in(offer)))
                    with pytest.raises(machio.SendTimedOut):
                        while True:
                            service.send_nowait(Message(1))
                    stack.enter_context(patched(machio._requests, "wait_for_room", _told(stage)))
                with ReceiveRight.allocate() as port, port.make_send() as send:
                    with pytest.raises(machio.ServerGoneError):
                        await check_in_with(offer, port, MOVE_RECEIVE)
                    await still_works(port, send)


def _end_now(stage: Stage) -> None:
    stage.tell("server")
    assert stage.hear_now("server") == ""


def _found(stage: Stage) -> Callable[..., Any]:
    async def wrapper(original, name):
        found = await original(name)
        _end_now(stage)
        return found

    return wrapper


def _told(stage: Stage) -> Callable[..., Any]:
    async def wrapper(original, *arguments, **named):
        waiting = asyncio.ensure_future(original(*arguments, **named))
        await asyncio.sleep(0)
        stage.tell("server")
        return await waiting

    return wrapper


async def end_of_server(stage: Stage) -> None:
    await asyncio.to_thread(_end_now, stage)
