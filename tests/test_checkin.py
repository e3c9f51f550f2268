"""The check-in protocol without any process: what each side makes of what it is told."""

import struct
import sys

import pytest
from common import pack_message
from hypothesis import given
from hypothesis import strategies as st

from machio import PortRightType, ProtocolError, ServerGoneError, mig
from machio._checkin import (
    CHECK_IN_ID,
    CHECK_IN_SIZE,
    CLIENT_TABLE,
    SERVER_TABLE,
    Client,
    Server,
)

TOKEN = b"\x01\x02\x03\x04\x05\x06\x07\x08"
NAME = "org.machio.child_port_handshake.1.2.abc"
NDR = bytes((0, 0, 0, 0, 1, 0, 0, 0))
RECEIVE, SEND, SEND_ONCE = PortRightType.RECEIVE, PortRightType.SEND, PortRightType.SEND_ONCE


def server(expected=RECEIVE):
    return Server(TOKEN, NAME, expected)


def check_in(token=TOKEN, disposition=16, message_id=CHECK_IN_ID, name=0x203, extra=b"", reply=0):
    rights = [(name, disposition)]
    message = pack_message((reply, 0), message_id, NDR + token + extra, rights, (0x103, 17))
    return bytearray(message)


def test_the_offer_is_token_length_and_name():
    assert server().offer() == TOKEN + struct.pack("=I", len(NAME)) + NAME.encode()


@pytest.mark.parametrize(
    ("expected", "disposition", "state"),
    [
        (RECEIVE, 16, "accepted"),
        (RECEIVE, 17, "wrong right"),
        (RECEIVE, 18, "wrong right"),
        (SEND, 16, "wrong right"),
        (SEND, 17, "accepted"),
        (SEND, 18, "accepted"),
        (SEND_ONCE, 17, "wrong right"),
        (SEND_ONCE, 18, "accepted"),
    ],
)
def test_the_kind_of_right_decides(expected, disposition, state):
    waiting = server(expected)
    assert waiting.judge(check_in(disposition=disposition)) == state
    assert waiting.done
    assert waiting.refused == 0


@pytest.mark.parametrize("name", [0, 0xFFFFFFFF])
def test_a_null_or_dead_right_is_a_wrong_one(name):
    assert server().judge(check_in(name=name)) == "wrong right"


def complex_bit_off(message):
    struct.pack_into("=I", message, 0, 0x1100)
    return message


def two_descriptors(message):
    struct.pack_into("=I", message, 24, 2)
    return message


def out_of_line(message):
    message[39] = 1
    return message


def lying_size(message):
    struct.pack_into("=I", message, 4, 60)
    return message


STRANGE = {
    "wrong token": check_in(token=b"\x01\x02\x03\x04\x05\x06\x07\x09"),
    "wrong id": check_in(message_id=10012),
    "notification id": check_in(message_id=70),
    "too long": check_in(extra=b"1234"),
    "too short": check_in(token=b""),
    "not complex": complex_bit_off(check_in()),
    "two descriptors": two_descriptors(check_in()),
    "another descriptor": out_of_line(check_in()),
    "lying size": lying_size(check_in()),
    "bare header": check_in()[:24],
}


@pytest.mark.parametrize("message", STRANGE.values(), ids=STRANGE)
def test_a_strange_message_is_refused_and_the_wait_goes_on(message):
    waiting = server()
    assert waiting.judge(message) == "waiting"
    assert waiting.refused == 1
    assert waiting.judge(check_in()) == "accepted"


def test_padding_of_the_descriptor_is_ignored():
    message = check_in()
    message[32:38] = b"\xff" * 6
    assert server().judge(message) == "accepted"


def test_the_pipes_end_is_not_the_end_before_the_queue_is_empty():
    waiting = server()
    assert waiting.hang_up(3) == "draining"
    assert not waiting.done
    assert waiting.judge(STRANGE["wrong token"]) == "draining"
    assert waiting.judge(check_in()) == "accepted"


def test_an_empty_queue_after_the_end_is_the_end():
    waiting = server()
    assert waiting.empty() == "waiting"
    waiting.hang_up(0)
    assert waiting.empty() == "nobody"
    assert waiting.done


def test_a_flood_after_the_end_is_bounded():
    waiting = server()
    waiting.hang_up(5)
    for _ in range(4):
        assert waiting.refuse() == "draining"
    # Told again, as the driver does each time it looks: that starts no new count.
    waiting.hang_up(5)
    assert waiting.refuse() == "nobody"


@pytest.mark.parametrize("event", ["judge", "empty", "hang_up", "refuse"])
@pytest.mark.parametrize("final", ["accepted", "wrong right"])
def test_nothing_happens_after_the_end(final, event):
    waiting = server(RECEIVE if final == "accepted" else SEND)
    assert waiting.judge(check_in()) == final
    arguments = {"judge": (check_in(),), "hang_up": (1,)}.get(event, ())
    with pytest.raises(KeyError):
        getattr(waiting, event)(*arguments)


def test_the_tables_are_complete_for_states_that_wait():
    waiting = {"waiting", "draining"}
    events = {"genuine", "wrong kind", "strange", "empty", "hang up"}
    assert set(SERVER_TABLE) == {(state, event) for state in waiting for event in events}
    assert set(SERVER_TABLE.values()) == waiting | {"accepted", "wrong right", "nobody"}
    assert {state for state, _ in CLIENT_TABLE} == {"token", "length", "name"}
    assert {event for _, event in CLIENT_TABLE} == {"filled", "lie", "end"}
    assert set(CLIENT_TABLE.values()) == {"length", "name", "ready", "failed"}


@given(st.lists(st.sampled_from(["strange", "hang up", "empty", "genuine", "wrong"])))
def test_the_first_genuine_check_in_decides(events):
    waiting = server()
    for event in events:
        {
            "strange": lambda: waiting.judge(STRANGE["wrong id"]),
            "hang up": lambda: waiting.hang_up(1000),
            "empty": waiting.empty,
            "genuine": lambda: waiting.judge(check_in()),
            "wrong": lambda: waiting.judge(check_in(disposition=17)),
        }[event]()
        if waiting.done:
            break
    ended = {
        "accepted": "genuine",
        "wrong right": "wrong",
        "nobody": "empty",
    }
    if waiting.done:
        assert event == ended[waiting.state]


@pytest.mark.parametrize("token", [b"", b"1234567", b"123456789"])
def test_the_server_wants_a_token_of_eight_bytes(token):
    with pytest.raises(ValueError, match="8 bytes"):
        Server(token, NAME, RECEIVE)


@pytest.mark.parametrize("name", ["", "x" * 128, "näme"])
def test_the_server_wants_a_name_that_a_client_accepts(name):
    with pytest.raises(ValueError, match=r"127|ascii"):
        Server(TOKEN, name, RECEIVE)


def test_a_port_set_cannot_be_checked_in():
    with pytest.raises(ValueError, match="PORT_SET"):
        server(PortRightType.PORT_SET)


# ---- the client's side ----


def read(client, data, step=1000):
    """Feed `data` as a pipe would, at most `step` bytes at a time; return what was left over."""
    while client.needed and data:
        size = min(client.needed, step)
        client.feed(data[:size])
        data = data[size:]
    return data


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_the_client_reads_the_offer_and_not_a_byte_more(step):
    client = Client()
    assert read(client, server().offer() + b"more", step) == b"more"
    assert client.state == "ready"
    assert client.name == NAME
    assert client.body() == NDR + TOKEN


def test_what_the_client_sends_the_server_accepts():
    client = Client()
    read(client, server().offer())
    message = pack_message((0x103, 19), CHECK_IN_ID, client.body(), [(0x203, 16)])
    assert server().judge(message) == "accepted"


class ChildPort(mig.Subsystem, base=10011):
    """Crashpad's child_port.defs."""

    @mig.simpleroutine
    async def child_port_check_in(self, token: mig.uint64, port: mig.Poly) -> None:
        """Give the process that knows the token a right of any kind."""


def test_the_check_in_is_a_routine_of_mig():
    routine = ChildPort.routines["child_port_check_in"]
    client = Client()
    read(client, server().offer())
    descriptors, body = routine.request.pack((int.from_bytes(TOKEN, sys.byteorder), (None, 16)))
    assert (CHECK_IN_ID, CHECK_IN_SIZE) == (routine.id, routine.request.size) == (10011, 56)
    assert (len(descriptors), client.body()) == (1, body)


@pytest.mark.parametrize("length", range(len(TOKEN) + 4 + len(NAME)))
def test_an_early_end_is_a_clear_error(length):
    client = Client()
    read(client, server().offer()[:length])
    with pytest.raises(ServerGoneError, match=r"closed the pipe after \d+ of \d+ bytes of the "):
        client.feed(b"")
    assert client.state == "failed"


@pytest.mark.parametrize("length", [0, 128, 0xFFFFFFFF, 4 * 1024**3 - 1])
def test_an_impossible_length_is_refused_before_anything_is_read(length):
    client = Client()
    with pytest.raises(ProtocolError, match=str(length)):
        read(client, TOKEN + struct.pack("=I", length) + b"x" * 200)
    assert client.needed == 0
    assert client.state == "failed"


@pytest.mark.parametrize("name", [b"caf\xc3\xa9", b"\xff", b"a\0b"])
def test_a_name_that_is_not_ascii_is_refused(name):
    client = Client()
    with pytest.raises(ProtocolError, match="ASCII"):
        read(client, TOKEN + struct.pack("=I", len(name)) + name)
    assert client.state == "failed"


@given(st.binary(max_size=300), st.integers(1, 20))
def test_any_bytes_end_well_or_in_a_clear_error(data, step):
    client = Client()
    try:
        read(client, data, step)
        if client.needed:
            client.feed(b"")
    except (ServerGoneError, ProtocolError):
        assert client.state == "failed"
    else:
        assert client.state == "ready"
        assert 1 <= len(client.name) <= 127


def test_the_client_is_never_given_more_than_it_needs():
    with pytest.raises(ValueError, match="more bytes"):
        Client().feed(b"1234567890123")


def test_there_is_no_body_before_the_offer_was_read():
    with pytest.raises(ValueError, match="not been read"):
        Client().body()
