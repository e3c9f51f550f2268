"""What machio is for, item by item, between two processes: ``python items.py ITEM LOOP``.

`here` is played by `test_two_processes.py`, `there` by this program, which that starts; each has a
port of its own and a send right to the other's. Both play several rounds, and what they hold after
the last must be what they held after the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import anyio
import pytest
from common import LOOPS, mapped, open_fds, rights_held, wait_in_vain

import machio
from machio import Disposition, Memory, Message, PortRightType, PortSet, ReceiveRight, Service, mig

ROUNDS = 5
PATIENCE = 20
ITEMS = {}


def item(cls):
    ITEMS[cls.__name__] = cls
    return cls


@item
class Calls:
    """Many at a time, each with its own answer; one is dropped."""

    async def here(child, port, peer):
        calls = [peer.call(Message(number), PATIENCE) for number in range(6)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers.pop(4), machio.ServerDiedError)
        assert [answer.id for answer in answers] == [100, 101, 102, 103, 105]

    async def there(port, peer):
        requests = [await port.receive() for _ in range(6)]
        for request in reversed(requests):
            with request:
                if request.id != 4:
                    request.reply.send(Message(request.id + 100))


class Account(mig.Subsystem, base=5000):
    def __init__(self):
        self.taken = asyncio.Event()

    @mig.routine
    async def sender(self) -> mig.int32:
        return machio.current_request().sender.pid

    @mig.routine
    async def reverse(self, text: Annotated[str, mig.CString(max=64)]) -> mig.MoveSend:
        """Answer by a message to the right that comes."""
        with ReceiveRight.allocate() as port:
            send = port.make_send()
            send.send_nowait(Message(1, text[::-1].encode()))
            await machio.parent.check_in(port)
        return send

    @mig.routine
    async def fail(self, code: mig.int32) -> mig.int32:
        if code:
            raise machio.RoutineError(code)
        raise LookupError("on purpose")

    @mig.simpleroutine
    async def end(self) -> None:
        self.taken.set()


@item
class Services:
    """Typed routines, their errors, and who calls."""

    async def here(child, port, peer):
        account = Account.client(peer, timeout=PATIENCE)
        assert await account.sender() == os.getpid()
        send, inbox = await asyncio.gather(
            account.reverse("abc"), child.receive_right(PortRightType.RECEIVE)
        )
        with send, inbox, inbox.receive_nowait() as message:
            assert message.body.rstrip(b"\0") == b"cba"
        for code, error in ((5, 5), (0, machio.MigCode.EXCEPTION)):
            with pytest.raises(machio.RoutineError) as caught:
                await account.fail(code)
            assert caught.value.number == error
        await account.end()

    async def there(port, peer):
        account = Account()
        logging = machio.service._log
        logging.disabled = True  # of the failure on purpose
        async with Service(port, allow=lambda sender: sender.pid == os.getppid()) as service:
            service.add(account)
            serving = asyncio.ensure_future(service.serve())
            await account.taken.wait()
            service.stop()
            await serving


@item
class Notifications:
    """A death, the end of senders, a dropped and a used right, room: the other side does it."""

    async def here(child, port, peer):
        home, asked = ReceiveRight.allocate(), ReceiveRight.allocate()
        async with machio.Supervisor() as supervisor:
            with home, asked:
                kept = supervisor.dropped("used"), supervisor.dropped("lost")
                rights = [(home, Disposition.MAKE_SEND), *kept]
                supervisor.no_senders(home, "senders")
                await peer.send(Message(1, rights=rights))
                with await port.receive() as message:
                    mortal, full = message.rights
                    supervisor.died(mortal, "mortal")
                    while True:
                        try:
                            full.send_nowait(Message(0))
                        except machio.WouldBlock:
                            break
                    supervisor.send_possible(full, "room")
                    cancelled = asyncio.ensure_future(mortal.died())
                    await asyncio.sleep(0)
                    cancelled.cancel()
                    await peer.send(Message(2))
                    told = {}
                    for _ in range(5):
                        event = await anext(supervisor)
                        told[event.label] = event.value
                assert told.keys() == {"senders", "used", "lost", "mortal", "room"}
                assert told["used"].id == 77
                assert told["lost"] is None
        await peer.send(Message(3))

    async def there(port, peer):
        with ReceiveRight.allocate() as mortal, ReceiveRight.allocate() as full:
            with await port.receive() as message:
                send, used, lost = message.rights
                made = [(one, Disposition.MAKE_SEND) for one in (mortal, full)]
                await peer.send(Message(1, rights=made))
                (await port.receive()).close()
                used.send(Message(77))
                lost.close()
                send.close()
            mortal.close()
            full.receive_nowait().close()
            (await port.receive()).close()


@item
class PortSets:
    """All members are heard, one that joins later as well, each in its own order."""

    async def here(child, port, peer):
        with PortSet.allocate() as ports, contextlib.ExitStack() as stack:
            members = [stack.enter_context(ReceiveRight.allocate(2)) for _ in range(3)]
            for member in members[:2]:
                ports.add(member)
            rights = [(member, Disposition.MAKE_SEND) for member in members]
            await peer.send(Message(1, rights=rights))
            heard = {member: [] for member in members}
            async for member, message in ports:
                heard[member].append(message.id)
                total = sum(map(len, heard.values()))
                if total == 4:
                    ports.add(members[2])
                if total == 30:
                    break
            assert all(ids == list(range(10)) for ids in heard.values())

    async def there(port, peer):
        with await port.receive() as message:

            async def say(right):
                for number in range(10):
                    await right.send(Message(number))

            await asyncio.gather(*map(say, message.rights))


@item
class FilePorts:
    """A pipe's end travels there, is written to, and comes back."""

    async def here(child, port, peer):
        reader, writer = os.pipe()
        with open(reader, "rb", buffering=0) as out, open(writer, "wb", buffering=0) as end:  # noqa: PTH123
            await child.give(machio.fileport_makeport(end))
            end.close()
            with await port.receive() as message:
                assert out.read(10) == b"there"
                with open(machio.fileport_makefd(message.rights[0]), "wb", buffering=0) as again:  # noqa: PTH123
                    again.write(b"here")
            (await port.receive()).close()
            os.set_blocking(reader, False)
            assert out.read(10) == b"here"
            assert await soon(lambda: out.read(10) == b""), "somebody has the pipe still"

    async def there(port, peer):
        with await machio.parent.serve() as right:
            fd = machio.fileport_makefd(right)
            os.write(fd, b"there")
            os.close(fd)
            await peer.send(Message(1, rights=[right]))
        await peer.send(Message(2))


@item
class BigPayloads:
    """Memory goes there and comes back; what each side writes is its own."""

    async def here(child, port, peer):
        memory = Memory(1 << 20)
        with memory.view as view:
            view[:4] = b"abcd"
        await peer.send(Message(1, b"body", memory=[memory, b"copied"]))
        with await port.receive() as message:
            (memory,) = message.memory
            assert bytes(memory.view[:4]) == b"Abcd"
            memory.view[1:2] = b"B"

    async def there(port, peer):
        with await port.receive() as message:
            memory, copied = message.memory
            assert (len(memory), bytes(copied)) == (1 << 20, b"copied")
            memory.view[0:1] = b"A"
            message.memory = [copied]
            await peer.send(Message(2, memory=[memory]))


@item
class Peers:
    """Who sent a message, and whose task port it is."""

    async def here(child, port, peer):
        with await port.receive() as message:
            (task,) = message.rights
            sender = message.sender
            assert sender.pid == machio.pid_for_task(task) == child.pid
            assert (sender.uid, sender.gid) == (os.geteuid(), os.getegid())
            assert not task.is_dead
            dying = asyncio.ensure_future(task.died())
            await asyncio.sleep(0)
            dying.cancel()
        await peer.send(Message(1))

    async def there(port, peer):
        with machio.task_self() as task:
            await peer.send(Message(1, rights=[(task, Disposition.COPY_SEND)]))
        with await port.receive() as message:
            assert message.sender.pid == os.getppid()


@item
class BackPressure:
    """Who sends waits for room, in order; who does not want to wait is told."""

    async def here(child, port, peer):
        with ReceiveRight.allocate(queue_limit=2) as narrow:
            await peer.send(Message(1, rights=[(narrow, Disposition.MAKE_SEND)]))
            (await port.receive()).close()
            assert [(await narrow.receive()).id for _ in range(20)] == list(range(20))
            await narrow.no_senders()

    async def there(port, peer):
        with await port.receive() as message:
            (send,) = message.rights
            sends = [asyncio.ensure_future(send.send(Message(number))) for number in range(20)]
            given_up = asyncio.ensure_future(send.send(Message(99)))
            await asyncio.sleep(0)
            try:
                send.send_nowait(Message(98))
            except machio.WouldBlock:
                given_up.cancel()
                await peer.send(Message(1))
            await asyncio.gather(*sends)


@item
class AnyIO:
    """Rights are object streams; a scope that is cancelled loses no message."""

    async def here(child, port, peer):
        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(peer.send, Message(number))
        with await port.receive() as message:
            assert message.id == 45

    async def there(port, peer):
        total = count = 0
        while count < 10:
            with anyio.move_on_after(0):
                total += (await port.receive()).id
                count += 1
            await anyio.lowlevel.checkpoint()
        await peer.send(Message(total))


@item
class Watching:
    """Both sides see the same messages; who sent them is known where they arrive."""

    async def here(child, port, peer):
        traces = []
        with machio.trace(traces.append):
            await peer.send(Message(901, b"four", memory=[b"large"]))
            (await port.receive()).close()
        sent, received = (one for one in traces if one.id > 900)
        assert (sent.direction, sent.memory, sent.sender) == ("sent", 5, None)
        assert (received.id, received.sender.pid) == (902, child.pid)

    async def there(port, peer):
        traces = []
        with machio.trace(traces.append):
            (await port.receive()).close()
            await peer.send(Message(902))
        received, sent = (one for one in traces if one.id > 900)
        assert (received.body, received.memory, received.sender.pid) == (b"four", 5, os.getppid())
        assert (sent.direction, sent.id) == ("sent", 902)


class Job(mig.Subsystem, base=9100):
    @mig.routine
    async def run(self, number: mig.uint32) -> mig.int32:
        await asyncio.sleep(0)
        return os.getpid()


@item
class Handover:
    """A service goes there under load, and comes back: each request is answered once."""

    async def here(child, port, peer):
        live = ReceiveRight.allocate()
        with live.make_send() as send:
            client = Job.client(send, timeout=PATIENCE)
            answers = []

            async def call(times):
                answers.extend([await client.run(number) for number in range(times)])

            async with Service(live) as service:
                service.add(Job())
                serving = asyncio.ensure_future(service.serve())
                load = asyncio.gather(*(call(20) for _ in range(5)))
                await asyncio.sleep(0)
                await service.hand_over(child.give)
                await serving
            await load
            await call(1)
            assert answers[-1] == child.pid
            await peer.send(Message(1))
            back = await child.receive_right(PortRightType.RECEIVE)
            async with Service(back) as service:
                service.add(Job())
                serving = asyncio.ensure_future(service.serve())
                await call(1)
                service.stop()
                await serving
            assert answers[-1] == os.getpid()
            assert len(answers) == 102

    async def there(port, peer):
        async with Service(await machio.parent.serve(PortRightType.RECEIVE)) as service:
            service.add(Job())
            serving = asyncio.ensure_future(service.serve())
            (await port.receive()).close()
            await service.hand_over(machio.parent.check_in)
            await serving


# --- both sides -------------------------------------------------------------------------------


async def soon(is_so):
    """Wait until something is so that others are about to do; False if it never is."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def held():
    """Count files, rights and pieces of memory of this process."""
    gc.collect()
    # The timer of those who wait for room stays, and which round is the first to need it may vary.
    files = [what for what in open_fds().values() if "timerfd" not in what]
    return len(files), len(rights_held()), len(mapped())


async def play(rounds):
    """Play rounds; tell what is held at the end and was not after the first, if anything."""
    await wait_in_vain()
    before = None
    for _ in range(ROUNDS):
        await anext(rounds)
        before = before or held()
    await rounds.aclose()
    if await soon(lambda: all(now <= then for now, then in zip(held(), before, strict=True))):
        return ""
    return f"files, rights, memory: {before}, then {held()}"


async def rounds_here(name, child):
    while True:
        with ReceiveRight.allocate() as port:
            await child.give((port, Disposition.MAKE_SEND))
            with await child.receive_right() as peer:
                await ITEMS[name].here(child, port, peer)
        yield


async def rounds_there(name):
    while True:
        with ReceiveRight.allocate() as port, await machio.parent.serve() as peer:
            await machio.parent.check_in(port, Disposition.MAKE_SEND)
            await ITEMS[name].there(port, peer)
        yield


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
        sys.exit(runner.run(play(rounds_there(sys.argv[1]))) or 0)
