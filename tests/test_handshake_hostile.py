"""A third process that knows the service's name, and what it can do to a handshake: nothing much.

The test is the server, and keeps the client's end of the pipe; the client and the attacker are
processes of their own. The client gets a copy of what was written to the pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import machio
from machio import PortRightType

PROGRAMS = Path(__file__).parent / "programs"
CLIENT = """
import asyncio, sys, machio
from machio import Disposition, Message, ReceiveRight
async def main():
    with ReceiveRight.allocate() as port, port.make_send() as send:
        await send.send(Message(7))
        await machio.check_in_fd(int(sys.argv[1]), port, Disposition.MOVE_RECEIVE, timeout=30)
asyncio.run(main())
"""


class Handshake:
    """A server that waits, the offer that it made, and the client's end of the pipe."""

    def __init__(self, read_fd: int, offer: bytes, serving: asyncio.Task) -> None:
        self.read_fd = read_fd
        self.offer = offer
        self.name = offer[12:].decode()
        self.serving = serving
        self.prefix: list[str] = []  # a command that starts the client in another place

    async def attack(self, how: str) -> subprocess.Popen[str]:
        command = [sys.executable, PROGRAMS / "hostile.py", self.name, how]
        attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert await asyncio.to_thread(attacker.stdout.readline) in ("half\n", "done\n")
        return attacker

    async def client(self) -> int:
        """Run a client to its end; its exit status."""
        reader, writer = os.pipe()
        os.write(writer, self.offer)
        os.close(writer)
        command = [*self.prefix, sys.executable, "-c", CLIENT, str(reader)]
        client = subprocess.Popen(command, pass_fds=[reader], stderr=subprocess.PIPE, text=True)
        os.close(reader)
        _, self.complaint = await asyncio.to_thread(client.communicate)
        return client.returncode

    def hang_up(self) -> None:
        if self.read_fd >= 0:
            os.close(self.read_fd)
        self.read_fd = -1


async def end(attacker: subprocess.Popen[str]) -> str:
    said, _ = await asyncio.to_thread(attacker.communicate)
    assert attacker.returncode == 0
    return said


@contextlib.asynccontextmanager
async def handshake() -> AsyncIterator[Handshake]:
    read_fd, write_fd = os.pipe()
    serving = asyncio.ensure_future(machio.serve_fd(write_fd, PortRightType.RECEIVE, timeout=60))
    offer = await asyncio.to_thread(os.read, read_fd, 12)
    offer += await asyncio.to_thread(os.read, read_fd, struct.unpack("=I", offer[8:])[0])
    made = Handshake(read_fd, offer, serving)
    try:
        yield made
    finally:
        made.hang_up()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError, machio.MachioError):
            (await serving).close()


async def expect_right(made: Handshake) -> None:
    with await made.serving as port, await port.receive(timeout=10) as message:
        assert message.id == 7


async def test_a_flood_does_not_keep_the_client_out() -> None:
    async with handshake() as made:
        attacker = await made.attack("flood")
        assert await made.client() == 0, made.complaint
        await expect_right(made)
        # Its further sends find the port dead; those that were queued ended with it.
        await asyncio.to_thread(attacker.communicate)


async def test_every_right_of_a_flood_is_released() -> None:
    async with handshake() as made:
        attacker = await made.attack("flood")
        assert (await end(attacker)).startswith("released ")
        assert await made.client() == 0, made.complaint
        await expect_right(made)


@pytest.mark.parametrize("how", ["frames", "drain"])
async def test_an_attack_on_the_raw_right_does_not_keep_the_client_out(how: str) -> None:
    async with handshake() as made:
        await end(await made.attack(how))
        assert await made.client() == 0, made.complaint
        await expect_right(made)


async def test_a_socket_shut_down_ends_in_clear_errors() -> None:
    async with handshake() as made:
        await end(await made.attack("shutdown"))
        assert await made.client() == 1
        assert "ServerGoneError" in made.complaint
        made.hang_up()
        with pytest.raises(machio.NoCheckInError):
            await made.serving
