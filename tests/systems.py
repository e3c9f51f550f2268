"""Which tests are not run on which system, and why: `systems.toml`."""

from __future__ import annotations

import fnmatch
import sys
import tomllib
from pathlib import Path

TABLE = Path(__file__).with_suffix(".toml")
SYSTEM = sys.platform.rstrip("0123456789")


def entries() -> list[tuple[str, str, str]]:
    """Return (pattern, the only system, reason) of each test or file that is listed."""
    sections = tomllib.loads(TABLE.read_text(encoding="utf-8"))["only"]
    return [
        (pattern, section["system"], section["reason"])
        for section in sections
        for pattern in section["tests"]
    ]


def matches(pattern: str, test: str) -> bool:
    """Tell whether the pattern is that of a test, file::function[parameters]."""
    if "[" not in pattern:
        return f"{test.partition('[')[0]}::".startswith(f"{pattern}::")
    return fnmatch.fnmatchcase(test, pattern.replace("[", "[[]", 1))


def why_not(test: str, system: str = SYSTEM) -> str:
    """Return the reason why a test is not run on the system, or nothing."""
    return next(
        (
            reason
            for pattern, only, reason in entries()
            if only != system and matches(pattern, test)
        ),
        "",
    )
