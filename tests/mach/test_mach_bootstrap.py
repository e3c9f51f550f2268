"""Bootstrap."""

from __future__ import annotations

import pytest
from kit import (
    COPY_SEND,
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
    kill,
    lib,
    out,
    receive_right,
    refs,
    request,
    type_of,
    with_send,
)
from letters import send, take
from tasks import Line, Task, bootstrap, check_in, look_up, service_name

UNKNOWN = "BOOTSTRAP_UNKNOWN_SERVICE"
ACTIVE = "BOOTSTRAP_SERVICE_ACTIVE"
NOT_PRIVILEGED = "BOOTSTRAP_NOT_PRIVILEGED"


def register(service: str, right: int) -> None:
    name = ffi.new("char[128]", service.encode())
    if value := lib.bootstrap_register(lib.bootstrap_port, name, right):
        raise CallError(value, "bootstrap_register")


def create(service: str) -> int:
    return bootstrap("bootstrap_create_service", service)


def bootstrap_status(service: str) -> int:
    active = out("int *")
    if value := lib.bootstrap_status(lib.bootstrap_port, service.encode(), active):
        raise CallError(value, "bootstrap_status")
    return active[0]


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


def test_S_209a_status() -> None:
    """A name that somebody has checked in or registered is active; an unknown one gives 1102."""

    def other(line: Line, *services: str):
        yield [bootstrap_status(service) for service in services]

    assert code(bootstrap_status, service_name()) == UNKNOWN
    checked_in, registered = service_name(), service_name()
    check_in(checked_in)
    register(registered, with_send())
    with Task(other, checked_in, registered) as task:
        assert task.answer() == [lib.BOOTSTRAP_STATUS_ACTIVE] * 2


@pytest.mark.apart  # the server watches the creator's task port
def test_S_209b_create_service() -> None:
    """A service that is created is on demand: messages wait for whoever checks its name in."""

    def owner(line: Line, service: str):
        name = check_in(service)
        yield type_of(name), take(name).header.msgh_id
        yield None

    service = service_name()
    name = create(service)
    assert type_of(name) == TYPE_SEND
    assert bootstrap_status(service) == lib.BOOTSTRAP_STATUS_ON_DEMAND
    assert look_up(service) == name
    assert send(name, COPY_SEND, id=209) == "KERN_SUCCESS"
    with Task(owner, service) as task:
        assert task.answer() == (TYPE_RECEIVE, 209)
        assert bootstrap_status(service) == lib.BOOTSTRAP_STATUS_ACTIVE


@pytest.mark.apart  # the server watches the creator's task port
def test_S_209c_a_name_is_created_once() -> None:
    """A name that is in use is not created: 1103 for its owner, 1100 for others."""

    def other(line: Line, *services: str):
        yield [code(create, service) for service in services]

    created, checked_in = service_name(), service_name()
    create(created)
    check_in(checked_in)
    assert [code(create, service) for service in (created, checked_in)] == [ACTIVE] * 2
    with Task(other, created, checked_in) as task:
        assert task.answer() == [NOT_PRIVILEGED] * 2


@pytest.mark.apart  # the server watches the creator's task port
def test_S_209d_the_owner_of_a_created_name_is_done() -> None:
    """The receive right of a created service goes back when it is destroyed, with its queue."""
    service = service_name()
    name = create(service)
    assert check_in(service) == name
    assert send(name, COPY_SEND, id=209) == "KERN_SUCCESS"
    kill(name)
    assert check_in(service) == name
    assert take(name).header.msgh_id == 209


def test_S_209e_the_creator_exits() -> None:
    """A created name that nobody has checked in ends with the task that created it."""

    def creator(line: Line, service: str):
        create(service)
        yield None

    service = service_name()
    with Task(creator, service) as task:
        task.answer()
        assert bootstrap_status(service) == lib.BOOTSTRAP_STATUS_ON_DEMAND
    assert code(bootstrap_status, service) == UNKNOWN
    assert type_of(check_in(service)) == TYPE_RECEIVE
