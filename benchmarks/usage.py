"""What processes have of the system's: memory, open files."""

from __future__ import annotations

import os
from pathlib import Path


def _bytes(file: Path, *names: str) -> list[int]:
    """Return what lines of a file of /proc tell in kilobytes."""
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    told = {words[0]: words[1] for words in lines}
    return [int(told[f"{name}:"]) * 1024 for name in names]


def private_memory(pid: int) -> int:
    """Return the bytes that a process has written to and that no other process has."""
    return _bytes(Path(f"/proc/{pid}/smaps_rollup"), "Private_Dirty")[0]


def memory_taken() -> int:
    """Return the bytes that processes and the system have, caches of files apart."""
    names = ("MemTotal", "MemFree", "Buffers", "Cached")
    total, *not_taken = _bytes(Path("/proc/meminfo"), *names)
    return total - sum(not_taken)


def open_files(pid: int) -> int:
    """Return how many descriptors a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
