"""Scenarios with an attacker: a third process that looked the handshake's service up.

The client tells it the service's name, which in truth it would have to guess or be told; the token
stays a secret. What it sends through `mach_msg` is a flood; what it does to the raw descriptors of
its send right are frames of its own making, a drain and a shutdown.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - who plays as another user may not find it later
import fcntl
import os
import random
import select
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from common import open_fds

import machio
from machio import Disposition, Message, ReceiveRight, _checkin, bootstrap

from .acts import (
    MOVE_RECEIVE,
    RECEIVE,
    check_in_with,
    expect_dead,
    name_in,
    patched,
    serve_in_vain,
    still_works,
)
from .stage import LIMIT, Scenario, Stage, variants

NDR = bytes((0, 0, 0, 0, 1, 0, 0, 0))
WRONG_TOKEN = bytes(8)


async def checks_in_when_told(stage: Stage) -> None:
    """Be the client: have the service attacked, then check in."""
    async with stage.offer() as offer:
        stage.tell("attacker", name_in(offer))
        assert await stage.hear("attacker") == "attacked"
        with ReceiveRight.allocate() as port, port.make_send() as send:
            await send.send(Message(7), LIMIT)
            await check_in_with(offer, port, MOVE_RECEIVE)
    stage.tell("attacker", "in")


# --- through mach_msg ------------------------------------------------------------------------------


@variants(
    AndEnds=("The client comes afterwards, when all its rights are released.", True),
    WithoutEnd=("The client comes when half of it is sent.", False),
)
class Flood:
    """A thousand messages of wrong ids, sizes, shapes and tokens with rights in them; full queue."""

    async def server(stage, ends):
        with await stage.serve(RECEIVE) as port:
            assert (await port.receive(LIMIT)).id == 7

    async def client(stage, ends):
        await checks_in_when_told(stage)

    async def attacker(stage, ends):
        with (
            await bootstrap.look_up(await stage.hear("client")) as service,
            ReceiveRight.allocate() as home,
        ):
            sent = 0
            with contextlib.suppress(machio.DeadDestinationError):
                for number, message in enumerate(flood(home)):
                    if number == 500 and not ends:
                        stage.tell("client", "attacked")
                    if number % 50 == 0:
                        await moved_away(service)
                    await service.send(message, LIMIT)
                    sent += sum(kind is Disposition.MAKE_SEND_ONCE for _, kind in message.rights)
            for _ in range(sent):
                with await home.receive(LIMIT) as released:
                    assert released.is_notification
                    assert released.id == machio.NotificationId.SEND_ONCE
            await home.no_senders(LIMIT)
            if ends:
                stage.tell("client", "attacked")
            assert await stage.hear("client") == "in"


def flood(home: ReceiveRight) -> Iterator[Message]:
    chance = random.Random(1)
    for _ in range(1000):
        kinds = (Disposition.MAKE_SEND_ONCE, Disposition.MAKE_SEND)
        count = chance.choice((0, 1, 1, 2))
        yield Message(
            chance.choice((10011, 10011, 10012, 0, 71, 72, -1)),
            NDR + chance.randbytes(chance.choice((8, 8, 0, 4, 12, 400, 20000))),
            rights=[(home, chance.choice(kinds)) for _ in range(count)],
        )


async def moved_away(service: machio.SendRight) -> None:
    """Send a receive right with a wrong token, and see it destroyed."""
    with ReceiveRight.allocate() as port:
        send = port.make_send()
        try:
            await service.send(Message(10011, NDR + WRONG_TOKEN, [(port, MOVE_RECEIVE)]), LIMIT)
        except machio.DeadDestinationError:
            send.close()
            raise
    await expect_dead(send)


# --- beside mach_msg ---------------------------------------------------------------------------------


def new_files(call: Any) -> tuple[Any, set[int]]:
    before = open_fds()
    made = call()
    return made, set(open_fds()) - set(before)


@contextlib.contextmanager
def raw_right(name: str) -> Iterator[tuple[int, int]]:
    """Look the service up, and find its socket and its credit pipe among this process's files."""
    bootstrap.look_up_blocking(name).close()  # what lasts is open now
    service, files = new_files(lambda: bootstrap.look_up_blocking(name))
    with service:
        found = {stat.S_ISSOCK(os.fstat(fd).st_mode): fd for fd in files}
        yield found[True], found[False]


class Drain(Scenario):
    """All credits of the service's queue are taken and not used: the client still gets in."""

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            assert (await port.receive(LIMIT)).id == 7

    async def client(stage):
        await checks_in_when_told(stage)

    async def attacker(stage):
        with raw_right(await stage.hear("client")) as (_, credit):
            while select.select([credit], [], [], 0)[0]:
                assert os.read(credit, 1024)
            stage.tell("client", "attacked")
            assert await stage.hear("client") == "in"


class Shutdown(Scenario):
    """The service's socket is shut down: the client learns it, keeps its right, and all end."""

    async def server(stage):
        await serve_in_vain(stage)

    async def client(stage):
        async with stage.offer() as offer:
            stage.tell("attacker", name_in(offer))
            assert await stage.hear("attacker") == "attacked"
            with ReceiveRight.allocate() as port, port.make_send() as send:
                with pytest.raises(machio.ServerGoneError):
                    await check_in_with(offer, port, MOVE_RECEIVE)
                await still_works(port, send)

    async def attacker(stage):
        with raw_right(await stage.hear("client")) as (tx, _):
            with socket.socket(fileno=os.dup(tx)) as shared:
                shared.shutdown(socket.SHUT_RDWR)
            stage.tell("client", "attacked")


class Frames(Scenario):
    """Frames with every kind of file in every place, and lies in every field: one by one dropped."""

    async def server(stage):
        judged = []

        def judge(original, server, message):
            judged.append(bytes(message).hex())
            stage.tell("attacker")
            return original(server, message)

        with patched(_checkin.Server, "judge", judge), await stage.serve(RECEIVE) as port:
            assert (await port.receive(LIMIT)).id == 7
        # The two frames that are as they should be, but for the token; and the client's.
        assert len(judged) == 3, judged

    async def client(stage):
        await checks_in_when_told(stage)

    async def attacker(stage):
        with raw_right(await stage.hear("client")) as (tx, credit), contextlib.ExitStack() as stack:
            own = own_port(stack)
            good = Frame([send_record(0, 1)], [own["tx"], own["cr"]])
            send_raw(tx, good)
            files = strange_files(stack)
            files |= {f"own {part}": fd for part, fd in own.items()}
            files |= {"its tx": tx, "its cr": credit}
            for frame in crafted(own, files, good):
                send_raw(tx, frame)
            send_raw(tx, good)
            # Descriptors in flight are counted by user: with few files there is room for the
            # client's only when the server has taken the last frame off.
            for _ in range(2):
                assert await stage.hear("server")
            stage.tell("client", "attacked")
            assert await stage.hear("client") == "in"


def own_port(stack: contextlib.ExitStack) -> dict[str, int]:
    """Make a port that others can reach; return the files that it consists of."""
    name = f"org.machio.tests.attacker.{os.getpid()}"
    port, files = new_files(lambda: bootstrap.check_in_blocking(name))
    stack.enter_context(port)
    own = {}
    for fd in files:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            with socket.socket(fileno=os.dup(fd)) as shared:
                own["rx" if shared.getsockname() else "tx"] = fd
        elif fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            own["cw"] = fd
    own["cr"] = os.open(f"/proc/self/fd/{own['cw']}", os.O_RDONLY | os.O_NONBLOCK)
    stack.callback(os.close, own["cr"])
    return own


def strange_files(stack: contextlib.ExitStack) -> dict[str, int]:
    """Open one file of every kind."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the stack
    files = {"file": stack.enter_context(file).fileno()}
    for kind in ("SOCK_STREAM", "SOCK_DGRAM", "SOCK_SEQPACKET"):
        pair = socket.socketpair(socket.AF_UNIX, getattr(socket, kind))
        files[kind], files[f"{kind} peer"] = (stack.enter_context(end).fileno() for end in pair)
    files["reader"], files["writer"] = os.pipe()
    files["null"] = os.open(os.devnull, os.O_RDWR)
    files["memfd"] = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(files["memfd"], 1 << 20)
    files["directory"] = os.open("/", os.O_RDONLY)
    for name in ("reader", "writer", "null", "memfd", "directory"):
        stack.callback(os.close, files[name])
    files["epoll"] = stack.enter_context(select.epoll()).fileno()
    files["lingering"] = lingering(stack).fileno()
    return files


def lingering(stack: contextlib.ExitStack) -> socket.socket:
    """Return a connected TCP socket with unsent data that would linger for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        stack.enter_context(listener.accept()[0])  # which never reads
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    stack.callback(client.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.send(b"x" * 65536)
    return client


# docs/linux-wire.md, "A frame".
HEADER = struct.Struct("=IHBBIiIHHHH")
RIGHT = struct.Struct("=BBHHHHH")
MOVED = struct.Struct("=IIIHHHHI")
FIELDS = (
    "magic",
    "version",
    "kind",
    "flags",
    "size",
    "id",
    "voucher",
    "rights",
    "receives",
    "fds",
    "zero",
)
MAGIC, COMPLEX, NO_CREDIT, NONE = 0x6863616D, 1, 2, 0xFFFF
NO_REPLY = RIGHT.pack(0, 0, NONE, NONE, NONE, 0, 0)


def send_record(tx: int, cr: int) -> bytes:
    return RIGHT.pack(2, 17, tx, cr, NONE, 0, 0)


@dataclass
class Frame:
    """A check-in with a wrong token: what a frame is made of, each part to be exchanged."""

    records: list[bytes]
    fds: list[int]
    receives: list[bytes] = field(default_factory=list)
    body: bytes = struct.pack("=IIIHBB", 1, 0, 0, 0, 17, 0) + NDR + WRONG_TOKEN
    header: dict[str, int] = field(default_factory=dict)

    def bytes(self) -> bytes:
        values = {
            "magic": MAGIC, "version": 4, "kind": 1, "flags": COMPLEX | NO_CREDIT,
            "size": 24 + len(self.body), "id": 10011, "voucher": 0,
            "rights": 1 + len(self.records), "receives": len(self.receives),
            "fds": len(self.fds), "zero": 0,
        } | self.header  # fmt: skip
        head = HEADER.pack(*(values[name] for name in FIELDS))
        return head + NO_REPLY + b"".join(self.records) + b"".join(self.receives) + self.body


def crafted(own: dict[str, int], files: dict[str, int], good: Frame) -> Iterator[Frame]:
    """Make frames with one lie each."""
    tx, cr = good.fds
    for what, file in files.items():
        if what != "own tx":
            yield replace(good, fds=[file, cr])
        if what != "own cr":
            yield replace(good, fds=[tx, file])
        yield replace(good, fds=[tx, cr, file])  # nobody refers to it
        yield replace(good, records=[RIGHT.pack(3, 18, 0, NONE, NONE, 0, 0)], fds=[file])
        moved = [MOVED.pack(5, 5, 0, 0, 0, NONE, NONE, 0)]
        for place, part in enumerate(("rx", "tx", "cw")):
            if what != f"own {part}":
                fds = [own["rx"], own["tx"], own["cw"]]
                fds[place] = file
                yield Frame([RIGHT.pack(4, 16, 0, 1, 2, 0, 0)], fds, moved)
    for name, value in (
        ("magic", 0), ("magic", 0x6D616368), ("version", 0), ("version", 2), ("version", 3), ("kind", 0),
        ("kind", 5), ("flags", 0), ("flags", COMPLEX | 32), ("flags", 0x80 | COMPLEX),
        ("flags", COMPLEX | NO_CREDIT | 8), ("size", 0), ("size", 52), ("size", 60), ("size", 57),
        ("size", 1 << 30), ("size", 0xFFFFFFFC), ("rights", 0), ("rights", 1), ("rights", 3),
        ("rights", 0xFFFF), ("receives", 1), ("receives", 0xFFFF), ("fds", 1), ("fds", 3),
        ("fds", 0xFFFF), ("zero", 1),
    ):  # fmt: skip
        yield replace(good, header={name: value})
    for record in (
        send_record(0, 0), send_record(0, 2), send_record(NONE, 1), send_record(1, 0),
        RIGHT.pack(2, 17, 0, 1, NONE, 0, 1), RIGHT.pack(2, 17, 0, 1, NONE, 1, 0),
        RIGHT.pack(2, 17, 0, 1, 0, 0, 0), RIGHT.pack(9, 17, 0, 1, NONE, 0, 0),
        RIGHT.pack(4, 16, 0, 1, NONE, 0, 0), RIGHT.pack(4, 16, 0, 1, 1, 0, 0),
        RIGHT.pack(3, 18, 0, 1, NONE, 0, 0), RIGHT.pack(0, 0, NONE, NONE, NONE, 0, 0),
    ):  # fmt: skip
        yield replace(good, records=[record])
    for count, kind in ((0, 0), (2, 0), (1, 1), (1, 2), (1, 7), (0x10000, 0), (0xFFFFFFFF, 0)):
        yield replace(good, body=struct.pack("=IIIHBB", count, 0, 0, 0, 17, kind) + good.body[16:])


def send_raw(tx: int, frame: Frame) -> None:
    """Put a frame into the socket, when there is room."""
    with socket.socket(fileno=os.dup(tx)) as shared:
        while True:
            try:
                socket.send_fds(shared, [frame.bytes()], frame.fds, socket.MSG_DONTWAIT)
            except BlockingIOError:
                select.select([], [shared], [], LIMIT)
            else:
                return
