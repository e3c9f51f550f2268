"""Mach messages and port rights for asyncio, on macOS and on Linux."""

from typing import TYPE_CHECKING

# It tells the C library with which Python to start a bootstrap server.
from . import _ffi  # noqa: F401

if TYPE_CHECKING:
    from . import bootstrap, mig, parent
    from ._right import Right
    from .children import Child, spawn
    from .codes import (
        BootstrapCode,
        KernCode,
        MigCode,
        ReceiveCode,
        ReturnCode,
        SendCode,
        explain,
    )
    from .errors import (
        BadMessageError,
        BootstrapError,
        DeadDestinationError,
        HandshakeError,
        HandshakeTimedOut,
        KernError,
        MachError,
        MachioError,
        MemoryClosedError,
        MigError,
        NoCheckInError,
        ProtocolError,
        ReceiveError,
        ReceiveTimedOut,
        RightClosedError,
        RoutineError,
        SendError,
        SendTimedOut,
        ServerDiedError,
        ServerGoneError,
        UnknownServiceError,
        UsageError,
        WouldBlock,
        WrongRightError,
    )
    from .fileports import fileport_makefd, fileport_makeport
    from .handshake import ChildPortHandshake, check_in_fd, serve_fd
    from .memory import Memory
    from .messages import Disposition, Message, NotificationId, PortRightType, RightArray, Sender
    from .notifications import Event, Supervisor, Watched
    from .ports import PortSet, PortStatus, ReceiveRight, SendOnceRight, SendRight
    from .service import Service, connect, current_request
    from .tasks import pid_for_task, task_self
    from .tracing import Trace, trace

__all__ = [
    "BadMessageError",
    "BootstrapCode",
    "BootstrapError",
    "Child",
    "ChildPortHandshake",
    "DeadDestinationError",
    "Disposition",
    "Event",
    "HandshakeError",
    "HandshakeTimedOut",
    "KernCode",
    "KernError",
    "MachError",
    "MachioError",
    "Memory",
    "MemoryClosedError",
    "Message",
    "MigCode",
    "MigError",
    "NoCheckInError",
    "NotificationId",
    "PortRightType",
    "PortSet",
    "PortStatus",
    "ProtocolError",
    "ReceiveCode",
    "ReceiveError",
    "ReceiveRight",
    "ReceiveTimedOut",
    "ReturnCode",
    "Right",
    "RightArray",
    "RightClosedError",
    "RoutineError",
    "SendCode",
    "SendError",
    "SendOnceRight",
    "SendRight",
    "SendTimedOut",
    "Sender",
    "ServerDiedError",
    "ServerGoneError",
    "Service",
    "Supervisor",
    "Trace",
    "UnknownServiceError",
    "UsageError",
    "Watched",
    "WouldBlock",
    "WrongRightError",
    "bootstrap",
    "check_in_fd",
    "connect",
    "current_request",
    "explain",
    "fileport_makefd",
    "fileport_makeport",
    "mig",
    "parent",
    "pid_for_task",
    "serve_fd",
    "spawn",
    "task_self",
    "trace",
]

# Where each name is at home. It is imported when it is first asked for: a program pays for what it
# uses. Who asks for a module by its name gets that.
_HOMES = {
    "_right": ["Right"],
    "children": ["Child", "spawn"],
    "codes": [
        "BootstrapCode",
        "KernCode",
        "MigCode",
        "ReceiveCode",
        "ReturnCode",
        "SendCode",
        "explain",
    ],
    "errors": [
        "BadMessageError",
        "BootstrapError",
        "DeadDestinationError",
        "HandshakeError",
        "HandshakeTimedOut",
        "KernError",
        "MachError",
        "MachioError",
        "MemoryClosedError",
        "MigError",
        "NoCheckInError",
        "ProtocolError",
        "ReceiveError",
        "ReceiveTimedOut",
        "RightClosedError",
        "RoutineError",
        "SendError",
        "SendTimedOut",
        "ServerDiedError",
        "ServerGoneError",
        "UnknownServiceError",
        "UsageError",
        "WouldBlock",
        "WrongRightError",
    ],
    "fileports": ["fileport_makefd", "fileport_makeport"],
    "handshake": ["ChildPortHandshake", "check_in_fd", "serve_fd"],
    "memory": ["Memory"],
    "messages": [
        "Disposition",
        "Message",
        "NotificationId",
        "PortRightType",
        "RightArray",
        "Sender",
    ],
    "notifications": ["Event", "Supervisor", "Watched"],
    "ports": ["PortSet", "PortStatus", "ReceiveRight", "SendOnceRight", "SendRight"],
    "service": ["Service", "connect", "current_request"],
    "tasks": ["pid_for_task", "task_self"],
    "tracing": ["Trace", "trace"],
}


if not TYPE_CHECKING:  # to type checkers a name that is not above is an error

    def __getattr__(name: str) -> object:
        from importlib import import_module

        home = next((home for home, names in _HOMES.items() if name in names), name)
        if home == name and name not in {*_HOMES, *__all__}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f".{home}", __name__)
        found = module if home == name else getattr(module, name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
