"""A child runs a service and gives its parent a send right to it; the parent calls the service.

Run it: ``python reverse_parent.py``. It starts reverse_child.py, or what is named instead:
``python reverse_parent.py build/examples/child`` has a child in C (c/child.c).

The parent is the handshake's server here: it waits for the right that the child checks in. Each
call carries a reply right, which is a send-once right: good for one answer and no more.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import machio

UPPER, QUIT = 1, 2


def say(text: str) -> None:
    print(f"parent {os.getpid()}: {text}", flush=True)


async def call(service: machio.SendRight, replies: machio.ReceiveRight, text: str) -> str:
    # A receive right as `reply` makes a fresh send-once right for this one message.
    await service.send(machio.Message(UPPER, text.encode(), reply=replies))
    with await replies.receive(timeout=10) as answer:
        return answer.body.rstrip(b"\0").decode()


async def main(program: list[str]) -> int:
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        try:
            child = await asyncio.create_subprocess_exec(*program, str(fd), pass_fds=[fd])
        finally:
            os.close(fd)
        try:
            say(f"I started child {child.pid} and wait for its check-in")
            service = await handshake.serve(machio.PortRightType.SEND)
            assert isinstance(service, machio.SendRight)
            say("I hold a send right to the child's service")
            with service, machio.ReceiveRight.allocate() as replies:
                for text in ("hello, child", "mach on every kernel"):
                    say(f"I call it: {text!r}")
                    say(f"it answers {await call(service, replies, text)!r}")
                await service.send(machio.Message(QUIT))
        except BaseException:
            if child.returncode is None:
                child.terminate()  # it may be waiting for us
            raise
        finally:
            status = await child.wait()
    say(f"the child ended with status {status}")
    return status


if __name__ == "__main__":
    ours = [sys.executable, str(Path(__file__).with_name("reverse_child.py"))]
    try:
        sys.exit(asyncio.run(main(sys.argv[1:] or ours)))
    except KeyboardInterrupt:
        sys.exit(130)
