"""Where the handshake's table is played: as it is, with few files, elsewhere.

A place is data: options for `programs/play.py`, and why it cannot be had here, if it cannot.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534
CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
PR_SET_PDEATHSIG = 1
SIGNALLED = 128  # an exit status of so much more than the signal


@dataclass(frozen=True)
class Place:
    """`impossible` is empty, or the reason why nothing can be played there on this machine."""

    options: tuple[str, ...] = ()
    user: int | None = None
    impossible: str = ""


def enter_pid_namespace() -> None:
    """Go on as a process of a new pid namespace; the caller's process ends as that does.

    Not as its first process, which no signal of its own could kill. For a process without threads.
    Raises OSError where the system allows no such thing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        raise OSError(errno.ENOSYS, "this system has no pid namespaces")
    ids = (("uid_map", os.getuid()), ("gid_map", os.getgid()))
    if libc.unshare(CLONE_NEWPID) < 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"unshare: {os.strerror(number)}")
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        for name, number in ids:
            Path(f"/proc/self/{name}").write_text(f"{number} {number} 1", encoding="ascii")
    if first := os.fork():
        end = _wait_alone(first)
        if end > SIGNALLED:
            os.kill(os.getpid(), end - SIGNALLED)
        os._exit(end)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if player := os.fork():
        end = _wait_alone(player)
        os._exit(end if end >= 0 else SIGNALLED - end)


def _wait_alone(pid: int) -> int:
    """Wait for a child, without a file whose end others wait for."""
    os.closerange(3, 4096)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _no_namespace() -> str:
    """Try it. Return what the system says against it, or nothing."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter_pid_namespace()
        except OSError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    complaint = os.read(reader, 4096).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    return complaint


PLACES = {
    "plain": Place(),
    "files1024": Place(("--nofile", "1024")),
    "files64": Place(("--nofile", "64")),
    "namespace": Place(("--namespace",), None, _no_namespace()),
}
if os.getuid() == 0:  # else there is no other user to become, and "plain" is an ordinary one's
    PLACES["user"] = Place(("--user", str(NOBODY)), NOBODY)
