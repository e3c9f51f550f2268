"""Queue limits and timeouts."""

from __future__ import annotations

import time

from kit import (
    MAKE_SEND_ONCE,
    NO_SENDERS,
    deallocate,
    kill,
    receive_right,
    request,
    set_qlimit,
    status,
    with_send,
)
from letters import Buffer, fill, ids, message, send, take
from threads import Blocked

TIMED_OUT = "MACH_SEND_TIMED_OUT"


def blocked_sender(port: int, number: int = 0) -> Blocked:
    return Blocked(message(port, id=number).send, timeout=None)


def test_S_118_the_default_limit() -> None:
    """Five messages fit into a queue, the sixth times out."""
    port = with_send()
    assert [send(port) for _ in range(6)] == ["KERN_SUCCESS"] * 5 + [TIMED_OUT]
    assert status(port).msgcount == 5


def test_S_119_send_once_goes_beyond_the_limit() -> None:
    """A message by a send-once right is queued in a full queue."""
    port = with_send()
    fill(port)
    assert send(port, MAKE_SEND_ONCE) == "KERN_SUCCESS"
    assert status(port).msgcount == 6


def test_S_120_a_queue_of_none() -> None:
    """With limit 0 a send times out though a receiver waits; a send-once send reaches it."""
    port = with_send(qlimit=0)
    buffer = Buffer()
    with Blocked(buffer.receive, port, timeout=None) as receiver:
        assert send(port) == TIMED_OUT
        assert receiver.is_waiting
        assert send(port, MAKE_SEND_ONCE, id=20) == "KERN_SUCCESS"
        assert receiver.join() == "KERN_SUCCESS"
    assert buffer.header.msgh_id == 20


def test_S_121_change_the_limit() -> None:
    """Raising the limit by one lets one sender go on; lowering it throws nothing away."""
    port = with_send(qlimit=1)
    fill(port)
    with blocked_sender(port, 21) as first, blocked_sender(port, 21) as second:
        set_qlimit(port, 2)
        while first.is_waiting and second.is_waiting:
            time.sleep(0)
        released, waiting = (second, first) if first.is_waiting else (first, second)
        assert released.join() == "KERN_SUCCESS"
        assert waiting.is_waiting
        assert status(port).msgcount == 2
        set_qlimit(port, 0)
        assert status(port).msgcount == 2
        set_qlimit(port, 3)
        assert waiting.join() == "KERN_SUCCESS"
    assert ids(port) == [0, 21, 21]


def test_S_122_a_receive_makes_room() -> None:
    """Receiving one message lets one blocked sender finish."""
    port = with_send()
    fill(port)
    with blocked_sender(port, 22) as sender:
        take(port)
        assert sender.join() == "KERN_SUCCESS"
    assert ids(port) == [0, 0, 0, 0, 22]


def test_S_123_the_port_of_a_blocked_sender_dies() -> None:
    """A sender that is blocked on a port which dies has sent: MACH_MSG_SUCCESS."""
    port = with_send()
    fill(port)
    with blocked_sender(port) as sender:
        kill(port)
        assert sender.join() == "KERN_SUCCESS"


def test_S_124_receive_timeouts() -> None:
    """A receive that times out does so at once or after its time, and writes nothing."""
    port, buffer = receive_right(), Buffer()
    assert buffer.receive(port, timeout=0) == "MACH_RCV_TIMED_OUT"
    begin = time.monotonic()
    assert buffer.receive(port, timeout=100) == "MACH_RCV_TIMED_OUT"
    assert 0.099 <= time.monotonic() - begin < 5
    assert set(buffer.bytes[:]) == {0xA5}


def test_S_125_notifications_go_beyond_the_limit() -> None:
    """A notification is delivered to a port whose queue is full."""
    notify, port = with_send(), with_send()
    fill(notify)
    request(port, NO_SENDERS, 0, notify)
    deallocate(port)
    assert ids(notify) == [0] * 5 + [NO_SENDERS]
