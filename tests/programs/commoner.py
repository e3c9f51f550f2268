"""``python commoner.py UID LOOP CHILD``: becomes that user and spawns the child, with C inside."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import anyio._backends._asyncio  # noqa: F401 - now: another user may not be able to read this Python
from play import names

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import LOOPS, leaked_fds, open_fds

import machio


async def exchange(child_program: str) -> None:
    async with machio.spawn([child_program]) as child:
        with await child.receive_right(timeout=30) as right:
            await right.send(machio.Message(42))
        assert await child.wait() == 42
    async with machio.spawn([child_program]) as child:
        pass
    assert child.returncode == -15


def main() -> None:
    user = int(sys.argv[1])
    if os.getuid() != user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    with names(), asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
        runner.run(exchange(sys.argv[3]))
        before = open_fds()
        runner.run(exchange(sys.argv[3]))
        assert not leaked_fds(before)


if __name__ == "__main__":
    main()
