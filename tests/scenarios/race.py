"""The race of the check-in and the pipe's end, in each order."""

from __future__ import annotations

import asyncio
from typing import Any

from machio import (
    ReceiveRight,
    _checkin,
    _ffi,
)

from .acts import (
    MOVE_RECEIVE,
    RECEIVE,
    check_in_with,
    held_up,
    patched,
    serve_in_vain,
)
from .stage import Scenario, Stage, variants


def _events_sorted(eof_first: bool) -> Any:
    def events(original, kqueue):
        return sorted(original(kqueue), key=lambda event: event & 1, reverse=eof_first)

    return patched(_ffi.Kqueue, "events", events)


@variants(
    BeforeTheFirstLook=("The server has not looked at the queue before.", False),
    AfterTheFirstLook=("The server has found the queue empty once.", True),
)
class SentAndClosed:
    """The check-in is sent and the pipe closed before the server looks: it counts."""

    async def server(stage, looked):
        with held_up(stage, looked), await stage.serve(RECEIVE):
            pass

    async def client(stage, looked):
        await check_in_and_close(stage, looked)


@variants(
    PipeFirst=("The end of the pipe is seen first.", True),
    MessageFirst=("The message is seen first.", False),
)
class SeenInOrder:
    """The server waits with an empty queue, then both events come at once: the check-in counts."""

    async def server(stage, eof_first):
        with _events_sorted(eof_first), held_up(stage, True), await stage.serve(RECEIVE):
            pass

    async def client(stage, eof_first):
        await check_in_and_close(stage, True)


class MessageSentByNoReader(Scenario):
    """The client has closed the pipe before it sends; the server has not noticed: it counts."""

    async def server(stage):
        with held_up(stage, True), await stage.serve(RECEIVE):
            pass

    async def client(stage):
        async with stage.offer() as offer:
            await stage.hear("server")
        with ReceiveRight.allocate() as port:
            await check_in_with(offer, port, MOVE_RECEIVE)
        stage.tell("server", "done")


async def check_in_and_close(stage: Stage, looked: bool) -> None:
    async with stage.offer() as offer:
        await stage.hear("server")
        with ReceiveRight.allocate() as port:
            await check_in_with(offer, port, MOVE_RECEIVE)
    stage.tell("server", "done")


class WaitsWithoutLooking(Scenario):
    """A server that has found its queue empty looks again at the pipe's end, and not before."""

    async def server(stage):
        found_empty = []

        async def tell():
            for _ in range(5):  # what the kqueue has to say now, room in the pipe say
                await asyncio.sleep(0)
            stage.tell("client")

        def empty(original, server):
            original(server)
            found_empty.append(None if found_empty else asyncio.create_task(tell()))

        with patched(_checkin.Server, "empty", empty):
            await serve_in_vain(stage)
        assert len(found_empty) == 2
        await found_empty[0]

    async def client(stage):
        await stage.hear("server")
        stage.close()
