"""One process of a measurement. The first starts the others and prints what it measured, as JSON.

    python worker.py JOB CONTENDER LOOP SECONDS        JOB: ask, drain, crowd, serve, hold, last
    python worker.py echo|pour|stamp CONTENDER LOOP FD

A contender is named by file, class and size: "ours.Idle:100". LOOP is asyncio or uvloop.

- ask: round trips, one after the other
- drain: messages one way, which the other process sends as fast as it goes
- crowd: the same from `size` processes, each message with the time at which its sending began
- serve: calls of `size` clients, which are processes in C
- hold: memory of this process and of the system for each of `size` things that wait
- last: so many round trips, in place of seconds of them, of which no times are kept
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from contender import BYTES, SIZE, Contender, Missing, Uncounted, now
from usage import memory_taken, open_files, private_memory

BATCH = 50  # messages one way that are timed together
LEAST = 3  # trips, however long they take
STAMP = struct.Struct(f"=QI{SIZE - 12}x")  # when it was made, the pid of who made it

Figures = dict[str, float]
Partners = list[subprocess.Popen[bytes]]


def find(name: str) -> Contender:
    """Return a contender by name."""
    where, _, size = name.partition(":")
    module, _, attribute = where.partition(".")
    contender: Contender = getattr(importlib.import_module(module), attribute)(int(size or 1))
    return contender


class Meter:
    """Makes trips for so many seconds, and notes how long each took; kills the partners then.

    warm_up: how many trips go before and do not count; more of them do until it is `ready`.
    """

    def __init__(
        self,
        seconds: float,
        warm_up: int,
        partners: Partners,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.times: list[int] = []
        self.cpu = 0
        self._length = int(seconds * 1e9)
        self._warm_up = warm_up
        self._partners = partners
        self._ready = ready
        self._over = 0

    def __iter__(self) -> Iterator[int]:
        yield from range(self._warm_up)
        while not self._ready():
            yield 0
        times = self.times
        self._over = 0
        used = self._used()
        start = now()
        end = start + self._length
        while start < end or len(times) < LEAST:
            yield len(times)
            after = now()
            times.append((self._over or after) - start)
            if self._over:
                self._over, after = 0, now()
            start = after
        self.cpu = (self._used() - used) // len(times)
        dismiss(self._partners)

    def over(self) -> None:
        """Have this trip end here: what follows until the next does not count."""
        self._over = now()

    def _used(self) -> int:
        """Return for how many nanoseconds all processes have run."""
        usages = (Path(f"/proc/{partner.pid}/schedstat") for partner in self._partners)
        return time.process_time_ns() + sum(int(path.read_text().split()[0]) for path in usages)


def dismiss(partners: Partners) -> None:
    """End the other processes. Raises RuntimeError if one had failed before."""
    failed = [partner.args for partner in partners if partner.poll() not in (None, 0)]
    for partner in partners:
        partner.kill()
        partner.wait()
    if failed:
        raise RuntimeError(f"a process failed: {failed}")


def quantiles(times: Sequence[float]) -> Figures:
    """Return the percentiles that a table shows."""
    ordered = sorted(times)
    parts = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: ordered[int(part * len(ordered))] for name, part in parts.items()}


def usage() -> Figures:
    """Return what this process has of the system's."""
    return {"memory": private_memory(os.getpid()), "fds": open_files(os.getpid())}


# --- jobs: each makes its figures of trips, seconds of them as a rule -----------------------------


async def ask(contender: Contender, first: Any, seconds: float, partners: Partners) -> Figures:
    meter = Meter(seconds, contender.warm_up, partners)
    await contender.ask(first, meter)
    told = quantiles(meter.times)
    return {"median": statistics.median(meter.times), "p99": told["p99"], "cpu": meter.cpu}


async def drain(contender: Contender, first: Any, seconds: float, partners: Partners) -> Figures:
    meter = Meter(seconds, contender.warm_up, partners)
    await contender.drain(first, meter, deque[bytes](maxlen=0).append)
    ends = list(itertools.accumulate(meter.times))[::BATCH]
    each = [(end - start) / BATCH for start, end in itertools.pairwise(ends)]
    return {"median": statistics.median(each or meter.times), "cpu": meter.cpu}


async def crowd(contender: Contender, first: Any, seconds: float, partners: Partners) -> Figures:
    late: list[int] = []
    senders: set[int] = set()
    meter = Meter(seconds, contender.warm_up, partners, lambda: len(senders) == contender.size)

    def take(body: bytes) -> None:
        made, pid = STAMP.unpack(body)
        late.append(now() - made)
        senders.add(pid)

    await contender.drain(first, meter, take)
    counted = late[-len(meter.times) :]
    each = sum(meter.times) / len(meter.times)
    return {"median": each, "rate": 1e9 / each, **quantiles(counted), **usage()}


async def serve(contender: Contender, _: Any, seconds: float, __: Partners) -> Figures:
    async with contender.serve() as (way, place):
        process = await asyncio.create_subprocess_exec(
            Path(os.environ["MACHIO_BENCHMARK_BUILD"], "clients"),
            *(way, place, str(contender.size), str(seconds)),
            stdout=subprocess.PIPE,
        )
        told = asyncio.create_task(process.communicate())
        most = usage()
        while not told.done():
            most = {name: max(most[name], value) for name, value in usage().items()}
            await asyncio.wait([told], timeout=max(seconds / 4, 0.05))
        output, _ = await told
    if process.returncode:
        raise RuntimeError("the clients failed")
    result: Figures = json.loads(output)
    return result | {"rate": 1e9 / result["median"]} | most


async def hold(contender: Contender, first: Any, _: float, partners: Partners) -> Figures:
    pids = [os.getpid(), *(partner.pid for partner in partners)]

    def state() -> tuple[int, int, int]:
        gc.collect()
        owned = [private_memory(pid) for pid in pids]
        return owned[0], memory_taken() - sum(owned), open_files(pids[0])

    before = state()
    async with contender.wait(first):
        after = state()
    dismiss(partners)
    grown = (one - other for one, other in zip(after, before, strict=True))
    own, system, files = (each / contender.size for each in grown)
    return {"own": own, "system": system, "fds": files}


async def last(contender: Contender, first: Any, trips: float, partners: Partners) -> Figures:
    await contender.ask(first, Uncounted(range(int(trips))))
    dismiss(partners)
    return {}


JOBS = {"ask": ask, "drain": drain, "crowd": crowd, "serve": serve, "hold": hold, "last": last}
# What the other processes do, and what they make of a contender.
PARTNERS = {"drain": "pour", "crowd": "stamp"}


def stamps() -> Iterator[bytes]:
    """Yield messages that tell when they were made, and by whom."""
    pid = os.getpid()
    while True:
        yield STAMP.pack(now(), pid)


def loop_of(name: str) -> asyncio.Runner:
    """Return what runs coroutines on a new event loop. Raises Missing."""
    if name == "asyncio":
        return asyncio.Runner()
    try:
        import uvloop
    except ImportError:
        raise Missing("uvloop is not installed") from None
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def run(loop: asyncio.Runner, work: Coroutine[Any, Any, Any]) -> Any:
    """Do this process's part, in which the collector finds nothing that was there before."""
    gc.collect()
    gc.freeze()
    return loop.run(work)


def lead(job: str, name: str, loop: str, amount: float) -> Figures:
    """Run the first process's part, the others being started; return the figures."""
    contender = find(name)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = contender.fds * contender.size + 100
    if needed > limit:
        raise Missing(f"needs {needed:,} descriptors, and {limit:,} are allowed")
    with loop_of(loop) as runner:
        first, fds = (None, []) if job == "serve" else contender.prepare()
        partners = []
        for fd in fds:
            command = [sys.executable, __file__, PARTNERS.get(job, "echo"), name, loop, str(fd)]
            partners.append(subprocess.Popen(command, pass_fds=[fd]))
            os.close(fd)
        figures: Figures = run(runner, JOBS[job](contender, first, amount, partners))
    return figures


def follow(part: str, name: str, loop: str, fd: int) -> None:
    """Run another process's part."""
    contender = find(name)
    with loop_of(loop) as runner:
        if part == "echo":
            run(runner, contender.echo(fd))
        else:
            run(runner, contender.pour(fd, itertools.repeat(BYTES) if part == "pour" else stamps()))


def main() -> None:
    """Run what the command line says."""
    job, name, loop, amount = sys.argv[1:]
    if job not in JOBS:
        follow(job, name, loop, int(amount))
        return
    try:
        print(json.dumps(lead(job, name, loop, float(amount))))
    except Missing as reason:
        print(json.dumps({"missing": str(reason)}))


if __name__ == "__main__":
    main()
