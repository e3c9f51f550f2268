"""The examples of services, as somebody would run them; with C as the other side of one."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_c import CC, CFLAGS, ROOT
from test_examples import EXAMPLES, PATIENCE, PYTHON, assert_in_order, run

import machio
from machio import MigCode, mig

sys.path.insert(0, str(EXAMPLES))

from calculator import SERVICE, Calculator

# What either client prints is the same in substance, whoever the server is.
FROM_PYTHON = [
    r"client: add: 1099511667775",
    r"client: mean: 30\.0",
    r"client: greet: \('(?i:good day, countess lovelace)', 27\)",
    r"client: move: Point\(layer=1, x=0\.5, y=0\.5\)",
    r"client: join: 7",
    r"client: sums: \(1, 3, 1099511627779\) 1",
    r"client: mean of nothing: KERN_INVALID_VALUE \(18\)",
]
FROM_C = [
    r"note: 0",
    r"add: 0 1099511667775",
    r"mean: 0 30",
    r"mean of nothing: 18",
    r"greet: 0 (?i:good day, countess lovelace) 27",
    r"move: 0 1 0\.5 0\.5",
    r"join: 0 7 1",
    r"sums: 0 1 3 1099511627779 1 0",
    r"short: -304",
    r"unknown: -303",
]


@pytest.fixture
def env(bootstrap_env):
    """An environment whose bootstrap server leaves at once and is started with this Python."""
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return {**bootstrap_env, "PATH": path, "MACHIO_BOOTSTRAPD_IDLE": "0.5"}


@contextlib.contextmanager
def running(command, env):
    """Yield a server that has said its first line; terminate it, and see that it ends well."""
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
            yield process
        finally:
            process.terminate()


def held_by(process):
    """Count the files of a process, and the pieces of memory that came in messages."""
    if sys.platform != "linux":
        return 0, 0
    place = Path("/proc", str(process.pid))
    return len(os.listdir(place / "fd")), (place / "maps").read_text().count("memfd:mach_msg")


@contextlib.contextmanager
def as_it_was(process):
    """See that a process soon holds no more than before: it may be about to close something."""
    before, deadline = held_by(process), time.monotonic() + PATIENCE
    yield
    while any(now > then for now, then in zip(held_by(process), before, strict=True)):
        assert time.monotonic() < deadline, (before, held_by(process))
        time.sleep(0.01)


def test_echo(env):
    client = subprocess.run(
        [sys.executable, str(EXAMPLES / "echo_client.py")], env=env, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (client.returncode, client.stderr) == (
        1,
        "echo_client.py: start echo_service.py first\n",
    )
    with running([*PYTHON, str(EXAMPLES / "echo_service.py")], env) as service:
        assert run(EXAMPLES / "echo_client.py", env).splitlines() == [
            "hello hello",
            "['one', 'two', 'three', 'four']",
            "the service knows my pid: True",
            "it refuses: KERN_INVALID_VALUE (18)",
        ]
        service.send_signal(signal.SIGINT)
        assert service.stdout.read() == "every request was answered\n"
    assert service.returncode == 0


def test_camera(env):
    with running([*PYTHON, str(EXAMPLES / "camera.py")], env) as camera:
        for first in (1, 4):
            assert run(EXAMPLES / "camera_viewer.py", env).splitlines() == [
                f"frame {number}: 8294400 bytes, in the middle ({number}, 28, 0, 255)"
                for number in range(first, first + 3)
            ]
    assert camera.returncode == 0


def test_calculator_in_python(env):
    assert_in_order(
        [*FROM_PYTHON, "noted 'a client in Python'"], run(EXAMPLES / "calculator.py", env)
    )


@pytest.mark.timeout(300)  # it waits for the compiler
def test_a_client_in_c(c_examples, env):
    with running([*PYTHON, str(EXAMPLES / "calculator.py"), "serve"], env) as server:

        def call():
            client = subprocess.run(
                [c_examples / "calculator", "call"],
                env=env,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert client.returncode == 0
            assert_in_order(FROM_C, client.stdout)
            assert server.stdout.readline() == "server: noted 'a client in C'\n"

        call()
        with as_it_was(server):
            for _ in range(4):
                call()


@pytest.mark.timeout(300)
def test_a_server_in_c(c_examples, env):
    with running([str(c_examples / "calculator"), "serve"], env) as server:

        def call():
            assert_in_order(FROM_PYTHON, run(EXAMPLES / "calculator.py", env, "call"))
            assert server.stdout.readline() == "server: noted 'a client in Python'\n"

        call()
        with as_it_was(server):
            for _ in range(4):
                call()


@pytest.mark.timeout(300)
async def test_a_server_in_c_believes_no_descriptor(c_examples, bootstrap_server):
    def sums(numbers, listeners, *descriptors):
        body = bytes((0, 0, 0, 0, 1, 0, 0, 0)) + struct.pack("=II", numbers, listeners)
        return machio.Message(Calculator.routines["sums"].id, body, descriptors=descriptors)

    with (
        running([str(c_examples / "calculator"), "serve"], os.environ) as server,
        await machio.bootstrap.look_up(SERVICE) as right,
        machio.ReceiveRight.allocate() as port,
    ):
        made = machio.RightArray([port] * 2, machio.Disposition.MAKE_SEND)
        moved = machio.RightArray([port.make_send_once()])
        many = machio.RightArray([port] * 9, machio.Disposition.MAKE_SEND)
        with as_it_was(server):
            for message, code in [
                (sums(16, 2, bytes(16), made), 0),
                (sums(0, 0, b"", machio.RightArray([])), 0),
                (sums(17, 2, bytes(16), made), MigCode.TYPE_ERROR),
                (sums(16, 3, bytes(16), made), MigCode.TYPE_ERROR),
                (sums(16, 1, bytes(16), moved), MigCode.TYPE_ERROR),
                (sums(2, 16, made, bytes(16)), MigCode.TYPE_ERROR),
                (sums(16, 16, bytes(16), bytes(16)), MigCode.TYPE_ERROR),
                (sums(16, 9, bytes(16), many), MigCode.BAD_ARGUMENTS),
                (sums(1 << 21, 2, bytes(1 << 21), made), MigCode.BAD_ARGUMENTS),
                (sums(15, 2, bytes(15), made), machio.KernCode.INVALID_VALUE),
                (sums(16, 2, bytes(16)), MigCode.BAD_ARGUMENTS),
            ]:
                with await right.call(message, PATIENCE) as reply:
                    assert bool(reply.descriptors) == (code == 0)
                    assert code == 0 or struct.unpack_from("=i", reply.body, 8) == (code,)
        await port.no_senders(PATIENCE)


def test_the_structures_for_c_have_the_sizes_of_the_messages(tmp_path):
    sizes = {f"__Request__{name}_t": one.request.size for name, one in Calculator.routines.items()}
    sizes |= {
        f"__Reply__{name}_t": one.reply.size
        for name, one in Calculator.routines.items()
        if one.reply
    }
    sizes["Point"] = 24
    source = tmp_path / "sizes.c"
    asserts = [
        f'_Static_assert(sizeof({name}) == {size}, "{name}");' for name, size in sizes.items()
    ]
    source.write_text("\n".join([mig.c_header(Calculator), *asserts, ""]))
    command = [*CC, *CFLAGS, "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_defs_are_printed(env):
    assert run(EXAMPLES / "calculator.py", env, "defs").strip() == mig.defs(Calculator).strip()


@pytest.mark.timeout(120)
def test_handover(env):
    said = run(EXAMPLES / "handover.py", env)
    assert_in_order(
        [
            r"2000 requests, 2000 answers, 2000 runs",
            r"lost: 0, twice: 0",
            r"servers that answered: [2-5] of 5",
            r"the former servers ended with \{0\}",
        ],
        said,
    )
