"""deallocate, destroy, mod_refs."""

from __future__ import annotations

import pytest
from kit import (
    DEAD,
    DEAD_NAME,
    LABELH,
    MAKE_SEND,
    NULL,
    PORT_SET,
    RECEIVE,
    SEND,
    SEND_ONCE,
    SEND_ONCE_GONE,
    TYPE_DEAD_NAME,
    TYPE_RECEIVE,
    code,
    dead_name,
    deallocate,
    destroy,
    destruct,
    exists,
    free_name,
    kill,
    mod_refs,
    once,
    port_set,
    receive_right,
    refs,
    status,
    type_of,
    with_send,
)
from letters import ids, take
from tasks import Line, Task


def test_S_044_null_and_dead_need_no_release() -> None:
    """Releasing MACH_PORT_NULL or MACH_PORT_DEAD succeeds and does nothing."""
    assert code(deallocate, NULL) == code(deallocate, DEAD) == "KERN_SUCCESS"
    assert code(destroy, NULL) == "KERN_SUCCESS"


@pytest.mark.apart
def test_S_045_a_name_that_is_not() -> None:
    """An unused name cannot be deallocated or destroyed."""
    name = free_name()
    assert code(deallocate, name) == "KERN_INVALID_NAME"
    assert code(destroy, name) == "KERN_INVALID_NAME"


@pytest.mark.apart
def test_S_046_a_receive_right_is_not_deallocated() -> None:
    """Deallocating a receive right alone gives KERN_INVALID_RIGHT."""
    port = receive_right()
    assert code(deallocate, port) == "KERN_INVALID_RIGHT"
    assert type_of(port) == TYPE_RECEIVE


@pytest.mark.apart
def test_S_047_deallocate_takes_the_send_right_only() -> None:
    """A name with send and receive rights loses the send right, and then has none to lose."""
    port = with_send()
    deallocate(port)
    assert type_of(port) == TYPE_RECEIVE
    assert code(deallocate, port) == "KERN_INVALID_RIGHT"


def test_S_048_deallocate_a_set() -> None:
    """Deallocating a port set destroys it."""
    pset = port_set()
    deallocate(pset)
    assert not exists(pset)


def test_S_049_deallocate_a_dead_name() -> None:
    """A dead name loses one uref at a time and is gone with the last."""
    dead = dead_name(urefs=2)
    deallocate(dead)
    assert refs(dead, DEAD_NAME) == 1
    deallocate(dead)
    assert not exists(dead)


def test_S_050_deallocate_a_send_once_right() -> None:
    """A dropped send-once right ends as message 71, of 24 bytes, in its port."""
    port = receive_right()
    deallocate(once(port))
    assert status(port).msgcount == 1
    header = take(port).header
    assert (header.msgh_id, header.msgh_size) == (SEND_ONCE_GONE, 24)
    assert status(port).sorights == 0


def test_S_051_references_of_null() -> None:
    """NULL takes any change of its send references, and has no receive reference."""
    assert code(mod_refs, NULL, SEND, -5) == "KERN_SUCCESS"
    assert code(mod_refs, NULL, RECEIVE, -1) == "KERN_INVALID_NAME"


@pytest.mark.apart
def test_S_052_references_of_a_receive_right() -> None:
    """A receive right has one reference: 0 and -1 are the deltas it takes."""
    port = receive_right()
    assert code(mod_refs, port, RECEIVE, 0) == "KERN_SUCCESS"
    assert code(mod_refs, port, RECEIVE, 1) == "KERN_INVALID_VALUE"
    assert code(mod_refs, port, RECEIVE, -2) == "KERN_INVALID_VALUE"
    mod_refs(port, RECEIVE, -1)
    assert not exists(port)


@pytest.mark.apart
def test_S_053_no_send_references_without_a_send_right() -> None:
    """Send references of a receive right alone can be neither taken nor added."""
    port = receive_right()
    assert code(mod_refs, port, SEND, -1) == "KERN_INVALID_RIGHT"
    assert code(mod_refs, port, SEND, 1) == "KERN_INVALID_RIGHT"


@pytest.mark.apart
def test_S_054_references_of_other_kinds() -> None:
    """References of a kind that a receive right is not: KERN_INVALID_RIGHT, for unknown kinds
    KERN_INVALID_VALUE.
    """
    port = receive_right()
    for right in (SEND_ONCE, PORT_SET, DEAD_NAME, LABELH):
        assert code(mod_refs, port, right, -1) == "KERN_INVALID_RIGHT"
    assert code(mod_refs, port, 6, -1) == "KERN_INVALID_VALUE"
    assert type_of(port) == TYPE_RECEIVE


@pytest.mark.apart
def test_S_055_references_of_a_set() -> None:
    """A set has no receive reference to lose; losing that of a set destroys it."""
    pset = port_set()
    assert code(mod_refs, pset, RECEIVE, -1) == "KERN_INVALID_RIGHT"
    mod_refs(pset, PORT_SET, -1)
    assert not exists(pset)


@pytest.mark.apart
def test_S_056_not_more_than_there_are() -> None:
    """Taking more send references than there are fails and takes none."""
    port = with_send(urefs=3)
    assert code(mod_refs, port, SEND, -4) == "KERN_INVALID_VALUE"
    assert refs(port) == 3
    mod_refs(port, SEND, -3)
    assert type_of(port) == TYPE_RECEIVE


@pytest.mark.apart
def test_S_057_references_of_a_send_once_right() -> None:
    """A send-once right takes no second reference; losing its only one sends message 71."""
    port = receive_right()
    name = once(port)
    assert code(mod_refs, name, SEND_ONCE, 1) == "KERN_INVALID_VALUE"
    mod_refs(name, SEND_ONCE, -1)
    assert not exists(name)
    assert ids(port) == [SEND_ONCE_GONE]


def test_S_058_send_rights_of_a_dead_port() -> None:
    """When a port dies its name becomes a dead name with the urefs of the send right."""
    port = with_send(urefs=3)
    kill(port)
    assert type_of(port) == TYPE_DEAD_NAME
    assert refs(port, DEAD_NAME) == 3


def test_S_059_references_of_a_dead_name() -> None:
    """A dead name has no send references, only its own."""
    name = with_send(urefs=3)
    kill(name)
    assert code(mod_refs, name, SEND, 1) == "KERN_INVALID_RIGHT"
    assert code(mod_refs, name, SEND, -1) == "KERN_INVALID_RIGHT"
    mod_refs(name, DEAD_NAME, -3)
    assert not exists(name)


def test_S_060_destroy_takes_all_rights() -> None:
    """mach_port_destroy of a name with send and receive rights leaves no dead name."""
    port = with_send()
    destroy(port)
    assert not exists(port)


def test_S_061_destruct() -> None:
    """mach_port_destruct takes the send references asked for, then the receive right."""
    port = receive_right()
    destruct(port)
    assert not exists(port)
    port = with_send()
    destruct(port, -1)
    assert not exists(port)
    port = with_send(urefs=3)
    destruct(port, -1)
    assert type_of(port) == TYPE_DEAD_NAME
    assert refs(port, DEAD_NAME) == 2


@pytest.mark.apart
def test_S_062_destruct_with_wrong_counts() -> None:
    """mach_port_destruct refuses send references that are not there, and adds none."""
    port = receive_right()
    assert code(destruct, port, -1) == "KERN_INVALID_RIGHT"
    port = with_send()
    assert code(destruct, port, 1) == "KERN_INVALID_VALUE"
    assert code(destruct, port, -2) == "KERN_INVALID_VALUE"
    assert refs(port) == 1
    assert code(destruct, NULL) == "KERN_INVALID_NAME"


def test_S_063_a_port_dies_for_other_tasks() -> None:
    """When the owner kills a port, another task's send right is a dead name with its urefs."""

    def holder(line: Line):
        name = line.take()
        mod_refs(name, SEND, 2)
        yield refs(name)
        yield type_of(name), refs(name, DEAD_NAME)

    port = receive_right()
    with Task(holder) as task:
        task.give(port, MAKE_SEND)
        assert task.answer() == 3
        kill(port)
        assert task.answer() == (TYPE_DEAD_NAME, 3)
