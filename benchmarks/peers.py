"""Peers: what a user would pick instead."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing.connection
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from contender import BYTES, PAGE, PAYLOAD, SIZE, Contender, Missing, Take, Trips, pair, payload

try:
    import zmq.asyncio
except ImportError:
    zmq = None
try:
    import dbus_fast
    import dbus_fast.service as dbus_service
    from dbus_fast.aio import MessageBus
except ImportError:
    dbus_fast = None


class Streams(Contender):
    """asyncio's (and uvloop's) streams; `size` senders or clients have a connection each."""

    fds = 1

    def prepare(self) -> tuple[Any, list[int]]:
        pairs = [pair() for _ in range(self.size)]
        return [first for first, _ in pairs], [second for _, second in pairs]

    async def ask(self, first: Any, trips: Trips) -> None:
        reader, writer = await asyncio.open_connection(sock=first[0])
        for _ in trips:
            writer.write(BYTES)
            await writer.drain()
            await reader.readexactly(SIZE)
        writer.close()

    async def echo(self, second: int) -> None:
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=second))
        while True:
            writer.write(await reader.readexactly(SIZE))
            await writer.drain()

    async def pour(self, second: int, bodies: Iterable[bytes]) -> None:
        _, writer = await asyncio.open_connection(sock=socket.socket(fileno=second))
        for body in bodies:
            writer.write(body)
            await writer.drain()

    async def drain(self, first: Any, trips: Trips, take: Take) -> None:
        left = iter(trips)

        async def one(sock: socket.socket) -> None:
            reader, writer = await asyncio.open_connection(sock=sock)
            with contextlib.suppress(asyncio.IncompleteReadError):  # the senders are gone
                for _ in left:
                    take(await reader.readexactly(SIZE))
            writer.close()

        await asyncio.gather(*map(one, first))

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[tuple[str, str]]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    writer.write(await reader.readexactly(SIZE))
                    await writer.drain()
            writer.close()

        with tempfile.TemporaryDirectory() as directory:
            place = str(Path(directory, "socket"))
            async with await asyncio.start_unix_server(answer, place, backlog=self.size):
                yield "stream", place


class AnyioStreams(Contender):
    """anyio's UNIX streams."""

    def prepare(self) -> tuple[Any, list[int]]:
        first, second = pair()
        return first, [second]

    async def ask(self, first: Any, trips: Trips) -> None:
        async with await UNIXSocketStream.from_socket(first) as stream:
            for _ in trips:
                await stream.send(BYTES)
                await stream.receive(SIZE)

    async def echo(self, second: int) -> None:
        async with await UNIXSocketStream.from_socket(socket.socket(fileno=second)) as stream:
            while True:
                await stream.send(await stream.receive(SIZE))

    async def pour(self, second: int, bodies: Iterable[bytes]) -> None:
        async with await UNIXSocketStream.from_socket(socket.socket(fileno=second)) as stream:
            for body in bodies:
                await stream.send(body)

    async def drain(self, first: Any, trips: Trips, take: Take) -> None:
        async with await UNIXSocketStream.from_socket(first) as stream:
            buffered = BufferedByteReceiveStream(stream)
            for _ in trips:
                take(await buffered.receive_exactly(SIZE))


class Pipe(Contender):
    """`multiprocessing.Pipe`, which blocks: no event loop, nothing else can happen meanwhile."""

    def prepare(self) -> tuple[Any, list[int]]:
        first, second = multiprocessing.connection.Pipe()
        fd = os.dup(second.fileno())
        second.close()
        return first, [fd]

    async def ask(self, first: Any, trips: Trips) -> None:
        for _ in trips:
            first.send_bytes(BYTES)
            first.recv_bytes()

    async def echo(self, second: int) -> None:
        with multiprocessing.connection.Connection(second) as connection:
            while True:
                connection.send_bytes(connection.recv_bytes())

    async def pour(self, second: int, bodies: Iterable[bytes]) -> None:
        with multiprocessing.connection.Connection(second) as connection:
            for body in bodies:
                connection.send_bytes(body)

    async def drain(self, first: Any, trips: Trips, take: Take) -> None:
        for _ in trips:
            take(first.recv_bytes())


class StreamsPayload(Streams):
    """A large message through asyncio's streams; a byte of each page is read, and answered."""

    warm_up = 3

    async def ask(self, first: Any, trips: Trips) -> None:
        source = payload()
        reader, writer = await asyncio.open_connection(sock=first[0])
        for _ in trips:
            writer.write(source)
            await writer.drain()
            await reader.readexactly(SIZE)
        writer.close()

    async def echo(self, second: int) -> None:
        sock = socket.socket(fileno=second)
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        while True:
            writer.write((await reader.readexactly(PAYLOAD))[::PAGE][:SIZE])
            await writer.drain()


class PipePayload(Pipe):
    """The same through `multiprocessing.Pipe`."""

    warm_up = 3

    async def ask(self, first: Any, trips: Trips) -> None:
        source = payload()
        for _ in trips:
            first.send_bytes(source)
            first.recv_bytes()

    async def echo(self, second: int) -> None:
        with multiprocessing.connection.Connection(second) as connection:
            while True:
                connection.send_bytes(connection.recv_bytes()[::PAGE][:SIZE])


def _path_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _directory() -> tuple[Path, int]:
    """Return a new directory, and a descriptor of it by which another process finds it.

    It is in the run's own, which is removed at the end.
    """
    path = Path(tempfile.mkdtemp())
    return path, os.open(path, os.O_RDONLY | os.O_DIRECTORY)


class ZeroMq(Contender):
    """pyzmq's asyncio sockets over ipc."""

    def prepare(self) -> tuple[Any, list[int]]:
        if zmq is None:
            raise Missing("pyzmq is not installed")
        path, fd = _directory()
        return path, [fd]

    @staticmethod
    def _socket() -> Any:
        return zmq.asyncio.Context.instance().socket(zmq.PAIR)

    async def ask(self, first: Path, trips: Trips) -> None:
        with self._socket() as sock:
            sock.bind(f"ipc://{first}/socket")
            for _ in trips:
                await sock.send(BYTES)
                await sock.recv()

    async def echo(self, second: int) -> None:
        with self._socket() as sock:
            sock.connect(f"ipc://{_path_of(second)}/socket")
            while True:
                await sock.send(await sock.recv())

    async def pour(self, second: int, bodies: Iterable[bytes]) -> None:
        with self._socket() as sock:
            sock.connect(f"ipc://{_path_of(second)}/socket")
            for body in bodies:
                await sock.send(body)

    async def drain(self, first: Path, trips: Trips, take: Take) -> None:
        with self._socket() as sock:
            sock.bind(f"ipc://{first}/socket")
            for _ in trips:
                take(await sock.recv())


class DBus(Contender):
    """dbus-fast's messages, through a dbus-daemon on a private address."""

    bus = "org.machio.Benchmark"
    config = """<busconfig><type>session</type><listen>unix:path={}/bus</listen>
<auth>EXTERNAL</auth><policy context="default"><allow send_destination="*"/><allow own="*"/>
<allow receive_sender="*"/></policy></busconfig>"""

    def prepare(self) -> tuple[Any, list[int]]:
        if dbus_fast is None:
            raise Missing("dbus-fast is not installed")
        if shutil.which("dbus-daemon") is None:
            raise Missing("dbus-daemon is not there (Debian: install dbus)")
        path, fd = _directory()
        config = path / "config"
        config.write_text(self.config.format(path))
        daemon = subprocess.Popen(
            ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # as root it complains about limits
        )
        assert daemon.stdout is not None
        daemon.stdout.readline()  # it is there
        return (path, daemon), [fd]

    @staticmethod
    async def _connect(path: Path) -> Any:
        return await MessageBus(bus_address=f"unix:path={path}/bus").connect()

    async def ask(self, first: Any, trips: Trips) -> None:
        path, daemon = first
        bus = await self._connect(path)
        call = await self._caller(bus)
        for _ in trips:
            await call()
        bus.disconnect()
        daemon.terminate()
        daemon.wait()
        daemon.stdout.close()

    async def _caller(self, bus: Any) -> Callable[[], Awaitable[Any]]:
        """Return what makes a call, once the other side has its name."""

        def call() -> Any:
            message = dbus_fast.Message(
                destination=self.bus,
                path="/",
                interface=self.bus,
                member="Echo",
                signature="ay",
                body=[BYTES],
            )
            return bus.call(message)

        while (await call()).message_type is dbus_fast.MessageType.ERROR:
            await asyncio.sleep(0.01)
        return call

    async def echo(self, second: int) -> None:
        bus = await self._connect(_path_of(second))
        self._export(bus)
        await bus.request_name(self.bus)
        await bus.wait_for_disconnect()

    def _export(self, bus: Any) -> None:
        def answer(message: Any) -> Any:
            if message.member == "Echo":
                return dbus_fast.Message.new_method_return(message, "ay", message.body)
            return None

        bus.add_message_handler(answer)


class DBusInterface(DBus):
    """The same as most write it: an interface whose methods are typed, and a proxy of it."""

    async def _caller(self, bus: Any) -> Callable[[], Awaitable[Any]]:
        while True:
            try:
                described = await bus.introspect(self.bus, "/")
                break
            except dbus_fast.DBusError:
                await asyncio.sleep(0.01)
        interface = bus.get_proxy_object(self.bus, "/", described).get_interface(self.bus)
        return functools.partial(interface.call_echo, BYTES)

    def _export(self, bus: Any) -> None:
        class Echo(dbus_service.ServiceInterface):  # type: ignore[misc]
            @dbus_service.method()  # type: ignore[untyped-decorator]
            def Echo(self, data: "ay") -> "ay":  # type: ignore[name-defined]  # noqa: F821, N802, UP037
                return data

        bus.export("/", Echo(self.bus))
