"""Who cannot reach a port; and the handshake where files are few, users and namespaces others."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_examples import SLOW
from test_handshake_hostile import expect_right, handshake

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534
EXAMPLES = ["parent.py", "reverse_parent.py", "once_parent.py", "task_parent.py"]

# Ways to another pid namespace, the first that this machine allows; none: the test says so.
NAMESPACES = [
    ["unshare", "--pid", "--fork", "--kill-child"],
    ["unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child"],
]


def allowed(command: list[str]) -> bool:
    return shutil.which(command[0]) is not None and (
        subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    )


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
        assert await made.client() == 0, made.complaint
        await expect_right(made)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_with_64_files(example: str, bootstrap_env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", ROOT / "examples" / example],
        env=bootstrap_env, capture_output=True, text=True, timeout=50, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )  # fmt: skip
    assert (done.returncode, SLOW.sub("", done.stderr)) == (0, "")


async def test_a_client_in_another_pid_namespace() -> None:
    prefix = next((command for command in NAMESPACES if allowed(command)), None)
    if prefix is None:
        pytest.skip("this machine allows no new pid namespace")
    async with handshake() as made:
        made.prefix = prefix
        assert await made.client() == 0, made.complaint
        with await made.serving as port, await port.receive(timeout=10) as message:
            assert message.id == 7
            assert message.sender.pid > 1  # as seen from here, not the 1 that it has there
            assert not message.sender.is_kernel


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
