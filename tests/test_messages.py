"""Messages as bytes: layouts by offset, and what comes back from them."""

import struct

import pytest
from common import pack_message
from hypothesis import given
from hypothesis import strategies as st

from machio import Disposition, Message, NotificationId, Sender, _wire

names = st.integers(0, 0xFFFFFFFF)
rights = st.lists(st.tuples(names, st.sampled_from([16, 17, 18, 19, 20, 21])), max_size=20)


def packed(*args, **kwargs):
    return memoryview(bytearray(pack_message(*args, **kwargs)))


def test_a_simple_message_by_offset():
    view = packed((0x103, 19), 7, b"hello", reply=(0x203, 21))
    assert len(view) == 32
    assert struct.unpack_from("=IIIIIi", view) == (21 << 8 | 19, 32, 0x103, 0x203, 0, 7)
    assert view[24:] == b"hello\0\0\0"


def test_a_complex_message_by_offset():
    view = packed((0x103, 19), -2, b"body", rights=[(0x303, 16), (0x403, 20)])
    assert len(view) == 28 + 12 + 12 + 4
    assert struct.unpack_from("=I", view, 0) == (0x80000013,)
    assert struct.unpack_from("=i", view, 20) == (-2,)
    assert struct.unpack_from("=I", view, 24) == (2,)
    for at, name, disposition in [(28, 0x303, 16), (40, 0x403, 20)]:
        assert struct.unpack_from("=I", view, at) == (name,)
        assert view[at + 10] == disposition
        assert view[at + 11] == 0
    assert view[-4:] == b"body"


def test_the_checked_in_message_is_crashpads():
    ndr_and_token = bytes((0, 0, 0, 0, 1, 0, 0, 0)) + bytes(range(8))
    view = packed((0x103, 19), 10011, ndr_and_token, rights=[(0x203, 16)])
    assert bytes(view) == bytes.fromhex(
        "13000080 38000000 03010000 00000000 00000000 1b270000"
        "01000000 03020000 00000000 00001000"
        "00000000 01000000 0001020304050607"
    )


@given(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=500), rights, names)
def test_what_is_packed_is_unpacked(message_id, body, carried, reply):
    view = packed((0x103, 17), message_id, body, carried, (reply, 18))
    incoming = _wire.unpack(view)
    assert len(view) == _wire.size_of(12 * len(carried), len(body))
    assert incoming.id == message_id
    assert incoming.descriptors == tuple(carried)
    assert incoming.rights == len(carried)
    assert incoming.local == reply
    assert incoming.body == body + bytes(-len(body) % 4)
    assert incoming.trailer == b""


@given(st.binary(min_size=24, max_size=120))
def test_any_bytes_are_a_message_or_malformed(data):
    try:
        incoming = _wire.unpack(memoryview(data))
    except _wire.Malformed:
        return
    assert len(incoming.body) <= len(data)


@pytest.mark.parametrize(
    ("count", "kind", "size"),
    [(5, 0, 56), (1, 4, 56), (1, 1, 40), (0xFFFFFFFF, 0, 56), (1, 0, 24), (1, 0, 57), (1, 0, 20)],
)
def test_lies_about_descriptors_are_malformed(count, kind, size):
    view = packed((0x103, 17), 1, bytes(16), rights=[(0x203, 17)])
    struct.pack_into("=I", view, 24, count)
    view[39] = kind
    struct.pack_into("=I", view, 4, size)
    with pytest.raises(_wire.Malformed):
        _wire.unpack(view)


def trailer_with(token):
    return _wire.AUDIT_TRAILER.pack(0, 52, 41, 1000, 1000, *token)


def test_the_sender_is_in_the_trailer():
    body = bytearray(packed((0x103, 17), 1, b"1234"))
    token = (500, 501, 502, 503, 504, 4711, 9, 77)
    incoming = _wire.unpack(memoryview(body + trailer_with(token)))
    message = Message(incoming.id, incoming.body, trailer=incoming.trailer)
    assert message.body == b"1234"
    assert message.seqno == 41
    assert message.sender == Sender(token)
    assert (message.sender.pid, message.sender.uid, message.sender.gid) == (4711, 501, 502)
    assert (message.sender.real_uid, message.sender.real_gid) == (503, 504)
    assert not message.sender.is_kernel
    assert not message.is_notification


def test_only_a_token_of_zeros_is_the_kernels():
    assert Message(70, trailer=trailer_with((0,) * 8)).is_notification
    assert Message(70, trailer=trailer_with((0,) * 8)).sender.is_kernel
    from_another_pid_namespace = trailer_with((0, 0, 0, 0, 0, 0, 0, 1))
    assert not Message(70, trailer=from_another_pid_namespace).is_notification


def test_a_message_to_be_sent_has_no_sender():
    message = Message(1)
    assert message.sender is None
    assert message.seqno is None
    assert not message.is_notification


def test_bodies_are_copied_when_the_message_is_made():
    body = bytearray(b"abcd")
    message = Message(1, body)
    body[0] = 0
    assert message.body == b"abcd"


def test_repr_says_what_is_in_it():
    assert repr(Message(3, b"ab")) == "<Message id=3 body=2 bytes>"
    assert repr(Message(3, rights=[None])) == "<Message id=3 body=0 bytes rights=[None]>"


def test_closing_closes_every_right_once_or_more():
    class Owned:
        closed = 0

        def close(self):
            self.closed += 1

    right, other, reply = Owned(), Owned(), Owned()
    with Message(1, rights=[right, None, (other, Disposition.MOVE_SEND)], reply=reply) as message:
        pass
    message.close()
    assert (right.closed, other.closed, reply.closed) == (2, 2, 2)


def test_notification_ids():
    assert NotificationId(72).c_name == "MACH_NOTIFY_DEAD_NAME"
