"""Calls: one answer each, or at once the reason why there is none; nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest
from common import rights_held, start

import machio
from machio import Disposition, Message, ReceiveRight, _loop

ASK = 400


@pytest.fixture
def port():
    with ReceiveRight.allocate(queue_limit=64) as port:
        yield port


def ask(number=0, rights=()):
    return Message(ASK, number.to_bytes(4, "little"), rights=rights)


def number_in(message):
    return int.from_bytes(message.body[:4], "little")


async def warm_up(port, send):
    """Make the reply port that the loop keeps."""
    task = await start(send.call(ask()))
    with await port.receive() as request:
        request.reply.send(Message(ASK + 100))
    await task


async def test_a_call_returns_its_answer(port, send):
    task = await start(send.call(ask(7), timeout=10))
    with await port.receive() as request:
        assert isinstance(request.reply, machio.SendOnceRight)
        request.reply.send(Message(ASK + 100, request.body))
    answer = await task
    assert (answer.id, number_in(answer)) == (ASK + 100, 7)
    assert answer.sender.pid == os.getpid()


async def test_answers_in_any_order_reach_their_own_calls(port, send):
    tasks = [await start(send.call(ask(index), timeout=20)) for index in range(50)]
    requests = [await port.receive() for _ in tasks]
    for request in reversed(requests):
        request.reply.send(Message(ASK + 100, request.body))
    answers = await asyncio.gather(*tasks)
    assert [number_in(answer) for answer in answers] == list(range(50))


async def test_reply_ports_are_used_again_and_few_are_kept(port, send):
    await warm_up(port, send)
    once = [one.name for one in _loop.current().reply_ports]
    await warm_up(port, send)
    assert [one.name for one in _loop.current().reply_ports] == once
    tasks = [await start(send.call(ask(index))) for index in range(60)]
    for _ in tasks:
        with await port.receive() as request:
            request.reply.send(Message(1))
    await asyncio.gather(*tasks)
    idle = _loop.current().reply_ports
    assert len(idle) == 32
    before = {one.name for one in idle}
    await warm_up(port, send)
    assert {one.name for one in idle} == before


async def test_a_dropped_request_ends_the_call_at_once(port, send):
    task = await start(send.call(ask()))
    (await port.receive()).close()
    with pytest.raises(machio.ServerDiedError, match="MIG_SERVER_DIED"):
        await task


async def test_the_receivers_end_ends_the_call_at_once(port, send):
    queued = await start(send.call(ask()))
    port.close()
    with pytest.raises(machio.ServerDiedError):
        await queued
    with pytest.raises(machio.DeadDestinationError):
        await send.call(ask())


async def test_timeouts_say_how_far_it_came(port, send):
    with pytest.raises(machio.ReceiveTimedOut):
        await send.call(ask(), timeout=0.01)
    port.queue_limit = 1
    with pytest.raises(machio.SendTimedOut):
        await send.call(ask(), timeout=0.01)


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_a_late_answer_reaches_nobody(port, send, how):
    await warm_up(port, send)
    before = len(rights_held())
    task = await start(send.call(ask(1), timeout=0.05))
    late = await port.receive()
    if how == "cancel":
        task.cancel()
    with pytest.raises(asyncio.CancelledError if how == "cancel" else machio.ReceiveTimedOut):
        await task
    task = await start(send.call(ask(2), timeout=10))
    with ReceiveRight.allocate() as cargo, pytest.raises(machio.DeadDestinationError):
        late.reply.send(Message(1, b"late", rights=[(cargo, Disposition.MAKE_SEND)]))
    late.close()
    with await port.receive() as request:
        request.reply.send(Message(ASK + 100, request.body))
    assert number_in(await task) == 2
    await warm_up(port, send)
    assert len(rights_held()) == before


async def test_an_answer_that_comes_as_the_call_is_cancelled_is_destroyed(port, send):
    await warm_up(port, send)
    before = len(rights_held())
    task = await start(send.call(ask()))
    with ReceiveRight.allocate() as cargo:
        with await port.receive() as request:
            request.reply.send(Message(1, rights=[(cargo, Disposition.MAKE_SEND)]))
        task.cancel()  # the answer is in the queue, and the task has not run since
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await cargo.no_senders(10) == 1
    await warm_up(port, send)
    assert len(rights_held()) == before


async def test_a_cancelled_call_that_was_not_sent_gives_its_rights_back(port, send):
    port.queue_limit = 1
    send.send_nowait(Message(1))
    with ReceiveRight.allocate() as cargo:
        task = await start(send.call(ask(rights=[cargo])))
        assert cargo.closed, "in use"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not cargo.closed
    assert not port.status.send_once_rights


async def test_a_call_makes_its_own_reply_right(port, send):
    with ReceiveRight.allocate() as reply:
        for call in (send.call, send.call_blocking):
            with pytest.raises(machio.UsageError, match="reply right"):
                result = call(Message(1, reply=reply))
                await result
    with pytest.raises(machio.ReceiveTimedOut):
        port.receive_nowait()


def test_a_loop_that_is_only_closed_leaves_nothing(port, send):
    gc.collect()
    before = rights_held()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(warm_up(port, send))
    loop.close()
    del loop
    with asyncio.Runner() as runner:  # its first use sweeps up
        runner.run(asyncio.wait_for(warm_up(port, send), 10))
    gc.collect()
    assert rights_held() == before


def test_blocking(port, send):
    def answer():
        with port.receive_blocking(10) as request:
            request.reply.send(Message(ASK + 100, request.body))
        port.receive_blocking(10).close()

    thread = threading.Thread(target=answer)
    thread.start()
    assert number_in(send.call_blocking(ask(9), timeout=10)) == 9
    with pytest.raises(machio.ServerDiedError):
        send.call_blocking(ask(), timeout=10)
    thread.join()
    with pytest.raises(machio.ReceiveTimedOut):
        send.call_blocking(ask(), timeout=0.01)


async def test_a_killed_server_ends_its_calls_at_once():
    """The server, another process, holds requests that it has received and some that it has not."""
    with ReceiveRight.allocate() as inbox, inbox.make_send() as to_parent:
        name = "org.machio.tests.killed"
        await machio.bootstrap.register(name, to_parent)
        pid = os.fork()
        if pid == 0:
            _die_with_requests(name)
        with await inbox.receive(20) as hello:
            (server,) = hello.rights
            with server:
                tasks = [await start(server.call(ask(index), timeout=20)) for index in range(5)]
                # Two were received; the third, a message of the child, says so.
                (await inbox.receive(20)).close()
                os.kill(pid, 9)
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    assert isinstance(outcome, machio.ServerDiedError | machio.DeadDestinationError)
        assert os.waitpid(pid, 0)[1] == 9


def _die_with_requests(name):
    try:
        parent = machio.bootstrap.look_up_blocking(name)
        port = ReceiveRight.allocate()
        parent.send_blocking(Message(1, rights=[(port, Disposition.MAKE_SEND)]))
        held = [port.receive_blocking(20) for _ in range(2)]
        parent.send_blocking(Message(2))
        threading.Event().wait(20)
        del held
    finally:
        os._exit(1)
