"""A scenario, and the stage that each of its roles is given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import machio
from machio import (
    Disposition,
    PortRightType,
    _checkin,
)

# No wait in a scenario is meant to reach this; it says which one hung.
LIMIT = 15.0

CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)  # macOS: an option of the socket

SCENARIOS: dict[str, type[Scenario]] = {}


class Scenario:
    """What is played. A class with `server` and `client` joins SCENARIOS, documented by itself."""

    dies: ClassVar[str | None] = None
    server: ClassVar[Callable[[Stage], Any]]
    client: ClassVar[Callable[[Stage], Any]]

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "server") and hasattr(cls, "client"):
            add(cls.__name__, cls)


def add(name: str, scenario: type[Scenario]) -> None:
    assert scenario.__doc__, f"{name} has nothing to say"
    scenario.server = staticmethod(scenario.server)
    scenario.client = staticmethod(scenario.client)
    SCENARIOS[name] = scenario


def variants(**choices: tuple[str, Any]) -> Callable[[type], None]:
    """Add a scenario for each of the choices: name=(sentence, value); the value is `cls.choice`."""

    def decorate(cls: type) -> None:
        for name, (sentence, value) in choices.items():
            members = {"__doc__": f"{cls.__doc__} {sentence}", "choice": value}
            bases = (cls, Scenario)
            made = type(f"{cls.__name__}_{name}", bases, members)
            for role in ("server", "client", "attacker"):
                if hasattr(cls, role):
                    setattr(made, role, staticmethod(_with(getattr(cls, role), value)))
            add(made.__name__, made)

    return decorate


def _with(part: Callable[..., Any], value: Any) -> Callable[[Stage], Any]:
    return lambda stage: part(stage, value)


class Stage:
    """What a role has: its end of the pipe, and lines to the other roles."""

    def __init__(
        self, role: str, pipe: machio.ChildPortHandshake | int, sides: dict[str, socket.socket]
    ) -> None:
        self.role = role
        self._pipe = pipe
        self._sides = sides
        if isinstance(pipe, int):
            self.consumed = {pipe}
        else:
            self.consumed = {pipe._read_fd, pipe._write_fd}

    # The pipe: the parent has the object, the child an fd.

    async def serve(self, kind: PortRightType, timeout: float | None = LIMIT) -> Any:
        if isinstance(self._pipe, int):
            return await machio.serve_fd(self.take_fd(), kind, timeout)
        return await self._pipe.serve(kind, timeout)

    async def check_in(
        self, right: machio.Right, disposition: Disposition, timeout: float | None = LIMIT
    ) -> None:
        if isinstance(self._pipe, int):
            await machio.check_in_fd(self.take_fd(), right, disposition, timeout)
        else:
            await self._pipe.check_in(right, disposition, timeout)

    def take_fd(self) -> int:
        """Take the end of the pipe; the caller closes it."""
        pipe = self._pipe
        if isinstance(pipe, int):
            self._pipe = -1
            return pipe
        return pipe.server_write_fd() if self.role == "server" else pipe.client_read_fd()

    def close(self) -> None:
        if not isinstance(self._pipe, int):
            self._pipe.close()
        elif self._pipe >= 0:
            os.close(self.take_fd())

    @contextlib.asynccontextmanager
    async def offer(self) -> AsyncIterator[bytes]:
        """Read the offer's bytes as the client; the pipe stays open until the block is left."""
        fd = self.take_fd()
        try:
            data = await asyncio.to_thread(read_offer, fd)
            yield data
        finally:
            os.close(fd)

    # The lines to the others.

    def tell(self, role: str, what: str = "go") -> None:
        with contextlib.suppress(ConnectionError):
            self._sides[role].sendall(what.encode() + b"\n", NO_SIGNAL)

    def tell_pid(self, role: str) -> None:
        self.tell(role, str(os.getpid()))

    def hear_now(self, role: str) -> str:
        """Wait for what a role tells, and block the loop; "" if the role's process has ended."""
        return self._hear(role)[0]

    async def hear(self, role: str) -> str:
        return await asyncio.to_thread(self.hear_now, role)

    async def hear_pid(self, role: str) -> int:
        """Wait for a role's `tell_pid`; on Linux the kernel says it, 0 in another pid namespace."""
        told, control = await asyncio.to_thread(self._hear, role)
        return CREDENTIALS.unpack(control[0][2])[0] if control else int(told)

    def _hear(self, role: str) -> tuple[str, list]:
        """Wait for a line: it, and what the kernel says beside its last byte."""
        side, line, control = self._sides[role], b"", []
        side.settimeout(LIMIT)
        while not line.endswith(b"\n"):
            try:  # one by one: the next line stays
                piece, control, _, _ = side.recvmsg(1, socket.CMSG_SPACE(CREDENTIALS.size))
            except ConnectionError:
                return "", []
            if not piece:
                return "", []
            line += piece
        return line[:-1].decode(), control


def read_offer(fd: int) -> bytes:
    """Read an offer, blocking."""
    client, data = _checkin.Client(), b""
    while client.needed:
        data += os.read(fd, client.needed)
        client.feed(data[-client.needed :] if len(data) > client.needed else data)
    return data
