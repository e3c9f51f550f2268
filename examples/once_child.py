"""The child of once_parent.py: gives a send-once right away and waits for what comes of it."""

from __future__ import annotations

import asyncio
import os
import sys

import machio


def say(text: str) -> None:
    print(f"child {os.getpid()}: {text}", flush=True)


async def main(fd: int) -> None:
    with machio.ReceiveRight.allocate() as port:
        say("I check in with a send-once right")
        await machio.check_in_fd(fd, port, machio.Disposition.MAKE_SEND_ONCE)
        with await port.receive() as message:
            # Any sender can write the number of a notification; only the system's is one.
            if message.is_notification and message.id == machio.NotificationId.SEND_ONCE:
                say("the system tells me that the right was dropped: no answer will come")
            else:
                say(f"the answer is {message.body.rstrip(bytes(1)).decode()!r}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("once_child.py is started by once_parent.py: run that one")
    try:
        asyncio.run(main(int(sys.argv[1])))
    except machio.MachioError as error:
        sys.exit(f"child {os.getpid()}: {error}")  # the parent is gone, for one
    except KeyboardInterrupt:
        sys.exit(130)
