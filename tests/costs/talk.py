"""Two tasks of one loop send each other messages and wait for them, for `test_costs.py`.

    python talk.py syscalls COUNT   between two SIGUSR1, for count.c
    python talk.py calls COUNT      prints how many functions were called, those in C included

COUNT round trips. In one process, so that it goes the same way each time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from machio import Message, ReceiveRight

BODY = bytes(64)
WARM_UP = 20


async def main(what: str, count: int) -> None:
    """Make round trips, counted."""
    with (
        ReceiveRight.allocate() as here,
        ReceiveRight.allocate() as there,
        here.make_send() as to_here,
        there.make_send() as to_there,
    ):

        async def answer() -> None:
            while True:
                message = await there.receive()
                await to_here.send(Message(1, message.body))

        async def ask(trips: int) -> None:
            for _ in range(trips):
                await to_there.send(Message(1, BODY))
                await here.receive()

        answering = asyncio.create_task(answer())
        await ask(WARM_UP)
        if what == "syscalls":
            os.kill(os.getpid(), signal.SIGUSR1)
            await ask(count)
            os.kill(os.getpid(), signal.SIGUSR1)
        else:
            calls = 0

            def profile(frame: object, event: str, argument: object) -> None:
                nonlocal calls
                calls += event in ("call", "c_call")

            sys.setprofile(profile)
            await ask(count)
            sys.setprofile(None)
            print(calls)
        answering.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
