"""Tokens and kinds of right: which check-in the server takes."""

from __future__ import annotations

import pytest

import machio
from machio import (
    Disposition,
    Message,
    ReceiveRight,
)

from .acts import (
    MOVE_RECEIVE,
    RECEIVE,
    SEND,
    SEND_ONCE,
    check_in_with,
    expect_dead,
    flipped,
    still_works,
)
from .stage import LIMIT, Scenario, variants


class WrongToken(Scenario):
    """A wrong token: refused, the right destroyed; the wait goes on and fails at the pipe's end."""

    async def server(stage):
        with pytest.raises(machio.NoCheckInError, match=r"\b1\b"):
            await stage.serve(RECEIVE)

    async def client(stage):
        async with stage.offer() as offer:
            with ReceiveRight.allocate() as port:
                send = port.make_send()
                await check_in_with(flipped(offer), port, MOVE_RECEIVE)
            await expect_dead(send)


class WrongThenRightToken(Scenario):
    """A wrong token, then the right one: the right of the second is the server's."""

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            assert (await port.receive(LIMIT)).id == 2

    async def client(stage):
        async with stage.offer() as offer:
            for number, data in ((1, flipped(offer)), (2, offer)):
                with ReceiveRight.allocate() as port, port.make_send() as send:
                    await send.send(Message(number), LIMIT)
                    await check_in_with(data, port, MOVE_RECEIVE)
                    if number == 1:
                        await send.died(LIMIT)


@variants(
    SendForReceive=("A send right for a receive right.", (RECEIVE, SEND)),
    SendOnceForReceive=("A send-once right for a receive right.", (RECEIVE, SEND_ONCE)),
    ReceiveForSend=("A receive right for a send right.", (SEND, RECEIVE)),
    ReceiveForSendOnce=("A receive right for a send-once right.", (SEND_ONCE, RECEIVE)),
    SendForSendOnce=("A send right for a send-once right.", (SEND_ONCE, SEND)),
)
class WrongKind:
    """The right token with a right of the wrong kind: failure, and the right is destroyed."""

    async def server(stage, choice):
        with pytest.raises(machio.WrongRightError):
            await stage.serve(choice[0])

    async def client(stage, choice):
        with ReceiveRight.allocate() as port:
            if choice[1] == RECEIVE:
                send = port.make_send()
                await stage.check_in(port, MOVE_RECEIVE)
                await expect_dead(send)
            elif choice[1] == SEND:
                await stage.check_in(port.make_send(), Disposition.MOVE_SEND)
                await port.no_senders(LIMIT)
            else:
                await stage.check_in(port.make_send_once(), Disposition.MOVE_SEND_ONCE)
                with await port.receive(LIMIT) as message:
                    assert message.is_notification
                    assert message.id == machio.NotificationId.SEND_ONCE


class SecondCheckIn(Scenario):
    """A second check-in with the same token finds no service, and its right stays."""

    async def server(stage):
        with await stage.serve(RECEIVE):
            stage.tell("client")

    async def client(stage):
        async with stage.offer() as offer:
            with ReceiveRight.allocate() as port:
                await check_in_with(offer, port, MOVE_RECEIVE)
            await stage.hear("server")
            with ReceiveRight.allocate() as port, port.make_send() as send:
                with pytest.raises(machio.ServerGoneError):
                    await check_in_with(offer, port, MOVE_RECEIVE)
                await still_works(port, send)
