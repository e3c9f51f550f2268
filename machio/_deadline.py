"""A timeout in seconds as a moment in time, told in what remains of it."""

from __future__ import annotations

import math
import time

_MAX_MILLISECONDS = 0xFFFF_FFFF


class Deadline:
    """When an operation has to be done that was given `timeout` seconds; None: never."""

    __slots__ = ("_end",)

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def seconds(self) -> float | None:
        """Return what remains, 0 if nothing does; None without an end."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def milliseconds(self) -> int:
        """Return what remains as mach_msg takes it, rounded up; 0 without an end."""
        if self._end is None:
            return 0
        left = math.ceil((self._end - time.monotonic()) * 1000)
        return min(max(left, 0), _MAX_MILLISECONDS)
