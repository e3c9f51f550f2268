"""Basic send and receive."""

from __future__ import annotations

import pytest
from kit import (
    COPY_SEND,
    DEAD,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NULL,
    TYPE_SEND_ONCE,
    dead_name,
    exists,
    free_name,
    lib,
    mod_refs,
    once,
    port_set,
    receive_right,
    refs,
    status,
    type_of,
    with_send,
)
from letters import COMPLEX, Buffer, ids, message, port, send, take
from tasks import Line, Task

TOO_SMALL = "MACH_SEND_MSG_TOO_SMALL"
INVALID_DEST = "MACH_SEND_INVALID_DEST"
INVALID_HEADER = "MACH_SEND_INVALID_HEADER"
INVALID_REPLY = "MACH_SEND_INVALID_REPLY"


def test_S_093_a_message_arrives() -> None:
    """A 24-byte message fits a buffer of 24 + 8 and tells the port, a send right and the id."""
    name = with_send()
    assert send(name, id=-3) == "KERN_SUCCESS"
    buffer = Buffer()
    assert buffer.receive(name, size=24 + 8) == "KERN_SUCCESS"
    header = buffer.header
    assert (header.msgh_bits, header.msgh_size) == (0x1100, 24)
    assert (header.msgh_remote_port, header.msgh_local_port) == (NULL, name)
    assert header.msgh_id == -3


def test_S_094_a_send_once_reply_right() -> None:
    """A reply right made as send-once arrives under a new name, also in the task that made it."""
    name, reply = with_send(), receive_right()
    assert send(name, COPY_SEND, reply, MAKE_SEND_ONCE) == "KERN_SUCCESS"
    header = take(name).header
    assert header.msgh_bits == 0x1112
    assert header.msgh_remote_port not in (reply, name)
    assert type_of(header.msgh_remote_port) == TYPE_SEND_ONCE


def test_S_095_a_send_reply_right() -> None:
    """A reply right made as send right joins the name that its port has here."""
    name, reply = with_send(), receive_right()
    assert send(name, COPY_SEND, reply, MAKE_SEND) == "KERN_SUCCESS"
    header = take(name).header
    assert (header.msgh_bits, header.msgh_remote_port) == (0x1111, reply)
    assert refs(reply) == 1


def test_S_096_send_to_a_receive_right_of_ones_own() -> None:
    """With MAKE_SEND_ONCE a task sends to its own port without a send right."""
    name = receive_right()
    assert send(name, MAKE_SEND_ONCE) == "KERN_SUCCESS"
    assert status(name).sorights == 1
    assert take(name).header.msgh_bits == 0x1200
    assert status(name).sorights == 0


def test_S_097_copy_send_needs_a_send_right() -> None:
    """A receive right alone is no destination for COPY_SEND."""
    assert send(receive_right(), COPY_SEND) == INVALID_DEST


def test_S_098_send_by_moving_the_right() -> None:
    """MOVE_SEND as the destination takes one uref, and with the last one the name."""

    def mover(line: Line):
        name = line.take()
        mod_refs(name, 0, 1)
        sent = send(name, MOVE_SEND, id=1)
        yield sent, refs(name)
        yield send(name, MOVE_SEND, id=2), exists(name)

    name = receive_right()
    with Task(mover) as task:
        task.give(name, MAKE_SEND)
        assert task.answer() == ("KERN_SUCCESS", 1)
        assert task.answer() == ("KERN_SUCCESS", False)
    headers = [take(name).header for _ in range(2)]
    assert [header.msgh_id for header in headers] == [1, 2]
    assert [header.msgh_bits for header in headers] == [0x1100, 0x1100]


def test_S_099_send_by_a_send_once_right() -> None:
    """A send-once right is used up by its message, which arrives with local disposition 18."""
    name = receive_right()
    right = once(name)
    assert send(right, MOVE_SEND_ONCE) == "KERN_SUCCESS"
    assert not exists(right)
    assert lib.MACH_MSGH_BITS_LOCAL(take(name).header.msgh_bits) == 18


def sized(name: int, size: int, other: int = 0, body: bytes = b"") -> str:
    """Send a message with a size of our own choice."""
    buffer = message(name, other=other, body=body)
    options = lib.MACH_SEND_MSG | lib.MACH_SEND_TIMEOUT
    return buffer.mach_msg(options, size)


def test_S_100_sizes_that_are_none() -> None:
    """A message has 24 bytes and a multiple of 4; a complex one has a descriptor count too."""
    name = with_send()
    assert sized(name, 20) == sized(name, 26) == TOO_SMALL
    assert sized(name, 24, COMPLEX) == TOO_SMALL
    assert status(name).msgcount == 0


def test_S_101_descriptors_must_fit() -> None:
    """A descriptor must lie in the message; a complex message without one stays complex."""
    name = with_send()
    one = (1).to_bytes(4, "little")
    assert sized(name, 28, COMPLEX, one) == TOO_SMALL
    assert sized(name, 28, COMPLEX, bytes(4)) == "KERN_SUCCESS"
    buffer = take(name)
    assert (buffer.header.msgh_bits, buffer.header.msgh_size) == (COMPLEX | 0x1100, 28)


def test_S_102_the_largest_message() -> None:
    """Beyond 50331580 bytes: MACH_SEND_TOO_LARGE."""
    assert sized(with_send(), 50331584) == "MACH_SEND_TOO_LARGE"


def test_S_103_no_destination() -> None:
    """NULL is no destination, and a destination needs a disposition of a send right."""
    assert send(NULL, COPY_SEND) == INVALID_DEST
    name = with_send()
    for disposition in (0, MOVE_RECEIVE, 22):
        assert send(name, disposition) == INVALID_HEADER


def test_S_104_reply_rights_need_a_disposition() -> None:
    """A reply name needs a disposition, and not that of a receive right."""
    name, reply = with_send(), receive_right()
    assert send(name, COPY_SEND, reply, 0) == INVALID_HEADER
    assert send(name, COPY_SEND, reply, MOVE_RECEIVE) == INVALID_HEADER


def test_S_105_a_reply_right_of_null() -> None:
    """A NULL reply right with a disposition arrives as NULL with that kind of right."""
    name = with_send()
    assert send(name, COPY_SEND, NULL, MAKE_SEND_ONCE) == "KERN_SUCCESS"
    header = take(name).header
    assert header.msgh_remote_port == NULL
    assert lib.MACH_MSGH_BITS_REMOTE(header.msgh_bits) == 18


def test_S_106_a_reply_right_of_dead() -> None:
    """MACH_PORT_DEAD as the reply right arrives as that."""
    name = with_send()
    assert send(name, COPY_SEND, DEAD, COPY_SEND) == "KERN_SUCCESS"
    assert take(name).header.msgh_remote_port == DEAD


@pytest.mark.apart
def test_S_107_reply_rights_that_are_not_there() -> None:
    """An unused name, a set, or MAKE_SEND_ONCE of a send right: MACH_SEND_INVALID_REPLY."""
    name = with_send()
    assert send(name, COPY_SEND, free_name(), COPY_SEND) == INVALID_REPLY
    assert send(name, COPY_SEND, port_set(), COPY_SEND) == INVALID_REPLY

    def asker(line: Line):
        yield send(line.outbox, COPY_SEND, line.outbox, MAKE_SEND_ONCE)

    with Task(asker) as task:
        assert task.answer() == INVALID_REPLY
    assert status(name).msgcount == 0


def test_S_108_destination_and_reply_by_one_name() -> None:
    """Moving both takes two urefs of the name; with one it is no destination."""
    name = with_send()
    assert send(name, MOVE_SEND, name, MOVE_SEND) == INVALID_DEST
    assert refs(name) == 1
    mod_refs(name, 0, 1)
    assert send(name, MOVE_SEND, name, MOVE_SEND) == "KERN_SUCCESS"
    assert refs(name) == 0
    assert take(name).header.msgh_remote_port == name


def test_S_109_bits_that_mean_nothing() -> None:
    """An unknown bit in msgh_bits is accepted and not delivered."""
    name = with_send()
    assert send(name, other=0x00800000) == "KERN_SUCCESS"
    assert take(name).header.msgh_bits == 0x1100


def test_S_110_a_plain_number_as_voucher() -> None:
    """A voucher name without a disposition is a number, and arrives unchanged."""
    name = with_send()
    assert send(name, voucher=0x1234) == "KERN_SUCCESS"
    assert take(name).header.msgh_voucher_port == 0x1234


def test_S_111_a_dead_destination_takes_nothing() -> None:
    """A send to a dead name fails before any right is taken or made."""
    reply = receive_right()
    assert send(dead_name(), COPY_SEND, reply, MAKE_SEND_ONCE) == INVALID_DEST
    assert status(reply).sorights == 0
    assert ids(reply) == []


def test_S_112_messages_for_a_port_that_travels() -> None:
    """A message to a port whose receive right is in a queue arrives with the receive right."""
    name, carrier = with_send(), with_send()
    assert send(carrier, rights=[port(name, MOVE_RECEIVE)]) == "KERN_SUCCESS"
    assert send(name, id=12) == "KERN_SUCCESS"
    (moved,) = take(carrier).descriptors
    assert ids(moved.name) == [12]


def test_S_113_nothing_to_do() -> None:
    """mach_msg without options does nothing and succeeds."""
    assert Buffer().mach_msg(0) == "KERN_SUCCESS"


def test_S_114_order_of_messages() -> None:
    """Messages arrive in the order of their sends, numbered from 0."""
    name = with_send()
    for number in range(5):
        assert send(name, id=number) == "KERN_SUCCESS"
    seqno = lib.MACH_RCV_TRAILER_ELEMENTS(lib.MACH_RCV_TRAILER_SEQNO)
    for number in range(5):
        buffer = take(name, seqno)
        assert buffer.header.msgh_id == number
        assert buffer.word(24 + 8) == number


def test_S_115_the_rest_of_the_buffer() -> None:
    """What lies behind message and trailer in the buffer is not touched."""
    name = with_send()
    assert send(name, body=b"body") == "KERN_SUCCESS"
    rest = take(name).bytes[28 + 8 :]
    assert set(rest) == {0xA5}


def both(buffer: Buffer, name: int) -> str:
    """Send and receive in one call."""
    options = lib.MACH_SEND_MSG | lib.MACH_RCV_MSG | lib.MACH_SEND_TIMEOUT | lib.MACH_RCV_TIMEOUT
    return buffer.mach_msg(options, 24, len(buffer.bytes), name)


def test_S_116_send_then_fail_to_receive() -> None:
    """In a combined call the send has happened when the receive's name turns out wrong."""
    name = with_send()
    assert both(message(name, id=16), free_name()) == "MACH_RCV_INVALID_NAME"
    assert ids(name) == [16]


def test_S_117_fail_to_send_then_nothing() -> None:
    """In a combined call whose send fails nothing is received."""
    name = with_send()
    assert send(name) == "KERN_SUCCESS"
    assert both(message(dead_name()), name) == INVALID_DEST
    assert status(name).msgcount == 1
