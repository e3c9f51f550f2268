"""What processes have of the system's: memory, open files."""

from __future__ import annotations

import os
from pathlib import Path


def _bytes(file: Path, name: str) -> int:
    """Return what a line of a file of /proc tells in kilobytes."""
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return next(int(words[1]) * 1024 for words in lines if words[0] == f"{name}:")


def private_memory(pid: int) -> int:
    """Return the bytes that a process has written to and that no other process has."""
    return _bytes(Path(f"/proc/{pid}/smaps_rollup"), "Private_Dirty")


def memory_left() -> int:
    """Return the bytes that the system could still give, caches included."""
    return _bytes(Path("/proc/meminfo"), "MemAvailable")


def open_files(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
