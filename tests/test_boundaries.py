"""Who cannot reach a port; the examples with few files, and a process that has no file left.

The handshake where files are few, and users and namespaces others, is in `test_handshake.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from test_examples import SLOW

import machio
from machio import PortRightType

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534
EXAMPLES = ["parent.py", "reverse_parent.py", "once_parent.py", "task_parent.py"]

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
        self.serving = serving

    async def client(self) -> tuple[int, str]:
        """Run a client to its end; its exit status and what it said."""
        reader, writer = os.pipe()
        os.write(writer, self.offer)
        os.close(writer)
        command = [sys.executable, "-c", CLIENT, str(reader)]
        client = subprocess.Popen(command, pass_fds=[reader], stderr=subprocess.PIPE, text=True)
        os.close(reader)
        _, complaint = await asyncio.to_thread(client.communicate)
        return client.returncode, complaint


@contextlib.asynccontextmanager
async def handshake() -> AsyncIterator[Handshake]:
    read_fd, write_fd = os.pipe()
    serving = asyncio.ensure_future(machio.serve_fd(write_fd, PortRightType.RECEIVE, timeout=60))
    offer = await asyncio.to_thread(os.read, read_fd, 12)
    offer += await asyncio.to_thread(os.read, read_fd, struct.unpack("=I", offer[8:])[0])
    try:
        yield Handshake(read_fd, offer, serving)
    finally:
        os.close(read_fd)
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError, machio.MachioError):
            (await serving).close()


@pytest.mark.parametrize("uid", [[], [str(NOBODY)]], ids=["same-user", "other-user"])
async def test_who_holds_no_right_reaches_no_port(uid: list[str]) -> None:
    if uid and os.getuid() != 0:
        uid = []  # an ordinary user cannot become another; the sockets are tried all the same
    async with handshake() as made:
        program = ROOT / "tests/programs/outsider.py"
        code = program.read_text(encoding="utf-8")  # the file may be root's alone
        done = subprocess.run(
            [sys.executable, "-c", code, str(os.getpid()), *uid],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 1, lines
        assert int(lines[0].removeprefix("tried ")) >= 2, "the service and the bootstrap port"
        assert not made.serving.done()
        assert await made.client() == (0, "")
        with await made.serving as port, await port.receive(timeout=10) as message:
            assert message.id == 7


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_with_64_files(example: str, bootstrap_env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", ROOT / "examples" / example],
        env=bootstrap_env, capture_output=True, text=True, timeout=50, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )  # fmt: skip
    assert (done.returncode, SLOW.sub("", done.stderr).strip()) == (0, "")


def test_a_process_at_its_limit_loses_no_message(bootstrap_env: dict[str, str]) -> None:
    code = """
import os, machio
from machio import Disposition, Message, ReceiveRight
pid = os.fork()
if pid == 0:
    with machio.bootstrap.check_in_blocking("org.machio.tests.limit") as port:
        with port.receive_blocking(20) as go:
            with ReceiveRight.allocate() as cargo, cargo.make_send() as send:
                go.reply.send(Message(2, rights=[send]))
                cargo.receive_blocking(20).close()
    os._exit(0)
while True:
    try:
        service = machio.bootstrap.look_up_blocking("org.machio.tests.limit")
        break
    except machio.UnknownServiceError:
        os.sched_yield()
with service, ReceiveRight.allocate() as port:
    service.send_blocking(Message(1, reply=port.make_send_once()))
    hoard = []
    try:
        while True:
            hoard.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    try:
        port.receive_blocking(timeout=20)
        raise SystemExit("received without room")
    except machio.ReceiveError as error:
        assert "BODY_ERROR" in str(error), error
    for fd in hoard:
        os.close(fd)
    with port.receive_blocking(timeout=20) as message:
        assert message.id == 2
        (right,) = message.rights
        right.send_blocking(Message(3))
        right.close()
assert os.waitpid(pid, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=bootstrap_env, capture_output=True, text=True, timeout=50, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
