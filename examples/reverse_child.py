"""The child of reverse_parent.py: a service whose send right goes to the parent, and nobody else.

It is the handshake's client. It keeps the receive right; MAKE_SEND makes the send right that
travels.
"""

from __future__ import annotations

import asyncio
import os
import sys

import machio

UPPER, QUIT = 1, 2


def say(text: str) -> None:
    print(f"child {os.getpid()}: {text}", flush=True)


async def main(fd: int) -> None:
    with machio.ReceiveRight.allocate() as port:
        say("I made a service and check in with a send right to it")
        await machio.check_in_fd(fd, port, machio.Disposition.MAKE_SEND)
        while True:
            # Leaving the block releases what rights are left in the message.
            with await port.receive() as request:
                if request.id == QUIT:
                    break
                if request.id == UPPER and isinstance(request.reply, machio.SendOnceRight):
                    say(f"I answer a call of {len(request.body)} bytes; the reply right is used up")
                    request.reply.send(machio.Message(UPPER, request.body.upper()))
                    assert request.reply.closed
    say("asked to quit")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("reverse_child.py is started by reverse_parent.py: run that one")
    try:
        asyncio.run(main(int(sys.argv[1])))
    except machio.MachioError as error:
        sys.exit(f"child {os.getpid()}: {error}")  # the parent is gone, for one
    except KeyboardInterrupt:
        sys.exit(130)
