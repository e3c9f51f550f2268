"""A child gives its parent its task port: who it is, and when it dies.

Run it: ``python task_parent.py``. It starts task_child.py.

A task port is a right that stands for a process. The pid behind it comes from the kernel, not from
the child's word. When the process is gone, however it went, the right becomes a dead name, and who
asked for it is told.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import machio


def say(text: str) -> None:
    print(f"parent {os.getpid()}: {text}", flush=True)


async def main() -> int:
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        try:
            program = str(Path(__file__).with_name("task_child.py"))
            child = await asyncio.create_subprocess_exec(
                sys.executable, program, str(fd), pass_fds=[fd]
            )
        finally:
            os.close(fd)
        try:
            task = await handshake.serve(machio.PortRightType.SEND)
            assert isinstance(task, machio.SendRight)
            with task:
                pid = machio.pid_for_task(task)
                say(f"I hold the task port of pid {pid}; the child that I started is {child.pid}")
                assert pid == child.pid
                watcher = asyncio.create_task(task.died())
                await asyncio.sleep(0)  # let it ask to be told
                say("I ask to be told of its death, and kill it with signal 9")
                child.kill()
                await asyncio.wait_for(watcher, timeout=10)
                assert task.is_dead
                say("a dead-name notification: the task is gone, my right is a dead name")
        except BaseException:
            if child.returncode is None:
                child.terminate()  # it may be waiting for us
            raise
        finally:
            status = await child.wait()
    say(f"the child's status is {status}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
