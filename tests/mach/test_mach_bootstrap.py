"""Bootstrap."""

from __future__ import annotations

from kit import (
    DEAD_NAMED,
    MAKE_SEND,
    MOVE_SEND,
    TYPE_DEAD_NAME,
    TYPE_RECEIVE,
    TYPE_SEND,
    TYPE_SEND_RECEIVE,
    CallError,
    code,
    ffi,
    lib,
    receive_right,
    refs,
    request,
    type_of,
    with_send,
)
from letters import send, take
from tasks import Line, Task, check_in, look_up, service_name

UNKNOWN = "BOOTSTRAP_UNKNOWN_SERVICE"
ACTIVE = "BOOTSTRAP_SERVICE_ACTIVE"
NOT_PRIVILEGED = "BOOTSTRAP_NOT_PRIVILEGED"


def register(service: str, right: int) -> None:
    name = ffi.new("char[128]", service.encode())
    if value := lib.bootstrap_register(lib.bootstrap_port, name, right):
        raise CallError(value, "bootstrap_register")


def test_S_204_check_in_and_look_up() -> None:
    """A name that is checked in gives a receive right; looked up elsewhere, its send right."""

    def client(line: Line, service: str):
        name = look_up(service)
        sent = send(name, 19, line.inbox, MAKE_SEND, id=204)
        yield type_of(name), sent
        yield take(line.inbox).header.msgh_id

    service = service_name()
    name = check_in(service)
    assert type_of(name) == TYPE_RECEIVE
    with Task(client, service) as task:
        assert task.answer() == (TYPE_SEND, "KERN_SUCCESS")
        request = take(name).header
        assert request.msgh_id == 204
        assert send(request.msgh_remote_port, MOVE_SEND, id=304) == "KERN_SUCCESS"
        assert task.answer() == 304


def test_S_205_a_name_is_checked_in_once() -> None:
    """A name that is checked in is active for its owner and closed to others."""

    def other(line: Line, service: str):
        yield code(check_in, service)

    service = service_name()
    check_in(service)
    assert code(check_in, service) == ACTIVE
    with Task(other, service) as task:
        assert task.answer() == NOT_PRIVILEGED


def test_S_206_look_up_twice() -> None:
    """Two look-ups of a name give one send right with 2 urefs; an unknown name gives 1102."""

    def client(line: Line, service: str):
        first, second = look_up(service), look_up(service)
        yield first == second, refs(first)

    assert code(look_up, service_name()) == UNKNOWN
    service = service_name()
    check_in(service)
    with Task(client, service) as task:
        assert task.answer() == (True, 2)


def test_S_207_the_owner_looks_up() -> None:
    """A look-up by the owner adds a send right to the name of the receive right."""
    service = service_name()
    name = check_in(service)
    assert look_up(service) == name
    assert type_of(name) == TYPE_SEND_RECEIVE


def test_S_208_the_owner_exits() -> None:
    """When the owner of a name exits the name is unknown, and who has looked it up holds a dead
    name.
    """

    def owner(line: Line, service: str):
        check_in(service)
        yield None

    service, notify = service_name(), receive_right()
    with Task(owner, service) as task:
        task.answer()
        name = look_up(service)
        request(name, DEAD_NAMED, 0, notify)
        task.end()
    take(notify)
    assert type_of(name) == TYPE_DEAD_NAME
    assert code(look_up, service) == UNKNOWN


def test_S_209_register() -> None:
    """A send right can be registered under a name; then the name is taken, for others too."""

    def other(line: Line, service: str):
        found = look_up(service)
        refused = code(register, service, found)
        yield refused, send(found, id=209)

    service, name = service_name(), with_send()
    register(service, name)
    assert look_up(service) == name
    assert code(register, service, name) == ACTIVE
    with Task(other, service) as task:
        assert task.answer() == (NOT_PRIVILEGED, "KERN_SUCCESS")
    assert take(name).header.msgh_id == 209
