"""A live service is replaced by its successor under load: not one request is lost or run twice.

Run it: ``python handover.py``. It starts a first server, many callers, and every now and then the
next server: the one before hands the port over to the parent, and the parent to the next. At the
end the requests are counted.

The receive right moves, and the queue with it. What the old server has taken it answers; all else
is answered by the new one. The callers hold a send right to the port and notice nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter

import machio
from machio import PortRightType, mig

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

    @mig.simpleroutine
    async def retire(self) -> None:
        """Hand the port over to the parent, and answer only what was taken before."""
        await self.service.hand_over(machio.parent.check_in)


async def serve() -> None:
    """Be a server of the port that the parent gives."""
    port = await machio.parent.serve(PortRightType.RECEIVE)
    async with machio.Service(port, concurrency=8) as service:
        service.add(Worker(service))
        await service.serve()


async def main() -> None:
    command = [sys.executable, __file__, "serve"]
    port = machio.ReceiveRight.allocate()
    async with contextlib.AsyncExitStack() as stack:

        async def start() -> machio.Child:
            child = machio.spawn(command, stdout=asyncio.subprocess.PIPE)
            return await stack.enter_async_context(child)

        worker = Worker.client(stack.enter_context(port.make_send()), timeout=60)
        answers: Counter[int] = Counter()

        async def caller(index: int) -> None:
            for number in range(index * REQUESTS, (index + 1) * REQUESTS):
                answers[await worker.work(number)] += 1

        servers = [await start()]
        await servers[0].give(port)
        load = asyncio.gather(*map(caller, range(CALLERS)))
        while len(servers) < SERVERS:
            successor = await start()
            await worker.retire()
            await successor.give(await servers[-1].receive_right(PortRightType.RECEIVE))
            servers.append(successor)
        await load
        servers[-1].send_signal(signal.SIGTERM)
        done = b"".join([(await server.process.communicate())[0] for server in servers])

    numbers = [int(line) for line in done.split()]
    asked = CALLERS * REQUESTS
    print(f"{asked} requests, {answers.total()} answers, {len(numbers)} runs")
    lost, twice = asked - len(set(numbers)), len(numbers) - len(set(numbers))
    print(f"lost: {lost}, twice: {twice}")
    print("servers that answered:", len(answers), "of", len(servers))
    print("the former servers ended with", {server.returncode for server in servers[:-1]})


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] else main())
