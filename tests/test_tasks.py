"""Peers: who sent a message, whose task port it is, whether that lives, and when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import pytest
from common import start

import machio
from machio import Disposition, KernCode, PortRightType

# Hands its task port over by a message, so that the receiver sees who sent it, and waits.
CHILD = """
import sys
import machio

async def main():
    with machio.ReceiveRight.allocate() as port:
        await machio.check_in_fd(int(sys.argv[1]), port, machio.Disposition.MAKE_SEND)
        with await port.receive() as request, machio.task_self() as task:
            rights = [(task, machio.Disposition.COPY_SEND)]
            request.reply.send(machio.Message(2, rights=rights))
        sys.stdin.read()

import asyncio
asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def child():
    """Yield a process, its task port, and the message that brought that."""
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        command = [sys.executable, "-c", CHILD, str(fd)]
        process = await asyncio.create_subprocess_exec(
            *command, pass_fds=[fd], stdin=asyncio.subprocess.PIPE
        )
        os.close(fd)
        try:
            with (
                await handshake.serve(PortRightType.SEND, 20) as send,
                await send.call(machio.Message(1), 20) as message,
            ):
                yield process, message.rights[0], message
        finally:
            process.stdin.close()
            await process.wait()
            await process.stdin.wait_closed()


async def test_who_sent_a_message(bootstrap_server):
    async with child() as (process, _, message):
        sender = message.sender
        assert (sender.pid, sender.uid, sender.gid) == (process.pid, os.geteuid(), os.getegid())
        assert (sender.real_uid, sender.real_gid) == (os.getuid(), os.getgid())
        assert len(sender.audit_token) == 8
        assert not sender.is_kernel


@pytest.mark.parametrize("end", ["exit", "kill"])
async def test_the_life_of_a_peer(end, bootstrap_server):
    async with child() as (process, task, _):
        assert machio.pid_for_task(task) == process.pid
        assert not task.is_dead
        with task.copy() as another:
            waiting = [await start(one.died()) for one in (task, task, another)]
            cancelled = await start(task.died())
            cancelled.cancel()
            assert not any(one.done() for one in waiting)
            if end == "exit":
                process.stdin.close()
            else:
                process.kill()
            await asyncio.wait_for(asyncio.gather(*waiting), 20)
        assert task.is_dead
        await task.died(0)
        with pytest.raises(machio.KernError) as caught:
            machio.pid_for_task(task)
        assert caught.value.code in (KernCode.INVALID_ARGUMENT, KernCode.FAILURE)


async def test_a_task_port_that_is_passed_on_still_tells(port, send, bootstrap_server):
    async with child() as (process, task, _):
        await send.send(machio.Message(1, rights=[(task, Disposition.COPY_SEND)]))
        with await port.receive() as message:
            (same,) = message.rights
            assert machio.pid_for_task(same) == process.pid
            process.kill()
            await same.died(20)


async def test_ones_own(bootstrap_server):
    with machio.task_self() as task, machio.task_self() as same:
        assert task == same
        assert machio.pid_for_task(task) == os.getpid()
        assert not task.is_dead
        with pytest.raises(machio.ReceiveTimedOut):
            await task.died(0.01)


def test_another_right_is_no_task(send):
    with pytest.raises(machio.KernError):
        machio.pid_for_task(send)
