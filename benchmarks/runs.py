"""Processes that measure: built, run one at a time, and ended, whatever happens."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PATIENCE = 120.0  # seconds that a run may take, whatever it does
IMPORTS = "import asyncio; from machio import *; import machio.bootstrapd"
AGAINST_BYTECODE = {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}


@dataclass(frozen=True)
class Place:
    """Where runs are made: programs in C and bytecode, and a directory for all that they leave."""

    programs: Path
    directory: Path

    def environment(self) -> dict[str, str]:
        """Return what a process there has in its environment.

        It imports bytecode, as with an installed package, whatever the environment here says: a
        checkout that may not be written to would have each process compile its sources again.
        """
        here = {name: value for name, value in os.environ.items() if name not in AGAINST_BYTECODE}
        own = {
            "MACHIO_BENCHMARK_BUILD": str(self.programs),
            "MACHIO_BOOTSTRAP": str(self.directory / "bootstrap"),
            "PYTHONPYCACHEPREFIX": str(self.programs / "bytecode"),
            "TMPDIR": str(self.directory),
        }
        return here | own


@dataclass(frozen=True)
class Settings:
    """How a run is made: where, on one core or not, for how many seconds a contender."""

    place: Place
    pinned: bool
    seconds: float


@contextlib.contextmanager
def place(programs: Path) -> Iterator[Place]:
    """Yield a place; what runs left is removed.

    The programs are compiled into a directory, and what Python imports where starts are measured.
    """
    _compile(programs)
    # Short enough for the address of a socket, wherever TMPDIR is.
    with tempfile.TemporaryDirectory(prefix="machio-benchmark-", dir="/tmp") as directory:
        here = Place(programs, Path(directory))
        subprocess.run([sys.executable, "-c", IMPORTS], env=here.environment(), check=True)
        try:
            yield here
        finally:
            _end_server(Path(directory, "bootstrap/lock"))


def _end_server(lock: Path) -> None:
    """End the bootstrap server, if one was started: it is nobody's child."""
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        server = os.pidfd_open(int(lock.read_text(encoding="ascii")))
        try:
            signal.pidfd_send_signal(server, signal.SIGKILL)
        finally:
            os.close(server)


def _compile(target: Path) -> None:
    """Compile the programs that are older than their sources."""
    target.mkdir(parents=True, exist_ok=True)
    mach = ROOT / "machio/csrc/linux"
    cc = [*os.environ.get("CC", "cc").split(), "-O2", "-D_GNU_SOURCE", "-pthread"]
    cc.append(f"-I{mach / 'include'}")
    library = sorted(mach.glob("*.c"))
    newest = max(_when(path) for path in (*mach.rglob("*.[ch]"), HERE / "times.h"))
    # The first are bare: nothing of machio is in them.
    programs = {HERE / "bare.c": False, HERE / "word.c": False, HERE / "mach.c": True}
    programs |= {HERE / "clients.c": True, ROOT / "examples/c/child.c": True}
    old = [one for one in programs if _when(target / one.stem) <= max(newest, _when(one))]
    if any(programs[one] for one in old):
        subprocess.run([*cc, "-c", *library], cwd=target, check=True)
    objects = [target / f"{source.stem}.o" for source in library]
    for source in old:
        parts = objects if programs[source] else []
        subprocess.run([*cc, source, *parts, "-o", target / source.stem], check=True)


def _when(path: Path) -> float:
    """Return when a file was changed last; long ago if there is none."""
    return path.stat().st_mtime if path.exists() else 0.0


@contextlib.contextmanager
def _handed_down(pinned: bool) -> Iterator[None]:
    """Have on one core, and with as many files as the system allows, what is started here."""
    cores, files = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE)
    os.sched_setaffinity(0, {min(cores)} if pinned else cores)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)


def output(command: list[str], settings: Settings) -> str:
    """Return what a process prints. Raises subprocess.SubprocessError."""
    with started(command, settings) as process:
        text, _ = process.communicate(timeout=PATIENCE)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
    return text


@contextlib.contextmanager
def started(command: list[str], settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Yield a process in a group of its own, which ends with the block, whatever it started.

    So Ctrl-C is for the main program alone.
    """
    with _handed_down(settings.pinned):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=settings.place.environment(),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
