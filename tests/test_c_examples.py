"""The handshake in C: with Python as the other side, with each other, and by themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from common import LOOPS, rights_held
from test_examples import ESSENTIAL, EXAMPLES, PATIENCE, PYTHON, assert_in_order

import machio

pytestmark = pytest.mark.timeout(300)  # the first waits for the compiler

PARENT_PY = [*PYTHON, str(EXAMPLES / "reverse_parent.py")]
CHILD_PY = [*PYTHON, str(EXAMPLES / "reverse_child.py")]

# A child that gives its parent a receive right, of which none wants to know, and sees it destroyed.
GENEROUS = """
import asyncio, sys, machio

async def main(fd):
    with machio.ReceiveRight.allocate() as port, port.make_send() as send:
        await machio.check_in_fd(fd, port, machio.Disposition.MOVE_RECEIVE)
        await send.died()
        print("child: it was destroyed", flush=True)

asyncio.run(main(int(sys.argv[1])))
"""


@pytest.fixture
def env(bootstrap_env):
    """An environment without a bootstrap server, whose python3 is the one that runs the tests."""
    path = f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}"  # noqa: PTH120
    env = {**bootstrap_env, "PATH": path, "MACHIO_BOOTSTRAPD_IDLE": "0.5"}
    env.pop("MACHIO_BOOTSTRAPD", None)
    return env


@pytest.fixture
def child(c_examples):
    return [str(c_examples / "child")]


@pytest.fixture
def parent(c_examples):
    return [str(c_examples / "parent")]


def run(command, env, status=0):
    """Run a program to its end; return what it said."""
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_parent_in_python_and_a_child_in_c(child, env):
    assert_in_order(ESSENTIAL["reverse_parent.py"], run([*PARENT_PY, *child], env))


def test_a_parent_in_c_and_a_child_in_python(parent, env):
    assert_in_order(ESSENTIAL["reverse_parent.py"], run([*parent, *CHILD_PY], env))


@pytest.mark.parametrize(
    ("variables", "refusal"),
    [
        ({}, None),
        (
            {"PATH": "/nowhere", "MACHIO_BOOTSTRAPD": f"{sys.executable} -m machio.bootstrapd"},
            None,
        ),
        ({"PATH": "/nowhere"}, "bootstrap_check_in: MACH_SEND_INVALID_DEST"),
    ],
    ids=["python3 on PATH", "MACHIO_BOOTSTRAPD", "neither"],
)
def test_programs_in_c_start_the_bootstrap_server(variables, refusal, parent, child, env):
    """Nothing in Python runs before: whoever comes first starts the server, if machio is there."""
    said = run([*parent, *child], {**env, **variables}, 1 if refusal else 0)
    assert_in_order([refusal] if refusal else ESSENTIAL["reverse_parent.py"], said)


async def call_and_kill(child):
    with machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        process = await asyncio.create_subprocess_exec(*child, str(fd), pass_fds=[fd])
        os.close(fd)
        before = rights_held()
        with await handshake.serve(machio.PortRightType.SEND, timeout=PATIENCE) as service:
            assert len(rights_held() - before) == 1
            answer = await service.call(machio.Message(1, b"hello"), timeout=PATIENCE)
            with answer:
                assert (answer.id, answer.body.rstrip(b"\0")) == (1, b"HELLO")
                assert answer.sender.pid == process.pid
            process.send_signal(signal.SIGKILL)
            await service.died()
            assert await process.wait() == -signal.SIGKILL


def test_a_child_in_c_leaves_nothing_in_its_parent(child, loop_name):
    """Its right is all that comes, and ends with it; the ports of the loop end with the loop."""
    before = rights_held()
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(call_and_kill(child))
    assert rights_held() == before


@pytest.mark.parametrize(
    ("offer", "complaint"),
    [(b"", "the pipe holds no offer"), (bytes(8) + b"\xff" * 4, "that is no offer")],
    ids=["empty", "impossible"],
)
def test_a_child_in_c_believes_no_length(offer, complaint, child, env):
    theirs, ours = os.pipe()
    os.write(ours, offer)
    os.close(ours)
    done = subprocess.run(
        [*child, str(theirs)], env=env, pass_fds=[theirs], capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    os.close(theirs)
    assert (done.returncode, complaint in done.stderr) == (1, True)


def test_a_parent_in_c_whose_child_checks_nothing_in(parent, env):
    said = run([*parent, "true"], env, 1)
    assert "the child did not check in" in said


def test_a_parent_in_c_destroys_a_right_that_it_does_not_want(parent, env):
    said = run([*parent, sys.executable, "-c", GENEROUS], env, 1)
    assert_in_order(["child: it was destroyed", "the child did not check in"], said)
