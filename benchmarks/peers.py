"""Peers: what a user would pick instead."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing.connection
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from contender import BYTES, PAGE, PAYLOAD, SIZE, Contender, Missing, Trips, now, pair, payload

try:
    import zmq.asyncio
except ImportError:
    zmq = None
try:
    import dbus_fast
    from dbus_fast.aio import MessageBus
except ImportError:
    dbus_fast = None


class Streams(Contender):
    """asyncio's (and uvloop's) streams over a pair of UNIX sockets."""

    def prepare(self) -> tuple[Any, int]:
        return pair()

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        reader, writer = await asyncio.open_connection(sock=first)
        times = []
        for _ in trips:
            start = now()
            writer.write(BYTES)
            await writer.drain()
            await reader.readexactly(SIZE)
            times.append(now() - start)
        writer.close()
        return times

    async def echo(self, second: int, count: int) -> None:
        sock = socket.socket(fileno=second)
        reader, writer = await asyncio.open_connection(sock=sock)
        for _ in range(count):
            writer.write(await reader.readexactly(SIZE))
            await writer.drain()
        writer.close()

    async def pour(self, second: int, count: int) -> None:
        sock = socket.socket(fileno=second)
        _, writer = await asyncio.open_connection(sock=sock)
        for _ in range(count):
            writer.write(BYTES)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def drain(self, first: Any, trips: Trips) -> list[int]:
        reader, writer = await asyncio.open_connection(sock=first)
        times = []
        for _ in trips:
            await reader.readexactly(SIZE)
            times.append(now())
        writer.close()
        return times


class AnyioStreams(Contender):
    """anyio's UNIX streams."""

    def prepare(self) -> tuple[Any, int]:
        return pair()

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        times = []
        async with await UNIXSocketStream.from_socket(first) as stream:
            for _ in trips:
                start = now()
                await stream.send(BYTES)
                await stream.receive(SIZE)
                times.append(now() - start)
        return times

    async def echo(self, second: int, count: int) -> None:
        async with await UNIXSocketStream.from_socket(socket.socket(fileno=second)) as stream:
            for _ in range(count):
                await stream.send(await stream.receive(SIZE))

    async def pour(self, second: int, count: int) -> None:
        async with await UNIXSocketStream.from_socket(socket.socket(fileno=second)) as stream:
            for _ in range(count):
                await stream.send(BYTES)

    async def drain(self, first: Any, trips: Trips) -> list[int]:
        async with await UNIXSocketStream.from_socket(first) as stream:
            buffered = BufferedByteReceiveStream(stream)
            times = []
            for _ in trips:
                await buffered.receive_exactly(SIZE)
                times.append(now())
            return times


class Pipe(Contender):
    """`multiprocessing.Pipe`, which blocks: no event loop, nothing else can happen meanwhile."""

    def prepare(self) -> tuple[Any, int]:
        first, second = multiprocessing.connection.Pipe()
        fd = os.dup(second.fileno())
        second.close()
        return first, fd

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        times = []
        for _ in trips:
            start = now()
            first.send_bytes(BYTES)
            first.recv_bytes()
            times.append(now() - start)
        return times

    async def echo(self, second: int, count: int) -> None:
        with multiprocessing.connection.Connection(second) as connection:
            for _ in range(count):
                connection.send_bytes(connection.recv_bytes())

    async def pour(self, second: int, count: int) -> None:
        with multiprocessing.connection.Connection(second) as connection:
            for _ in range(count):
                connection.send_bytes(BYTES)

    async def drain(self, first: Any, trips: Trips) -> list[int]:
        times = []
        for _ in trips:
            first.recv_bytes()
            times.append(now())
        return times


class StreamsPayload(Streams):
    """A large message through asyncio's streams; a byte of each page is read, and answered."""

    warm_up = 3

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        source = payload()
        reader, writer = await asyncio.open_connection(sock=first)
        times = []
        for _ in trips:
            start = now()
            writer.write(source)
            await writer.drain()
            await reader.readexactly(SIZE)
            times.append(now() - start)
        writer.close()
        return times

    async def echo(self, second: int, count: int) -> None:
        sock = socket.socket(fileno=second)
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        for _ in range(count):
            writer.write((await reader.readexactly(PAYLOAD))[::PAGE][:SIZE])
            await writer.drain()
        writer.close()


class PipePayload(Pipe):
    """The same through `multiprocessing.Pipe`."""

    warm_up = 3

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        source = payload()
        times = []
        for _ in trips:
            start = now()
            first.send_bytes(source)
            first.recv_bytes()
            times.append(now() - start)
        return times

    async def echo(self, second: int, count: int) -> None:
        with multiprocessing.connection.Connection(second) as connection:
            for _ in range(count):
                connection.send_bytes(connection.recv_bytes()[::PAGE][:SIZE])


def _path_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _directory() -> tuple[Path, int]:
    """Return a new directory, and a descriptor of it by which another process finds it."""
    path = Path(tempfile.mkdtemp(prefix="machio-benchmark-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path, os.open(path, os.O_RDONLY | os.O_DIRECTORY)


class ZeroMq(Contender):
    """pyzmq's asyncio sockets over ipc."""

    def prepare(self) -> tuple[Any, int]:
        if zmq is None:
            raise Missing("pyzmq is not installed")
        return _directory()

    @staticmethod
    def _socket() -> Any:
        return zmq.asyncio.Context.instance().socket(zmq.PAIR)

    async def ask(self, first: Path, trips: Trips) -> list[int]:
        times = []
        with self._socket() as sock:
            sock.bind(f"ipc://{first}/socket")
            for _ in trips:
                start = now()
                await sock.send(BYTES)
                await sock.recv()
                times.append(now() - start)
        return times

    async def echo(self, second: int, count: int) -> None:
        with self._socket() as sock:
            sock.connect(f"ipc://{_path_of(second)}/socket")
            for _ in range(count):
                await sock.send(await sock.recv())

    async def pour(self, second: int, count: int) -> None:
        with self._socket() as sock:
            sock.connect(f"ipc://{_path_of(second)}/socket")
            for _ in range(count):
                await sock.send(BYTES)
            await sock.recv()  # what is under way is lost at the end of the process

    async def drain(self, first: Path, trips: Trips) -> list[int]:
        with self._socket() as sock:
            sock.bind(f"ipc://{first}/socket")
            times = []
            for _ in trips:
                await sock.recv()
                times.append(now())
            await sock.send(BYTES)
        return times


class DBus(Contender):
    """dbus-fast, through a dbus-daemon on a private address."""

    bus = "org.machio.Benchmark"

    def prepare(self) -> tuple[Any, int]:
        if dbus_fast is None:
            raise Missing("dbus-fast is not installed")
        if shutil.which("dbus-daemon") is None:
            raise Missing("dbus-daemon is not there (Debian: install dbus)")
        path, fd = _directory()
        address = f"unix:path={path}/bus"
        config = path / "config"
        config.write_text(
            f"<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>"
            '<policy context="default"><allow send_destination="*"/><allow own="*"/>'
            '<allow receive_sender="*"/>'
            "</policy></busconfig>"
        )
        daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"],
            stdout=subprocess.PIPE,
        )
        assert daemon.stdout is not None
        daemon.stdout.readline()  # it is there
        return (path, daemon), fd

    @staticmethod
    async def _connect(path: Path) -> Any:
        return await MessageBus(bus_address=f"unix:path={path}/bus").connect()

    async def ask(self, first: Any, trips: Trips) -> list[int]:
        path, daemon = first
        bus = await self._connect(path)

        def call() -> Any:
            return dbus_fast.Message(
                destination=self.bus,
                path="/",
                interface=self.bus,
                member="Echo",
                signature="ay",
                body=[BYTES],
            )

        while (await bus.call(call())).message_type is dbus_fast.MessageType.ERROR:
            await asyncio.sleep(0.01)  # the other side has no name yet
        times = []
        for _ in trips:
            start = now()
            await bus.call(call())
            times.append(now() - start)
        bus.disconnect()
        daemon.terminate()
        daemon.wait()
        daemon.stdout.close()
        return times

    async def echo(self, second: int, count: int) -> None:  # noqa: ARG002
        bus = await self._connect(_path_of(second))

        def answer(message: Any) -> Any:
            if message.member == "Echo":
                return dbus_fast.Message.new_method_return(message, "ay", message.body)
            return None

        bus.add_message_handler(answer)
        await bus.request_name(self.bus)
        with contextlib.suppress(EOFError):
            await bus.wait_for_disconnect()
