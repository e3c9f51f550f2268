"""Each message is told once, to the log and to callbacks, and to nobody if nobody listens."""

import asyncio
import logging
import os
import subprocess
import sys

import pytest

import machio
from machio import Message, NotificationId, ReceiveRight, Trace, mig, tracing

log = logging.getLogger("machio")


class Clock(mig.Subsystem, base=880000):
    @mig.routine
    async def now(self, zone: mig.uint32) -> mig.uint32:
        return zone + 1


@pytest.fixture
def at_debug(caplog):
    with caplog.at_level(logging.DEBUG, "machio"):
        yield caplog


def told(kind, traces):
    return [(trace.direction, trace.name) for trace in traces if trace.direction == kind]


async def test_sends_and_receives_are_told_in_fields(port, send):
    traces = []
    with machio.trace(traces.append), ReceiveRight.allocate() as home:
        right = (home, machio.Disposition.MAKE_SEND)
        await send.send(Message(5, b"four", [right, None], reply=home))
        (await port.receive()).close()
        await send.send(Message(6))
        port.receive_blocking()
    await send.send(Message(7))
    assert traces[:2] == [
        Trace("sent", 5, "", send.name, b"four", 2, 0, True, None),
        Trace("received", 5, "", port.name, b"four", 2, 0, True, traces[1].sender),
    ]
    assert traces[1].sender.pid == os.getpid()
    assert [(trace.direction, trace.id) for trace in traces[2:]] == [("sent", 6), ("received", 6)]


async def test_one_line_a_message(port, send, at_debug):
    with ReceiveRight.allocate() as home:
        await send.send(Message(5, b"four", [(home, machio.Disposition.MAKE_SEND)], reply=home))
        (await port.receive()).close()
        home.receive_nowait()
        what = "4 bytes, 1 right, wants a reply"
        assert [one.getMessage() for one in at_debug.records] == [
            f"sent 5 to {send.name:#x}: {what}",
            f"received 5 at {port.name:#x} from pid {os.getpid()}: {what}",
            f"received MACH_NOTIFY_SEND_ONCE (71) at {home.name:#x} from the system: 0 bytes",
        ]
    assert {one.levelno for one in at_debug.records} == {logging.DEBUG}


async def test_memory_is_counted_by_the_byte(port, send, at_debug):
    traces = []
    array = machio.RightArray([port, None], machio.Disposition.MAKE_SEND)
    with machio.trace(traces.append):
        await send.send(Message(5, descriptors=[machio.Memory(70000), array, b"123"]))
        (await port.receive()).close()
        send.send_nowait(Message(6, memory=[b""]))
        (await port.receive()).close()
    assert [(one.direction, one.memory, one.rights) for one in traces] == [
        ("sent", 70003, 2),
        ("received", 70003, 2),
        ("sent", 0, 0),
        ("received", 0, 0),
    ]
    what = "0 bytes, 70003 out of line, 2 rights"
    assert [one.getMessage() for one in at_debug.records[:2]] == [
        f"sent 5 to {send.name:#x}: {what}",
        f"received 5 at {port.name:#x} from pid {os.getpid()}: {what}",
    ]


async def test_routines_have_names(port, send):
    traces = []

    async def serve():
        with await port.receive() as request:
            request.reply.send(await Clock().answer(request))

    with machio.trace(traces.append):
        serving = asyncio.create_task(serve())
        assert await Clock.client(send).now(1) == 2
        await serving
    assert told("sent", traces) == [("sent", "Clock.now"), ("sent", "Clock.now reply")]
    assert told("received", traces) == [
        ("received", "Clock.now"),
        ("received", "Clock.now reply"),
    ]


async def test_notifications_are_told_where_they_arrive(port, send):
    traces = []
    with machio.trace(traces.append):
        death = asyncio.create_task(send.died())
        ReceiveRight.allocate().close()
        await asyncio.sleep(0)
        port.close()
        await death
        with ReceiveRight.allocate() as other:
            assert await other.no_senders() == 0
    names = [trace.name for trace in traces if trace.sender.is_kernel]
    assert names == ["MACH_NOTIFY_DEAD_NAME", "MACH_NOTIFY_NO_SENDERS"]


async def test_the_check_in_has_a_name(bootstrap_server, port):
    traces = []
    with machio.trace(traces.append), machio.ChildPortHandshake() as handshake:
        fd = handshake.client_read_fd()
        serving = asyncio.create_task(handshake.serve(machio.PortRightType.SEND, 10))
        await machio.check_in_fd(fd, port, machio.Disposition.MAKE_SEND, 10)
        (await serving).close()
    name = "ChildPort.child_port_check_in"
    assert ("sent", name) in told("sent", traces)
    assert told("received", traces).count(("received", name)) == 1


def test_a_failed_send_is_not_told(port, send):
    traces = []
    port.close()
    with machio.trace(traces.append), pytest.raises(machio.DeadDestinationError):
        send.send_blocking(Message(1))
    assert traces == []


def test_a_callback_that_raises_is_logged_and_harmless(port, send, caplog):
    traces = []

    def fail(trace):
        raise RuntimeError("no")

    with machio.trace(fail), machio.trace(traces.append):
        send.send_nowait(Message(1))
        assert port.receive_nowait().id == 1
    assert len(traces) == 2
    assert [one.getMessage() for one in caplog.records] == ["a trace callback failed"] * 2


def test_the_same_callback_twice(port, send):
    traces = []
    with machio.trace(traces.append):
        with machio.trace(traces.append):
            send.send_nowait(Message(1))
        send.send_nowait(Message(2))
    send.send_nowait(Message(3))
    assert [trace.id for trace in traces] == [1, 1, 2]


class TestWhoListens:
    """`on` settles at False, and every way to change a level is noticed."""

    @pytest.fixture(autouse=True)
    def quiet(self, send):
        send.send_nowait(Message(1))
        assert not tracing.on

    @pytest.mark.parametrize("logger", [log, logging.getLogger()])
    def test_a_level_that_is_set(self, logger, send, caplog):
        before = logger.level
        logger.setLevel(logging.DEBUG)
        try:
            send.send_nowait(Message(2))
            assert len(caplog.records) == 1
            assert tracing.on
        finally:
            logger.setLevel(before)
        send.send_nowait(Message(3))
        assert not tracing.on
        assert len(caplog.records) == 1

    def test_logging_as_a_whole(self, send, at_debug):
        logging.disable()
        try:
            send.send_nowait(Message(2))
            assert not tracing.on
        finally:
            logging.disable(logging.NOTSET)
        send.send_nowait(Message(3))
        assert [one.args[0].id for one in at_debug.records] == [3]

    def test_a_callback(self, send):
        traces = []
        with machio.trace(traces.append):
            send.send_nowait(Message(2))
            assert tracing.on
        send.send_nowait(Message(3))
        assert not tracing.on
        assert [trace.id for trace in traces] == [2]


def test_a_configured_program_needs_one_line():
    program = (
        "import logging, machio\n"
        "logging.basicConfig(level=logging.DEBUG, format='%(name)s: %(message)s')\n"
        "with machio.ReceiveRight.allocate() as port, port.make_send() as send:\n"
        "    send.send_nowait(machio.Message(72))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.startswith("machio: sent MACH_NOTIFY_DEAD_NAME (72) to 0x")


def test_ids_with_names_of_their_own(monkeypatch):
    monkeypatch.setattr(tracing, "_names", {})
    tracing.name_ids({7: "frame"})
    tracing.name_ids({7: "frame"})
    assert tracing._names == {7: "frame"}
    tracing.name_ids({7: "ping", NotificationId.DEAD_NAME: "x"})
    assert tracing._names == {7: "frame or ping", 72: "x"}
