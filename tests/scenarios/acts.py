"""What is done in more than one scenario, and the constants that they share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

import pytest

import machio
from machio import (
    Disposition,
    Message,
    PortRightType,
    ReceiveRight,
    SendOnceRight,
    SendRight,
    _checkin,
)
from machio.handshake import _Queue

from .stage import LIMIT, Stage

RECEIVE, SEND, SEND_ONCE = PortRightType.RECEIVE, PortRightType.SEND, PortRightType.SEND_ONCE
MOVE_RECEIVE = Disposition.MOVE_RECEIVE

# What "promptly" means, on a busy machine.
PROMPT = 3.0


def name_in(offer: bytes) -> str:
    return offer[12:].decode()


def flipped(offer: bytes) -> bytes:
    """Return an offer with another token."""
    return bytes(byte ^ 0xFF for byte in offer[:8]) + offer[8:]


async def check_in_with(
    offer: bytes, right: machio.Right, disposition: Disposition, timeout: float | None = LIMIT
) -> None:
    """Check in as one who has read `offer` would."""
    read, write = os.pipe()
    os.write(write, offer)
    os.close(write)
    await machio.check_in_fd(read, right, disposition, timeout)


async def serve_in_vain(stage: Stage, kind: PortRightType = RECEIVE) -> None:
    with pytest.raises(machio.NoCheckInError):
        await stage.serve(kind)


async def use(right: SendRight | SendOnceRight, number: int) -> None:
    """Send a message over a right that has come."""
    if isinstance(right, SendOnceRight):
        right.send(Message(number))
    else:
        await right.send(Message(number), LIMIT)


async def expect_dead(right: SendRight) -> None:
    """Wait until the receive right of a port has been destroyed, and close the send right."""
    with right:
        await right.died(LIMIT)


async def still_works(port: ReceiveRight, send: SendRight) -> None:
    """A right that was to be moved is where it was, and works."""
    assert not port.closed
    await send.send(Message(77), LIMIT)
    assert (await port.receive(LIMIT)).id == 77


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def promptly() -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < PROMPT


async def later(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Go on in the loop's next pass: then the task is known to who made it, eager or not."""
    await asyncio.sleep(0)
    return await coroutine


def patched(owner: object, name: str, wrapper: Callable[..., Any]) -> Any:
    """Let `wrapper(original, *arguments)` stand for a function or method."""
    original = getattr(owner, name)

    def call(*arguments: Any, **keywords: Any) -> Any:
        return wrapper(original, *arguments, **keywords)

    return mock.patch.object(owner, name, call)


def then(what: Callable[[], None]) -> Callable[..., Any]:
    def wrapper(original, *arguments):
        result = original(*arguments)
        what()
        return result

    return wrapper


@contextlib.contextmanager
def held_up(stage: Stage, looked: bool) -> Iterator[None]:
    """Stop the server's loop, once, until the client is done: before or after its first look."""
    held = False

    def hold() -> None:
        nonlocal held
        if not held:
            held = True
            stage.tell("client")
            assert stage.hear_now("client") == "done"

    def look(original, queue):
        if not looked:
            hold()
        return original(queue)

    def empty(original, server):
        state = original(server)
        hold()
        return state

    with patched(_Queue, "look", look), patched(_checkin.Server, "empty", empty):
        yield
    assert held
