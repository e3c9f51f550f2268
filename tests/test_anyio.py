"""Rights as anyio's streams, in its task groups and cancel scopes; port sets that change."""

import anyio
import pytest
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from common import fill

import machio
from machio import Message, PortSet, ReceiveRight


async def copy(source: ObjectReceiveStream[Message], target: ObjectSendStream[Message]) -> None:
    """What knows anyio's interfaces only."""
    async with source, target:
        async for message in source:
            await target.send(Message(message.id))


async def test_rights_are_object_streams(port, send):
    with ReceiveRight.allocate() as end, end.make_send() as to_end:
        async with anyio.create_task_group() as group:
            group.start_soon(copy, port, to_end)
            for index in range(20):
                await send.send(Message(index))
                assert (await end.receive()).id == index
            await port.aclose()
        assert to_end.closed


async def test_the_exceptions_are_anyios(port, send):
    fill(send, port)
    with pytest.raises(anyio.WouldBlock):
        send.send_nowait(Message(9))
    port.close()
    with pytest.raises(anyio.BrokenResourceError):
        await send.send(Message(1))
    with pytest.raises(anyio.ClosedResourceError):
        await port.receive()
    await send.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await send.send(Message(1))


async def test_scopes_that_end_at_any_moment_lose_nothing(port, send):
    received = []

    async def consume():
        while True:
            received.append((await port.receive()).id)

    for index in range(200):
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            for _ in range(index % 7):
                await anyio.lowlevel.checkpoint()
            await send.send(Message(index))
            for _ in range(index % 5):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    while port.status.queued:
        received.append(port.receive_nowait().id)
    assert received == list(range(200))


async def test_a_deadline_gives_the_rights_back(port, send):
    fill(send, port)
    with ReceiveRight.allocate() as carried:
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.01):
                await send.send(Message(1, rights=[carried]))
        assert not carried.closed
    with anyio.move_on_after(0.01):
        await send.died()
        pytest.fail("it lives")


async def test_nobody_overtakes_those_who_wait_for_room(port, send):
    fill(send, port)
    async with anyio.create_task_group() as group:
        for index in range(5, 15):
            group.start_soon(send.send, Message(index))
            await anyio.lowlevel.checkpoint()
        assert port.receive_nowait().id == 0  # there is room, and it is spoken for
        with pytest.raises(machio.WouldBlock):
            send.send_nowait(Message(99))
        assert [(await port.receive()).id for _ in range(14)] == list(range(1, 15))


class TestPortSets:
    async def test_iteration_is_fair_and_ends_with_the_set(self):
        with PortSet.allocate() as ports:
            members = [ReceiveRight.allocate(queue_limit=64) for _ in range(4)]
            sends = [member.make_send() for member in members]
            for member, send, count in zip(members, sends, [50, 3, 3, 3], strict=True):
                ports.add(member)
                for index in range(count):
                    send.send_nowait(Message(index))
            seen = []
            async for member, _ in ports:
                seen.append(members.index(member))
                if len(seen) == 59:
                    ports.close()
            # The busy member does not keep the others waiting: all of theirs are among the first.
            assert sorted(seen[:12]) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
            for right in (*members, *sends):
                right.close()

    async def test_members_come_and_go_meanwhile(self):
        seen = []

        async def read():
            async for member, message in ports:
                seen.append((member, message.id))

        with (
            PortSet.allocate() as ports,
            ReceiveRight.allocate() as first,
            ReceiveRight.allocate() as second,
            first.make_send() as to_first,
            second.make_send() as to_second,
        ):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.lowlevel.checkpoint()
                to_first.send_nowait(Message(1))  # not a member yet
                ports.add(first)
                while len(seen) < 1:
                    await anyio.lowlevel.checkpoint()
                ports.add(second)
                to_second.send_nowait(Message(2))
                while len(seen) < 2:
                    await anyio.lowlevel.checkpoint()
                ports.remove(first)
                to_first.send_nowait(Message(3))
                to_second.send_nowait(Message(4))
                while len(seen) < 3:
                    await anyio.lowlevel.checkpoint()
                ports.close()
            assert seen == [(first, 1), (second, 2), (second, 4)]
            assert first.receive_nowait().id == 3
