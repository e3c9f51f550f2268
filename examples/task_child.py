"""The child of task_parent.py: gives its task port to the parent and waits to be killed."""

from __future__ import annotations

import asyncio
import os
import sys

import machio


def say(text: str) -> None:
    print(f"child {os.getpid()}: {text}", flush=True)


async def main(fd: int) -> None:
    say("I check in with my task port")
    with machio.task_self() as task:
        # A copy travels, this one stays.
        await machio.check_in_fd(fd, task, machio.Disposition.COPY_SEND)
    await asyncio.sleep(60)  # the parent ends this


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("task_child.py is started by task_parent.py: run that one")
    try:
        asyncio.run(main(int(sys.argv[1])))
    except machio.MachioError as error:
        sys.exit(f"child {os.getpid()}: {error}")  # the parent is gone, for one
    except KeyboardInterrupt:
        sys.exit(130)
