"""The server has no file descriptor left for a message: it waits for room, and not for ever."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from unittest import mock

import pytest

import machio
from machio import ReceiveRight, _checkin, _ffi, handshake
from machio.handshake import _Queue

from .acts import (
    MOVE_RECEIVE,
    RECEIVE,
    check_in_with,
    expect_dead,
    flipped,
    held_up,
    patched,
)
from .stage import LIMIT, Stage, variants


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Have every file descriptor taken that this process may have."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    hoard = [os.open(os.devnull, os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hoard[0] + 1, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                hoard.append(os.dup(hoard[0]))
        yield
    finally:
        for fd in hoard:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@variants(
    ThatComes=(
        "Room comes: the check-in is the server's, and what came before was judged once.",
        True,
    ),
    ThatNeverComes=(
        "It does not come: the server says so, and the client's right is destroyed.",
        False,
    ),
)
class Room:
    """After a wrong check-in the server has no room for the genuine one behind it."""

    async def server(stage: Stage, comes: bool) -> None:
        judged, waited = [], []
        with contextlib.ExitStack() as full, contextlib.ExitStack() as patches:

            def judge(original, server, message):
                judged.append(bytes(message))
                return original(server, message)

            def destroy(original, buffer):
                original(buffer)
                full.enter_context(no_room())

            def wait(original, queue, code):
                waited.append(code)
                if comes:
                    full.close()
                original(queue, code)

            patches.enter_context(held_up(stage, False))
            patches.enter_context(patched(_checkin.Server, "judge", judge))
            patches.enter_context(patched(_ffi, "destroy", destroy))
            patches.enter_context(patched(_Queue, "_wait_for_room", wait))
            patches.enter_context(mock.patch.object(handshake, "_PATIENCE", LIMIT if comes else 0))
            if comes:
                with await stage.serve(RECEIVE) as port:
                    assert (await port.receive(LIMIT)).id == 2
            else:
                with pytest.raises(machio.ReceiveError):
                    await stage.serve(RECEIVE)
            assert waited
            assert len(judged) == 1 + comes
        stage.tell("client")

    async def client(stage: Stage, comes: bool) -> None:
        async with stage.offer() as offer:
            await stage.hear("server")
            with ReceiveRight.allocate() as wrong:
                wrong_send = wrong.make_send()
                await check_in_with(flipped(offer), wrong, MOVE_RECEIVE)
            with ReceiveRight.allocate() as port:
                send = port.make_send()
                await send.send(machio.Message(2), LIMIT)
                await check_in_with(offer, port, MOVE_RECEIVE)
            stage.tell("server", "done")
            await stage.hear("server")
        await expect_dead(wrong_send)
        await expect_dead(send)
