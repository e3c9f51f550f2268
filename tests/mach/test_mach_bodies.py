"""Rights in bodies."""

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
    NO_SENDERS,
    NULL,
    PORT_DESTROYED,
    TYPE_DEAD_NAME,
    TYPE_RECEIVE,
    TYPE_SEND,
    TYPE_SEND_ONCE,
    TYPE_SEND_RECEIVE,
    call,
    context,
    dead_name,
    deallocate,
    destruct,
    exists,
    ffi,
    kill,
    lib,
    port_set,
    receive_right,
    refs,
    request,
    status,
    type_of,
    vm_allocate,
    vm_deallocate,
    with_send,
)
from letters import Descriptor, guarded, message, ool, ool_ports, port, send, take
from tasks import Line, Task

PAGE = lib.vm_page_size
SUCCESS = "KERN_SUCCESS"
INVALID_RIGHT = "MACH_SEND_INVALID_RIGHT"


def pass_on(*rights: bytes) -> list[Descriptor]:
    """Send descriptors through a port of this task and return them as received."""
    carrier = with_send()
    assert send(carrier, rights=list(rights)) == SUCCESS
    buffer = take(carrier)
    kill(carrier)
    return buffer.descriptors


def arrived(name: int, disposition: int) -> tuple[int, int]:
    (right,) = pass_on(port(name, disposition))
    return right.name, right.disposition


def test_S_136_copy_a_send_right() -> None:
    """A copied send right arrives as a send right, and the sender keeps its urefs."""

    def holder(line: Line):
        buffer = take(line.inbox)
        (right,) = buffer.descriptors
        yield right.disposition, type_of(right.name), refs(right.name)

    name = with_send(urefs=2)
    with Task(holder) as task:
        task.give(name, COPY_SEND)
        assert task.answer() == (MOVE_SEND, TYPE_SEND, 1)
    assert refs(name) == 2


def test_S_137_make_and_move_rights() -> None:
    """Made rights arrive as what was made; a moved send-once right leaves the sender."""
    name = receive_right()
    assert arrived(name, MAKE_SEND) == (name, MOVE_SEND)
    assert status(name).mscount == 1
    made, kind = arrived(name, MAKE_SEND_ONCE)
    assert (kind, type_of(made)) == (MOVE_SEND_ONCE, TYPE_SEND_ONCE)
    moved, kind = arrived(made, MOVE_SEND_ONCE)
    assert (kind, type_of(moved)) == (MOVE_SEND_ONCE, TYPE_SEND_ONCE)
    assert moved != made
    assert not exists(made)


def test_S_138_move_a_send_right() -> None:
    """A moved send right leaves the sender, and is a uref more where the port is known."""

    def mover(line: Line):
        name = line.take()
        line.give(name, MOVE_SEND)
        yield exists(name)

    name = with_send()
    assert send(name, MAKE_SEND, rights=[port(name, MOVE_SEND)]) == SUCCESS
    assert type_of(name) == TYPE_RECEIVE
    take(name)
    assert refs(name) == 1
    with Task(mover) as task:
        task.give(name, COPY_SEND)
        assert task.answer() is False
        assert task.take() == name
    assert refs(name) == 2


def test_S_139_one_right_twice() -> None:
    """A right that is copied twice into a message arrives twice under one name, with 2 urefs."""

    def holder(line: Line):
        names = [right.name for right in take(line.inbox).descriptors]
        yield names[0] == names[1], refs(names[0])

    name = with_send()
    with Task(holder) as task:
        twice = [port(name, COPY_SEND)] * 2
        assert message(task.outbox, rights=twice).send() == SUCCESS
        assert task.answer() == (True, 2)


def test_S_140_a_send_right_comes_home() -> None:
    """A send right that comes to the receive right's task joins the receive right's name."""

    def returner(line: Line):
        line.give(line.take(), COPY_SEND)
        yield None

    name = receive_right()
    with Task(returner) as task:
        task.give(name, MAKE_SEND)
        task.answer()
        assert task.take() == name
    assert type_of(name) == TYPE_SEND_RECEIVE


def test_S_141_move_a_receive_right() -> None:
    """A moved receive right leaves the send right behind, and takes the queued messages along."""

    def receiver(line: Line):
        yield [take(line.take()).header.msgh_id]

    name = with_send(urefs=2)
    assert send(name, id=141) == SUCCESS
    with Task(receiver) as task:
        task.give(name, MOVE_RECEIVE)
        assert type_of(name) == TYPE_SEND
        assert refs(name) == 2
        assert task.answer() == [141]


def test_S_142_a_receive_right_comes_back() -> None:
    """A receive right that comes back joins its send right; its counts are 0, its limit is kept."""

    def returner(line: Line):
        line.give(line.take(), MOVE_RECEIVE)
        yield None

    name = with_send(qlimit=9)
    port_set(name)
    call("mach_port_set_seqno", name, 8)
    with Task(returner) as task:
        task.give(name, MOVE_RECEIVE)
        task.answer()
        assert task.take() == name
    assert type_of(name) == TYPE_SEND_RECEIVE
    now = status(name)
    assert (now.mscount, now.seqno, now.pset, now.qlimit) == (0, 0, 0, 9)


def test_S_143_requests_move_along() -> None:
    """No-senders and port-destroyed requests stay armed when the receive right moves."""

    def receiver(line: Line):
        name = line.take()
        now = status(name)
        yield now.nsrequest, now.pdrequest
        line.take()  # until the senders are gone
        kill(name)
        yield None

    notify, name = receive_right(), with_send()
    request(name, NO_SENDERS, 0, notify)
    request(name, PORT_DESTROYED, 0, notify)
    with Task(receiver) as task:
        task.give(name, MOVE_RECEIVE)
        assert task.answer() == (1, 1)
        deallocate(name)
        assert take(notify).header.msgh_id == NO_SENDERS
        task.give(NULL, COPY_SEND)
        task.answer()
        destroyed = take(notify)
        assert destroyed.header.msgh_id == PORT_DESTROYED
        assert type_of(destroyed.descriptors[0].name) == TYPE_RECEIVE


def test_S_144_null_and_dead_in_a_body() -> None:
    """NULL and DEAD arrive as they are; a dead name arrives as DEAD and loses a moved uref."""
    assert arrived(NULL, COPY_SEND)[0] == NULL
    assert arrived(DEAD, COPY_SEND)[0] == DEAD
    dead = dead_name(urefs=2)
    assert arrived(dead, COPY_SEND)[0] == DEAD
    assert refs(dead, DEAD_NAME) == 2
    assert arrived(dead, MOVE_SEND)[0] == DEAD
    assert refs(dead, DEAD_NAME) == 1


@pytest.mark.apart
def test_S_145_nothing_is_made_of_a_dead_name() -> None:
    """MAKE_SEND of a dead name gives MACH_SEND_INVALID_RIGHT."""
    assert send(with_send(), rights=[port(dead_name(), MAKE_SEND)]) == INVALID_RIGHT


@pytest.mark.apart
def test_S_146_copy_needs_a_send_right() -> None:
    """COPY_SEND of a receive right alone gives MACH_SEND_INVALID_RIGHT."""
    assert send(with_send(), rights=[port(receive_right(), COPY_SEND)]) == INVALID_RIGHT


def test_S_147_a_right_dies_in_the_queue() -> None:
    """A send right whose port died while the message was queued arrives as DEAD."""
    name, carrier = receive_right(), with_send()
    assert send(carrier, rights=[port(name, MAKE_SEND)]) == SUCCESS
    kill(name)
    assert take(carrier).descriptors[0].name == DEAD


def ports_array(*names: int) -> int:
    """Allocate an array of names."""
    return vm_allocate(PAGE, b"".join(name.to_bytes(4, "little") for name in names))


def test_S_148_an_array_of_ports() -> None:
    """An array of ports arrives as names, NULL among them, in memory that is the receiver's."""
    first, second = with_send(), with_send()
    array = ports_array(first, NULL, second)
    (ports,) = pass_on(ool_ports(array, 3, COPY_SEND))
    assert ports.names() == [first, NULL, second]
    assert (ports.disposition, ports.copy, ports.deallocate) == (MOVE_SEND, 1, 1)
    assert (refs(first), refs(second)) == (2, 2)
    assert ports.address != array
    vm_deallocate(ports.address, 12)
    vm_deallocate(array, PAGE)


def test_S_149_the_longest_array_of_ports() -> None:
    """A message carries 16383 ports and not one more."""
    name = with_send()
    array = ffi.new("mach_port_name_t[16384]", [name] * 16384)
    address = int(ffi.cast("uintptr_t", array))
    refused = send(name, rights=[ool_ports(address, 16384, COPY_SEND)])
    assert refused == "MACH_SEND_TOO_LARGE"
    assert send(name, rights=[ool_ports(address, 16383, COPY_SEND)]) == SUCCESS
    (ports,) = take(name).descriptors
    assert ports.names() == [name] * 16383
    assert refs(name) == 1 + 16383
    vm_deallocate(ports.address, 4 * ports.size)


def test_S_150_memory_out_of_line() -> None:
    """A MiB out of line arrives as it was when sent, as memory that the receiver frees."""
    size = 1 << 20
    data = bytes(range(256)) * (size // 256)
    address = vm_allocate(size, data)
    carrier = with_send()
    assert send(carrier, rights=[ool(address, size, lib.MACH_MSG_VIRTUAL_COPY)]) == SUCCESS
    ffi.memmove(ffi.cast("char *", address), b"overwritten", 11)
    (memory,) = take(carrier).descriptors
    assert memory.data() == data
    assert (memory.size, memory.deallocate) == (size, 1)
    vm_deallocate(memory.address, size)
    vm_deallocate(address, size)


def test_S_151_memory_by_physical_copy() -> None:
    """With PHYSICAL_COPY the descriptor arrives without deallocate; the memory is a copy still."""
    address = vm_allocate(PAGE, b"out of line")
    (memory,) = pass_on(ool(address, PAGE, lib.MACH_MSG_PHYSICAL_COPY))
    assert (memory.copy, memory.deallocate) == (lib.MACH_MSG_PHYSICAL_COPY, 0)
    assert memory.address != address
    assert memory.data()[:11] == b"out of line"
    vm_deallocate(memory.address, PAGE)
    vm_deallocate(address, PAGE)


def test_S_152_no_memory_and_given_memory() -> None:
    """No bytes arrive as address 0; memory sent with deallocate is gone from the sender."""
    (nothing,) = pass_on(ool(0, 0))
    assert (nothing.address, nothing.size) == (0, 0)
    address = vm_allocate(PAGE, b"out of line")
    carrier = with_send()
    assert send(carrier, rights=[ool(address, PAGE, deallocate=1)]) == SUCCESS
    assert send(carrier, rights=[ool(address, PAGE)]) == "MACH_SEND_INVALID_MEMORY"
    (memory,) = take(carrier).descriptors
    assert memory.data()[:11] == b"out of line"
    vm_deallocate(memory.address, PAGE)


def test_S_153_volatile_memory() -> None:
    """A volatile descriptor arrives as one, with its data."""
    address = vm_allocate(PAGE, b"out of line")
    kind = lib.MACH_MSG_OOL_VOLATILE_DESCRIPTOR
    (memory,) = pass_on(ool(address, PAGE, type=kind))
    assert memory.type == kind == 3
    assert memory.data()[:11] == b"out of line"
    vm_deallocate(memory.address, PAGE)
    vm_deallocate(address, PAGE)


def test_S_154_a_port_sent_to_itself() -> None:
    """A receive right sent to its own port succeeds and dies with the message."""
    name = with_send()
    assert send(name, rights=[port(name, MOVE_RECEIVE)]) == SUCCESS
    assert type_of(name) == TYPE_DEAD_NAME


def test_S_155_two_ports_in_each_other() -> None:
    """A receive right sent to a port that lies in its own queue: both die, the send succeeds."""
    first, second = with_send(), with_send()
    assert send(second, rights=[port(first, MOVE_RECEIVE)]) == SUCCESS
    assert send(first, rights=[port(second, MOVE_RECEIVE)]) == SUCCESS
    assert type_of(first) == type_of(second) == TYPE_DEAD_NAME


def test_S_156_guarded_rights() -> None:
    """A guarded right is destroyed for who does not ask for it; else the buffer guards it."""
    immovable = lib.MACH_MSG_GUARD_FLAGS_IMMOVABLE_RECEIVE
    carrier = with_send()
    for wanted in (False, True):
        name = receive_right()
        call("mach_port_guard", name, 5, False)
        assert send(carrier, rights=[guarded(name, 5, immovable)]) == SUCCESS
        buffer = take(carrier, lib.MACH_RCV_GUARDED_DESC if wanted else 0)
        (right,) = buffer.descriptors
        if wanted:
            assert right.context == buffer.address
            assert status(right.name).flags & 0x42 == 0x42
            assert context(right.name) == buffer.address
            destruct(right.name, 0, buffer.address)
        else:
            assert (right.name, right.context) == (NULL, 0)
