"""Children and their parent, in real processes: rights both ways, and every way to end."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from common import LOOPS
from places import NOBODY
from steps import cancelled_everywhere, running
from test_c import LIBRARY, make
from test_examples import SLOW

import machio
from machio import Disposition, Message, PortRightType, ReceiveRight

PROGRAMS = Path(__file__).parent / "programs"
RECEIVE = PortRightType.RECEIVE
PYTHON = [sys.executable, "-X", "dev", "-W", "error"]

pytestmark = pytest.mark.usefixtures("bootstrap_server")


@pytest.fixture(autouse=True)
def _no_child_is_left():
    yield
    assert not has_children()


def has_children():
    """Whether this process has any child, running or not yet reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def offspring(role, **options):
    """A child that runs on the same loop as the test."""
    loop = asyncio.get_running_loop()
    name = next(
        name
        for name, factory in LOOPS.items()
        if (name == "eager") == (loop.get_task_factory() is not None)
        and (name == "uvloop") == type(loop).__module__.startswith("uvloop")
    )
    return machio.spawn([*PYTHON, str(PROGRAMS / "offspring.py"), role, name], **options)


def shell(script, **options):
    return machio.spawn(["/bin/sh", "-c", script], **options)


def with_socket(code):
    """A program that does something to the socket, and then nothing."""
    start = "import os, time; fd = int(os.environ['MACHIO_PARENT_FD']); "
    return machio.spawn([sys.executable, "-c", f"{start}{code}; time.sleep(60)"])


async def test_rights_in_both_directions_again_and_again():
    async with offspring("exchange") as child:
        for number in range(3):
            with ReceiveRight.allocate() as port, port.make_send() as send:
                await child.give(port)
                assert port.closed
                with await child.receive_right() as to_child:
                    await to_child.send(Message(number))
                    await send.send(Message(number))
        assert await child.wait() == child.returncode == 7
    assert repr(child) == f"<Child pid {child.pid} ended with status 7>"


async def test_several_rights_at_once():
    async with offspring("exchange") as child:
        ports = [ReceiveRight.allocate() for _ in range(3)]
        sends = [port.make_send() for port in ports]
        async with running(child.give(*ports)) as giving:
            for number, send in enumerate(sends):
                with send, await child.receive_right() as to_child:
                    await to_child.send(Message(number))
                    await send.send(Message(number))
            await giving
        assert await child.wait() == 7


async def test_a_pair_says_what_is_done_with_the_right():
    async with shell("exec sleep 60") as child:
        with ReceiveRight.allocate() as port:
            with pytest.raises(machio.HandshakeTimedOut):
                await child.give((port, Disposition.MAKE_SEND), timeout=0.01)
            with pytest.raises(machio.HandshakeTimedOut):
                await child.receive_right(timeout=0.05)


async def test_the_socket_is_the_childs_alone():
    async with offspring("heritage") as child:
        with await child.receive_right() as right:
            await right.send(Message(1))
        assert await child.wait() == 0


class TestEnds:
    @pytest.mark.parametrize(
        ("script", "status", "told"),
        [
            ("exit 3", 3, "ended with status 3"),
            ("exec true", 0, "ended with status 0"),
            ("kill -KILL $$", -9, "was killed by signal SIGKILL"),
        ],
    )
    async def test_without_a_word(self, script, status, told):
        async with shell(script) as child:
            with pytest.raises(machio.NoCheckInError, match=f"pid {child.pid} {told}"):
                await child.receive_right()
            assert child.returncode == status
            with ReceiveRight.allocate() as port:
                with pytest.raises(machio.ServerGoneError, match=told):
                    await child.give(port)
                assert not port.closed
            assert await child.wait() == status

    async def test_while_both_wait(self):
        async with shell("exec sleep 60") as child:  # a program that is none of machio's
            with ReceiveRight.allocate() as port:
                async with (
                    running(child.receive_right()) as receiving,
                    running(child.give(port)) as giving,
                ):
                    child.send_signal(signal.SIGKILL)
                    with pytest.raises(machio.NoCheckInError):
                        await receiving
                    with pytest.raises(machio.ServerGoneError, match="SIGKILL"):
                        await giving

    @pytest.mark.parametrize("role", ["dies_while_serving", "dies_while_checking_in"])
    async def test_in_the_middle(self, role):
        async with offspring(role) as child:
            with ReceiveRight.allocate() as port:
                if role == "dies_while_serving":
                    with pytest.raises(machio.NoCheckInError, match="SIGKILL"):
                        await child.receive_right()
                else:
                    with pytest.raises(machio.ServerGoneError, match="SIGKILL"):
                        await child.give(port)
            assert child.returncode == -signal.SIGKILL

    async def test_right_after_it_checked_in(self):
        async with offspring("checks_in_and_dies") as child:
            with await child.receive_right() as right:
                await right.send(Message(1))
                await right.died()
            assert await child.wait() == -signal.SIGKILL

    async def test_though_a_grandchild_has_everything(self):
        async with offspring("outlived", stdout=subprocess.PIPE) as child:
            with await child.receive_right() as right:
                await right.send(Message(1))
            with pytest.raises(machio.NoCheckInError, match="status 5"):
                await child.receive_right()
            assert await child.wait() == 5  # the pipe has not ended
            os.kill(int(await child.process.stdout.readline()), signal.SIGKILL)

    async def test_it_closed_the_socket_and_runs(self):
        async with with_socket("os.close(fd)") as child:
            with pytest.raises(machio.NoCheckInError, match=f"pid {child.pid} runs"):
                await child.receive_right()

    async def test_it_says_what_nobody_understands(self):
        async with with_socket("os.write(fd, b'Hello, world, how are you?')") as child:
            with ReceiveRight.allocate() as port, pytest.raises(machio.ProtocolError):
                await child.give(port)

    async def test_a_wrong_right(self):
        async with offspring("wrong") as child:
            with pytest.raises(machio.WrongRightError):
                await child.receive_right()
            assert await child.wait() == 0

    async def test_many_wait_for_it(self):
        async with (
            shell("read line; exit 4", stdin=subprocess.PIPE) as child,
            running(child.wait()) as first,
            running(child.wait()) as second,
        ):
            first.cancel()
            child.process.stdin.close()
            assert await second == await child.wait() == 4


class TestLeaving:
    async def test_it_is_asked_to_end(self):
        async with shell("trap 'exit 9' TERM; echo; while :; do sleep 0.01; done",
                         stdout=subprocess.PIPE) as child:  # fmt: skip
            await child.process.stdout.readline()
        assert child.returncode == 9

    @pytest.mark.parametrize("grace", [0, 0.1])
    async def test_and_killed_if_it_does_not(self, grace):
        async with offspring("deaf", grace=grace) as child:
            (await child.receive_right()).close()
            assert child.returncode is None
        assert child.returncode == -signal.SIGKILL

    async def test_a_cancellation_shortens_the_grace(self):
        left = asyncio.Event()

        async def stay():
            async with offspring("deaf", grace=1000) as child:
                (await child.receive_right()).close()
                left.child = child
                left.set()

        async with running(stay()) as task:
            await left.wait()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert left.child.returncode == -signal.SIGKILL

    async def test_a_cancelled_scope_gives_the_grace(self):
        with anyio.CancelScope() as scope:
            async with offspring("orphan", grace=1000) as child:
                (await child.receive_right()).close()
                scope.cancel()
                await child.wait()
        assert child.returncode == 0  # it saw that nobody talks to it any more

    async def test_an_exception_passes(self):
        with pytest.raises(ZeroDivisionError):
            async with shell("exec sleep 60") as child:
                raise ZeroDivisionError
        assert child.returncode == -signal.SIGTERM
        child.send_signal(signal.SIGKILL)  # whoever has the number now gets nothing
        with pytest.raises(machio.UsageError):
            await child.receive_right()

    def test_the_loop_is_left(self, loop_name):
        """What runs beside the main task ends with the loop, and its children with it."""

        async def keep():
            async with shell("exec sleep 600"):
                started.set()
                await asyncio.Event().wait()

        async def main():
            nonlocal started, task
            started = asyncio.Event()
            task = asyncio.create_task(keep())
            await started.wait()

        started = task = None
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(main())
        assert task.cancelled()


class TestStarting:
    async def test_no_such_program(self):
        with pytest.raises(FileNotFoundError):
            async with machio.spawn(["/no/such/program"]):
                pass

    async def test_environment_and_files(self):
        reader, writer = os.pipe()
        script = f'echo "$A:$MACHIO_PARENT_FD" >/dev/fd/{writer}; pwd'
        options = {"env": {"A": "b"}, "pass_fds": [writer], "cwd": "/"}
        async with shell(script, stdout=subprocess.PIPE, **options) as child:
            os.close(writer)
            assert await child.process.stdout.read() == b"/\n"
            with open(reader) as pipe:  # noqa: PTH123
                a, fd = pipe.read().split(":")
            assert (a, int(fd) > 2) == ("b", True)

    @pytest.mark.parametrize(
        "loop_name", [name for name in LOOPS if name != "uvloop"], indirect=True
    )
    def test_few_descriptors(self, loop_name):
        """Whichever descriptor is the one too many, nothing is left.

        Not with uvloop: when it cannot start a process it keeps the copies of standard files that
        it has made.
        """
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(self.start_with_few())

    async def start_with_few(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/dev/fd")))
        failures = 0
        try:
            for limit in range(3, highest + 40):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                try:
                    async with machio.spawn(["true"]) as child:
                        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                        assert await child.wait() == 0
                        break
                except OSError:
                    failures += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert failures > 3

    async def test_cancelled_everywhere(self):
        """At each wait, from the start to the end of the block, with pipes and without."""

        async def live():
            async with shell("exec sleep 600", stdin=subprocess.PIPE, stdout=subprocess.PIPE):
                pass

        async def after():
            assert not has_children()

        assert await cancelled_everywhere(live, after) >= 2

    @pytest.mark.timeout(300)  # each time two processes start
    async def test_cancelled_everywhere_between_processes(self):
        port = ReceiveRight.allocate()

        async def live():
            nonlocal port
            async with offspring("exchange") as child:
                with port.make_send() as send:
                    await child.give(port)
                    with await child.receive_right() as to_child:
                        await to_child.send(Message(0))
                        await send.send(Message(0))

        async def after():
            nonlocal port
            assert not has_children()
            if port.closed:
                port = ReceiveRight.allocate()

        assert await cancelled_everywhere(live, after) >= 5
        port.close()


class TestParent:
    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (None, "machio.spawn did not start this process"),
            ("", "should be the number"),
            ("two", "should be the number"),
            ("-1", "should be the number"),
            ("٣", "should be the number"),
            ("9" * 30, "should be the number"),
            ("999999", "Bad file descriptor"),
            ("file", "non-socket"),
            ("udp", "made by machio.spawn"),
        ],
    )
    async def test_the_variable(self, monkeypatch, value, told):
        with open("/dev/null") as file, socket.socket(type=socket.SOCK_DGRAM) as udp:  # noqa: PTH123
            fds = {"file": file.fileno(), "udp": udp.fileno()}
            monkeypatch.delenv("MACHIO_PARENT_FD", raising=False)
            if value is not None:
                monkeypatch.setenv("MACHIO_PARENT_FD", str(fds.get(value, value)))
            with ReceiveRight.allocate() as port:
                for use in (machio.parent.serve(), machio.parent.check_in(port)):
                    with pytest.raises(machio.UsageError, match=told):
                        await use
            for fd in fds.values():
                os.fstat(fd)  # not ours: left alone


@pytest.fixture(scope="module")
def in_c(tmp_path_factory):
    target = tmp_path_factory.mktemp("offspring") / "offspring"
    return make(target, "-O1", PROGRAMS / "offspring.c", *LIBRARY)


@pytest.mark.timeout(300)  # it waits for the compiler
async def test_a_child_in_c(in_c):
    async with machio.spawn([in_c]) as child:
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(machio.HandshakeTimedOut):
            await child.receive_right(timeout=0.05)  # an offer that is withdrawn
        child.send_signal(signal.SIGCONT)
        with await child.receive_right() as right:
            await right.send(Message(42))
        assert await child.wait() == 42


@pytest.mark.timeout(300)
def test_as_an_ordinary_user(loop_name, bootstrap_dir, bootstrap_env, in_c):
    user = NOBODY if os.getuid() == 0 else os.getuid()
    program = shutil.copy(in_c, bootstrap_dir)  # where that user may go
    os.chown(bootstrap_dir, user, -1)
    done = subprocess.run(
        [*PYTHON, str(PROGRAMS / "commoner.py"), str(user), loop_name, program],
        env=bootstrap_env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, SLOW.sub("", done.stderr)) == (0, "")
