"""A service: a name, a subsystem of routines, and what they do.

Run it: ``python echo_service.py``, and in another terminal ``python echo_client.py``. An interrupt
ends it, after it has answered what it had begun.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Annotated

import machio
from machio import mig

SERVICE = "org.machio.example.echo"

Text = Annotated[str, mig.CString(max=1024)]


class Echo(mig.Subsystem, base=7000):
    """Gives back what it is given."""

    @mig.routine
    def echo(self, text: Text, times: mig.uint32) -> Text:
        """Return the text so many times, at most 3."""
        if times > 3:
            raise machio.RoutineError(machio.KernCode.INVALID_VALUE)
        return " ".join([text] * times)

    @mig.routine
    def who_am_i(self) -> mig.int32:
        """Return the caller's pid, in the words of the kernel."""
        sender = machio.current_request().sender
        return sender.pid if sender else 0


def is_mine(sender: machio.Sender) -> bool:
    return sender.uid == os.getuid()


async def main() -> None:
    # At most 16 requests at a time, 5 seconds for each, and none from other users: in the words of
    # the kernel, again.
    async with machio.Service(SERVICE, concurrency=16, deadline=5, allow=is_mine) as service:
        service.add(Echo())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, service.stop)
        print("ready", flush=True)
        await service.serve()
    print("every request was answered", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
