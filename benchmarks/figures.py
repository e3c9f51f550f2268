"""What is measured, against what, and which goals there are: one `Figure` for each table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runs import HERE, Settings, output

Run = dict[str, Any]  # "median", "p99", ...: see COLUMNS in report.py; or "missing": why
How = Callable[[str, Settings], Run]

NAMES = {
    "floors.Floor": "bare `add_reader`",
    "floors.Callbacks": "bare `add_reader`, no await",
    "floors.Copy": "one memcpy",
    "floors.FreshCopy": "one memcpy into fresh memory",
    "floors.SendFds": "`socket.send_fds`, {} fds",
    "floors.Rendezvous": "the same with bare sockets",
    "floors.Waiting": "{} sockets, bare `add_reader`",
    "ours.Machio": "machio",
    "ours.Wide": "machio, queue of 1024",
    "ours.Service": "machio `Service`, typed routine",
    "ours.Handler": "machio `Service`, handler of a message",
    "ours.WideService": "machio `Service`, queue of 1024",
    "ours.PassSend": "machio, a send right",
    "ours.PassReceive": "machio, a receive right",
    "ours.Idle": "machio, {} awaited",
    "ours.Waiting": "machio, {} ports with rights elsewhere",
    "ours.WaitingAlone": "machio, {} ports",
    "ours.LookUp": "machio, bootstrap look-up",
    "ours.Handshake": "machio",
    "ours.Payload": "`machio.Memory`",
    "ours.CopiedPayload": "machio, bytes copied once",
    "peers.Streams": "asyncio streams",
    "peers.StreamsPayload": "asyncio streams",
    "peers.PipePayload": "`multiprocessing.Pipe`, which blocks",
    "peers.AnyioStreams": "anyio streams",
    "peers.Pipe": "`multiprocessing.Pipe`, which blocks",
    "peers.ZeroMq": "pyzmq asyncio, ipc",
    "peers.DBus": "dbus-fast, handler of a message",
    "peers.DBusInterface": "dbus-fast, interface and proxy",
    "starts.Start": "a program in C, first byte",
    "starts.Spawn": "machio, the child of examples/c, first right",
    "starts.StartPython": "Python, nothing imported, first byte",
    "starts.StartAsyncio": "Python, asyncio, first byte",
    "starts.StartMachio": "Python, asyncio and machio, first byte",
    "starts.SpawnPython": "machio, a child in Python, first right",
    "bare": "bare `sendmsg` and `recvmsg`",
    "mach": "`mach_msg`",
}


def name(contender: str) -> str:
    """Return what a table calls a contender."""
    where, _, size = contender.partition(":")
    return NAMES.get(where, where).format(f"{int(size or 1):,}")


def sized(label: str) -> Callable[[str], str]:
    """Have a table tell the size of each contender, too."""

    def named(contender: str) -> str:
        size = int(contender.partition(":")[2] or 1)
        return f"{name(contender)}, {size:,} {label}{'s' * (size > 1)}"

    return named


@dataclass
class Figure:
    """One thing measured in several ways; the first contender is the floor, by which one divides.

    by: what of a run is compared. goals: (contender, other, the most that the ratio may be); other
    is None: the most that the figure itself may be. pinned: to one core, not, or both. rounds: how
    often at most.
    """

    title: str
    contenders: list[str]
    how: How
    goals: list[tuple[str, str | None, float]] = field(default_factory=list)
    pinned: tuple[bool, ...] = (True, False)
    by: str = "median"
    rounds: int = 5
    name: Callable[[str], str] = name

    def variants(self, quick: bool) -> list[tuple[str, bool]]:
        """Return the titles of its tables, and whether they are pinned."""
        pinned = self.pinned[:1] if quick else self.pinned
        return [(f"{self.title}, {'one core' if one else 'all cores'}", one) for one in pinned]


def worker(job: str, loop: str = "asyncio", weight: float = 1) -> How:
    """Measure a contender in workers; weight: how much more or less time it gets than others."""

    def how(contender: str, settings: Settings) -> Run:
        seconds = str(settings.seconds * weight)
        command = [sys.executable, str(HERE / "worker.py"), job, contender, loop, seconds]
        run: Run = json.loads(output(command, settings))
        return run

    return how


def program(contender: str, settings: Settings) -> Run:
    """Measure a program in C."""
    command = [str(settings.place.programs / contender), str(settings.seconds), "64"]
    run: Run = json.loads(output(command, settings))
    return run


def imports(contender: str, settings: Settings) -> Run:
    """Time the imports inside a fresh interpreter."""
    before = "import time; start = time.perf_counter_ns()\n"
    after = "\nprint(time.perf_counter_ns() - start)"
    code = before + contender + after
    return {"median": float(output([sys.executable, "-c", code], settings))}


def sizes(contender: str, *numbers: int) -> list[str]:
    """Return a contender in several sizes."""
    return [f"{contender}:{number}" for number in numbers]


FIGURES = [
    Figure(
        "round trip, asyncio",
        [
            "floors.Floor",
            "floors.Callbacks",
            "ours.Machio",
            "ours.Handler",
            "ours.Service",
            "peers.Streams",
            "peers.AnyioStreams",
            "peers.Pipe",
            "peers.ZeroMq",
            "peers.DBus",
            "peers.DBusInterface",
        ],
        worker("ask"),
        [
            ("ours.Machio", "floors.Floor", 1.25),
            ("ours.Machio", "peers.Streams", 0.5),
            ("ours.Machio", "peers.ZeroMq", 0.25),
            ("ours.Machio", "peers.DBus", 0.3),
            ("ours.Service", "floors.Floor", 2),
            ("ours.Handler", "peers.DBus", 0.4),
            ("ours.Service", "peers.DBus", 0.4),
            ("ours.Service", "peers.DBusInterface", 0.4),
        ],
    ),
    Figure(
        "round trip, uvloop",
        ["floors.Floor", "floors.Callbacks", "ours.Machio", "ours.Service", "peers.Streams"],
        worker("ask", "uvloop"),
        [("ours.Machio", "floors.Floor", 1.25), ("ours.Machio", "peers.Streams", 1)],
    ),
    Figure("round trip in C", ["bare", "mach"], program, [("mach", "bare", 1.5)]),
    Figure(
        "one way, asyncio",
        [
            "floors.Floor",
            "ours.Machio",
            "ours.Wide",
            "peers.Streams",
            "peers.AnyioStreams",
            "peers.Pipe",
            "peers.ZeroMq",
        ],
        worker("drain"),
        [
            ("ours.Wide", "peers.Streams", 0.5),
            ("ours.Wide", "peers.AnyioStreams", 0.5),
            ("ours.Wide", "peers.ZeroMq", 0.5),
        ],
    ),
    Figure(
        "64 MiB, filled and read",
        [
            "floors.Copy",
            "floors.FreshCopy",
            "ours.Payload",
            "ours.CopiedPayload",
            "peers.StreamsPayload",
            "peers.PipePayload",
        ],
        worker("ask"),
        [
            ("ours.Payload", "floors.Copy", 1.3),
            ("ours.Payload", "peers.StreamsPayload", 1 / 3),
            ("ours.Payload", "peers.PipePayload", 1 / 3),
            ("ours.CopiedPayload", "peers.StreamsPayload", 1 / 3),
            ("ours.CopiedPayload", "peers.PipePayload", 1 / 3),
        ],
        rounds=3,
    ),
    Figure(
        "a send right there and back",
        ["floors.SendFds:2", "ours.PassSend"],
        worker("ask"),
        [("ours.PassSend", "floors.SendFds:2", 2)],
        pinned=(True,),
    ),
    Figure(
        "a receive right there and back",
        ["floors.SendFds:3", "ours.PassReceive"],
        worker("ask"),
        [("ours.PassReceive", "floors.SendFds:3", 4)],
        pinned=(True,),
    ),
    Figure(
        "look-up",
        ["ours.Machio", "ours.LookUp"],
        worker("ask"),
        [("ours.LookUp", "ours.Machio", 3)],
        pinned=(True,),
    ),
    Figure(
        "handshake, both sides running",
        ["floors.Rendezvous", "ours.Handshake"],
        worker("ask"),
        [("ours.Handshake", "floors.Rendezvous", 3)],
    ),
    Figure(
        "start of a child in C",
        ["starts.Start", "starts.Spawn"],
        worker("ask"),
        [("starts.Spawn", "starts.Start", 1.05)],
        pinned=(True,),
    ),
    Figure(
        "start of a child in Python",
        ["starts.StartMachio", "starts.SpawnPython", "starts.StartPython", "starts.StartAsyncio"],
        worker("ask"),
        [("starts.SpawnPython", "starts.StartMachio", 1.05)],
        pinned=(True,),
    ),
    Figure(
        "round trip, ports awaited",
        sizes("ours.Idle", 1, 100, 10_000),
        worker("ask"),
        [("ours.Idle:100", "ours.Idle:1", 1.1), ("ours.Idle:10000", "ours.Idle:1", 1.1)],
        pinned=(True,),
    ),
    Figure(
        "memory of what waits",
        ["floors.Waiting:4000", "ours.WaitingAlone:10000", "ours.Waiting:4000"],
        worker("hold"),
        [("ours.WaitingAlone:10000", None, 2048), ("ours.Waiting:4000", None, 2048)],
        pinned=(True,),
        by="own",
    ),
    Figure(
        "senders to one receiver",
        [
            *sizes("floors.Floor", 1, 8),
            *sizes("ours.Machio", 1, 8),
            *sizes("ours.Wide", 1, 2, 4, 8),
            *sizes("peers.Streams", 1, 8),
        ],
        worker("crowd"),
        pinned=(False,),
        rounds=3,
        name=sized("sender"),
    ),
    Figure(
        "clients of one service",
        [
            *sizes("floors.Floor", 1, 100),
            *sizes("ours.Service", 1, 10, 100, 1000),
            *sizes("ours.WideService", 1000),
            *sizes("peers.Streams", 1, 100, 1000),
        ],
        worker("serve", weight=2),
        pinned=(False,),
        rounds=3,
        name=sized("client"),
    ),
    Figure(
        "import",
        ["import asyncio", "import asyncio, machio"],
        imports,
        [("import asyncio, machio", "import asyncio", 1.5)],
        pinned=(True,),
    ),
]
