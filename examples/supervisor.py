"""A supervisor: workers that die are replaced, and the jobs that died with them are done again.

Run it: ``python supervisor.py``. Every fourth job kills the worker that meets it first.

Two notifications tell all that there is to know. A worker's right becomes a dead name when it dies.
And with each job goes a send-once right for the answer: it is used once, or else the system tells
that it was dropped, so that no job can be lost without a word. The workers need no signal to leave:
each is told that nobody can send to it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import NamedTuple

import machio

JOBS, WORKERS = 12, 3


# --- a worker -------------------------------------------------------------------------------------


async def work(inbox: machio.ReceiveRight) -> None:
    async for job in inbox:
        number, attempt = job.body[:2]
        if number % 4 == 0 and attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        job.reply.send(machio.Message(job.id, bytes([number * number % 256])))


async def be_a_worker() -> None:
    with machio.ReceiveRight.allocate() as inbox:
        await machio.parent.check_in(inbox, machio.Disposition.MAKE_SEND)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work(inbox))
            await inbox.no_senders()
            working.cancel()


# --- the supervisor -------------------------------------------------------------------------------


class Worker(NamedTuple):
    """A process and the right to send it jobs."""

    child: machio.Child
    right: machio.SendRight


async def start(stack: contextlib.AsyncExitStack) -> Worker:
    """Start a worker and take the right that it checks in; the stack ends both."""
    child = await stack.enter_async_context(machio.spawn([sys.executable, __file__, "work"]))
    right = await child.receive_right(timeout=30)
    assert isinstance(right, machio.SendRight)
    return Worker(child, stack.enter_context(right))


async def main() -> None:
    todo = [(number, 1) for number in range(JOBS)]
    done: dict[int, int] = {}
    workers: set[Worker] = set()
    idle: list[Worker] = []
    async with contextlib.AsyncExitStack() as stack, machio.Supervisor() as supervisor:
        while len(done) < JOBS:
            while len(workers) < WORKERS:
                worker = await start(stack)
                workers.add(worker)
                idle.append(worker)
                supervisor.died(worker.right, label=worker)
            while todo and idle:
                worker, (number, attempt) = idle.pop(), todo.pop(0)
                reply = supervisor.dropped(label=(worker, number, attempt))
                try:
                    await worker.right.send(
                        machio.Message(1, bytes([number, attempt]), reply=reply)
                    )
                except machio.DeadDestinationError:
                    reply.close()  # which is told as any loss

            event = await anext(supervisor)
            if event.kind is machio.NotificationId.DEAD_NAME:
                worker = event.label
                workers.remove(worker)
                if worker in idle:
                    idle.remove(worker)
                status = await worker.child.wait()
                print(f"worker {worker.child.pid} ended with {status}", flush=True)
                continue
            worker, number, attempt = event.label
            if event.value is None:
                print(f"job {number} was lost with worker {worker.child.pid}", flush=True)
                todo.insert(0, (number, attempt + 1))
            else:
                done[number] = event.value.body[0]
                idle.append(worker)
        print(f"{len(done)} jobs are done:", [done[number] for number in sorted(done)])
        for worker in workers:
            worker.right.close()
        print("the others ended with", {await worker.child.wait() for worker in workers})


if __name__ == "__main__":
    asyncio.run(be_a_worker() if sys.argv[1:] else main())
