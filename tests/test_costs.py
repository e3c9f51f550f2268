"""What a round trip costs, counted: system calls, instructions, calls of functions.

Counts do not depend on how busy or how fast the machine is. One that is more than 15 % above
``costs/baseline.toml`` fails. `costs/count.c` counts, with nothing but ptrace().
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COSTS = ROOT / "tests/costs"
LIBRARY = sorted((ROOT / "machio/csrc/linux").glob("*.c"))
BASELINE = tomllib.loads((COSTS / "baseline.toml").read_text(encoding="utf-8"))
TOLERANCE = 1.15
TALK = [sys.executable, str(COSTS / "talk.py")]


def run(*command: str | Path) -> str:
    """Return what a program prints; what it complains about becomes the test's failure."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{command[0]} failed:\n{done.stderr}", pytrace=False)
    return done.stdout


def each(*command: str | Path, few: int, many: int) -> float:
    """Return what one round trip adds to what a program, told how many to make, prints."""
    return (int(run(*command, str(many))) - int(run(*command, str(few)))) / (many - few)


def check(side: str, what: str, count: float) -> None:
    """Compare a count with the baseline."""
    known = BASELINE[side][what]
    assert count <= known * TOLERANCE, f"{count:g} {what} a round trip, and they were {known}"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs of costs/."""
    directory = tmp_path_factory.mktemp("costs")
    cc = shlex.split(os.environ.get("CC", "cc"))
    flags = ["-O2", "-D_GNU_SOURCE", "-pthread", f"-I{ROOT / 'machio/csrc/linux/include'}"]
    run(*cc, *flags, COSTS / "count.c", "-o", directory / "count")
    run(*cc, *flags, COSTS / "client.c", *LIBRARY, "-o", directory / "client")
    return directory


def test_system_calls_in_c(programs: Path) -> None:
    count = each(programs / "count", programs / "client", few=100, many=300)
    check("c", "syscalls", count)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the baseline is that of x86-64")
def test_instructions_in_c(programs: Path) -> None:
    count = each(programs / "count", "-i", programs / "client", few=20, many=40)
    check("c", "instructions", count)


def test_system_calls_in_python(programs: Path) -> None:
    check("python", "syscalls", each(programs / "count", *TALK, "syscalls", few=50, many=150))


def test_calls_of_functions_in_python() -> None:
    check("python", "calls", each(*TALK, "calls", few=50, many=150))
