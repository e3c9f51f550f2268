"""A process that looked a handshake's service up and means it no good: hostile.py NAME HOW.

flood     a thousand messages of wrong ids, sizes, shapes and tokens, the queue kept full; says
          at the end how many of the rights in them came to their end
frames    crafted frames with wrong and foreign descriptors into the raw socket of its right
drain     takes every credit of the port and dies
shutdown  shuts the raw socket down
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import stat
import struct
import sys
import tempfile

import machio
from machio import Disposition, Message, ReceiveRight

MESSAGES = 1000
NDR = bytes((0, 0, 0, 0, 1, 0, 0, 0))
MAGICS = (b"mach", b"hcam", b"\0\0\0\0", b"MACH")


def flood(name: str) -> None:
    chance = random.Random(1)
    rights = 0
    service = machio.bootstrap.look_up_blocking(name)
    with service, ReceiveRight.allocate() as port:
        for number in range(MESSAGES):
            message = Message(
                chance.choice((10011, 10012, 0, 71, 72, -1)),
                NDR + chance.randbytes(chance.choice((8, 8, 0, 4, 12, 400))),
                rights=[(port, Disposition.MAKE_SEND_ONCE)] * chance.choice((0, 1, 1, 2)),
            )
            rights += len(message.rights)
            service.send_blocking(message, timeout=20)
            if number == MESSAGES // 2:
                print("half", flush=True)
        for _ in range(rights):
            with port.receive_blocking(timeout=20) as dropped:
                assert dropped.id == machio.NotificationId.SEND_ONCE
        try:
            port.receive_blocking(timeout=0)
        except machio.ReceiveTimedOut:
            print(f"released {rights}", flush=True)


def open_files() -> set[int]:
    fds = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # that of the listing itself
            os.fstat(fd)
            fds.add(fd)
    return fds


def raw_right(name: str) -> tuple[socket.socket, int]:
    """Look the service up, and find its socket and credit pipe among this process's files."""
    machio.bootstrap.look_up_blocking(name).close()  # what lasts is open now
    before = open_files()
    machio.bootstrap.look_up_blocking(name).release()
    found = {stat.S_ISSOCK(os.fstat(fd).st_mode): fd for fd in open_files() - before}
    return socket.socket(fileno=os.dup(found[True])), found[False]


def lingering() -> socket.socket:
    """Return a connected TCP socket with unsent data that would linger for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            client.send(b"x" * 65536)
    KEPT.append(peer)  # which never reads
    return client


KEPT: list[socket.socket] = []


def frames(name: str) -> None:
    chance = random.Random(2)
    tx, credit = raw_right(name)
    with tempfile.TemporaryFile() as file:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe()
        unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
        os.ftruncate(unsealed, 1 << 20)
        tcp = lingering()
        files = [file.fileno(), one.fileno(), other.fileno(), reader, writer, unsealed]
        files += [tcp.fileno(), tx.fileno(), credit]
        for _ in range(400):
            head = struct.pack(
                "=4sHBBIiIHHHH", chance.choice(MAGICS), chance.choice((1, 1, 1, 2, 0)),
                chance.randrange(6), chance.randrange(64), chance.choice((24, 56, 28, 0, 1 << 30)),
                10011, 0, chance.randrange(4), chance.randrange(3), chance.randrange(4), 0,
            )  # fmt: skip
            data = head + chance.randbytes(chance.randrange(0, 120, 4))
            fds = chance.choices(files, k=chance.randrange(5))
            try:
                socket.send_fds(tx, [data], fds, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
    print("done", flush=True)


def drain(name: str) -> None:
    _, credit = raw_right(name)
    os.set_blocking(credit, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(credit, 1024):
            pass
    print("done", flush=True)
    os._exit(0)


def shut(name: str) -> None:
    tx, _ = raw_right(name)
    tx.shutdown(socket.SHUT_RDWR)
    print("done", flush=True)


{"flood": flood, "frames": frames, "drain": drain, "shutdown": shut}[sys.argv[2]](sys.argv[1])
