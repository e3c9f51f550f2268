"""Prints the bytes of a process's own while tasks wait on ports, for `test_costs.py`.

python waiting.py PORTS
"""

import asyncio
import sys
from pathlib import Path

from machio import ReceiveRight


def private_memory() -> int:
    """Return the bytes that this process has written to and that no other process has."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise LookupError("Private_Dirty")


async def main(count: int) -> None:
    """Wait on so many ports, a task each, and measure meanwhile."""
    ports = [ReceiveRight.allocate() for _ in range(count)]
    tasks = [asyncio.ensure_future(port.receive()) for port in ports]
    await asyncio.sleep(0)  # each has begun
    print(private_memory())
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for port in ports:
        port.close()


asyncio.run(main(int(sys.argv[1])))
