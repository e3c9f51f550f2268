"""A crash watcher: children give it their task ports, and it tells how each of them ended.

Run it: ``python crash_watcher.py``. It starts four children, which end in four ways.

A task port stands for a process, whoever started it. All are watched together: a Supervisor is one
async iterator over what becomes of many rights. The reason is the exit status, which the system
gives to the parent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import machio

ENDS: dict[str, Callable[[], None]] = {
    "fine": lambda: sys.exit(0),
    "unhappy": lambda: sys.exit(3),
    "shot": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "asked to": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


async def start(how: str) -> tuple[asyncio.subprocess.Process, machio.SendRight]:
    """Start a child; return it, and its task port."""
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(fd), how, pass_fds=[fd], stdin=asyncio.subprocess.PIPE
            )
        finally:
            os.close(fd)
        task = await handshake.serve(machio.PortRightType.SEND, timeout=30)
    assert isinstance(task, machio.SendRight)
    # The kernel's word, not the child's.
    assert machio.pid_for_task(task) == child.pid
    return child, task


async def be_a_child(fd: int) -> None:
    with machio.task_self() as task:
        await machio.check_in_fd(fd, task, machio.Disposition.COPY_SEND)
    sys.stdin.read()  # a task that ends at once may be gone before its port arrives


async def main() -> None:
    living = {}
    async with machio.Supervisor() as supervisor:
        for how in ENDS:
            child, task = await start(how)
            living[how] = task
            supervisor.died(task, label=(how, child))
            assert child.stdin is not None
            child.stdin.close()  # go on, to your end
        print(f"watching {len(living)} processes", flush=True)
        async for event in supervisor:
            how, child = event.label
            print(f"pid {child.pid} is gone, {how}: {reason(await child.wait())}", flush=True)
            living.pop(how).close()
            if not living:
                break


def reason(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(be_a_child(int(sys.argv[1])))
        ENDS[sys.argv[2]]()
    asyncio.run(main())
