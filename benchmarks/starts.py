"""What it takes until a new process has said its first word: a byte in a pipe, or a port right."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, ClassVar

from contender import Contender, Trips

import machio
from machio import PortRightType

BUILD = Path(os.environ.get("MACHIO_BENCHMARK_BUILD", ""))


class Start(Contender):
    """A process in C that writes a byte into a pipe; asyncio starts it."""

    warm_up = 2
    command: ClassVar[tuple[str, ...]] = (str(BUILD / "word"),)

    def prepare(self) -> tuple[Any, list[int]]:
        return None, []

    async def ask(self, first: Any, trips: Trips) -> None:  # noqa: ARG002
        loop = asyncio.get_running_loop()
        for _ in trips:
            read_fd, write_fd = os.pipe()
            child = await asyncio.create_subprocess_exec(
                *self.command, str(write_fd), pass_fds=[write_fd]
            )
            os.close(write_fd)
            said = loop.create_future()
            loop.add_reader(read_fd, said.set_result, None)
            await said
            trips.over()
            loop.remove_reader(read_fd)
            os.close(read_fd)
            await child.wait()


class StartPython(Start):
    """A Python that imports nothing."""

    command = (sys.executable, "-c", "import os, sys; os.write(int(sys.argv[1]), b'.')")


class StartAsyncio(Start):
    """A Python with an event loop, in which it writes the byte."""

    program: ClassVar[str] = """
import asyncio, os, sys
async def main():
    os.write(int(sys.argv[1]), b".")
asyncio.run(main())
"""
    command = (sys.executable, "-c", program)


class StartMachio(Start):
    """The same, which has imported machio and made a port as well."""

    program: ClassVar[str] = """
import asyncio, os, sys, machio
async def main():
    with machio.ReceiveRight.allocate():
        os.write(int(sys.argv[1]), b".")
asyncio.run(main())
"""
    command = (sys.executable, "-c", program)


class Spawn(Start):
    """`machio.spawn`, and the handshake with a child in C, which examples/c has."""

    async def ask(self, first: Any, trips: Trips) -> None:  # noqa: ARG002
        for _ in trips:
            with machio.ChildPortHandshake() as handshake:
                fd = handshake.client_read_fd()
                command = [str(BUILD / "child"), str(fd)]
                async with machio.spawn(command, pass_fds=[fd], stdout=DEVNULL, grace=0):
                    os.close(fd)
                    right = await handshake.serve(PortRightType.SEND)
                    trips.over()
                    right.close()


class SpawnPython(Start):
    """The same with a child in Python."""

    program: ClassVar[str] = """
import asyncio, machio
async def main():
    with machio.ReceiveRight.allocate() as port:
        await machio.parent.check_in(port, machio.Disposition.MAKE_SEND)
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"""

    async def ask(self, first: Any, trips: Trips) -> None:  # noqa: ARG002
        for _ in trips:
            command = [sys.executable, "-c", self.program]
            async with machio.spawn(command, grace=0) as child:
                right = await child.receive_right()
                trips.over()
                right.close()
