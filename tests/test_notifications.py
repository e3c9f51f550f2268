"""Awaitable notifications, on every loop: told once, cancelled without a trace."""

import asyncio
import sys

import anyio
import pytest
from common import fill, settle, start

import machio
from machio import (
    Disposition,
    Message,
    NotificationId,
    PortRightType,
    ReceiveRight,
    Supervisor,
    _ffi,
    _loop,
    _requests,
)


class TestSendPossible:
    async def test_at_once_if_there_is_room(self, send):
        await send.send_possible(10)

    async def test_when_room_is_made(self, port, send):
        fill(send, port)
        with pytest.raises(machio.SendTimedOut):
            await send.send_possible(0.01)
        tasks = [await start(send.send_possible(10)) for _ in range(3)]
        assert not any(task.done() for task in tasks)
        port.receive_nowait()
        await asyncio.gather(*tasks)
        send.send_nowait(Message(7))

    async def test_along_with_senders_and_mourners(self, port, send):
        fill(send, port)
        death = await start(send.died())
        sending = await start(send.send(Message(9)))
        possible = await start(send.send_possible(10))
        port.receive_nowait()
        port.receive_nowait()
        await asyncio.gather(sending, possible)
        assert not death.done()
        port.close()
        await death

    async def test_the_death_of_the_port(self, port, send):
        fill(send, port)
        task = await start(send.send_possible(10))
        port.close()
        with pytest.raises(machio.DeadDestinationError):
            await task
        with pytest.raises(machio.DeadDestinationError):
            await send.send_possible(10)

    async def test_closing_the_right(self, port, send):
        fill(send, port)
        with send.copy() as other:
            task = await start(other.send_possible(10))
        with pytest.raises(machio.RightClosedError):
            await task

    async def test_what_the_system_did_not_say_wakes_nobody(self, port, send):
        fill(send, port)
        task = await start(send.send_possible(10))
        notify = _loop.current().mailbox.name
        _ffi.insert_right(notify, notify, Disposition.MAKE_SEND)
        said = bytes(8) + send.name.to_bytes(4, sys.byteorder)
        with machio.SendRight(notify) as forger, ReceiveRight.allocate() as carried:
            with carried.make_send() as to_carried:
                forger.send_nowait(Message(NotificationId.SEND_POSSIBLE, said))
                forger.send_nowait(Message(NotificationId.SEND_POSSIBLE, said, [carried]))
                forger.send_nowait(Message(NotificationId.SEND_POSSIBLE, bytes(500)))
                await asyncio.wait_for(to_carried.died(), 10)  # it was destroyed with its message
            await settle()
            assert not task.done()
        port.receive_nowait()
        await task

    async def test_cancelling_leaves_nothing(self, port, send):
        fill(send, port)
        task = await start(send.send_possible())
        task.cancel()
        await asyncio.wait([task])
        assert not _requests._slots
        assert _ffi.get_refs(send.name, PortRightType.SEND) == 1


class TestDropped:
    async def test_a_dropped_right(self, port):
        once = port.make_send_once()
        task = await start(port.dropped(10))
        assert not task.done()
        once.close()
        assert await task is None

    async def test_a_used_one(self, port):
        with port.make_send_once() as once:
            once.send(Message(5))
        assert (await port.dropped(10)).id == 5

    async def test_a_forged_notification_is_a_message(self, port, send):
        send.send_nowait(Message(NotificationId.SEND_ONCE))
        assert (await port.dropped(10)).id == NotificationId.SEND_ONCE


class TestSupervisor:
    async def test_each_kind_once(self, port, send):
        fill(send, port)
        with ReceiveRight.allocate() as mortal, mortal.make_send() as to_mortal:
            async with Supervisor() as supervisor:
                supervisor.died(to_mortal, "mortal")
                supervisor.send_possible(send, "room")
                once = supervisor.dropped("once")
                mortal.close()
                event = await anext(supervisor)
                assert event == (NotificationId.DEAD_NAME, to_mortal, "mortal", None)
                once.close()
                event = await anext(supervisor)
                assert event == (NotificationId.SEND_ONCE, None, "once", None)
                port.receive_nowait()
                event = await anext(supervisor)
                assert event == (NotificationId.SEND_POSSIBLE, send, "room", None)
                send.close()
                supervisor.no_senders(port, "senders")
                while port.status.queued:
                    port.receive_nowait()
                event = await anext(supervisor)
                assert event == (NotificationId.NO_SENDERS, port, "senders", 1)

    async def test_many(self):
        count = 200
        ports = [ReceiveRight.allocate() for _ in range(count)]
        sends = [port.make_send() for port in ports]
        async with Supervisor() as supervisor:
            for index, send in enumerate(sends):
                supervisor.died(send, index)
            for port in ports:
                port.close()
            seen = [(await anext(supervisor)).label for _ in range(count)]
        assert sorted(seen) == list(range(count))
        for send in sends:
            send.close()

    async def test_a_used_send_once_right_brings_its_message(self):
        async with Supervisor() as supervisor:
            with supervisor.dropped("task") as once:
                once.send(Message(3, rights=[ReceiveRight.allocate()]))
            event = await anext(supervisor)
            with event.value as message:
                assert message.id == 3
            # One that nobody reads is closed with the supervisor.
            with supervisor.dropped() as once:
                once.send(Message(4, rights=[ReceiveRight.allocate()]))
            await settle()

    async def test_closing_a_right_ends_its_watch_quietly(self, port, send):
        async with Supervisor() as supervisor:
            with send.copy() as other:
                supervisor.died(other)
                await settle()
            await settle()
            assert not supervisor._tasks
            with anyio.move_on_after(0):
                await anext(supervisor)
                pytest.fail("an event of a right that was closed")

    async def test_cancelling_a_watch_and_a_reader(self, port, send):
        async with Supervisor() as supervisor:
            supervisor.died(send, "first").cancel()
            supervisor.died(send, "second")
            reader = await start(anext(supervisor))
            reader.cancel()
            port.close()
            assert (await anext(supervisor)).label == "second"

    async def test_a_watch_that_fails_raises(self, port):
        waiting = await start(port.no_senders())
        with port.make_send():
            another = await start(port.no_senders())
            async with Supervisor() as supervisor:
                supervisor.no_senders(port)
                with pytest.raises(machio.UsageError):
                    await anext(supervisor)
        await asyncio.gather(waiting, another)

    async def test_leaving_ends_the_iteration_and_everything(self, port, send):
        async def read(supervisor):
            return [event async for event in supervisor]

        async with Supervisor() as supervisor:
            supervisor.died(send)
            supervisor.no_senders(port)
            supervisor.dropped().release()
            reader = await start(read(supervisor))
        assert await reader == []
        with pytest.raises(machio.UsageError):
            supervisor.died(send)
        for name in _ffi.names():
            if _ffi.port_type(name) & _ffi.TYPE_DEAD_NAME:
                _ffi.deallocate(name)  # the send-once right released above
