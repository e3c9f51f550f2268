"""What is measured, against what, and which goals there are: one `Figure` for each row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build/bench"
Run = dict[str, float]  # "median", "p99", "cpu": nanoseconds; or "missing": why

NAMES = {
    "floors.Floor": "bare add_reader",
    "floors.Callbacks": "bare add_reader, no await",
    "floors.Copy": "one memcpy",
    "floors.FreshCopy": "one memcpy into fresh memory",
    "floors.SendFds": "socket.send_fds, 2 fds",
    "floors.SendThreeFds": "socket.send_fds, 3 fds",
    "ours.Machio": "machio",
    "ours.Wide": "machio, queue of 1024",
    "ours.Service": "machio Service, typed routine",
    "ours.PassSend": "machio, a send right",
    "ours.PassReceive": "machio, a receive right",
    "ours.Idle": "machio, 1 port awaited",
    "ours.Idle100": "machio, 100 ports awaited",
    "ours.Idle10000": "machio, 10,000 ports awaited",
    "ours.LookUp": "machio, bootstrap look-up",
    "ours.Payload": "machio.Memory",
    "peers.Streams": "streams",
    "peers.StreamsPayload": "streams",
    "peers.PipePayload": "multiprocessing.Pipe (blocks)",
    "peers.AnyioStreams": "anyio streams",
    "peers.Pipe": "multiprocessing.Pipe (blocks)",
    "peers.ZeroMq": "pyzmq asyncio, ipc",
    "peers.DBus": "dbus-fast, dbus-daemon",
}


@dataclass
class Figure:
    """One thing measured in several ways; `floor` is the way that the others are divided by.

    goals: (contender, other, the most that the ratio of their medians may be).
    """

    title: str
    floor: str
    contenders: list[str]
    run: Callable[[str, bool, bool], Run]  # contender, pinned, quick
    goals: list[tuple[str, str, float]] = field(default_factory=list)
    pinned: tuple[bool, ...] = (True, False)


def _pin() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _output(command: list[str], pinned: bool) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
        preexec_fn=_pin if pinned else None,
        cwd=HERE,
    )
    return done.stdout


def _worker(
    job: str, loop: str, count: int = 2000, least: int = 200
) -> Callable[[str, bool, bool], Run]:
    def run(contender: str, pinned: bool, quick: bool) -> Run:
        trips = str(max(count // 5, least) if quick else count)
        command = [sys.executable, "worker.py", job, contender, loop, trips]
        result: Run = json.loads(_output(command, pinned))
        return result

    return run


def _program(contender: str, pinned: bool, quick: bool) -> Run:
    count = "5000" if quick else "30000"
    return {"median": float(_output([str(BUILD / contender), count, "64"], pinned))}


def _import(contender: str, pinned: bool, quick: bool) -> Run:  # noqa: ARG001
    """Time the imports inside a fresh interpreter."""
    before = "import time; start = time.perf_counter_ns()\n"
    after = "\nprint(time.perf_counter_ns() - start)"
    code = {"asyncio": "import asyncio", "asyncio + machio": "import asyncio, machio"}[contender]
    return {"median": float(_output([sys.executable, "-c", before + code + after], pinned))}


FIGURES = [
    Figure(
        "round trip, asyncio",
        "floors.Floor",
        [
            "floors.Floor",
            "floors.Callbacks",
            "ours.Machio",
            "ours.Service",
            "peers.Streams",
            "peers.AnyioStreams",
            "peers.Pipe",
            "peers.ZeroMq",
            "peers.DBus",
        ],
        _worker("ask", "asyncio"),
        [
            ("ours.Machio", "floors.Floor", 1.25),
            ("ours.Machio", "peers.Streams", 0.5),
            ("ours.Machio", "peers.ZeroMq", 0.25),
            ("ours.Machio", "peers.DBus", 0.3),
            ("ours.Service", "floors.Floor", 2),
            ("ours.Service", "peers.DBus", 0.4),
        ],
    ),
    Figure(
        "round trip, uvloop",
        "floors.Floor",
        ["floors.Floor", "floors.Callbacks", "ours.Machio", "ours.Service", "peers.Streams"],
        _worker("ask", "uvloop"),
        [("ours.Machio", "floors.Floor", 1.25), ("ours.Machio", "peers.Streams", 1)],
    ),
    Figure("round trip in C", "bare", ["bare", "mach"], _program, [("mach", "bare", 1.5)]),
    Figure(
        "one way, asyncio",
        "floors.Floor",
        [
            "floors.Floor",
            "ours.Machio",
            "ours.Wide",
            "peers.Streams",
            "peers.AnyioStreams",
            "peers.Pipe",
            "peers.ZeroMq",
        ],
        _worker("drain", "asyncio", 5000),
        [
            ("ours.Wide", "peers.Streams", 0.5),
            ("ours.Wide", "peers.AnyioStreams", 0.5),
            ("ours.Wide", "peers.ZeroMq", 0.5),
        ],
    ),
    Figure(
        "a send right there and back",
        "floors.SendFds",
        ["floors.SendFds", "ours.PassSend"],
        _worker("ask", "asyncio"),
        [("ours.PassSend", "floors.SendFds", 2)],
        pinned=(True,),
    ),
    Figure(
        "a receive right there and back",
        "floors.SendThreeFds",
        ["floors.SendThreeFds", "ours.PassReceive"],
        _worker("ask", "asyncio"),
        [("ours.PassReceive", "floors.SendThreeFds", 4)],
        pinned=(True,),
    ),
    Figure(
        "round trip, more ports awaited",
        "ours.Idle",
        ["ours.Idle", "ours.Idle100", "ours.Idle10000"],
        _worker("ask", "asyncio"),
        [("ours.Idle100", "ours.Idle", 1.1), ("ours.Idle10000", "ours.Idle", 1.1)],
        pinned=(True,),
    ),
    Figure(
        "64 MiB, filled and read",
        "floors.Copy",
        [
            "floors.Copy",
            "floors.FreshCopy",
            "ours.Payload",
            "peers.StreamsPayload",
            "peers.PipePayload",
        ],
        _worker("ask", "asyncio", 10, 5),
        [
            ("ours.Payload", "floors.Copy", 1.3),
            ("ours.Payload", "peers.StreamsPayload", 0.33),
            ("ours.Payload", "peers.PipePayload", 0.33),
        ],
    ),
    Figure(
        "look-up",
        "ours.Machio",
        ["ours.Machio", "ours.LookUp"],
        _worker("ask", "asyncio", 1000),
        [("ours.LookUp", "ours.Machio", 3)],
        pinned=(True,),
    ),
    Figure(
        "import",
        "asyncio",
        ["asyncio", "asyncio + machio"],
        _import,
        [("asyncio + machio", "asyncio", 1.5)],
        pinned=(True,),
    ),
]
