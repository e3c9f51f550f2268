"""One process of a measurement. The first starts the second and prints what it measured, as JSON.

    python worker.py ask|drain CONTENDER LOOP COUNT
    python worker.py echo|pour CONTENDER LOOP COUNT FD

A contender is named by file and class, "floors.Floor".
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contender import Contender, Missing

BATCH = 50  # messages one way that are timed together
PARTNER = {"ask": "echo", "drain": "pour"}


def find(name: str) -> Contender:
    """Return a contender by name."""
    module, _, attribute = name.partition(".")
    contender: Contender = getattr(importlib.import_module(module), attribute)()
    return contender


class Meter:
    """Counts trips, and the CPU time of both processes from the end of the warm-up on."""

    def __init__(self, partner: int, warm_up: int) -> None:
        self.warm_up = warm_up
        self.usage = Path(f"/proc/{partner}/schedstat")
        self.cpu = 0

    def read(self) -> int:
        """Return the nanoseconds that both processes have run."""
        return int(self.usage.read_text().split()[0]) + time.process_time_ns()

    def trips(self, count: int) -> Iterator[int]:
        """Yield once for each trip, warm-up included."""
        yield from range(self.warm_up)
        before = self.read()
        yield from range(1, count)
        self.cpu = (self.read() - before) // count
        yield count


def run(job: str, contender: Contender, loop: str, part: object, trips: Any) -> list[int] | None:
    """Do one process's part of a job on a new event loop."""
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=factory) as runner:
        work = getattr(contender, job)(part, trips)
        result: list[int] | None = runner.run(work)
    return result


def lead(job: str, name: str, loop: str, count: int) -> dict[str, float]:
    """Run the first process's part, the second process being started; return the figures."""
    contender = find(name)
    part, fd = contender.prepare()
    command = [sys.executable, __file__, PARTNER[job], name, loop, str(count), str(fd)]
    partner = subprocess.Popen(command, pass_fds=[fd])
    os.close(fd)
    meter = Meter(partner.pid, contender.warm_up)
    times = run(job, contender, loop, part, meter.trips(count))
    if partner.wait() or times is None:
        sys.exit(f"the second process of {name} failed")
    times = times[contender.warm_up :]
    if job == "drain":
        ends = times[::BATCH]
        times = [(end - start) // BATCH for start, end in itertools.pairwise(ends)]
    times.sort()
    return {
        "median": statistics.median(times),
        "p99": times[len(times) * 99 // 100],
        "cpu": meter.cpu,
    }


def main() -> None:
    """Run what the command line says."""
    job, name, loop, count, *rest = sys.argv[1:]
    if rest:
        contender = find(name)
        run(job, contender, loop, int(rest[0]), int(count) + contender.warm_up)
        return
    try:
        print(json.dumps(lead(job, name, loop, int(count))))
    except Missing as reason:
        print(json.dumps({"missing": str(reason)}))


if __name__ == "__main__":
    main()
