"""Names to rights by the bootstrap server, from this process; and what cancelling leaves behind."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from common import settle, start

import machio
from machio import Message, PortRightType, ReceiveRight, _ffi, _loop, bootstrap
from machio.codes import BootstrapCode

SEND = PortRightType.SEND

pytestmark = pytest.mark.usefixtures("bootstrap_server")


@pytest.fixture
def name():
    return f"org.machio.test.{secrets.token_hex(8)}"


def never(*_):
    pytest.fail("the call is not made in this way")


@pytest.fixture
def in_the_loop(bootstrap_server, monkeypatch):
    """Have the coroutines wait for the server's messages: there is one that can be asked."""
    assert _ffi.lib.machio_bootstrap_connect(1) == 0
    for call in ("check_in", "look_up", "register"):
        monkeypatch.setattr(_ffi, f"bootstrap_{call}", never)


@pytest.fixture
def in_a_thread(monkeypatch):
    """Have the coroutines make the calls that block, as where no server can be asked."""
    monkeypatch.setattr(_ffi, "bootstrap_ask", lambda *_: None)


@pytest.fixture(params=["in_the_loop", "in_a_thread"])
def way(request):
    """Either of them."""
    request.getfixturevalue(request.param)


@pytest.mark.usefixtures("way")
async def test_check_in_and_look_up(name):
    with await bootstrap.check_in(name) as service, await bootstrap.look_up(name) as send:
        assert send.name == service.name, "one name a port"
        await send.send(Message(1, b"ping"))
        assert (await service.receive(10)).body == b"ping"
        with await bootstrap.look_up(name) as again:
            assert again == send
            assert _ffi.get_refs(send.name, SEND) == 2
        assert service.status.make_send_count == 0


def test_the_blocking_twins(name):
    with bootstrap.check_in_blocking(name) as service, bootstrap.look_up_blocking(name) as send:
        send.send_nowait(Message(2))
        assert service.receive_nowait().id == 2


@pytest.mark.usefixtures("way")
async def test_an_unknown_name(name):
    with pytest.raises(machio.UnknownServiceError) as caught:
        await bootstrap.look_up(name)
    assert caught.value.code is BootstrapCode.UNKNOWN_SERVICE
    assert name in str(caught.value)


@pytest.mark.usefixtures("way")
async def test_a_name_that_is_checked_in(name):
    with await bootstrap.check_in(name):
        with pytest.raises(machio.BootstrapError) as caught:
            await bootstrap.check_in(name)
        assert caught.value.code is BootstrapCode.SERVICE_ACTIVE


def test_the_status_of_a_name(name):
    lib, status = _ffi.lib, _ffi.ffi.new("int *", -1)
    arguments = (lib.bootstrap_port, name.encode(), status)
    assert lib.bootstrap_status(*arguments) == BootstrapCode.UNKNOWN_SERVICE
    assert status[0] == -1
    with bootstrap.check_in_blocking(name) as service:
        assert lib.bootstrap_status(*arguments) == 0
        assert status[0] == lib.BOOTSTRAP_STATUS_ACTIVE
        assert _ffi.get_refs(service.name, SEND) == 0


@pytest.mark.usefixtures("way")
async def test_a_name_ends_with_its_port(name):
    (await bootstrap.check_in(name)).close()
    (await bootstrap.check_in(name)).close()


@pytest.mark.usefixtures("way")
async def test_registering_keeps_the_callers_right(name):
    with ReceiveRight.allocate() as port, port.make_send() as send:
        await bootstrap.register(name, send)
        assert not send.closed
        with await bootstrap.look_up(name) as found:
            assert found == send
        with pytest.raises(machio.BootstrapError) as caught:
            await bootstrap.register(name, send)
        assert caught.value.code is BootstrapCode.SERVICE_ACTIVE


def test_registering_with_the_blocking_twin(name):
    with ReceiveRight.allocate() as port, port.make_send() as send:
        bootstrap.register_blocking(name, send)
        with pytest.raises(machio.BootstrapError) as caught:
            bootstrap.register_blocking(name, send)
        assert caught.value.code is BootstrapCode.SERVICE_ACTIVE


@pytest.mark.parametrize("bad", ["", "x" * 128, "a\0b", "\N{SNOWMAN}" * 43])
async def test_impossible_names_are_the_callers_mistake(bad):
    for call in (bootstrap.check_in, bootstrap.look_up):
        with pytest.raises(machio.UsageError):
            await call(bad)


@pytest.mark.usefixtures("way")
async def test_the_longest_name(name):
    longest = name.ljust(127, "x")
    with await bootstrap.check_in(longest) as service, await bootstrap.look_up(longest) as send:
        assert send.name == service.name


async def test_the_bootstrap_port_is_a_right_like_others():
    with bootstrap.port() as one, bootstrap.port() as other:
        assert one == other
        assert one.name == _ffi.bootstrap_port()


@pytest.mark.usefixtures("in_a_thread")
@pytest.mark.parametrize("moment", ["while the call runs", "when it has ended"])
async def test_a_right_that_comes_too_late_is_released(name, monkeypatch, moment):
    started, allowed, fetched = (threading.Event() for _ in range(3))
    probes = []

    def check_in(encoded):
        started.set()
        allowed.wait(10)
        port = ReceiveRight.allocate()
        probes.append(port.make_send())
        fetched.set()
        return port.release()

    monkeypatch.setattr(_ffi, "bootstrap_check_in", check_in)
    task = asyncio.create_task(bootstrap.check_in(name))
    await asyncio.to_thread(started.wait, 10)
    if moment == "when it has ended":
        allowed.set()
        # The loop does not run meanwhile, so the task cannot take the right.
        fetched.wait(10)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    allowed.set()
    await asyncio.to_thread(fetched.wait, 10)
    with probes[0] as probe:
        await probe.died(10)


@pytest.mark.usefixtures("in_the_loop")
@pytest.mark.parametrize("moment", ["asked", "answered"])
@pytest.mark.parametrize("call", ["check_in", "look_up", "register"])
async def test_an_answer_that_comes_too_late_is_destroyed(name, monkeypatch, moment, call):
    fire, ask = _loop.Watch.fire, _ffi.bootstrap_ask

    def cancel_and_fire(watch, flags, *, at_once):
        task.cancel()
        fire(watch, flags, at_once=at_once)

    def ask_and_cancel(*arguments):
        asyncio.current_task().cancel()
        return ask(*arguments)

    with ReceiveRight.allocate() as port, port.make_send() as send:
        await bootstrap.register(f"{name}.r", send)
        work = {
            "check_in": lambda: bootstrap.check_in(name),
            "look_up": lambda: bootstrap.look_up(f"{name}.r"),
            "register": lambda: bootstrap.register(name, send),
        }
        with monkeypatch.context() as patch:
            if moment == "asked":
                patch.setattr(_ffi, "bootstrap_ask", ask_and_cancel)
            else:
                patch.setattr(_loop.Watch, "fire", cancel_and_fire)
            task = asyncio.create_task(work[call]())
            await asyncio.wait([task])
        assert task.cancelled()
        assert _ffi.get_refs(send.name, SEND) == 1
        if call == "check_in":
            (await bootstrap.check_in(name)).close()  # the name has ended with the port


@pytest.mark.parametrize("call", ["check_in", "look_up", "register"])
async def test_a_server_that_dies_when_asked_has_a_successor(name, monkeypatch, call):
    assert _ffi.lib.machio_bootstrap_connect(1) == 0
    ask = _ffi.bootstrap_ask

    def ask_and_kill(*arguments):
        """The request is on its way, or in the server's queue, when it is stopped and killed."""
        pid = int(Path(os.environ["MACHIO_BOOTSTRAP"], "lock").read_text())
        os.kill(pid, signal.SIGSTOP)
        connection = ask(*arguments)
        assert connection is not None
        os.kill(pid, signal.SIGKILL)
        monkeypatch.setattr(_ffi, "bootstrap_ask", ask)
        return connection

    with ReceiveRight.allocate() as port, port.make_send() as send:
        await bootstrap.register(f"{name}.r", send)
        monkeypatch.setattr(_ffi, "bootstrap_ask", ask_and_kill)
        if call == "check_in":
            with await bootstrap.check_in(name), await bootstrap.look_up(name):
                pass
        elif call == "look_up":
            with await bootstrap.look_up(f"{name}.r") as found:
                assert found == send
        else:
            await bootstrap.register(name, send)
            with await bootstrap.look_up(name) as found:
                assert found == send


# --- the first call ---


def server_pid():
    return int(Path(os.environ["MACHIO_BOOTSTRAP"], "lock").read_text())


@pytest.fixture
def newcomer(bootstrap_server):
    """A server runs to which this process is not connected."""
    os.kill(server_pid(), signal.SIGKILL)
    code = "from machio import bootstrap; bootstrap.check_in_blocking('org.machio.test.other')"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def stopped(newcomer):
    """A server that does not welcome anybody."""
    pid = server_pid()
    os.kill(pid, signal.SIGSTOP)
    yield pid
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("call", ["check_in", "look_up", "register"])
async def test_the_first_call_needs_no_thread(name, monkeypatch, newcomer, call):
    monkeypatch.setattr(bootstrap, "_in_thread", never)
    with ReceiveRight.allocate() as port, port.make_send() as send:
        if call == "check_in":
            (await bootstrap.check_in(name)).close()
        elif call == "register":
            await bootstrap.register(name, send)
        else:
            with pytest.raises(machio.UnknownServiceError):
                await bootstrap.look_up(name)


async def test_first_calls_at_once_are_one_connection(name, monkeypatch, newcomer):
    monkeypatch.setattr(bootstrap, "_in_thread", never)
    names = [f"{name}.{number}" for number in range(8)]
    with contextlib.ExitStack() as stack:
        ports = await asyncio.gather(*map(bootstrap.check_in, names))
        for known, port in zip(names, map(stack.enter_context, ports), strict=True):
            send = stack.enter_context(await bootstrap.look_up(known))
            assert send.name == port.name


async def test_a_cancelled_first_call_leaves_nothing(name, newcomer, stopped):
    task = await start(bootstrap.look_up(name))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    os.kill(stopped, signal.SIGCONT)
    (await bootstrap.check_in(name)).close()


async def test_a_server_that_takes_its_time_is_left_to_a_thread(
    name, monkeypatch, newcomer, stopped
):
    in_thread = bootstrap._in_thread
    calls = []

    async def work(call):
        calls.append(call)
        os.kill(stopped, signal.SIGCONT)
        await in_thread(call)

    monkeypatch.setattr(bootstrap, "_PATIENCE", 0)
    monkeypatch.setattr(bootstrap, "_in_thread", work)
    with await bootstrap.check_in(name), await bootstrap.look_up(name):
        pass
    assert len(calls) == 1


async def test_names_are_told_to_another_server_before_anything_else(name, newcomer):
    with await bootstrap.check_in(f"{name}.own"):
        os.kill(server_pid(), signal.SIGKILL)
        with await bootstrap.look_up(f"{name}.own"):
            pass
