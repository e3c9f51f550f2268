"""A server that takes a service over by its mailbox, and hands it on to another's, for tests.

``python successor.py FD`` is one; `start` starts it.
"""

from __future__ import annotations

import asyncio
import os
import sys

import machio
from machio import mig


class Worker(mig.Subsystem, base=9000):
    def __init__(self, service):
        self.service = service

    @mig.routine
    async def work(self, number: mig.uint32) -> mig.int32:
        await asyncio.sleep(0.002)
        print(number, flush=True)  # the record of what was done
        return os.getpid()

    @mig.routine
    async def hand_over(self, successor: mig.MoveSend) -> None:
        async def give(port):
            await successor.send(machio.Message(1, rights=[port]))

        with successor:
            await self.service.hand_over(give)


async def serve(fd):
    with machio.ReceiveRight.allocate() as mailbox:
        await machio.check_in_fd(fd, mailbox, machio.Disposition.MAKE_SEND)
        (port,) = (await mailbox.receive()).rights
    async with machio.Service(port, concurrency=8) as service:
        service.add(Worker(service))
        await service.serve()


async def start():
    """Return the process, and a right to its mailbox."""
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(fd), pass_fds=[fd], stdout=asyncio.subprocess.PIPE
            )
        finally:
            os.close(fd)
        return process, await handshake.serve(machio.PortRightType.SEND)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
