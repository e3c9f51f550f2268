"""Services: every request is answered once, whatever handlers, callers and successors do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import Annotated

import pytest
from common import leaked_fds, open_fds, rights_held

import machio
from machio import (
    Disposition,
    KernCode,
    Message,
    MigCode,
    NotificationId,
    ReceiveRight,
    Service,
    mig,
)

NAME = "org.machio.tests.service"
ASK = 50


class Math(mig.Subsystem, base=4000):
    def __init__(self):
        self.calls = 0
        self.running = 0
        self.most = 0
        self.go = asyncio.Event()
        self.go.set()

    @mig.routine
    async def double(self, number: mig.int32) -> mig.int32:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        finally:
            self.running -= 1
        return number * 2

    @mig.routine
    async def sender(self) -> mig.int32:
        return machio.current_request().sender.pid

    @mig.routine
    async def fail(self, text: Annotated[str, mig.CString(32)]) -> None:
        raise RuntimeError(text)


class Other(mig.Subsystem, base=4100):
    @mig.routine
    async def name(self) -> Annotated[str, mig.CString(8)]:
        return "other"


@contextlib.asynccontextmanager
async def serving(*ports, **options):
    """Yield a service that is being served, and stop it."""
    async with Service(*ports, **options) as service:
        task = asyncio.ensure_future(service.serve())
        try:
            yield service
        finally:
            service.stop()
            await asyncio.wait_for(task, 20)


@contextlib.asynccontextmanager
async def math_service(**options):
    """Yield a service, its subsystem and a client."""
    port = ReceiveRight.allocate(queue_limit=1000)
    with port.make_send() as send:
        async with serving(port, **options) as service:
            math = Math()
            service.add(math)
            yield service, math, Math.client(send, timeout=20)


def port_of(service):
    (port,) = service._ports.values()
    return port


async def running(math, number):
    while math.running < number:
        await asyncio.sleep(0)


async def test_a_named_service_and_its_client(bootstrap_server):
    async with serving(NAME) as service:
        service.add(Math())
        async with machio.connect(Math, NAME, timeout=10) as client:
            assert await client.double(21) == 42
            assert await client.sender() == os.getpid()
            with pytest.raises(machio.BootstrapError):
                async with Service(NAME):
                    raise AssertionError
    with pytest.raises(machio.UnknownServiceError):
        await machio.bootstrap.look_up(NAME)


async def test_several_subsystems_and_ports():
    first, second = ReceiveRight.allocate(), ReceiveRight.allocate()
    with first.make_send() as to_first, second.make_send() as to_second:
        async with serving(first, second) as service:
            service.add(Math())
            service.add(Other(), at=second)
            for right in (to_first, to_second):
                assert await Math.client(right).double(2) == 4
            assert await Other.client(to_second).name() == "other"
            with pytest.raises(machio.RoutineError, match="MIG_BAD_ID"):
                await Other.client(to_first).name()
            with pytest.raises(machio.UsageError, match="4000 already"):
                service.add(Math())
            with pytest.raises(machio.UsageError, match="4100 already"):
                service.add(Other())
            with pytest.raises(machio.UsageError, match="no port of this"):
                service.add(Other(), at="elsewhere")


async def test_handlers_by_id():
    async with math_service() as (service, _, client):

        @service.on(ASK)
        async def ask(message):
            (right,) = message.rights
            await right.send(Message(1))
            return Message(ASK + 1, message.body, rights=[right])

        kept = []

        @service.on(ASK + 1)
        async def later(message):
            kept.append(message.reply)
            message.reply = None

        @service.on(ASK + 2)
        async def never(message):
            pass

        send = client._right
        with ReceiveRight.allocate() as port:
            request = Message(ASK, b"abcd", rights=[(port, Disposition.MAKE_SEND)])
            with await send.call(request) as answer:
                assert (answer.id, answer.body, len(answer.rights)) == (ASK + 1, b"abcd", 1)
            assert (await port.receive()).id == 1
        call = asyncio.ensure_future(send.call(Message(ASK + 1)))
        while not kept:
            await asyncio.sleep(0)
        kept.pop().send(Message(9))
        assert (await call).id == 9
        with pytest.raises(machio.ServerDiedError):
            await send.call(Message(ASK + 2))


async def test_an_exception_is_an_error_reply_and_a_log_line(caplog):
    async with math_service() as (_, _, client):
        with pytest.raises(machio.RoutineError) as caught:
            await client.fail("so it goes")
        assert caught.value.code is MigCode.EXCEPTION
        assert await client.double(1) == 2
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("machio.service", logging.ERROR)
    assert "RuntimeError: so it goes" in caplog.text


async def test_no_more_handlers_than_allowed():
    async with math_service(concurrency=3) as (_, math, client):
        math.go.clear()
        calls = [asyncio.ensure_future(client.double(index)) for index in range(10)]
        await running(math, 3)
        await asyncio.sleep(0.02)
        math.go.set()
        assert await asyncio.gather(*calls) == [index * 2 for index in range(10)]
        assert math.most == 3


async def test_a_handler_that_takes_too_long(caplog):
    async with math_service(deadline=0.02) as (_, math, client):
        math.go.clear()
        with pytest.raises(machio.RoutineError) as caught:
            await client.double(1)
        assert caught.value.code is KernCode.OPERATION_TIMED_OUT
        assert math.running == 0
        math.go.set()
        assert await client.double(1) == 2
    assert "took longer" in caplog.text


async def test_who_may_call(caplog):
    seen = []

    def allow(sender):
        seen.append(sender.pid)
        if len(seen) == 3:
            raise ZeroDivisionError
        return len(seen) != 1

    async with math_service(allow=allow) as (_, math, client):
        with pytest.raises(machio.RoutineError, match="KERN_NO_ACCESS"):
            await client.double(1)
        assert await client.double(1) == 2
        with pytest.raises(machio.RoutineError, match="MIG_EXCEPTION"):
            await client.double(1)
        assert math.calls == 1
    assert seen == [os.getpid()] * 3
    assert "may not send 4000" in caplog.text


async def test_notifications_are_believed_of_the_system_only():
    async with math_service() as (service, _, client):
        got = asyncio.Event()

        @service.on(NotificationId.SEND_ONCE)
        async def dropped(message):
            assert message.is_notification
            got.set()

        forged = await client._right.call(Message(NotificationId.SEND_ONCE))
        assert forged.body[8:12] == MigCode.BAD_ID.to_bytes(4, "little", signed=True)
        assert not got.is_set()
        port_of(service).make_send_once().close()
        await asyncio.wait_for(got.wait(), 10)


async def test_the_queue_limit_is_that_of_every_port(bootstrap_server):
    port = ReceiveRight.allocate()
    async with Service(NAME, port, queue_limit=7):
        assert port.queue_limit == 7
        with await machio.bootstrap.look_up(NAME) as send:
            for index in range(7):
                send.send_nowait(Message(index))
            with pytest.raises(machio.WouldBlock):
                send.send_nowait(Message(7))


async def test_a_queue_limit_that_cannot_be_leaves_the_rights_with_their_owner(bootstrap_server):
    rights = rights_held()
    with ReceiveRight.allocate() as port:
        with pytest.raises(machio.KernError, match="KERN_INVALID_VALUE"):
            await Service(NAME, port, queue_limit=1025).__aenter__()
        assert not port.closed
    async with Service(NAME):  # the name is free again
        pass
    assert rights_held() == rights


async def test_stopping_answers_what_was_taken():
    async with math_service(concurrency=2) as (service, math, client):
        math.go.clear()
        calls = [asyncio.ensure_future(client.double(index)) for index in range(4)]
        await running(math, 2)
        service.stop()
        await asyncio.sleep(0.01)
        math.go.set()
        assert await asyncio.gather(*calls[:2]) == [0, 2]
    for call in calls[2:]:  # they were in the queue
        with pytest.raises(machio.ServerDiedError):
            await call


async def test_leaving_waits_for_the_requests_taken():
    port = ReceiveRight.allocate()
    with port.make_send() as send:
        async with Service(port) as service:
            math = Math()
            math.go.clear()
            service.add(math)
            task = asyncio.ensure_future(service.serve())
            call = asyncio.ensure_future(Math.client(send).double(4))
            await running(math, 1)
            asyncio.get_running_loop().call_later(0.02, math.go.set)
        assert math.running == 0
        assert await call == 8
        await task


async def test_after_a_handler_has_stopped_its_service_no_request_is_taken():
    port = ReceiveRight.allocate()
    async with Service(port, concurrency=1) as service:

        @service.on(ASK)
        async def stop(message):
            service.stop()

        with port.make_send() as send:
            for _ in range(2):
                send.send_nowait(Message(ASK))
        await service.serve()
        assert port.status.queued == 1


async def test_a_handler_may_stop_its_service():
    port = ReceiveRight.allocate()
    async with Service(port) as service:

        @service.on(ASK)
        async def stop(message):
            service.stop()
            return Message(ASK + 100)

        with port.make_send() as send:
            call = asyncio.ensure_future(send.call(Message(ASK)))
            await asyncio.sleep(0)
            await asyncio.wait_for(service.serve(), 10)
            assert (await call).id == ASK + 100
        with pytest.raises(machio.UsageError, match="entered once"):
            await service.__aenter__()


async def test_cancelling_ends_all_callers_at_once():
    port = ReceiveRight.allocate()
    before = len(rights_held())
    with port.make_send() as send:
        async with Service(port) as service:
            math = Math()
            math.go.clear()
            service.add(math)
            task = asyncio.ensure_future(service.serve())
            calls = [asyncio.ensure_future(Math.client(send).double(1)) for _ in range(3)]
            await running(math, 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert math.running == 0
            for call in calls:
                with pytest.raises(machio.ServerDiedError):
                    await call
    assert port.closed
    assert len(rights_held()) <= before + 3  # reply ports that the loop keeps


async def test_an_answer_that_nobody_waits_for_is_destroyed():
    async with math_service() as (service, _, client):
        cargo = ReceiveRight.allocate()
        begun, go = asyncio.Event(), asyncio.Event()

        @service.on(ASK)
        async def give(message):
            begun.set()
            await go.wait()
            return Message(1, rights=[cargo, (port_of(service), Disposition.MAKE_SEND)])

        call = asyncio.ensure_future(client._right.call(Message(ASK)))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go.set()
        assert await client.double(1) == 2
        assert cargo.closed
        assert not port_of(service).closed, "it was not to move"


async def test_an_answer_that_cannot_be_sent_is_an_error(caplog):
    async with math_service() as (service, _, client):

        @service.on(ASK)
        async def wrong(message):
            return Message(1, rights=[(port_of(service), Disposition.MOVE_SEND)])

        answer = await client._right.call(Message(ASK))
        assert answer.body[8:12] == MigCode.EXCEPTION.to_bytes(4, "little", signed=True)
    assert "does not go with a ReceiveRight" in caplog.text


async def test_mistakes():
    with pytest.raises(machio.UsageError):
        Service()
    with pytest.raises(machio.UsageError, match="entered first"):
        await Service(NAME).serve()
    async with math_service() as (service, _, client):
        await client.double(1)
        with pytest.raises(machio.UsageError, match="one task"):
            await service.serve()
        with pytest.raises(LookupError):
            machio.current_request()


class TestHandOver:
    async def test_queue_and_all(self):
        """What was taken is answered here, what is queued there; every call once."""
        async with math_service(concurrency=2) as (service, math, client):
            math.go.clear()
            calls = [asyncio.ensure_future(client.double(index)) for index in range(20)]
            await running(math, 2)
            with ReceiveRight.allocate() as post, post.make_send() as to_post:
                await service.hand_over(lambda port: to_post.send(Message(1, rights=[port])))
                (port,) = (await post.receive()).rights
            assert port.status.queued == 18
            async with serving(port) as successor:
                successor.add(successor_math := Math())
                done, _ = await asyncio.wait(calls[2:])
                assert len(done) == 18
                math.go.set()
                assert await asyncio.gather(*calls) == [index * 2 for index in range(20)]
            assert (math.calls, successor_math.calls) == (2, 18)

    @pytest.mark.parametrize("how", ["error", "nothing", "cancel"])
    async def test_a_failed_one_goes_on(self, how):
        async with math_service() as (service, _, client):
            entered = asyncio.Event()

            async def give(port):
                entered.set()
                if how == "error":
                    raise OSError("no successor")
                if how == "cancel":
                    with ReceiveRight.allocate(queue_limit=0) as full, full.make_send() as send:
                        await send.send(Message(1, rights=[port]))

            task = asyncio.ensure_future(service.hand_over(give))
            await entered.wait()
            if how == "cancel":
                await asyncio.sleep(0)
                task.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await task
            assert await client.double(4) == 8

    async def test_by_a_handler(self):
        async with math_service() as (service, _, client):

            @service.on(ASK)
            async def leave(message):
                (successor,) = message.rights
                await service.hand_over(lambda port: successor.send(Message(2, rights=[port])))
                return Message(ASK + 100)

            with ReceiveRight.allocate() as post:
                request = Message(ASK, rights=[(post, Disposition.MAKE_SEND)])
                assert (await client._right.call(request, timeout=10)).id == ASK + 100
                (await post.receive()).close()
            with pytest.raises(machio.UsageError, match="not open"):
                await service.hand_over(None)


CALLER = """
import sys
import machio
with machio.bootstrap.look_up_blocking(sys.argv[1]) as right:
    right.call_blocking(machio.Message(int(sys.argv[2])), timeout=20)
"""


async def test_callers_that_are_killed_leave_nothing(bootstrap_server):
    """Processes die while they wait for their answers: the service goes on without a trace."""
    async with serving(NAME) as service:
        waiting, go = asyncio.Semaphore(0), asyncio.Event()

        @service.on(ASK)
        async def ask(message):
            waiting.release()
            await go.wait()
            return Message(ASK + 100)

        async def kill_some(number):
            go.clear()
            command = [sys.executable, "-c", CALLER, NAME, str(ASK)]
            callers = [await asyncio.create_subprocess_exec(*command) for _ in range(number)]
            for _ in callers:
                await asyncio.wait_for(waiting.acquire(), 30)
            for caller in callers:
                caller.kill()
                await caller.wait()
            go.set()
            async with machio.connect(Math, NAME, timeout=20) as client:
                with pytest.raises(machio.RoutineError, match="MIG_BAD_ID"):
                    await client.double(1)

        await kill_some(1)
        rights, fds = rights_held(), open_fds()
        await kill_some(4)
        assert rights_held() == rights
        # The loop closes what it had for the processes when it comes to it. A thread that has
        # waited, as those that look names up, has an eventfd for its life.
        left = await asyncio.to_thread(leaked_fds, fds)
        assert not [fd for fd in left if "eventfd" not in fd]
