"""Threads that are blocked in a call, known to be so without waiting for time to pass."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

THREADS = Path("/proc/self/task")


def _is_waiting(thread: threading.Thread) -> bool:
    """Tell whether the kernel has a thread waiting, for something else than Python's own lock."""
    if not THREADS.exists():
        return _is_waiting_in_mach(thread)
    try:
        channel = (THREADS / str(thread.native_id) / "wchan").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False
    return channel not in ("", "0") and "futex" not in channel


def _is_waiting_in_mach(thread: threading.Thread) -> bool:
    system = ctypes.CDLL(None)
    system.pthread_mach_thread_np.argtypes = [ctypes.c_void_p]
    info, count = (ctypes.c_int * 10)(), ctypes.c_uint(10)  # thread_basic_info
    port = system.pthread_mach_thread_np(thread.ident)
    if system.thread_info(port, 3, info, ctypes.byref(count)):
        return False
    return info[6] == 3  # run_state: TH_STATE_WAITING


class Blocked:
    """A call in a thread of its own, entered only when the thread waits inside it.

    On leaving the block the call has returned; `result` is what.
    """

    def __init__(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self.result: Any = None
        self._begun = False
        self._call = call, arguments, options
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        call, arguments, options = self._call
        self._begun = True
        self.result = call(*arguments, **options)

    @property
    def is_waiting(self) -> bool:
        return self._thread.is_alive() and self._begun and _is_waiting(self._thread)

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self.is_waiting:
            assert self._thread.is_alive(), f"the call did not block: {self.result}"
            assert time.monotonic() < deadline, "the call does not block"
            time.sleep(0)
        return self

    def join(self) -> Any:
        """Wait for the call to return, and return its result."""
        self._thread.join(10)
        assert not self._thread.is_alive(), "the call does not return"
        return self.result

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            self.join()
