"""Breaks the code on purpose, one fault of ``mutants.toml`` at a time: a test has to notice.

    python tests/mutate.py [WORD ...]

Words select the faults that have them all. Each is put into a copy of the tree, whose
extension is built anew if the fault is in C, and each of its tests is run there: it must fail, and
pass without the fault. The exit status is not zero if one of them did not notice.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "corpus")
BUILD = "import setuptools; setuptools.setup()", "--quiet", "build_ext", "--inplace"
PR_SET_CHILD_SUBREAPER = 36
FAILED, DEATHS = 1, range(-64, 0)  # of a test, and of pytest itself by a signal


@dataclass(frozen=True)
class Mutant:
    """One fault: see ``mutants.toml``."""

    promise: str
    file: str
    old: str
    new: str
    tests: list[str]

    @contextlib.contextmanager
    def inside(self, tree: Path) -> Iterator[None]:
        """Have the fault in a tree."""
        path, built = tree / self.file, {}
        text = path.read_text()
        if text.count(self.old) != 1:
            sys.exit(f"{self.file} has this {text.count(self.old)} times, not once:\n{self.old}")
        path.write_text(text.replace(self.old, self.new))
        if path.suffix == ".c":
            built = {module: module.read_bytes() for module in tree.glob("machio/*.so")}
            run(tree, "-c", *BUILD).check_returncode()
        yield
        path.write_text(text)
        for module, data in built.items():
            module.unlink()
            module.write_bytes(data)

    def unnoticed(self, tree: Path) -> list[str]:
        """Return which of the tests pass, or do not run, for all the fault."""
        return [test for test in self.tests if status(tree, test) not in (FAILED, *DEATHS)]


def end_orphans() -> None:
    """Kill what a run left behind: faulty bootstrap servers, which may never end by themselves."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run this Python in a tree, whose machio it finds first."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "CFLAGS": "-O0",
    }
    try:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tree,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    finally:
        end_orphans()


def status(tree: Path, test: str) -> int:
    return run(tree, "-m", "pytest", "-x", *shlex.split(test)).returncode


def mutants() -> list[Mutant]:
    table = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text())
    return [Mutant(**entry) for entry in table["mutant"]]


def main(*words: str) -> int:
    """Return how many faults went unnoticed."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    chosen = [mutant for mutant in mutants() if all(word in f"{mutant}" for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="machio-", dir="/tmp") as scratch:
        tree = Path(scratch) / "machio"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        for test in sorted({test for mutant in chosen for test in mutant.tests}):
            if status(tree, test):
                sys.exit(f"without a fault this does not pass: {test}")
        for mutant in chosen:
            print(f"not {mutant.promise!r}", end=": ", flush=True)
            with mutant.inside(tree):
                missed = mutant.unnoticed(tree)
            survivors += bool(missed)
            print("UNNOTICED by " + ", ".join(missed) if missed else "noticed", flush=True)
    print(f"{len(chosen)} faults, {survivors} unnoticed")
    return survivors


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
