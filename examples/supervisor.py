"""A supervisor: workers that die are replaced, and the jobs that died with them are done again.

Run it: ``python supervisor.py``. Every fourth job kills the worker that meets it first.

Two notifications tell all that there is to know. A worker's right becomes a dead name when it dies.
And with each job goes a send-once right for the answer: it is used once, or else the system tells
that it was dropped, so that no job can be lost without a word. The workers need no signal to leave:
each is told that nobody can send to it any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass

import machio

JOBS, WORKERS = 12, 3


# --- a worker -------------------------------------------------------------------------------------


async def work(inbox: machio.ReceiveRight) -> None:
    async for job in inbox:
        number, attempt = job.body[:2]
        if number % 4 == 0 and attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        job.reply.send(machio.Message(job.id, bytes([number * number % 256])))


async def be_a_worker(fd: int) -> None:
    with machio.ReceiveRight.allocate() as inbox:
        await machio.check_in_fd(fd, inbox, machio.Disposition.MAKE_SEND)
        async with asyncio.TaskGroup() as group:
            working = group.create_task(work(inbox))
            await inbox.no_senders()
            working.cancel()


# --- the supervisor -------------------------------------------------------------------------------


@dataclass(eq=False)
class Worker:
    """A process and the right to send it jobs."""

    process: asyncio.subprocess.Process
    right: machio.SendRight

    @classmethod
    async def start(cls) -> Worker:
        """Start one, and take the right that it checks in."""
        with machio.ChildPortHandshake() as handshake:
            fd = handshake.client_read_fd()
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, __file__, str(fd), pass_fds=[fd]
                )
            finally:
                os.close(fd)
            right = await handshake.serve(machio.PortRightType.SEND, timeout=30)
        assert isinstance(right, machio.SendRight)
        return cls(process, right)

    async def end(self) -> int:
        """Let it go; return its exit status."""
        self.right.close()
        return await self.process.wait()


async def main() -> None:
    todo = [(number, 1) for number in range(JOBS)]
    done: dict[int, int] = {}
    workers: set[Worker] = set()
    idle: list[Worker] = []
    async with machio.Supervisor() as supervisor:
        while len(done) < JOBS:
            while len(workers) < WORKERS:
                worker = await Worker.start()
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
                print(f"worker {worker.process.pid} ended with {await worker.end()}", flush=True)
                continue
            worker, number, attempt = event.label
            if event.value is None:
                print(f"job {number} was lost with worker {worker.process.pid}", flush=True)
                todo.insert(0, (number, attempt + 1))
            else:
                done[number] = event.value.body[0]
                idle.append(worker)
    print(f"{len(done)} jobs are done:", [done[number] for number in sorted(done)])
    print("the others ended with", {await worker.end() for worker in workers})


if __name__ == "__main__":
    asyncio.run(be_a_worker(int(sys.argv[1])) if sys.argv[1:] else main())
