"""A child gives its parent a send-once right: the parent can tell it one thing, once.

Run it: ``python once_parent.py``. It starts once_child.py.

A send-once right promises its maker exactly one message: the one that is sent with it, or, if its
holder drops it or dies, a notification from the system. The child is never left waiting.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import machio

VERDICT = 1


def say(text: str) -> None:
    print(f"parent {os.getpid()}: {text}", flush=True)


async def one_child(*, answer: bool) -> int:
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        try:
            program = str(Path(__file__).with_name("once_child.py"))
            child = await asyncio.create_subprocess_exec(
                sys.executable, program, str(fd), pass_fds=[fd]
            )
        finally:
            os.close(fd)
        try:
            right = await handshake.serve(machio.PortRightType.SEND_ONCE)
            assert isinstance(right, machio.SendOnceRight)
            with right:
                if answer:
                    say("I hold a send-once right and use it")
                    right.send(machio.Message(VERDICT, b"well done"))
                    assert right.closed  # used up: there is nothing to send a second time with
                else:
                    say("I hold a send-once right and drop it unused")
        except BaseException:
            if child.returncode is None:
                child.terminate()  # it may be waiting for us
            raise
        finally:
            status = await child.wait()
    return status


async def main() -> int:
    status = await one_child(answer=True)
    return status or await one_child(answer=False)


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
