"""Every kind of right is checked in, and works."""

from __future__ import annotations

import os

import pytest

import machio
from machio import (
    Disposition,
    Message,
    ReceiveRight,
    SendOnceRight,
    SendRight,
    bootstrap,
)

from .acts import (
    MOVE_RECEIVE,
    RECEIVE,
    SEND,
    SEND_ONCE,
    die,
    use,
)
from .stage import LIMIT, Scenario, variants


class ReceiveRightMoves(Scenario):
    """A receive right; a message queued before the move arrives after it, and others follow."""

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            assert isinstance(port, ReceiveRight)
            for number in range(3):
                assert (await port.receive(LIMIT)).id == number
                stage.tell("client")
            assert await port.no_senders(LIMIT) == 0  # a move resets the make-send count

    async def client(stage):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            await send.send(Message(0), LIMIT)
            await stage.check_in(port, MOVE_RECEIVE)
            assert port.closed
            for number in (1, 2):
                assert await stage.hear("server")
                await send.send(Message(number, b"queued"), LIMIT)
            assert await stage.hear("server")


class SenderAttested(Scenario):
    """Who sent a message is what the kernel says, whoever may see whose pid."""

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            pid = await stage.hear_pid("client")
            with await port.receive(LIMIT) as message:
                assert message.sender.pid == pid
                assert (message.sender.uid, message.sender.gid) == (os.getuid(), os.getgid())
                assert not message.sender.is_kernel

    async def client(stage):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            await stage.check_in(port, MOVE_RECEIVE)
            await send.send(Message(1), LIMIT)
            stage.tell_pid("server")


class BootstrapPort(Scenario):
    """The client's own bootstrap port, as a send right; the server has a name for it already."""

    async def server(stage):
        with await stage.serve(SEND) as right, bootstrap.port() as ours:
            assert isinstance(right, SendRight)
            assert right.name == ours.name

    async def client(stage):
        right = bootstrap.port()
        await stage.check_in(right, Disposition.MOVE_SEND)
        assert right.closed


class SendRightCopied(Scenario):
    """A send right that the client copies and keeps; messages flow, the last one ends its senders."""

    async def server(stage):
        with await stage.serve(SEND) as right:
            await use(right, 5)

    async def client(stage):
        with ReceiveRight.allocate() as port:
            with port.make_send() as send:
                await stage.check_in(send, Disposition.COPY_SEND)
                assert not send.closed
            assert (await port.receive(LIMIT)).id == 5
            await port.no_senders(LIMIT)


class SendRightMade(Scenario):
    """A send right that the message makes from the client's receive right."""

    async def server(stage):
        with await stage.serve(SEND) as right:
            await use(right, 5)

    async def client(stage):
        with ReceiveRight.allocate() as port:
            await stage.check_in(port, Disposition.MAKE_SEND)
            assert (await port.receive(LIMIT)).id == 5
            await port.no_senders(LIMIT)


@variants(
    MovedAsSendOnce=("The server asked for a send-once right.", (SEND_ONCE, False)),
    MadeAsSendOnce=("It is made by the message.", (SEND_ONCE, True)),
    MovedAsSend=("The server asked for a send right and takes it all the same.", (SEND, False)),
)
class SendOnce:
    """A send-once right: using it works, once."""

    async def server(stage, choice):
        right = await stage.serve(choice[0])
        assert isinstance(right, SendOnceRight)
        right.send(Message(9))
        assert right.closed

    async def client(stage, choice):
        with ReceiveRight.allocate() as port:
            if choice[1]:
                await stage.check_in(port, Disposition.MAKE_SEND_ONCE)
            else:
                await stage.check_in(port.make_send_once(), Disposition.MOVE_SEND_ONCE)
            assert (await port.receive(LIMIT)).id == 9
            await stage.hear("server")
            with pytest.raises(machio.ReceiveTimedOut):
                port.receive_nowait()


class TaskPort(Scenario):
    """The client's task port: the server reads its pid from it and learns of its death."""

    dies = "client"

    async def server(stage):
        with await stage.serve(SEND) as task:
            if pid := await stage.hear_pid("client"):
                assert machio.pid_for_task(task) == pid
            else:
                with pytest.raises(machio.KernError):
                    machio.pid_for_task(task)
            stage.tell("client")
            await task.died(LIMIT)

    async def client(stage):
        await stage.check_in(machio.task_self(), Disposition.MOVE_SEND)
        stage.tell_pid("server")
        await stage.hear("server")
        die()
