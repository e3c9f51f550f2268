"""A live service is replaced by its successor under load: not one request is lost or run twice.

Run it: ``python handover.py``. It starts a first server, many callers, and every now and then the
next server, to whom the one before hands its port over. At the end the requests are counted.

The receive right moves, and the queue with it. What the old server has taken it answers; all else
is answered by the new one. The callers hold a send right to the port and notice nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter

import machio
from machio import mig

CALLERS, REQUESTS, SERVERS = 20, 100, 5


class Worker(mig.Subsystem, base=9000):
    """Work, and the change of the guard."""

    def __init__(self, service: machio.Service) -> None:
        self.service = service

    @mig.routine
    async def work(self, number: mig.uint32) -> mig.int32:
        """Do the job with a number; return the pid of who did it."""
        await asyncio.sleep(0.002)
        print(number, flush=True)  # the record of what was done
        return os.getpid()

    @mig.routine
    async def hand_over(self, successor: mig.MoveSend) -> None:
        """Give the service's port to a successor, by a right to its mailbox."""

        async def give(port: machio.ReceiveRight) -> None:
            await successor.send(machio.Message(1, rights=[port]))

        with successor:
            await self.service.hand_over(give)


async def serve(fd: int) -> None:
    """Be a server: give the parent a right to a mailbox, and serve the port that comes there."""
    with machio.ReceiveRight.allocate() as mailbox:
        await machio.check_in_fd(fd, mailbox, machio.Disposition.MAKE_SEND)
        (port,) = (await mailbox.receive()).rights
    async with machio.Service(port, concurrency=8) as service:
        service.add(Worker(service))
        await service.serve()


async def start_server() -> tuple[asyncio.subprocess.Process, machio.SendRight]:
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(fd), pass_fds=[fd], stdout=asyncio.subprocess.PIPE
            )
        finally:
            os.close(fd)
        mailbox = await handshake.serve(machio.PortRightType.SEND)
    assert isinstance(mailbox, machio.SendRight)
    return process, mailbox


async def main() -> None:
    port = machio.ReceiveRight.allocate()
    with port.make_send() as right:
        worker = Worker.client(right, timeout=60)
        answers: Counter[int] = Counter()

        async def caller(index: int) -> None:
            for number in range(index * REQUESTS, (index + 1) * REQUESTS):
                answers[await worker.work(number)] += 1

        server, mailbox = await start_server()
        with mailbox:
            await mailbox.send(machio.Message(1, rights=[port]))
        servers = [server]
        records = [asyncio.create_task(server.communicate())]
        load = asyncio.gather(*map(caller, range(CALLERS)))
        while len(servers) < SERVERS:
            server, mailbox = await start_server()
            await worker.hand_over(mailbox)
            servers.append(server)
            records.append(asyncio.create_task(server.communicate()))
        await load
    # With the last send right gone nobody can ask any more; the last server need not stay.
    servers[-1].terminate()
    done = b"".join([out for out, _ in await asyncio.gather(*records)])
    numbers = [int(line) for line in done.split()]
    asked = CALLERS * REQUESTS
    print(f"{asked} requests, {answers.total()} answers, {len(numbers)} runs")
    lost, twice = asked - len(set(numbers)), len(numbers) - len(set(numbers))
    print(f"lost: {lost}, twice: {twice}")
    print("servers that answered:", len(answers), "of", len(servers))
    print("the former servers ended with", {server.returncode for server in servers[:-1]})


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])) if sys.argv[1:] else main())
