"""Back-pressure: who waits for room in a queue gets it in turn, whatever happens to the others."""

from __future__ import annotations

import asyncio
import os
import random
import sys

import pytest
from common import fill, rights_held, settle, start

import machio
from machio import Disposition, Message, PortRightType, ReceiveRight, _ffi, _requests


async def drain(port, count):
    return [(await port.receive(20)).id for _ in range(count)]


async def waiting(send, numbers, **options):
    """Start a sender for each number, one after the other; each comes to wait."""
    tasks = {number: await start(send.send(Message(number), **options)) for number in numbers}
    assert not any(task.done() for task in tasks.values())
    return tasks


async def test_first_to_wait_first_to_send_by_whichever_object(port, send):
    fill(send, port)
    with send.copy() as other, ReceiveRight.allocate() as home:
        await waiting(send, [10])
        await waiting(other, [11])
        call = await start(send.call(Message(12), 20))
        await waiting(other, [13])
        once = await start(send.send(Message(14, reply=home)))
        received = [await port.receive(20) for _ in range(10)]
        assert [message.id for message in received] == [*range(5), *range(10, 15)]
        received[7].reply.send(Message(112))
        assert (await call).id == 112
        await once
        received[9].close()


@pytest.mark.parametrize("gone", [[10], [12], [14], [11, 12], [10, 14], [10, 11, 12, 13]])
@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_those_who_leave_the_line_hold_up_nobody(gone, how, port, send):
    fill(send, port)
    before = rights_held()
    cargo = {number: ReceiveRight.allocate() for number in gone}
    tasks = {}
    for number in range(10, 15):
        right = send.copy()
        rights = [cargo[number]] if number in gone else []
        timeout = 0.02 if number in gone and how == "timeout" else 20
        sending = _closing(right, right.send(Message(number, rights=rights), timeout))
        tasks[number] = await start(sending)
    if how == "cancel":
        for number in gone:
            tasks[number].cancel()
    await asyncio.wait([tasks[number] for number in gone])
    stay = [number for number in tasks if number not in gone]
    assert await drain(port, 5 + len(stay)) == [*range(5), *stay]
    await asyncio.gather(*(tasks[number] for number in stay))
    for number, right in cargo.items():
        if how == "cancel":
            assert tasks[number].cancelled()
        else:
            assert isinstance(tasks[number].exception(), machio.SendTimedOut)
        assert not right.closed
        right.close()
    assert port.status.queued == 0
    assert len(rights_held()) <= len(before) + 1  # the loop's mailbox


async def _closing(right, sending):
    with right:
        await sending


@pytest.mark.parametrize("woken", [False, True])
async def test_room_that_was_offered_to_one_who_leaves_goes_to_the_next(woken, port, send):
    fill(send, port)
    tasks = await waiting(send, [10, 11, 12])
    for number in (10, 11):
        port.receive_nowait()  # the notification is under way
        if woken:  # by hand, so that the cancellation meets it before it runs
            _requests.touch(send.name)
        tasks[number].cancel()
    await asyncio.wait_for(tasks[12], 20)
    assert await drain(port, 4) == [2, 3, 4, 12]
    assert port.status.queued == 0


async def test_nowait_does_not_overtake(port, send):
    fill(send, port)
    with pytest.raises(machio.WouldBlock):
        send.send_nowait(Message(9))
    (task,) = (await waiting(send, [10])).values()
    port.receive_nowait()
    with pytest.raises(machio.WouldBlock):  # there is room, for the one who waits
        send.send_nowait(Message(9))
    await task
    assert await drain(port, 5) == [1, 2, 3, 4, 10]
    send.send_nowait(Message(9))
    assert await drain(port, 1) == [9]


async def test_a_full_port_holds_up_no_other(port, send):
    fill(send, port)
    tasks = await waiting(send, [10, 11])
    with ReceiveRight.allocate() as free, free.make_send() as to_free:
        for number in range(5):
            await asyncio.wait_for(to_free.send(Message(number)), 20)
        assert await drain(free, 5) == [0, 1, 2, 3, 4]
    port.close()
    for task in tasks.values():
        with pytest.raises(machio.DeadDestinationError):
            await task


@pytest.mark.parametrize("seed", range(5))
async def test_many_come_and_go(seed, port, send):
    chance = random.Random(seed)
    fill(send, port)
    tasks, sent, received = {}, [], []
    for number in range(10, 200):
        tasks[number] = asyncio.create_task(send.send(Message(number)))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.4:
            tasks[chance.choice(list(tasks))].cancel()
        if chance.random() < 0.3:
            received.append(port.receive_nowait().id)
            await settle()
    while not all(task.done() for task in tasks.values()) or port.status.queued:
        received.append((await port.receive(20)).id)
        await asyncio.sleep(0)
    sent = [number for number, task in tasks.items() if not task.cancelled()]
    assert received == [*range(5), *sent]


READER = """
import asyncio, sys, machio

async def main():
    with machio.ReceiveRight.allocate(queue_limit=2) as port:
        await machio.check_in_fd(int(sys.argv[1]), port, machio.Disposition.MAKE_SEND)
        sys.stdin.readline()
        for _ in range(int(sys.argv[2])):
            print((await port.receive()).id)
        assert port.status.queued == 0

asyncio.run(main())
"""


async def test_a_reader_in_another_process(bootstrap_server):
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        command = [sys.executable, "-c", READER, str(fd), "92"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, pass_fds=[fd], stdin=pipe, stdout=pipe
        )
        os.close(fd)
        with await handshake.serve(PortRightType.SEND, 20) as send:
            tasks = [await start(send.send(Message(number))) for number in range(102)]
            assert [task.done() for task in tasks] == [True] * 2 + [False] * 100
            for number in range(10, 100, 10):
                tasks[number].cancel()
            tasks[2].cancel()
            out, _ = await process.communicate(b"go\n")
            expected = [number for number in range(102) if number % 10 or number in (0, 100)]
            expected.remove(2)
            assert [int(line) for line in out.split()] == expected
            await asyncio.gather(*tasks, return_exceptions=True)
    assert process.returncode == 0


async def test_a_reader_in_another_process_that_dies(bootstrap_server):
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        command = [sys.executable, "-c", READER, str(fd), "0"]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, pass_fds=[fd], stdin=pipe)
        os.close(fd)
        with await handshake.serve(PortRightType.SEND, 20) as send, send.copy() as other:
            tasks = [await start(send.send(Message(number))) for number in range(5)]
            tasks.append(await start(other.died()))
            assert [task.done() for task in tasks] == [True] * 2 + [False] * 4
            process.kill()
            ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
            assert [isinstance(end, machio.DeadDestinationError) for end in ends[2:5]] == [True] * 3
            assert ends[:2] + ends[5:] == [None] * 3
        await process.wait()


CROWD = 6
EACH = 60
ONE_OF_THE_CROWD = """
import asyncio, resource, sys, machio

def sleeps():
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw

async def main():
    with await machio.serve_fd(int(sys.argv[1]), machio.PortRightType.SEND) as right:
        await right.send(machio.Message(0))
        sys.stdin.readline()
        before = sleeps()
        for _ in range(int(sys.argv[2])):
            await right.send(machio.Message(1))
        await right.send(machio.Message(sleeps() - before))

if sys.argv[3] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


async def test_a_place_in_the_queue_wakes_one_of_the_loops_that_wait(bootstrap_server):
    handshakes = [machio.ChildPortHandshake() for _ in range(CROWD)]
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    processes = []
    for handshake in handshakes:
        fd = handshake.server_write_fd()
        command = [sys.executable, "-c", ONE_OF_THE_CROWD, str(fd), str(EACH), loop]
        pipe = asyncio.subprocess.PIPE
        processes.append(await asyncio.create_subprocess_exec(*command, pass_fds=[fd], stdin=pipe))
        os.close(fd)
    with ReceiveRight.allocate(queue_limit=1) as port:
        for handshake in handshakes:
            with handshake:
                await handshake.check_in(port, Disposition.MAKE_SEND)
        assert await drain(port, CROWD) == [0] * CROWD
        for process in processes:
            process.stdin.close()
        received = await drain(port, CROWD * (EACH + 1))
        for process in processes:
            assert await process.wait() == 0
    slept = sum(number for number in received if number != 1)
    assert slept < 2 * CROWD * EACH  # once for a message, and seldom more


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_who_leaves_in_vain_passes_his_turn_on(how, port, send, monkeypatch):
    passed = []
    monkeypatch.setattr(_ffi, "pass_room", passed.append)
    fill(send, port)
    timeout = 0.02 if how == "timeout" else 20
    gone = [await start(send.send(Message(number), timeout)) for number in (10, 11)]
    stay = await start(send.send(Message(12), 20))
    if how == "cancel":
        for task in gone:
            task.cancel()
    await asyncio.wait(gone)
    assert not passed  # the next who waits is of this task
    assert await drain(port, 6) == [*range(5), 12]
    await stay
    assert not passed
    fill(send, port)
    last = await start(send.send(Message(13), timeout))
    if how == "cancel":
        last.cancel()
    await asyncio.wait([last])
    assert passed == [send.name]


def test_a_message_that_would_block_may_be_sent_again(port, send):
    fill(send, port)
    with ReceiveRight.allocate() as carried:
        message = Message(9, rights=[(carried, Disposition.MAKE_SEND)])
        for _ in range(3):
            with pytest.raises(machio.WouldBlock):
                send.send_nowait(message)
            assert carried.status.has_send_rights == 0
        port.receive_nowait()
        send.send_nowait(message)
        assert carried.status.has_send_rights == 1
        for number in (1, 2, 3, 4, 9):
            with port.receive_nowait() as received:
                assert received.id == number
