"""Task ports: a right that stands for a process.

A process sends its own task port with COPY_SEND or by moving what `task_self` returns; who receives
it learns the pid with `pid_for_task`, whether the process lives with `SendRight.is_dead`, and its
end with `SendRight.died`. Of a process that has ended before its port arrives, None arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _ffi
from .messages import PortRightType
from .ports import SendRight

if TYPE_CHECKING:
    from ._right import Right


def task_self() -> SendRight:
    """Return a send right to this task's own port, which the caller owns (mach_task_self).

    macOS makes it immovable in tasks that it protects: a message with it is then refused with
    MACH_SEND_INVALID_RIGHT, and the system may end the sender for the attempt.
    """
    name = _ffi.task_self()
    _ffi.mod_refs(name, PortRightType.SEND, 1)
    return SendRight(name)


def pid_for_task(task: Right) -> int:
    """Return the pid of the process whose task port `task` is; it stays the caller's.

    Raises KernError if it is no task port or the process has ended. Mach: pid_for_task.
    """
    return _ffi.pid_for_task(task.name)
