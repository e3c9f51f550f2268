"""The socket between parent and child, both ends in one process: turns, withdrawals, lies."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest
from steps import cancelled_everywhere, running

import machio
from machio import Disposition, Message, PortRightType, ReceiveRight, SendRight, _ffi
from machio._link import Link

SEND, RECEIVE = PortRightType.SEND, PortRightType.RECEIVE


@pytest.fixture
def ends(bootstrap_server):
    links = [Link(end) for end in socket.socketpair()]
    yield links
    for link in links:
        link.close()


def offer(name: bytes, token: int = 1) -> bytes:
    return struct.pack("=QI", token, len(name)) + name


async def exchange(server: Link, client: Link, right, disposition=Disposition.COPY_SEND):
    got, _ = await asyncio.gather(server.serve(SEND, 20), client.check_in(right, disposition, 20))
    return got


async def test_one_handshake_after_another_in_both_directions(ends, send):
    for server, client in [ends, ends[::-1], ends, ends[::-1]]:
        with await exchange(server, client, send) as got:
            assert got.name == send.name


async def test_both_directions_at_a_time(ends, send):
    work = [exchange(*pair, send) for pair in (ends, ends[::-1]) * 5]
    for right in await asyncio.gather(*work):
        right.close()


async def test_a_right_that_moves_is_gone_from_its_object_only_on_success(ends, port):
    with pytest.raises(machio.HandshakeTimedOut):
        await ends[0].check_in(port, Disposition.MOVE_RECEIVE, 0.01)
    async with running(ends[0].check_in(port, Disposition.MOVE_RECEIVE, None)):
        assert not port.closed
    got, _ = await asyncio.gather(
        ends[1].serve(RECEIVE, 20), ends[0].check_in(port, Disposition.MOVE_RECEIVE, 20)
    )
    assert port.closed
    got.close()


async def test_an_offer_that_was_withdrawn_is_skipped(ends, send):
    for _ in range(3):
        with pytest.raises(machio.HandshakeTimedOut):
            await ends[0].serve(SEND, 0.05)
    (await exchange(*ends, send)).close()


async def test_an_offer_is_kept_for_whoever_checks_in_next(ends, send):
    """Whether it was read in part, or whole and not used."""
    theirs, ours = socket.socketpair()
    link = Link(ours)
    with theirs, await machio.bootstrap.check_in("machio.tests.link") as service:
        data = offer(b"machio.tests.link", 7)
        theirs.send(data[:10])
        with pytest.raises(machio.HandshakeTimedOut):
            await link.check_in(send, Disposition.COPY_SEND, 0.01)
        theirs.send(data[10:])
        with pytest.raises(machio.UsageError):
            await link.check_in(send, Disposition.MOVE_RECEIVE, 20)
        await link.check_in(send, Disposition.COPY_SEND, 20)
        with service.receive_nowait() as message:
            assert message.body[-8:] == struct.pack("=Q", 7)
    link.close()


async def test_what_is_no_offer_ends_the_link(ends, send):
    theirs, ours = socket.socketpair()
    link = Link(ours)
    with theirs:
        theirs.send(b"Hello, world. This is some program.")
        with pytest.raises(machio.ProtocolError):
            await link.check_in(send, Disposition.COPY_SEND, 20)
        with pytest.raises(machio.ServerGoneError):
            await link.check_in(send, Disposition.COPY_SEND, 20)
        with pytest.raises(machio.NoCheckInError):
            await link.serve(SEND, 20)
    link.close()


async def test_the_end_of_the_other_side(ends, send):
    async with (
        running(ends[0].serve(SEND, None)) as serving,
        running(ends[0].serve(SEND, None)) as waiting,
        running(ends[0].check_in(send, Disposition.COPY_SEND, None)) as checking_in,
    ):
        ends[1].close()
        for task in (serving, waiting):
            with pytest.raises(machio.NoCheckInError):
                await task
        with pytest.raises(machio.ServerGoneError):
            await checking_in
    with pytest.raises(machio.ServerGoneError):
        await ends[0].check_in(send, Disposition.COPY_SEND, None)


async def test_a_check_in_from_before_the_end_counts(ends, send):
    async with running(ends[0].serve(SEND, 20)) as serving:
        await ends[1].check_in(send, Disposition.COPY_SEND, 20)
        ends[1].close()
        (await serving).close()


async def test_shutting_ends_a_check_in_that_waits_for_somebody_elses_queue(port):
    """An offer that leads to a full queue of another does not outlast the one who made it."""
    theirs, ours = socket.socketpair()
    link = Link(ours)
    name = "machio.tests.full"
    with theirs, await machio.bootstrap.check_in(name) as service, port.make_send() as send:
        with service.make_send() as to_service:
            for _ in range(service.queue_limit):
                to_service.send_nowait(Message(1))
        theirs.send(offer(name.encode()))
        async with running(link.check_in(port, Disposition.MOVE_RECEIVE, None)) as checking_in:
            while not port.closed:  # it is in the message that waits
                await asyncio.sleep(0)
            link.shut()
            await asyncio.sleep(0)
            link.shut()  # while the first takes effect
            with pytest.raises(machio.ServerGoneError, match="not given away"):
                await checking_in
        assert not port.closed
        await send.send(Message(2))
        assert port.receive_nowait().id == 2
    link.close()


async def test_closing_while_handshakes_go_on(ends, send):
    async with (
        running(ends[0].serve(SEND, None)) as serving,
        running(ends[0].check_in(send, Disposition.COPY_SEND, None)) as checking_in,
    ):
        ends[0].close()
        with pytest.raises(machio.NoCheckInError):
            await serving
        with pytest.raises(machio.ServerGoneError):
            await checking_in
    with pytest.raises(machio.UsageError, match="block was left"):
        await ends[0].serve(SEND, None)


async def test_a_forked_process_has_no_part(ends, send):
    pid = os.fork()
    if pid == 0:
        try:
            with ends[0]._use():
                os._exit(1)
        except machio.UsageError:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("direction", [1, -1])
async def test_cancelled_everywhere(ends, port, send, direction):
    """Whichever side is cancelled wherever, no right is lost, and the next handshake succeeds."""
    ours, theirs = ends[::direction]
    names = None

    async def serve():
        async with running(theirs.check_in(send, Disposition.COPY_SEND, 20)):
            (await ours.serve(SEND, 20)).close()

    async def check_in():
        async with running(theirs.serve(RECEIVE, 20)) as serving:
            with ReceiveRight.allocate() as moving:
                await ours.check_in(moving, Disposition.MOVE_RECEIVE, 20)
            (await serving).close()

    async def after():
        nonlocal names
        for pair in (ends, ends[::-1]):
            with await exchange(*pair, send) as got:
                assert isinstance(got, SendRight)
        if names is None:
            names = set(_ffi.names())
        assert len(set(_ffi.names()) - names) <= 1  # the loop's own port for notifications

    for work in (serve, check_in):
        assert await cancelled_everywhere(work, after) > 3
