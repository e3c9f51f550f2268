"""Names to rights by the bootstrap server, from this process; and what cancelling leaves behind."""

import asyncio
import secrets
import threading

import pytest

import machio
from machio import Message, PortRightType, ReceiveRight, _ffi, bootstrap
from machio.codes import BootstrapCode

SEND = PortRightType.SEND

pytestmark = pytest.mark.usefixtures("bootstrap_server")


@pytest.fixture
def name():
    return f"org.machio.test.{secrets.token_hex(8)}"


async def test_check_in_and_look_up(name):
    with await bootstrap.check_in(name) as service, await bootstrap.look_up(name) as send:
        assert send.name == service.name, "one name a port"
        await send.send(Message(1, b"ping"))
        assert (await service.receive(10)).body == b"ping"
        with await bootstrap.look_up(name) as again:
            assert again == send
            assert _ffi.get_refs(send.name, SEND) == 2


def test_the_blocking_twins(name):
    with bootstrap.check_in_blocking(name) as service, bootstrap.look_up_blocking(name) as send:
        send.send_nowait(Message(2))
        assert service.receive_nowait().id == 2


async def test_an_unknown_name(name):
    with pytest.raises(machio.UnknownServiceError) as caught:
        await bootstrap.look_up(name)
    assert caught.value.code is BootstrapCode.UNKNOWN_SERVICE
    assert name in str(caught.value)


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


async def test_a_name_ends_with_its_port(name):
    (await bootstrap.check_in(name)).close()
    (await bootstrap.check_in(name)).close()


async def test_registering_keeps_the_callers_right(name):
    with ReceiveRight.allocate() as port, port.make_send() as send:
        await bootstrap.register(name, send)
        assert not send.closed
        with await bootstrap.look_up(name) as found:
            assert found == send
        with pytest.raises(machio.BootstrapError) as caught:
            bootstrap.register_blocking(name, send)
        assert caught.value.code is BootstrapCode.SERVICE_ACTIVE


@pytest.mark.parametrize("bad", ["", "x" * 128, "a\0b", "\N{SNOWMAN}" * 43])
async def test_impossible_names_are_the_callers_mistake(bad):
    for call in (bootstrap.check_in, bootstrap.look_up):
        with pytest.raises(machio.UsageError):
            await call(bad)


async def test_the_longest_name(name):
    longest = name.ljust(127, "x")
    with await bootstrap.check_in(longest) as service, await bootstrap.look_up(longest) as send:
        assert send.name == service.name


async def test_the_bootstrap_port_is_a_right_like_others():
    with bootstrap.port() as one, bootstrap.port() as other:
        assert one == other
        assert one.name == _ffi.bootstrap_port()


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
