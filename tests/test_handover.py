"""Handing a live service over under load, with ends and cancellations at awkward moments.

Whatever happens, no request is carried out twice, and each caller learns: an answer, or at once an
error. While the port lives, each request is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from common import leaked_fds, open_fds, rights_held

import machio
from machio import Message, ReceiveRight, Service, mig

sys.path.insert(0, str(Path(__file__).parent / "programs"))

import successor

CALLERS, REQUESTS = 8, 12
PATIENT = 150  # requests of each caller of processes: they go on throughout


class Job(mig.Subsystem, base=9100):
    def __init__(self, runs):
        self.runs = runs

    @mig.routine
    async def run(self, number: mig.uint32) -> mig.uint32:
        self.runs[number] += 1
        await asyncio.sleep(0)
        return number


async def succeed(mailbox, runs):
    """Be the successor, in the same process: take the port and serve it."""
    with await mailbox.receive() as message:
        (port,) = message.rights
        message.rights = ()
    async with Service(port, concurrency=3) as service:
        service.add(Job(runs))
        await service.serve()


@pytest.mark.parametrize("room", [True, False])
async def test_cancelled_at_any_moment(room):
    """The right has moved or it has not; either way one of the two services has it."""
    moved = Counter()
    for steps in range(24):
        runs, answers = Counter(), []
        port, mailbox = ReceiveRight.allocate(), ReceiveRight.allocate(queue_limit=1)
        with port.make_send() as send, mailbox, mailbox.make_send() as post:
            client = Job.client(send, timeout=30)

            async def caller(index, client=client, answers=answers):
                for number in range(index * REQUESTS, (index + 1) * REQUESTS):
                    answers.append(await client.run(number))

            async def give(port, post=post):
                await post.send(Message(1, rights=[port]))

            if not room:
                post.send_nowait(Message(0))
            async with Service(port, concurrency=3) as old:
                old.add(Job(runs))
                serving = asyncio.ensure_future(old.serve())
                load = asyncio.gather(*map(caller, range(CALLERS)))
                await asyncio.sleep(0)
                handing = asyncio.ensure_future(old.hand_over(give))
                for step in range(steps):
                    if step == 12 and not room:
                        mailbox.receive_nowait()
                    await asyncio.sleep(0)
                handing.cancel()
                await asyncio.wait([handing])
                if not room and steps <= 12:
                    mailbox.receive_nowait()
                # Who has the port now serves it.
                gone = mailbox.status.queued == 1
                successor = asyncio.ensure_future(succeed(mailbox, runs) if gone else _nothing())
                await asyncio.wait_for(load, 30)
                old.stop()
                await serving
            if gone:
                successor.cancel()
            await asyncio.wait([successor])
        moved[gone] += 1
        assert sorted(answers) == list(range(CALLERS * REQUESTS))
        assert set(runs.values()) == {1}
    assert moved[True]
    assert moved[False]


async def _nothing():
    pass


class Play:
    """Servers of programs/successor.py, and callers that keep them busy from here."""

    def __init__(self, send):
        self.worker = successor.Worker.client(send, timeout=30)
        self.answers, self.errors = Counter(), Counter()
        self.servers, self.records, self.mailboxes = [], [], []
        self.busy = asyncio.Event()

    async def start(self):
        server, mailbox = await successor.start()
        self.servers.append(server)
        self.records.append(asyncio.create_task(server.communicate()))
        self.mailboxes.append(mailbox)
        return server, mailbox

    async def call(self, index):
        for number in range(index * PATIENT, (index + 1) * PATIENT):
            try:
                await self.worker.work(number)
            except (machio.ServerDiedError, machio.DeadDestinationError):
                self.errors[number] += 1
            else:
                self.answers[number] += 1
                if len(self.answers) > 10:
                    self.busy.set()

    async def load(self):
        load = asyncio.gather(*map(self.call, range(CALLERS)))
        await self.busy.wait()
        return load

    async def end(self):
        """End the servers; return which requests were carried out, and how often."""
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
        done = b"".join([out for out, _ in await asyncio.gather(*self.records)])
        for mailbox in self.mailboxes:
            mailbox.close()
        return Counter(map(int, done.split()))


@contextlib.asynccontextmanager
async def play():
    """Yield a play whose first server has the port; see afterwards that all is accounted for."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(ReceiveRight.allocate())
        play = Play(stack.enter_context(port.make_send()))
        _, mailbox = await play.start()
        await mailbox.send(Message(1, rights=[port]))
        try:
            yield play
        finally:
            runs = await play.end()
    asked = set(range(CALLERS * PATIENT))
    assert play.answers.keys() | play.errors.keys() == asked
    assert play.answers.total() + play.errors.total() == len(asked)
    assert set(runs.values()) == {1}, "a request was carried out twice"
    assert play.answers.keys() <= runs.keys()


@pytest.fixture(autouse=True)
def _leaves_nothing(bootstrap_server):
    rights, fds = rights_held(), open_fds()
    yield
    assert len(rights_held()) <= len(rights)
    assert not [fd for fd in leaked_fds(fds) if "eventfd" not in fd]


async def test_the_old_server_is_killed_as_soon_as_it_has_handed_over():
    async with play() as it:
        _, mailbox = await it.start()
        load = await it.load()
        await it.worker.hand_over(mailbox)
        it.servers[0].kill()
        assert not load.done()
        await load
    # What it had taken ends at once; all else was answered by the other.
    assert len(it.errors) <= 8, "no more than it had at a time"


async def test_a_successor_that_is_dead_already():
    async with play() as it:
        server, mailbox = await it.start()
        load = await it.load()
        server.kill()
        await server.wait()
        with pytest.raises(machio.RoutineError, match="MIG_TYPE_ERROR"):  # a dead right
            await it.worker.hand_over(mailbox)
        assert not load.done()
        await load
    assert not it.errors


async def test_a_successor_that_dies_with_the_port_in_its_mailbox():
    async with play() as it:
        server, mailbox = await it.start()
        load = await it.load()
        server.send_signal(signal.SIGSTOP)  # it will not take the port
        await it.worker.hand_over(mailbox)
        server.kill()
        await asyncio.wait_for(load, 20)
    assert it.errors


async def test_a_successor_that_dies_at_work():
    """The port has gone on to a third server when the second is killed."""
    async with play() as it:
        _, second = await it.start()
        _, third = await it.start()
        load = await it.load()
        await it.worker.hand_over(second)
        await it.worker.hand_over(third)
        it.servers[1].kill()
        assert not load.done()
        await load
        assert await it.servers[0].wait() == 0
    assert len(it.errors) <= 8
