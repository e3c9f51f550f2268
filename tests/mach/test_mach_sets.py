"""Port sets."""

from __future__ import annotations

import pytest
from kit import (
    NULL,
    code,
    destroy,
    exists,
    extract_member,
    free_name,
    insert_member,
    kill,
    members,
    move_member,
    port_set,
    receive_right,
    status,
    with_send,
)
from letters import Buffer, ids, send, take
from threads import Blocked


def test_S_082_move_into_and_out_of_a_set() -> None:
    """A port moved into a set is its member; moved to NULL it is in none, and cannot leave."""
    port, pset = receive_right(), port_set()
    move_member(port, pset)
    assert status(port).pset == 1
    assert members(pset) == [port]
    move_member(port, NULL)
    assert (status(port).pset, members(pset)) == (0, [])
    assert code(move_member, port, NULL) == "KERN_NOT_IN_SET"


def test_S_083_several_sets() -> None:
    """A port can be in several sets, but once in each."""
    port, first, second = receive_right(), port_set(), port_set()
    insert_member(port, first)
    assert code(insert_member, port, first) == "KERN_ALREADY_IN_SET"
    insert_member(port, second)
    assert members(first) == members(second) == [port]


def test_S_084_move_leaves_other_sets() -> None:
    """Moving a port into a set takes it out of all others."""
    port = receive_right()
    pset, other = port_set(port), port_set(port)
    move_member(port, pset)
    assert (members(pset), members(other)) == ([port], [])


def test_S_085_extract_who_is_not_in() -> None:
    """A port that is not in a set cannot be taken out of it."""
    port, other = receive_right(), port_set()
    port_set(port)
    assert code(extract_member, port, other) == "KERN_NOT_IN_SET"


@pytest.mark.apart
def test_S_086_what_cannot_be_in_a_set() -> None:
    """Sets have receive rights as members, and only sets have members."""
    port, pset, other = receive_right(), port_set(), port_set()
    assert code(move_member, pset, other) == "KERN_INVALID_RIGHT"
    assert code(move_member, port, port) == "KERN_INVALID_RIGHT"
    assert code(insert_member, port, NULL) == "KERN_INVALID_RIGHT"
    assert code(move_member, port, free_name()) == "KERN_INVALID_NAME"
    assert status(port).pset == 0


def test_S_087_who_is_in_a_set() -> None:
    """mach_port_get_set_status sorts the members by name, and wants a set."""
    ports = [receive_right() for _ in range(5)]
    assert code(members, ports[0]) == "KERN_INVALID_RIGHT"
    assert members(port_set()) == []
    assert members(port_set(*reversed(ports))) == sorted(ports)


def test_S_088_receive_through_a_set_or_directly() -> None:
    """A message received through a set tells the member; receiving on the member goes on."""
    port = with_send()
    pset = port_set(port)
    assert send(port, id=1) == "KERN_SUCCESS"
    assert send(port, id=2) == "KERN_SUCCESS"
    assert take(pset).header.msgh_local_port == port
    assert take(port).header.msgh_id == 2


def test_S_089_members_take_turns() -> None:
    """Of several members with messages none is served twice in a row."""
    ports = [with_send(), with_send()]
    pset = port_set(*ports)
    for port in ports:
        assert send(port) == send(port) == "KERN_SUCCESS"
    order = [take(pset).header.msgh_local_port for _ in range(4)]
    assert sorted(order[:2]) == sorted(order[2:]) == sorted(ports)
    assert order[:2] == order[2:]


def test_S_090_members_survive_their_set() -> None:
    """Destroying a set leaves its members, with their messages."""
    port = with_send()
    pset = port_set(port)
    assert send(port, id=7) == "KERN_SUCCESS"
    destroy(pset)
    assert not exists(pset)
    assert status(port).pset == 0
    assert ids(port) == [7]


def test_S_091_who_waits_on_a_set() -> None:
    """A thread that waits on a set learns of the set's end, not of a member's."""
    dying, leaving = receive_right(), receive_right()
    pset = port_set(dying, leaving)
    with Blocked(Buffer().receive, pset, timeout=None) as blocked:
        kill(dying)
        move_member(leaving, NULL)
        assert blocked.is_waiting
        destroy(pset)
        assert blocked.join() == "MACH_RCV_PORT_CHANGED"


def test_S_092_a_member_brings_its_messages() -> None:
    """A port with a message that joins a set wakes a thread that waits on the set."""
    port, pset = with_send(), port_set()
    assert send(port, id=9) == "KERN_SUCCESS"
    buffer = Buffer()
    with Blocked(buffer.receive, pset, timeout=None) as blocked:
        insert_member(port, pset)
        assert blocked.join() == "KERN_SUCCESS"
    assert (buffer.header.msgh_id, buffer.header.msgh_local_port) == (9, port)
