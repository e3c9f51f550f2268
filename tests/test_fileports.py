"""Open files as rights: in one process, between two, and how long they live."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest

import machio
from machio import Disposition, Message

# Takes a file over, writes to it, and does not end before it is told to.
WRITER = """
import asyncio, os, sys, machio
async def main():
    with await machio.parent.serve() as right:
        fd = machio.fileport_makefd(right)
    os.write(fd, b"from the child")
    sys.stdin.read()
asyncio.run(main())
"""


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as out, open(writer, "wb", buffering=0) as end:  # noqa: PTH123
        yield out, end


async def test_it_travels_and_keeps_its_name(pipe, port, send):
    out, end = pipe
    with machio.fileport_makeport(end) as right:
        for _ in range(2):
            await send.send(Message(1, rights=[(right, Disposition.COPY_SEND)]))
            with await port.receive() as message:
                assert message.rights[0] == right
                with open(machio.fileport_makefd(message.rights[0]), "wb") as again:  # noqa: PTH123
                    assert not os.get_inheritable(again.fileno())
                    again.write(b"x")
                assert out.read(1) == b"x"


async def test_a_number_does_as_well(pipe):
    with machio.fileport_makeport(pipe[1].fileno()) as right:
        os.close(machio.fileport_makefd(right))


async def test_what_it_is_not(port, send):
    for right in (port, send):
        with pytest.raises(OSError, match="fileport_makefd: Invalid argument"):
            machio.fileport_makefd(right)
    with pytest.raises(OSError, match="fileport_makeport: Bad file descriptor"):
        machio.fileport_makeport(-1)
    with machio.fileport_makeport(0) as right:
        right.close()
        with pytest.raises(machio.RightClosedError):
            machio.fileport_makefd(right)


async def test_what_is_sent_to_it_is_dropped():
    with machio.fileport_makeport(0) as right:
        for _ in range(100):  # there is always room
            await right.send(Message(1))
        await right.send_possible(10)
        assert not right.is_dead


async def test_a_request_to_it_is_dropped():
    with machio.fileport_makeport(0) as right, pytest.raises(machio.ServerDiedError):
        await right.call(Message(1), timeout=10)


@pytest.mark.usefixtures("bootstrap_server")
async def test_between_processes_it_lives_as_long_as_somebody_has_it(pipe):
    out, end = pipe
    command = [sys.executable, "-c", WRITER]
    async with machio.spawn(command, stdin=subprocess.PIPE) as child:
        await child.give(machio.fileport_makeport(end))
        end.close()
        assert await asyncio.to_thread(out.read, 100) == b"from the child"
        os.set_blocking(out.fileno(), False)
        assert out.read(1) is None  # the child has it
        os.set_blocking(out.fileno(), True)
        child.process.stdin.close()
        assert await child.wait() == 0
        assert await asyncio.to_thread(out.read, 1) == b""


@pytest.mark.usefixtures("bootstrap_server")
async def test_one_that_nobody_took_is_closed(pipe):
    """The child dies with the message in its queue."""
    out, end = pipe
    async with machio.spawn(["sleep", "60"]) as child:
        with machio.fileport_makeport(end) as right, pytest.raises(machio.HandshakeTimedOut):
            await child.give(right, timeout=0.01)
    end.close()
    assert await asyncio.to_thread(out.read, 1) == b""


async def test_a_socket_that_listens(port, send):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        await send.send(Message(1, rights=[machio.fileport_makeport(listener)]))
    with await port.receive() as message:
        again = socket.socket(fileno=machio.fileport_makefd(message.rights[0]))
    with again, socket.create_connection(address), again.accept()[0]:
        assert again.getsockname() == address
