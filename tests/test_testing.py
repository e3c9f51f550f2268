"""What machio.testing gives to others: it finds what was forgotten, and breaks what it says."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from common import rights_held, start

import machio
from machio import Disposition, Message, PortRightType, ReceiveRight, testing
from machio.testing import Fault, Step


def here() -> str:
    frame = inspect.currentframe().f_back
    return f"{__file__}:{frame.f_lineno}"


class TestLeakCheck:
    def test_a_forgotten_right_is_named_and_closed(self):
        before = rights_held()
        with pytest.raises(testing.LeakError) as caught, testing.leak_check():
            port, line = ReceiveRight.allocate(), here()
            send, other = port.make_send(), here()
        assert f"{line}: <ReceiveRight " in str(caught.value)
        assert f"{other}: <SendRight " in str(caught.value)
        assert str(Path(machio.__file__).parent) not in str(caught.value)
        assert port.closed
        assert send.closed
        assert rights_held() == before

    async def test_memory_too_made_or_received(self, port, send):
        with pytest.raises(testing.LeakError) as caught, testing.leak_check():
            memory, made = machio.Memory(10), here()
            await send.send(Message(1, memory=[machio.Memory(20), b"copied"]))
            message, received = await port.receive(), here()
        assert str(caught.value).splitlines()[1:] == [
            f"  {made}: <Memory 10 bytes>",
            f"  {received}: <Memory 20 bytes>",
            f"  {received}: <Memory 6 bytes>",
        ]
        assert memory.closed
        assert all(one.closed for one in message.memory)

    def test_memory_that_came_back_was_not_made_here(self, port, send):
        with machio.Memory(10) as memory:
            port.close()
            with testing.leak_check(), pytest.raises(machio.DeadDestinationError):
                send.send_nowait(Message(1, memory=[memory]))
            assert not memory.closed

    def test_a_file_port(self):
        with pytest.raises(testing.LeakError) as caught, testing.leak_check():
            right, line = machio.fileport_makeport(0), here()
        assert f"{line}: <SendRight " in str(caught.value)
        assert right.closed

    def test_one_that_nobody_has_any_more(self):
        with pytest.raises(testing.LeakError) as caught, testing.leak_check():
            line = [ReceiveRight.allocate(), here()][1]
        assert line in str(caught.value)

    async def test_a_received_right_is_made_where_it_was_received(self, port, send):
        with (
            ReceiveRight.allocate() as home,
            pytest.raises(testing.LeakError) as caught,
            testing.leak_check(),
        ):
            receiving = asyncio.create_task(port.receive())
            await asyncio.sleep(0)
            await send.send(Message(1, rights=[(home, Disposition.MAKE_SEND)], reply=home))
            message = await receiving
            message.reply.close()
            await send.send(Message(1, rights=[(home, Disposition.MAKE_SEND)]))
            message, line = await port.receive(), here()
        assert line in str(caught.value)
        assert str(caught.value).count("<SendRight ") == 2

    async def test_what_was_closed_or_given_away_is_no_leak(self, port, send):
        async def answer():
            with await port.receive() as request:
                request.reply.send(Message(2))

        with testing.leak_check():
            with ReceiveRight.allocate() as one, one.make_send():
                pass
            ReceiveRight.from_name(ReceiveRight.allocate().release()).close()
            carried = [ReceiveRight.allocate(), machio.fileport_makeport(0)]
            await send.send(Message(1, rights=carried, memory=[machio.Memory(1)]))
            (await port.receive()).close()
            # The reply port that the loop keeps for the next call.
            answering = asyncio.create_task(answer())
            assert (await send.call(Message(1), 10)).id == 2
            await answering

    def test_an_exception_is_passed_on_and_all_ends(self):
        before = machio.Right.__init__
        with pytest.raises(KeyError), testing.leak_check():
            raise KeyError
        assert machio.Right.__init__ is before
        ReceiveRight.allocate().close()


CONFTEST = 'pytest_plugins = ["machio.testing"]\n'
SUITE = """
import os
import subprocess
import sys
from pathlib import Path

import machio

ASK = "import machio; machio.bootstrap.look_up_blocking('mine').close()"

def test_this_process_and_its_children_share_a_server():
    with machio.bootstrap.check_in_blocking("mine"):
        assert subprocess.run([sys.executable, "-c", ASK]).returncode == 0

def test_another_server(bootstrap_env):
    with machio.bootstrap.check_in_blocking("mine"):
        command = [sys.executable, "-c", ASK]
        done = subprocess.run(command, env=bootstrap_env, stderr=subprocess.PIPE)
        assert b"UnknownServiceError" in done.stderr

def test_where():
    Path("where").write_text(os.environ["MACHIO_BOOTSTRAP"])

def test_leak(leak_check):
    machio.ReceiveRight.allocate()
"""


def test_as_a_plugin(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(SUITE)
    users = tmp_path / "users"
    command = [sys.executable, "-m", "pytest", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-W", "error", "."],
        cwd=tmp_path,
        env={**os.environ, "MACHIO_BOOTSTRAP": str(users)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "4 passed, 1 error" in done.stdout, done.stdout + done.stderr
    line = SUITE.splitlines().index("    machio.ReceiveRight.allocate()") + 1
    assert f"test_it.py:{line}: <ReceiveRight" in done.stdout
    assert not users.exists()
    directory = (tmp_path / "where").read_text()
    assert directory.startswith("/tmp/machio-")
    assert not Path(directory).exists()


def test_without_pytest():
    program = "import sys; sys.modules['pytest'] = None; import machio.testing"
    subprocess.run([sys.executable, "-c", program], check=True)
    program = "import sys, machio; assert 'machio.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_pair():
    with testing.leak_check(), testing.pair(queue_limit=1) as (left, right):
        await left.peer.send(Message(1))
        await right.peer.send(Message(2))
        assert (await right.port.receive()).id == 1
        assert (await left.port.receive()).id == 2
        assert left.port.queue_limit == 1
        left.port.close()
        await right.peer.died(10)


class TestRelay:
    async def test_what_becomes_of_messages(self, port, send):
        fates = [None, Fault.DROP, 0.01, lambda message: Message(message.id, b"wrong"), 0]
        with testing.leak_check():
            async with testing.relay(send, fates) as wire:
                for number in range(6):
                    await wire.send(Message(number, b"good"))
                told = [await port.receive(10) for _ in range(5)]
        assert [(message.id, message.body) for message in told] == [
            (0, b"good"),
            (2, b"good"),
            (3, b"wrong\0\0\0"),
            (4, b"good"),
            (5, b"good"),
        ]

    async def test_calls_pass_and_dropped_ones_end(self, port, send):
        async def answer():
            with await port.receive() as request:
                request.reply.send(Message(7, rights=request.rights))
                request.rights = ()

        answering = asyncio.create_task(answer())
        async with testing.relay(send, [None, Fault.DROP]) as wire:
            carried = ReceiveRight.allocate()
            with await wire.call(Message(1, rights=[carried]), 10) as reply:
                assert isinstance(reply.rights[0], ReceiveRight)
            with pytest.raises(machio.ServerDiedError):
                await wire.call(Message(1), 10)
        await answering

    async def test_death_at_a_step(self, send):
        async with testing.relay(send, [None, Fault.DIE]) as wire:
            await wire.send(Message(1))
            calls = [await start(wire.call(Message(2), 10)) for _ in range(3)]
            await wire.died(10)
            for call in calls:
                with pytest.raises((machio.ServerDiedError, machio.DeadDestinationError)):
                    await call

    async def test_the_death_of_the_target_is_that_of_the_relay(self, port, send):
        async with testing.relay(send, []) as wire:
            port.close()
            await wire.send(Message(1))
            await wire.died(10)

    async def test_a_change_that_fails_is_told(self, send):
        def fail(message):
            raise KeyError

        with pytest.raises(KeyError):
            async with testing.relay(send, [fail]) as wire:
                await wire.send(Message(1))
                await wire.died(10)


class TestHandshake:
    @pytest.mark.parametrize("step", Step)
    async def test_a_client_that_dies(self, step, port, bootstrap_server):
        with machio.ChildPortHandshake() as handshake:
            fd = handshake.client_read_fd()
            serving = asyncio.create_task(handshake.serve(PortRightType.SEND, 20))
            await testing.check_in_fd(fd, port, Disposition.MAKE_SEND, dies=step)
            with pytest.raises(machio.NoCheckInError):
                await serving
        assert port.status.make_send_count == 0

    async def test_a_wrong_token(self, port, bootstrap_server):
        with machio.ChildPortHandshake() as handshake:
            fd = handshake.client_read_fd()
            serving = asyncio.create_task(handshake.serve(PortRightType.SEND, 20))
            gone = asyncio.create_task(port.no_senders())
            await testing.check_in_fd(fd, port, Disposition.MAKE_SEND, wrong_token=True)
            with pytest.raises(machio.NoCheckInError, match="refused and destroyed: 1"):
                await serving
            await gone

    async def test_a_client_that_takes_its_time(self, port, bootstrap_server):
        with machio.ChildPortHandshake() as handshake:
            fd = handshake.client_read_fd()
            with pytest.raises(machio.HandshakeTimedOut):
                checking = asyncio.create_task(
                    testing.check_in_fd(fd, port, Disposition.MAKE_SEND, delay=100)
                )
                await handshake.serve(PortRightType.SEND, 0.05)
            checking.cancel()

    async def test_one_that_is_only_late(self, port, bootstrap_server):
        with machio.ChildPortHandshake() as handshake:
            fd = handshake.client_read_fd()
            serving = asyncio.create_task(handshake.serve(PortRightType.SEND, 20))
            await testing.check_in_fd(fd, port, Disposition.MAKE_SEND, delay=0.01)
            (await serving).close()

    @pytest.mark.parametrize("step", Step)
    async def test_a_server_that_dies(self, step, port, bootstrap_server):
        with machio.ChildPortHandshake() as handshake:
            await testing.serve_fd(handshake.server_write_fd(), dies=step)
            with pytest.raises(machio.ServerGoneError):
                await handshake.check_in(port, Disposition.MOVE_RECEIVE, 20)
        assert not port.closed
