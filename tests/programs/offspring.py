"""A child for `test_children.py`: ``python offspring.py ROLE LOOP``; its status tells the rest."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import LOOPS

import machio
from machio import Disposition, PortRightType, ReceiveRight

ROLES = {}


def role(play):
    ROLES[play.__name__] = play
    return play


@role
async def exchange() -> int:
    """Take receive rights and answer with send rights, until the parent leaves."""
    with ReceiveRight.allocate() as own:
        for number in range(3):
            with await machio.parent.serve(PortRightType.RECEIVE) as port:
                await machio.parent.check_in(own, Disposition.MAKE_SEND)
                with await own.receive() as message, await port.receive() as other:
                    assert (message.id, other.id) == (number, number)
    return 7


async def check_in() -> ReceiveRight:
    """Give the parent a send right, and return where it leads."""
    port = ReceiveRight.allocate()
    await machio.parent.check_in(port, Disposition.MAKE_SEND)
    return port


@role
async def heritage() -> int:
    """The variable and the socket are not for others."""
    fd = int(os.environ["MACHIO_PARENT_FD"])
    assert os.get_inheritable(fd)
    with await check_in() as port:
        assert "MACHIO_PARENT_FD" not in os.environ
        assert not os.get_inheritable(fd)
        await port.receive()
    return 0


@role
async def outlived() -> int:
    """End, and leave a process behind that has everything open."""
    fd = int(os.environ["MACHIO_PARENT_FD"])
    other = subprocess.Popen(["sleep", "600"], pass_fds=[fd])
    with await check_in() as port:
        await port.receive()
        print(other.pid, flush=True)
        os._exit(5)


@role
async def wrong() -> int:
    """Check in another right than is wanted."""
    with ReceiveRight.allocate() as port:
        await machio.parent.check_in(port)
    return 0


@role
async def deaf() -> int:
    """Do not end when asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with await check_in():
        while True:
            signal.pause()


@role
async def orphan() -> int:
    """Find that the parent does not want to talk any more."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with await check_in() as port:
        try:
            await machio.parent.serve()
        except machio.NoCheckInError:
            try:
                await machio.parent.check_in(port)
            except machio.ServerGoneError:
                return 0 if not port.closed else 2
    return 1


@role
async def dies_while_serving() -> int:
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGKILL)
    await machio.parent.serve()
    return 0


@role
async def dies_while_checking_in() -> int:
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGKILL)
    with ReceiveRight.allocate() as port:
        await machio.parent.check_in(port)
    return 0


@role
async def checks_in_and_dies() -> int:
    with await check_in() as port:
        await port.receive()
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
        status = runner.run(ROLES[sys.argv[1]]())
    sys.exit(status)
