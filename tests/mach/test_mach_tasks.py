"""Processes."""

from __future__ import annotations

from kit import (
    COPY_SEND,
    MOVE_RECEIVE,
    NO_SENDERS,
    NULL,
    call,
    code,
    deallocate,
    ffi,
    lib,
    out,
    receive_right,
    request,
    take_array,
    type_of,
    with_send,
)
from letters import ids, send, take
from tasks import Line, Task, bootstrap, check_in, service_name


def test_S_229_names_of_the_parent() -> None:
    """A forked child has none of its parent's names."""

    def child(line: Line, names: list[int]):
        own = {line.inbox, line.outbox, lib.mach_task_self(), lib.bootstrap_port}
        yield {code(type_of, name) for name in names if name not in own}

    names = [receive_right() for _ in range(40)]
    with Task(child, names) as task:
        assert task.answer() == {"KERN_INVALID_NAME"}


def test_S_230_the_bootstrap_port_is_inherited() -> None:
    """A forked child gets its bootstrap port from the kernel, and reaches the same services."""

    def child(line: Line, service: str):
        name = out()
        call("task_get_special_port", lib.TASK_BOOTSTRAP_PORT, name)
        found = bootstrap("bootstrap_look_up", service, name[0])
        yield send(found, id=230)

    service = service_name()
    name = check_in(service)
    with Task(child, service) as task:
        assert task.answer() == "KERN_SUCCESS"
    assert take(name).header.msgh_id == 230


def test_S_231_registered_ports_are_inherited() -> None:
    """Rights that are registered before a fork are there in the child."""

    def child(line: Line):
        names, count = out("mach_port_t **"), out("mach_msg_type_number_t *")
        call("mach_ports_lookup", names, count)
        first, *others = take_array(names[0], count[0])
        yield send(first, id=231), others

    name = with_send()
    call("mach_ports_register", ffi.new("mach_port_t[]", [name]), 1)
    with Task(child) as task:
        assert task.answer() == ("KERN_SUCCESS", [NULL, NULL])
    call("mach_ports_register", ffi.NULL, 0)
    assert take(name).header.msgh_id == 231


def test_S_232_a_port_changes_hands() -> None:
    """A receive right sent to another task keeps its messages, and its senders notice nothing."""

    def receiver(line: Line):
        name = line.take()
        yield ids(name)
        yield take(name).header.msgh_id

    name = with_send()
    for number in range(3):
        assert send(name, id=number) == "KERN_SUCCESS"
    with Task(receiver) as task:
        task.give(name, MOVE_RECEIVE)
        assert task.answer() == [0, 1, 2]
        assert send(name, id=232) == "KERN_SUCCESS"
        assert task.answer() == 232


def test_S_233_two_tasks_with_send_rights() -> None:
    """No senders are left when the last of two tasks has dropped its send right."""

    def holder(line: Line):
        name = line.take()
        yield None
        deallocate(name)
        yield None

    name, notify = with_send(), receive_right()
    request(name, NO_SENDERS, 0, notify)
    with Task(holder) as first, Task(holder) as second:
        for task in (first, second):
            task.give(name, COPY_SEND)
            task.answer()
        deallocate(name)
        first.answer()
        assert ids(notify) == []
        second.answer()
        assert take(notify).header.msgh_id == NO_SENDERS
