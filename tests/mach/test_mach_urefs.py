"""insert_right, extract_right, urefs."""

from __future__ import annotations

import pytest
from kit import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_RECEIVE,
    MOVE_SEND,
    MOVE_SEND_ONCE,
    NULL,
    RECEIVE,
    SEND,
    SEND_ONCE,
    SEND_ONCE_GONE,
    TYPE_DEAD_NAME,
    TYPE_RECEIVE,
    TYPE_SEND_ONCE,
    TYPE_SEND_RECEIVE,
    code,
    dead_name,
    deallocate,
    exists,
    extract,
    free_name,
    insert,
    mod_refs,
    port_set,
    receive_right,
    refs,
    srights,
    status,
    type_of,
    with_send,
)
from letters import ids


def test_S_024_make_a_send_right() -> None:
    """MAKE_SEND under the port's own name adds a uref and counts in mscount and srights."""
    port = receive_right()
    insert(port, port, MAKE_SEND)
    assert type_of(port) == TYPE_SEND_RECEIVE == 0x30000
    assert (refs(port), status(port).mscount, srights(port)) == (1, 1, 1)


def test_S_025_three_urefs_are_one_holder() -> None:
    """Three send rights made under one name are 3 urefs and 3 in mscount, but 1 in srights."""
    port = with_send(urefs=3)
    assert (refs(port), status(port).mscount, srights(port)) == (3, 3, 1)


def test_S_026_copy_a_send_right() -> None:
    """COPY_SEND under the own name adds a uref and leaves mscount."""
    port = with_send()
    insert(port, port, COPY_SEND)
    assert (refs(port), status(port).mscount) == (2, 1)


def test_S_027_copy_needs_a_send_right() -> None:
    """A receive right alone does not allow COPY_SEND."""
    port = receive_right()
    assert code(insert, port, port, COPY_SEND) == "KERN_INVALID_RIGHT"


def test_S_028_no_send_rights_of_sets_and_dead_names() -> None:
    """A set gives KERN_INVALID_RIGHT, a dead name KERN_INVALID_CAPABILITY."""
    pset, dead = port_set(), dead_name()
    assert code(insert, pset, pset, MAKE_SEND) == "KERN_INVALID_RIGHT"
    assert code(insert, dead, dead, COPY_SEND) == "KERN_INVALID_CAPABILITY"
    assert refs(dead, DEAD_NAME) == 1


def test_S_029_no_right_under_null() -> None:
    """MACH_PORT_NULL names nothing to make a send right of."""
    assert code(insert, NULL, NULL, MAKE_SEND) == "KERN_INVALID_NAME"


def test_S_030_impossible_names() -> None:
    """A right is not inserted under index 0 or under a name with its low bits clear."""
    port = receive_right()
    assert code(insert, 123, port, MAKE_SEND) == "KERN_FAILURE"
    assert code(insert, 122, port, MAKE_SEND) == "KERN_INVALID_VALUE"
    assert status(port).srights == 0


def test_S_031_a_port_has_one_name() -> None:
    """A send right does not go under another name than the one that its port has."""
    port, other = receive_right(), receive_right()
    assert code(insert, other, port, MAKE_SEND) == "KERN_RIGHT_EXISTS"
    assert type_of(other) == TYPE_RECEIVE
    assert srights(port) == 0


def test_S_032_a_send_once_right_under_a_chosen_name() -> None:
    """MAKE_SEND_ONCE under a free name makes that name a send-once right."""
    port, name = receive_right(), free_name()
    insert(name, port, MAKE_SEND_ONCE)
    assert type_of(name) == TYPE_SEND_ONCE == 0x40000
    assert type_of(port) == TYPE_RECEIVE
    assert status(port).sorights == 1


def test_S_033_a_send_once_right_under_a_used_name() -> None:
    """MAKE_SEND_ONCE under a used name fails, and the right made for it ends as a message 71."""
    port, other = receive_right(), receive_right()
    assert code(insert, other, port, MAKE_SEND_ONCE) == "KERN_NAME_EXISTS"
    assert ids(port) == [SEND_ONCE_GONE]
    assert status(port).sorights == 0


def test_S_034_rename_by_move_receive() -> None:
    """A receive right without send rights can be moved under a free name."""
    port, name = receive_right(), free_name()
    insert(name, port, MOVE_RECEIVE)
    assert not exists(port)
    assert type_of(name) == TYPE_RECEIVE


def test_S_035_a_refused_receive_right_dies() -> None:
    """With send rights the move under another name fails, and the port is dead after it."""
    port, name = with_send(), free_name()
    assert code(insert, name, port, MOVE_RECEIVE) == "KERN_RIGHT_EXISTS"
    assert type_of(port) == TYPE_DEAD_NAME
    assert not exists(name)


def test_S_036_no_disposition() -> None:
    """A disposition of 0 gives KERN_INVALID_RIGHT."""
    port = receive_right()
    assert code(insert, port, port, 0) == "KERN_INVALID_RIGHT"


def test_S_037_extract_a_send_once_right() -> None:
    """MAKE_SEND_ONCE gives a send-once right under a name of its own, with one reference."""
    port = receive_right()
    name, kind = extract(port, MAKE_SEND_ONCE)
    assert kind == MOVE_SEND_ONCE
    assert name != port
    assert type_of(name) == TYPE_SEND_ONCE
    assert refs(name, SEND_ONCE) == 1


def test_S_038_send_once_rights_do_not_share_names() -> None:
    """Each send-once right has its own name, and counts in sorights."""
    port = receive_right()
    assert extract(port, MAKE_SEND_ONCE)[0] != extract(port, MAKE_SEND_ONCE)[0]
    assert status(port).sorights == 2


def test_S_039_extract_send_rights() -> None:
    """COPY_SEND and MAKE_SEND give the port's own name once more; MAKE_SEND raises mscount."""
    port = with_send()
    assert extract(port, COPY_SEND) == (port, MOVE_SEND)
    assert (refs(port), status(port).mscount) == (2, 1)
    assert extract(port, MAKE_SEND) == (port, MOVE_SEND)
    assert (refs(port), status(port).mscount) == (3, 2)


def test_S_040_extract_what_is_not_there() -> None:
    """Without the right, of NULL, or with a value that is no disposition, extraction fails."""
    port = receive_right()
    assert code(extract, port, COPY_SEND) == "KERN_INVALID_RIGHT"
    assert code(extract, NULL, COPY_SEND) == "KERN_INVALID_RIGHT"
    assert code(extract, port, 15) == "KERN_INVALID_VALUE"
    assert code(extract, port, 22) == "KERN_INVALID_VALUE"


def test_S_041_extract_from_a_dead_name() -> None:
    """MOVE_SEND of a dead name gives MACH_PORT_DEAD and takes one of its urefs."""
    dead = dead_name(urefs=2)
    assert extract(dead, MOVE_SEND)[0] == DEAD
    assert refs(dead, DEAD_NAME) == 1


@pytest.mark.apart
def test_S_042_urefs_have_a_maximum() -> None:
    """A delta beyond 65535 is refused; urefs that would go beyond stay at 65535."""
    port = with_send()
    assert code(mod_refs, port, SEND, 70000) == "KERN_INVALID_VALUE"
    mod_refs(port, SEND, 65533)
    assert refs(port) == 65534
    mod_refs(port, SEND, 100)
    assert refs(port) == 65535


def test_S_043_the_maximum_is_sticky() -> None:
    """At 65535 urefs nothing takes one away, but a delta of -65535 takes all."""
    port = with_send()
    mod_refs(port, SEND, 65535)
    deallocate(port)
    assert refs(port) == 65535
    mod_refs(port, SEND, -1)
    assert refs(port) == 65535
    mod_refs(port, SEND, -65535)
    assert type_of(port) == TYPE_RECEIVE
    assert refs(port, RECEIVE) == 1
