"""A parent hands its child a receive right: from then on the child gets the port's messages.

Run it: ``python parent.py``. It starts child.py, which lies next to it.

The child is the handshake's server and the parent its client. The parent makes a port, queues one
message in it, gives the receive right away and goes on sending with the send right it kept. The
child finds all messages, the first one too: a queue moves with its receive right.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import machio

WORK, GOODBYE = 1, 2  # message ids; they mean what sender and receiver agree on


def say(text: str) -> None:
    print(f"parent {os.getpid()}: {text}", flush=True)


async def main() -> int:
    with machio.ReceiveRight.allocate() as port, port.make_send() as send:
        say("I made a port; one message waits in its queue already")
        await send.send(machio.Message(WORK, b"sent before the move"))

        with machio.ChildPortHandshake() as handshake:
            # The child gets the end of the pipe that a server writes to; our copy is closed, so
            # that the pipe ends with the child.
            fd = handshake.server_write_fd()
            try:
                program = str(Path(__file__).with_name("child.py"))
                child = await asyncio.create_subprocess_exec(
                    sys.executable, program, str(fd), pass_fds=[fd]
                )
            finally:
                os.close(fd)
            try:
                say(f"I started child {child.pid} and check in with the receive right")
                await handshake.check_in(port, machio.Disposition.MOVE_RECEIVE)
                # Moved: the object is empty now. Had check_in failed, the right were still here.
                assert port.closed
                say("the receive right is gone from here; I send to it")
                await send.send(machio.Message(WORK, b"sent after the move"))
                await send.send(machio.Message(GOODBYE))
            except BaseException:
                if child.returncode is None:
                    child.terminate()  # it may be waiting for us
                raise
            finally:
                status = await child.wait()
    say(f"the child ended with status {status}")
    return status


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
