"""What round trips, imports and waiting cost, counted: system calls, instructions, calls, bytes.

Counts do not depend on how busy or how fast the machine is. One that is more than 15 % above
``costs/baseline.toml`` fails. `costs/count.c` counts, with nothing but ptrace().
"""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from common import start

from machio import Message, PortSet, ReceiveCode, ReceiveRight, SendRight, _ffi

ROOT = Path(__file__).resolve().parent.parent
COSTS = ROOT / "tests/costs"
LIBRARY = sorted((ROOT / "machio/csrc/linux").glob("*.c"))
BASELINE = tomllib.loads((COSTS / "baseline.toml").read_text(encoding="utf-8"))
TOLERANCE = 1.15
# What a busy port may cost more for the others there are: a few steps more to find it.
CROWD_TOLERANCE = 1.05
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
CROWDS = {
    "local": 100_000,
    "member": 100_000,
    "wired": min(10_000, FILES // 7),
    "watched": min(10_000, FILES // 7),
    "lent": min(10_000, FILES // 4),
}
TALK = [sys.executable, str(COSTS / "talk.py")]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what a program prints; what it complains about becomes the test's failure."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, cwd=cwd
    )
    if done.returncode:
        pytest.fail(f"{command[0]} failed:\n{done.stderr}", pytrace=False)
    return done.stdout


def each(*command: str | Path, few: int, many: int, rest: Sequence[str] = ()) -> float:
    """Return what one more, of which a program is told how many to make, adds to what it prints."""
    counts = [int(run(*command, str(trips), *rest)) for trips in (few, many)]
    return (counts[1] - counts[0]) / (many - few)


def check(side: str, what: str, count: float) -> None:
    """Compare a count with the baseline."""
    known = BASELINE[side][what]
    assert count <= known * TOLERANCE, f"{count:g} {what} in {side}, and they were {known}"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs of costs/."""
    directory = tmp_path_factory.mktemp("costs")
    cc = shlex.split(os.environ.get("CC", "cc"))
    flags = ["-O2", "-D_GNU_SOURCE", "-pthread", f"-I{ROOT / 'machio/csrc/linux/include'}"]
    inside = [f"-I{ROOT / 'machio/csrc/linux'}", f"-I{ROOT / 'tests/c'}"]
    run(*cc, *flags, "-c", *LIBRARY, cwd=directory)
    library = sorted(directory.glob("*.o"))
    run(*cc, *flags, COSTS / "count.c", "-o", directory / "count")
    run(*cc, *flags, COSTS / "client.c", *library, "-o", directory / "client")
    run(*cc, *flags, *inside, COSTS / "crowd.c", *library, "-o", directory / "crowd")
    return directory


@pytest.mark.parametrize("what", ["syscalls", "syscalls-call", "syscalls-right"])
def test_system_calls_in_c(programs: Path, what: str) -> None:
    rest = what.split("-")[1:]
    check("c", what, each(programs / "count", programs / "client", few=100, many=300, rest=rest))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the baseline is that of x86-64")
def test_instructions_in_c(programs: Path) -> None:
    count = each(programs / "count", "-i", programs / "client", few=20, many=40)
    check("c", "instructions", count)


@pytest.mark.parametrize("kind", CROWDS)
def test_a_port_costs_the_same_among_many(programs: Path, kind: str) -> None:
    """Making, using and losing a port does not cost more with a hundred thousand others."""
    for options, tolerance in ((), 1.0), (("-i",), CROWD_TOLERANCE):
        few, many = (
            int(run(programs / "count", *options, programs / "crowd", kind, str(others)))
            for others in (100, CROWDS[kind])
        )
        assert 0 < many <= few * tolerance, f"{few} with 100 others, {many} with {CROWDS[kind]}"


@pytest.mark.usefixtures("bootstrap_server")
@pytest.mark.parametrize("subject", ["messages", "service", "later", "room", "handshake"])
def test_system_calls_in_python(programs: Path, subject: str) -> None:
    talk = [programs / "count", *TALK, subject, "syscalls"]
    check(subject, "syscalls", each(*talk, few=50, many=150))


@pytest.mark.usefixtures("bootstrap_server")
@pytest.mark.parametrize("subject", ["messages", "service", "later", "room", "handshake"])
def test_calls_of_functions_in_python(subject: str) -> None:
    check(subject, "calls", each(*TALK, subject, "calls", few=50, many=150))


@pytest.mark.usefixtures("bootstrap_server")
@pytest.mark.parametrize("what", ["syscalls", "calls"])
def test_what_the_parent_of_a_new_child_does(programs: Path, c_examples: Path, what: str) -> None:
    counter = [programs / "count"] if what == "syscalls" else []
    talk = [*counter, *TALK, "start", what]
    check("start", what, each(*talk, few=10, many=30, rest=[str(c_examples / "child")]))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells whose a page is")
def test_memory_of_a_port_that_a_task_waits_on() -> None:
    waiting = [sys.executable, str(COSTS / "waiting.py")]
    check("waiting", "bytes", each(*waiting, few=1000, many=5000))


@pytest.mark.parametrize(
    ("what", "statement"),
    [
        ("machio", "import machio"),
        ("rights", "from machio import Message, ReceiveRight, SendRight"),
        ("parent", "from machio import ReceiveRight, parent"),
        ("all", "from machio import *"),
    ],
)
def test_calls_of_functions_to_import(what: str, statement: str) -> None:
    check("import", what, float(run(sys.executable, COSTS / "start.py", statement)))


@pytest.mark.parametrize("in_set", [False, True], ids=["port", "set"])
async def test_nobody_looks_in_vain(
    port: ReceiveRight, send: SendRight, in_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    receive_now = _ffi.receive_now

    def look(*arguments: Any) -> int:
        looks.append(receive_now(*arguments))
        return looks[-1]

    monkeypatch.setattr(_ffi, "receive_now", look)
    with PortSet.allocate() as port_set:
        port_set.add(port)
        receiver = port_set if in_set else port
        for number in range(3):
            task = await start(receiver.receive())
            send.send_nowait(Message(number))
            await task
        assert looks == [ReceiveCode.TIMED_OUT, *[_ffi.RECEIVED_LAST] * 3]
        del looks[:]
        for number in range(3):
            send.send_nowait(Message(number))
        for _ in range(3):
            await receiver.receive()
        assert looks == [0, 0, _ffi.RECEIVED_LAST]
