"""A crash watcher: children give it their task ports, and it tells how each of them ended.

Run it: ``python crash_watcher.py``. It starts four children, which end in four ways.

A task port stands for a process, whoever started it. All are watched together: a Supervisor is one
async iterator over what becomes of many rights. The reason is the exit status, which the system
gives to the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
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


async def be_a_child(how: str) -> None:
    with machio.task_self() as task:
        await machio.parent.check_in(task, machio.Disposition.COPY_SEND)
    sys.stdin.read()  # a task that ends at once may be gone before its port arrives
    ENDS[how]()


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack, machio.Supervisor() as supervisor:
        for how in ENDS:
            child = await stack.enter_async_context(
                machio.spawn([sys.executable, __file__, how], stdin=asyncio.subprocess.PIPE)
            )
            task = await child.receive_right()
            assert isinstance(task, machio.SendRight)
            assert machio.pid_for_task(task) == child.pid  # the kernel's word, not the child's
            supervisor.died(stack.enter_context(task), label=(how, child))
            assert child.process.stdin is not None
            child.process.stdin.close()  # go on, to your end
        print(f"watching {len(ENDS)} processes", flush=True)
        for _ in ENDS:
            event = await anext(supervisor)
            how, child = event.label
            print(f"pid {child.pid} is gone, {how}: {reason(await child.wait())}", flush=True)


def reason(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


if __name__ == "__main__":
    asyncio.run(be_a_child(sys.argv[1]) if sys.argv[1:] else main())
