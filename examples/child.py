"""The child of parent.py: receives a receive right, then the messages of its port.

It is the handshake's server: `serve_fd` writes a secret and a service name into the inherited pipe
and waits for the one process that can read them.
"""

from __future__ import annotations

import asyncio
import os
import sys

import machio

WORK, GOODBYE = 1, 2


def say(text: str) -> None:
    print(f"child {os.getpid()}: {text}", flush=True)


async def main(fd: int) -> None:
    say("I offer the handshake and wait for a receive right")
    port = await machio.serve_fd(fd, machio.PortRightType.RECEIVE)  # that, or an exception
    say("I hold the receive right")
    with port:
        while True:
            with await port.receive() as message:
                if message.id == GOODBYE:
                    break
                # The sender is what the kernel says, not what the message says.
                sender = message.sender.pid if message.sender else None
                say(f"received {message.body.rstrip(bytes(1)).decode()!r} from pid {sender}")
    say("goodbye received")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("child.py is started by parent.py: run that one")
    try:
        asyncio.run(main(int(sys.argv[1])))
    except machio.MachioError as error:
        sys.exit(f"child {os.getpid()}: {error}")  # the parent is gone, for one
    except KeyboardInterrupt:
        sys.exit(130)
