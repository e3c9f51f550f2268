"""The adapter on every loop: waiting, waking, cancelling; nothing lost, nothing left behind."""

import asyncio
import gc
import os
import threading

import pytest
from common import fill, settle, start

import machio
from machio import (
    Disposition,
    Message,
    PortRightType,
    PortSet,
    ReceiveRight,
    _ffi,
    _loop,
    _requests,
)

SEND = PortRightType.SEND
DEAD = PortRightType.DEAD_NAME


class TestReceiving:
    async def test_a_message_that_is_there(self, port, send):
        await send.send(Message(1, b"ping"))
        assert (await port.receive()).body == b"ping"

    async def test_a_message_that_comes(self, port, send):
        task = await start(port.receive())
        assert not task.done()
        send.send_nowait(Message(2))
        assert (await task).id == 2

    async def test_a_message_from_another_thread(self, port, send):
        thread = threading.Thread(target=send.send_nowait, args=(Message(2),))
        task = await start(port.receive())
        thread.start()
        assert (await task).id == 2
        thread.join()

    async def test_many_in_a_row(self, port, send):
        async def produce():
            for index in range(1000):
                await send.send(Message(index))

        task = asyncio.create_task(produce())
        assert [(await port.receive()).id for _ in range(1000)] == list(range(1000))
        await task

    async def test_timeout(self, port):
        for timeout in (0, 0.01):
            with pytest.raises(machio.ReceiveTimedOut):
                await port.receive(timeout)

    async def test_first_waiter_first_served(self, port, send):
        tasks = [await start(port.receive()) for _ in range(4)]
        for index in range(4):
            send.send_nowait(Message(index))
        # A latecomer does not overtake those who have been woken but have not run yet.
        latecomer = asyncio.create_task(port.receive())
        send.send_nowait(Message(4))
        messages = await asyncio.gather(*tasks, latecomer)
        assert [message.id for message in messages] == [0, 1, 2, 3, 4]

    async def test_cancelling_one_that_waits(self, port, send):
        tasks = [await start(port.receive()) for _ in range(3)]
        tasks[1].cancel()
        await settle()
        send.send_nowait(Message(0))
        send.send_nowait(Message(2))
        assert (await tasks[0]).id == 0
        assert (await tasks[2]).id == 2
        assert tasks[1].cancelled()

    async def test_cancelling_one_that_was_woken_loses_nothing(self, port, send):
        first, second = [await start(port.receive()) for _ in range(2)]
        send.send_nowait(Message(7))
        # Woken by hand, so that the cancellation meets it between wake-up and step.
        port.watch().wake()
        first.cancel()
        assert (await second).id == 7
        assert first.cancelled()

    async def test_cancelling_at_any_moment_loses_nothing(self, port, send):
        received = []

        async def consume():
            while True:
                received.append((await port.receive()).id)

        for index in range(300):
            task = asyncio.create_task(consume())
            for _ in range(index % 7):
                await asyncio.sleep(0)
            await send.send(Message(index))
            for _ in range(index % 5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        while port.status.queued:
            received.append(port.receive_nowait().id)
        assert received == list(range(300))

    async def test_expired_waits_leave_the_others_in_line(self, port, send):
        first = await start(port.receive(timeout=0.01))
        second = await start(port.receive())
        with pytest.raises(machio.ReceiveTimedOut):
            await first
        send.send_nowait(Message(5))
        assert (await second).id == 5

    async def test_closing_wakes_all(self, port):
        tasks = [await start(port.receive()) for _ in range(3)]
        port.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [machio.RightClosedError] * 3

    async def test_closing_from_another_thread_wakes(self, port):
        task = await start(port.receive())
        thread = threading.Thread(target=port.close)
        thread.start()
        with pytest.raises(machio.RightClosedError):
            await task
        thread.join()

    async def test_giving_the_right_away_wakes(self, port, send):
        with ReceiveRight.allocate() as moving:
            task = await start(moving.receive())
            send.send_nowait(Message(1, rights=[moving]))
            with pytest.raises(machio.RightClosedError):
                await task
        port.receive_nowait().close()

    async def test_a_name_pulled_away_underneath_wakes(self, port):
        task = await start(port.receive())
        _ffi.mod_refs(port.name, PortRightType.RECEIVE, -1)
        with pytest.raises(machio.ReceiveError):
            await task
        port.release()

    async def test_a_flood_leaves_others_time(self, port, send):
        port.queue_limit = 1024
        for index in range(1000):
            send.send_nowait(Message(index))
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        for _ in range(1000):
            await port.receive()
        ticking.cancel()
        assert ticks > 5

    async def test_a_set(self, send, port):
        with PortSet.allocate() as ports, ReceiveRight.allocate() as other:
            ports.add(port)
            ports.add(other)
            with other.make_send() as to_other:
                for _ in range(3):
                    task = await start(ports.receive(10))
                    to_other.send_nowait(Message(2))
                    member, message = await task
                    assert member is other
                    assert message.id == 2
            task = await start(ports.receive(10))
            send.send_nowait(Message(1))
            assert (await task)[0] is port

    async def test_a_port_used_in_two_loops(self, port, send):
        waiting = await start(port.receive())

        def elsewhere():
            with asyncio.Runner() as runner, pytest.raises(machio.UsageError, match="another"):
                # The line is empty for a moment only: no one may come in between.
                runner.run(port.receive())

        await asyncio.to_thread(elsewhere)
        send.send_nowait(Message(1))
        assert (await waiting).id == 1


class TestSending:
    async def test_a_full_queue_waits_and_goes_on_in_order(self, port, send):
        fill(send, port)
        tasks = [await start(send.send(Message(100 + index))) for index in range(10)]
        assert not any(task.done() for task in tasks)
        ids = [(await port.receive()).id for _ in range(15)]
        await asyncio.gather(*tasks)
        assert ids == [0, 1, 2, 3, 4, *range(100, 110)]
        assert _ffi.get_refs(send.name, SEND) == 1

    async def test_timeout_gives_everything_back(self, port, send):
        fill(send, port)
        with ReceiveRight.allocate() as carried, carried.make_send() as to_carried:
            message = Message(1, rights=[carried, (to_carried, Disposition.COPY_SEND)])
            for timeout in (0, 0.01):
                with pytest.raises(machio.SendTimedOut):
                    await send.send(message, timeout)
                assert not carried.closed
                assert _ffi.get_refs(to_carried.name, SEND) == 1
                assert _ffi.get_refs(send.name, SEND) == 1
        assert port.status.queued == 5

    @pytest.mark.parametrize("place", [0, 1, 2])
    async def test_cancelling_gives_everything_back(self, port, send, place):
        fill(send, port)
        rights = [ReceiveRight.allocate() for _ in range(3)]
        tasks = [
            await start(send.send(Message(100 + index, rights=[right])))
            for index, right in enumerate(rights)
        ]
        assert all(right.closed for right in rights), "in use while the send waits"
        tasks[place].cancel()
        await asyncio.wait([tasks[place]])
        assert not rights[place].closed
        rights[place].close()
        ids = []
        for _ in range(7):
            with await port.receive(timeout=10) as message:
                ids.append(message.id)
        await asyncio.gather(*tasks[:place], *tasks[place + 1 :])
        assert ids[5:] == [100 + index for index in range(3) if index != place]
        assert _ffi.get_refs(send.name, SEND) == 1

    async def test_the_death_of_the_port_ends_the_wait(self, port, send):
        fill(send, port)
        with ReceiveRight.allocate() as carried:
            tasks = [
                await start(send.send(Message(1, rights=rights))) for rights in ([carried], [])
            ]
            port.close()
            for task in tasks:
                with pytest.raises(machio.DeadDestinationError):
                    await asyncio.wait_for(task, 10)
            assert not carried.closed
        await settle()
        assert _ffi.get_refs(send.name, DEAD) == 1

    async def test_closing_the_right_while_waiting_does_not_stop_the_first(self, port, send):
        fill(send, port)
        other = send.copy()
        first = await start(other.send(Message(50)))
        second = await start(other.send(Message(51)))
        other.close()
        await settle()
        for _ in range(5):
            await port.receive()
        assert (await port.receive(10)).id == 50
        await first
        with pytest.raises(machio.RightClosedError):
            await second
        assert _ffi.get_refs(send.name, SEND) == 1

    async def test_two_loops_wait_for_the_same_room(self, port, send):
        fill(send, port)

        def elsewhere():
            with asyncio.Runner() as runner:
                runner.run(send.send(Message(60)))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        task = await start(send.send(Message(61)))
        ids = [(await port.receive(10)).id for _ in range(7)]
        await task
        await asyncio.to_thread(thread.join)
        assert sorted(ids[5:]) == [60, 61]
        assert _ffi.get_refs(send.name, SEND) == 1

    async def test_a_loop_that_ends_leaves_no_request(self, port, send):
        fill(send, port)

        async def give_up():
            with pytest.raises(machio.SendTimedOut):
                await send.send(Message(1), 0.01)

        def elsewhere():
            with asyncio.Runner() as runner:
                runner.run(give_up())

        await asyncio.to_thread(elsewhere)
        assert not _requests._slots
        notify = _loop.current
        assert notify() is _loop.current()


class TestNotifications:
    async def test_the_death_of_a_port(self, port, send):
        task = await start(send.died())
        assert not task.done()
        port.close()
        await asyncio.wait_for(task, 10)
        assert _ffi.get_refs(send.name, DEAD) == 1
        await send.died()

    async def test_many_wait_for_one_death(self, port, send):
        tasks = [await start(send.died()) for _ in range(3)]
        tasks[0].cancel()
        await settle()
        port.close()
        await asyncio.wait_for(asyncio.gather(*tasks[1:]), 10)
        assert _ffi.get_refs(send.name, DEAD) == 1

    async def test_the_wait_for_death_ends_in_time_and_leaves_nothing(self, port, send):
        with pytest.raises(machio.ReceiveTimedOut):
            await send.died(0.01)
        task = await start(send.died())
        task.cancel()
        await asyncio.wait([task])
        assert not _ffi.port_type(send.name) & 0x80000000, "no request is left on the name"
        assert not port.status.send_once_rights

    async def test_closing_the_right_ends_the_wait(self, port, send):
        other = send.copy()
        task = await start(other.died())
        other.close()
        with pytest.raises(machio.RightClosedError):
            await asyncio.wait_for(task, 10)

    async def test_death_and_room_share_one_request(self, port, send):
        fill(send, port)
        death = await start(send.died())
        room = await start(send.send(Message(9)))
        await port.receive()
        await asyncio.wait_for(room, 10)
        assert not death.done()
        port.close()
        await asyncio.wait_for(death, 10)
        await settle()
        assert _ffi.get_refs(send.name, DEAD) == 1

    async def test_no_senders(self, port):
        assert await port.no_senders(10) == 0
        with port.make_send() as one, one.copy():
            task = await start(port.no_senders())
        assert await asyncio.wait_for(task, 10) == 1

    async def test_no_senders_while_messages_are_queued(self, port):
        with port.make_send() as one:
            one.send_nowait(Message(1))
        task = await start(port.no_senders())
        assert not task.done()
        await port.receive()
        await asyncio.wait_for(task, 10)

    async def test_only_one_waits_for_no_senders(self, port, send):
        task = await start(port.no_senders())
        with pytest.raises(machio.UsageError):
            await port.no_senders()
        send.close()
        assert await asyncio.wait_for(task, 10) == 1

    async def test_giving_up_on_no_senders_leaves_nothing(self, port, send):
        with pytest.raises(machio.ReceiveTimedOut):
            await port.no_senders(0.01)
        task = await start(port.no_senders())
        assert port.status.has_no_senders_request
        task.cancel()
        await asyncio.wait([task])
        assert not port.status.has_no_senders_request

    async def test_closing_the_port_ends_the_wait_for_its_senders(self, port, send):
        task = await start(port.no_senders())
        port.close()
        with pytest.raises(machio.RightClosedError):
            await asyncio.wait_for(task, 10)


class TestPipes:
    @pytest.mark.parametrize("how", ["watch_writer", "watch_end"])
    async def test_the_end_of_the_readers(self, how):
        read, write = os.pipe()
        watch = getattr(_loop.current(), how)(write)
        await settle()
        assert not watch.eof
        seen = asyncio.Event()
        watch.on_event = seen.set
        os.close(read)
        await asyncio.wait_for(seen.wait(), 10)
        assert watch.eof
        watch.close()
        os.close(write)

    @pytest.mark.parametrize("how", ["watch_writer", "watch_end"])
    async def test_the_end_of_a_half_shut_socket(self, how):
        import socket

        server, client = socket.socketpair()
        server.shutdown(socket.SHUT_RD)
        client.shutdown(socket.SHUT_WR)
        with server:
            watch = getattr(_loop.current(), how)(server.fileno())
            await settle()
            assert not watch.eof, "half shut is not the end"
            seen = asyncio.Event()
            watch.on_event = seen.set
            client.close()
            await asyncio.wait_for(seen.wait(), 10)
            assert watch.eof
            watch.close()

    async def test_a_reader_is_woken_for_bytes_and_for_the_end(self):
        read, write = os.pipe()
        watch = _loop.current().watch_reader(read)
        ready = asyncio.Event()
        watch.on_event = ready.set
        await settle()
        assert not ready.is_set()
        for act in (lambda: os.write(write, b"x"), lambda: os.write(write, b"y")):
            act()
            await asyncio.wait_for(ready.wait(), 10)
            ready.clear()
        os.close(write)
        await asyncio.wait_for(ready.wait(), 10)
        assert watch.eof
        watch.close()
        os.close(read)


class TestLife:
    async def test_one_adapter_a_loop(self):
        assert _loop.current() is _loop.current()

    def test_none_outside_a_loop(self):
        with pytest.raises(RuntimeError):
            _loop.current()

    def test_a_port_outlives_its_loop(self, port, send, loop_name):
        async def once(ident):
            task = await start(port.receive())
            send.send_nowait(Message(ident))
            return (await task).id

        for ident in range(3):
            with asyncio.Runner() as runner:
                assert runner.run(once(ident)) == ident

    def test_the_end_of_a_loop_wakes_nobody_else(self, port, send):
        """A loop closed without asyncio.run's courtesies keeps no file."""

        async def wait():
            with pytest.raises(machio.ReceiveTimedOut):
                await port.receive(0.001)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(wait())
        loop.close()
        with asyncio.Runner() as runner:  # its first use sweeps up
            runner.run(wait())
        gc.collect()

    async def test_a_forked_child_makes_an_adapter_of_its_own(self, port):
        before = _loop.current()
        task = await start(port.receive())
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                assert not before.usable()
                before.close()
                status = 0
            finally:
                os._exit(status)
        assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
        with port.make_send() as send:
            send.send_nowait(Message(3))
        assert (await task).id == 3

    async def test_thousands_of_ports_leave_nothing(self):
        adapter = _loop.current()
        for _ in range(2000):
            with ReceiveRight.allocate() as port:
                with pytest.raises(machio.ReceiveTimedOut):
                    await port.receive(0)
                port.watch()
        assert len(adapter._watches) <= 1
