"""Reading and writing a pipe or socket without blocking, without flags, and without SIGPIPE.

O_NONBLOCK belongs to the open file, which other processes may share; so nothing here sets it. What
is read and written is small and at the head of an empty pipe: what `poll` calls ready does not
block.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Where SIGPIPE goes to the process, and not to the thread that writes, the file can be told.
_F_SETNOSIGPIPE: int | None = getattr(fcntl, "F_SETNOSIGPIPE", None)


def read_now(fd: int, size: int) -> bytes | None:
    """Return up to `size` bytes, b"" at the end of file, or None if there is nothing yet.

    Raises OSError; a connection that was reset counts as ended.
    """
    if not _ready(fd, select.POLLIN):
        return None
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""


def write_now(fd: int, data: bytes) -> int | None:
    """Return how many bytes were written, or None if there is no room yet.

    Raises BrokenPipeError if nobody reads any more, other OSErrors as they come. Never SIGPIPE.
    """
    if not _ready(fd, select.POLLOUT):
        return None
    try:
        with _without_sigpipe(fd):
            return os.write(fd, data)
    except BlockingIOError:
        return None
    except ConnectionError:  # EPIPE, or a socket's ECONNRESET
        raise BrokenPipeError(f"nobody reads file descriptor {fd}") from None


def _ready(fd: int, event: int) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(0))


@contextlib.contextmanager
def _without_sigpipe(fd: int) -> Iterator[None]:
    """Let a write fail with EPIPE alone, whatever the process does with SIGPIPE.

    The signal is blocked in this thread, and if the write raised it, it is taken out of the thread
    again; one that was pending before is left alone.
    """
    if _F_SETNOSIGPIPE is not None:
        fcntl.fcntl(fd, _F_SETNOSIGPIPE, 1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    pending = signal.SIGPIPE in before and signal.SIGPIPE in signal.sigpending()
    try:
        yield
    except BrokenPipeError:
        if not pending and signal.SIGPIPE in signal.sigpending():
            signal.sigwait({signal.SIGPIPE})
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
