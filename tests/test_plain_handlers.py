"""Handlers and routines that are plain functions: they run where their request arrives."""

from __future__ import annotations

import asyncio
import contextvars
import time

import pytest
from test_service import ASK, port_of, serving

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

FAR = 20.0  # seconds: longer than any of it takes


class Shop(mig.Subsystem, base=4200):
    """Routines of which some are plain functions."""

    def __init__(self):
        self.go = asyncio.Event()
        self.kept = []

    @mig.routine
    def double(self, number: mig.int32) -> mig.int32:
        """Return twice the number."""
        return number * 2

    @mig.routine(number=4)
    def pass_on(self, right: mig.MakeSend) -> mig.MoveSend:
        return right

    @mig.routine
    def fail(self, code: mig.int32, right: mig.MakeSend) -> None:
        raise machio.RoutineError(code) if code else ZeroDivisionError

    @mig.routine
    def missing(self) -> mig.int32:
        raise NotImplementedError

    @mig.routine
    def keep(self, right: mig.MakeSend) -> None:
        self.kept.append(right)

    @mig.simpleroutine
    def tell(self, number: mig.int32) -> None:
        self.go.set()

    @mig.routine
    async def wait(self) -> mig.int32:
        await self.go.wait()
        return 7

    @mig.routine
    async def declared(self, number: mig.int32) -> mig.int32:
        raise NotImplementedError


class Server(Shop):
    @mig.routine
    def declared(self, number):
        return -number


@pytest.fixture
async def service():
    """A service with a queue that has room for a thousand."""
    port = ReceiveRight.allocate(queue_limit=1000)
    async with serving(port) as service:
        yield service


@pytest.fixture
def send(service):
    """A send right to its port."""
    with port_of(service).make_send() as send:
        yield send


@pytest.fixture
def client(service, send):
    """A client of a shop."""
    service.add(server := Server())
    made = Server.client(send, timeout=FAR)
    made.server = server
    return made


def code_in(answer):
    return int.from_bytes(answer.body[8:12], "little", signed=True)


class TestRoutines:
    async def test_there_and_back(self, client):
        assert await client.double(21) == await client.double(number=21) == 42
        assert await client.declared(3) == -3
        assert client.double.__doc__ == "Return twice the number."
        waiting = asyncio.ensure_future(client.wait())
        await client.tell(1)
        assert await waiting == 7

    async def test_on_an_object_of_ones_own_they_are_awaited_as_well(self):
        shop = Server()
        assert await shop.double(2) == 4
        assert await shop.declared(2) == -2
        with pytest.raises(NotImplementedError):
            await shop.missing()

    async def test_rights(self, client):
        with ReceiveRight.allocate() as port:
            with await client.pass_on(port) as right:
                assert right.name == port.name
            assert await port.no_senders(FAR) == 1
            assert await client.keep(port) is None
            with client.server.kept[0] as right:
                assert right.name == port.name

    @pytest.mark.parametrize("code", [0, KernCode.NO_SPACE])
    async def test_one_that_fails_keeps_no_right(self, client, code, caplog):
        with ReceiveRight.allocate() as port:
            with pytest.raises(machio.RoutineError) as caught:
                await client.fail(code, port)
            assert await port.no_senders(FAR) == 1
        assert caught.value.code == (code or MigCode.EXCEPTION)
        assert len(caplog.records) == (not code)

    async def test_one_that_is_not_implemented(self, client):
        with pytest.raises(machio.RoutineError, match="MIG_BAD_ID"):
            await client.missing()

    async def test_answers_without_a_service(self):
        """`answer` is to be awaited in either case; `respond` only if there is what to wait for."""
        double = Shop.routines["double"]
        request = double.request.write((4,))
        assert double.read_reply(await Shop().answer(request)) == 8
        assert double.read_reply(Shop().respond(request)) == 8
        wait, shop = Shop.routines["wait"], Shop()
        shop.go.set()
        assert wait.read_reply(await shop.answer(wait.request.write(()))) == 7
        assert code_in(await shop.answer(Message(1))) == MigCode.BAD_ID

    @pytest.mark.parametrize("name", ["double", "other"])
    def test_only_what_is_declared_can_be_defined_again(self, name):
        def function(self, number: mig.int32) -> mig.int32:
            raise NotImplementedError

        function.__name__ = name
        marks = [mig.routine(number=3), mig.simpleroutine]
        for mark in marks if name == "double" else [mig.routine, *marks]:
            with pytest.raises(TypeError, match="base="):
                type("Wrong", (Shop,), {name: mark(function)})

    def test_a_generator_is_no_routine(self):
        def items(self) -> mig.int32:
            yield 1

        async def more(self) -> mig.int32:
            yield 1

        for function in (items, more):
            with pytest.raises(TypeError, match="yield none"):
                type("Wrong", (mig.Subsystem,), {"wrong": mig.routine(function)}, base=1)


class TestHandlers:
    async def test_they_run_where_the_request_arrives(self, service, send):
        here = []

        @service.on(ASK)
        def ask(message):
            assert machio.current_request() is message
            here.append(asyncio.current_task())
            return Message(ASK + 100, message.body)

        for _ in range(2):
            assert (await send.call(Message(ASK, b"abcd"), FAR)).body == b"abcd"
        assert here == [service._receiver] * 2
        with pytest.raises(LookupError):
            machio.current_request()

    async def test_each_has_a_context_of_its_own(self, service, send):
        var = contextvars.ContextVar("var", default=b"none")
        late = []

        @service.on(ASK)
        def ask(message):
            async def later():
                late.append((machio.current_request(), var.get()))

            seen = var.get()
            var.set(message.body)
            tasks.append(asyncio.ensure_future(later()))
            return Message(ASK + 100, seen)

        tasks = []
        for body in (b"abcd", b"efgh"):
            assert (await send.call(Message(ASK, body), FAR)).body == b"none"
        await asyncio.gather(*tasks)
        assert [(request.body, seen) for request, seen in late] == [
            (b"abcd", b"abcd"),
            (b"efgh", b"efgh"),
        ]

    async def test_no_answer_and_a_wrong_one(self, service, send, caplog):
        @service.on(ASK)
        def nothing(message):
            pass

        @service.on(ASK + 1)
        def wrong(message):
            return 5

        with pytest.raises(machio.ServerDiedError):
            await send.call(Message(ASK), FAR)
        assert code_in(await send.call(Message(ASK + 1), FAR)) == MigCode.EXCEPTION
        assert "await" in caplog.text

    @pytest.mark.parametrize("wrong", [Message(1 << 40), Message(1, rights=[5])])
    async def test_an_answer_that_cannot_be_sent(self, service, send, wrong, caplog):
        service.on(ASK)(lambda message: wrong)
        for _ in range(2):
            assert code_in(await send.call(Message(ASK), FAR)) == MigCode.EXCEPTION
        assert len(caplog.records) == 2

    async def test_what_cannot_be_closed(self, service, send, caplog):
        @service.on(ASK)
        def ask(message):
            if message.body:
                message.descriptors = (5,)
            return Message(ASK + 100)

        for body in (b"abcd", b""):
            assert (await send.call(Message(ASK, body), FAR)).id == ASK + 100
        assert "no attribute 'close'" in caplog.text

    async def test_one_that_returns_what_is_to_be_awaited(self, service, send):
        async def answer(message):
            await asyncio.sleep(0)
            assert machio.current_request() is message
            return Message(ASK + 100, message.body)

        service.on(ASK)(lambda message: answer(message))
        assert (await send.call(Message(ASK, b"abcd"), FAR)).body == b"abcd"

    async def test_one_that_is_cancelled_answers_nobody(self, service, send):
        @service.on(ASK)
        def ask(message):
            raise asyncio.CancelledError

        service.on(ASK + 1)(lambda message: Message(ASK + 101))
        with ReceiveRight.allocate() as port:
            request = Message(ASK, rights=[(port, Disposition.MAKE_SEND)])
            with pytest.raises(machio.ServerDiedError):
                await send.call(request, FAR)
            assert await port.no_senders(FAR) == 1
        assert (await send.call(Message(ASK + 1), FAR)).id == ASK + 101

    async def test_one_that_ends_the_program_closes_its_request(self, service, send):
        """As of any task, the loop raises it; here it is caught on its way there."""

        class EndError(BaseException):
            pass

        @service.on(ASK)
        def ask(message):
            raise EndError

        with ReceiveRight.allocate() as port:
            request = Message(ASK, rights=[port.make_send()])
            with pytest.raises(EndError):
                service._handle(request)
            assert await port.no_senders(FAR) == 1

    async def test_who_may_call(self):
        port = ReceiveRight.allocate()
        with port.make_send() as send:
            async with serving(port, allow=lambda sender: False) as service:
                service.on(ASK)(lambda message: Message(ASK + 100))
                answer = await send.call(Message(ASK), FAR)
                assert code_in(answer) == KernCode.NO_ACCESS

    async def test_the_system_may_always(self):
        port = ReceiveRight.allocate()
        async with serving(port, allow=lambda sender: False) as service:
            dropped = asyncio.Event()
            service.on(NotificationId.SEND_ONCE)(lambda message: dropped.set())
            port.make_send_once().close()
            await asyncio.wait_for(dropped.wait(), FAR)

    async def test_an_answer_to_nobody_is_closed(self, service, send):
        with ReceiveRight.allocate() as port:
            right = port.make_send()
            service.on(ASK)(lambda message: Message(1, rights=[right]))
            await send.send(Message(ASK))
            assert await port.no_senders(FAR) == 1
            assert right.closed

    async def test_a_deadline_interrupts_none(self):
        port = ReceiveRight.allocate()
        with port.make_send() as send:
            async with serving(port, deadline=0.001) as service:

                @service.on(ASK)
                def slow(message):
                    time.sleep(0.01)
                    return Message(ASK + 100)

                assert (await send.call(Message(ASK), FAR)).id == ASK + 100

    async def test_they_wait_their_turn_while_as_many_as_allowed_are_at_work(self):
        port = ReceiveRight.allocate()
        with port.make_send() as send:
            async with serving(port, concurrency=1) as service:
                service.add(Server())
                client = Server.client(send, timeout=FAR)
                waiting = asyncio.ensure_future(client.wait())
                double = asyncio.ensure_future(client.double(1))
                while not service._busy:
                    await asyncio.sleep(0)
                (task,) = service._busy
                for _ in range(5):
                    await asyncio.sleep(0)
                assert port.status.queued == 1
                task.cancel()
                assert await double == 2
                with pytest.raises(machio.ServerDiedError):
                    await waiting

    async def test_a_task_that_is_cancelled_before_it_begins_keeps_nothing(self, service, send):
        @service.on(ASK)
        async def wait(message):
            await asyncio.get_running_loop().create_future()

        @service.on(ASK + 1)
        def cancel(message):
            (task,) = service._busy
            task.cancel()

        with ReceiveRight.allocate() as port:
            send.send_nowait(Message(ASK, rights=[(port, Disposition.MAKE_SEND)]))
            send.send_nowait(Message(ASK + 1))
            assert await port.no_senders(FAR) == 1


class TestEnds:
    async def test_stop(self):
        """No more requests are taken, and the one that stops the service is answered."""
        port = ReceiveRight.allocate()
        async with Service(port) as service:

            @service.on(ASK)
            def stop(message):
                service.stop()
                return Message(ASK + 100)

            with port.make_send() as send:
                calls = [asyncio.ensure_future(send.call(Message(ASK))) for _ in range(2)]
                await asyncio.sleep(0)
                await asyncio.wait_for(service.serve(), FAR)
                assert (await calls[0]).id == ASK + 100
                assert port.status.queued == 1
        with pytest.raises(machio.ServerDiedError):
            await calls[1]

    async def test_hand_over(self, service, send):
        """The next request is the successor's where tasks begin at once, and may be elsewhere."""
        tasks = []
        with ReceiveRight.allocate() as post, post.make_send() as to_post:

            @service.on(ASK)
            def give(message):
                over = service.hand_over(lambda port: to_post.send(Message(1, rights=[port])))
                tasks.append(asyncio.ensure_future(over))
                return Message(ASK + 100)

            @service.on(ASK + 1)
            def ask(message):
                assert not service._handing_over
                return Message(ASK + 101, b"old!")

            calls = [asyncio.ensure_future(send.call(Message(ASK + n), FAR)) for n in (0, 1)]
            assert (await calls[0]).id == ASK + 100
            await asyncio.gather(*tasks)
            (port,) = (await post.receive()).rights
        calls.append(asyncio.ensure_future(send.call(Message(ASK + 1), FAR)))
        async with serving(port) as successor:
            successor.on(ASK + 1)(lambda message: Message(ASK + 101, b"new!"))
            assert (await calls[1]).body in (b"old!", b"new!")
            assert (await calls[2]).body == b"new!"


class TestFairness:
    """Who always finds a next request lets the others run all the same."""

    async def test_a_queue_that_is_full(self, service, send):
        handled = []
        service.on(ASK)(lambda message: handled.append(message.id))
        for _ in range(500):
            send.send_nowait(Message(ASK))
        most = seen = 0
        while seen < 500:
            await asyncio.sleep(0)
            most, seen = max(most, len(handled) - seen), len(handled)
        assert most <= 1 + 64  # the one that was waited for, and those that were there

    async def test_a_queue_that_is_filled_by_the_handler(self, service, send):
        @service.on(ASK)
        def again(message):
            send.send_nowait(Message(ASK))

        send.send_nowait(Message(ASK))
        for _ in range(100):
            await asyncio.sleep(0)
        service.stop()
