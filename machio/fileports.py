"""File ports: a right that stands for an open file, of whatever kind, and travels like any right.

::

    await child.give(machio.fileport_makeport(listener))  # a listening socket, in one line

and in the child::

    with await machio.parent.serve() as right:
        listener = socket.socket(fileno=machio.fileport_makefd(right))

The file is open as long as anybody has a right to it or a descriptor for it, in whatever process or
message. The right is not the descriptor: closing either leaves the other alone. As with `os.dup`
all descriptors share the position in the file and its flags, O_NONBLOCK among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from . import _ffi
from .ports import SendRight

if TYPE_CHECKING:
    from ._right import Right

    class HasFileno(Protocol):
        """What has a file descriptor: a socket, a file."""

        def fileno(self) -> int:
            """Return it."""


def fileport_makeport(file: int | HasFileno) -> SendRight:
    """Return a right to the open file behind a descriptor, which stays the caller's, as does it.

    Each call makes a port of its own. It has no receiver: what is sent to it is dropped.

    Raises OSError: EBADF; EINVAL, a file of a kind that cannot be sent; EMFILE; EAGAIN, no memory
    or, on Linux, more of the user's files on their way than RLIMIT_NOFILE. Mach: fileport_makeport.
    """
    return SendRight(_ffi.fileport_makeport(file if isinstance(file, int) else file.fileno()))


def fileport_makefd(right: Right) -> int:
    """Return a new descriptor for the open file that `right` stands for; the caller owns both.

    It is closed on exec. Raises OSError: EINVAL, the right is none to a file; EMFILE.
    Mach: fileport_makefd.
    """
    return _ffi.fileport_makefd(right.name)
