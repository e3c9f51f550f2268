"""A second task: a forked process that runs a function which the test hands it.

The function is a generator. It runs up to its next ``yield`` whenever the test asks for an answer,
and the answer is what it yields. What fails in the other task fails the test::

    def holder(line):
        name = line.take()
        yield refs(name)

    with Task(holder) as task:
        task.give(port, MAKE_SEND)
        assert task.answer() == 1
"""

from __future__ import annotations

import os
import signal
import traceback
import uuid
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from typing import Any, Self

from child import Child, answer_all
from kit import MAKE_SEND, NULL, CallError, receive_right
from letters import message, port, take

from machio._mach import ffi, lib


class Line:
    """Rights go to the other task and come from it."""

    def __init__(self, inbox: int, outbox: int) -> None:
        self.inbox, self.outbox = inbox, outbox

    def give(self, name: int, disposition: int) -> None:
        assert message(self.outbox, rights=[port(name, disposition)]).send() == "KERN_SUCCESS"

    def take(self) -> int:
        (right,) = take(self.inbox).descriptors
        return right.name


def service_name() -> str:
    return f"machio.conformance.{uuid.uuid4().hex}"


def bootstrap(call: str, service: str, bp: int | None = None) -> int:
    """Call bootstrap_check_in or bootstrap_look_up and return the right."""
    name = ffi.new("mach_port_t *")
    value = getattr(lib, call)(lib.bootstrap_port if bp is None else bp, service.encode(), name)
    if value:
        raise CallError(value, call)
    return name[0]


def look_up(service: str) -> int:
    return bootstrap("bootstrap_look_up", service)


def check_in(service: str) -> int:
    return bootstrap("bootstrap_check_in", service)


class Task(Line):
    """A child that runs `function`, which gets its end of the line and `arguments`."""

    def __init__(self, function: Callable[..., Generator], *arguments: Any) -> None:
        service = service_name()
        super().__init__(check_in(service), NULL)
        self._child = Child(_serve, service, function, arguments)
        self.pid = self._child.pid
        self.outbox = self.take()

    def answer(self) -> Any:
        """Let the other task go on to its next answer."""
        failed, result = self._child.ask("go on")
        assert not failed, f"in the other task:\n{result}"
        return result

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Let the other task exit, with all that it holds."""
        self._child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _serve(
    pipe: Connection, service: str, function: Callable[..., Generator], arguments: tuple
) -> None:
    line = Line(receive_right(), look_up(service))
    line.give(line.inbox, MAKE_SEND)
    steps = function(line, *arguments)

    def go_on(_: str) -> tuple[bool, Any]:
        try:
            return False, next(steps)
        except BaseException:  # the test is told whatever it is
            return True, traceback.format_exc()

    answer_all(pipe, go_on)


def run_apart(function: Callable[[], None]) -> None:
    """Run a function in a task of its own, which is expected to survive it."""

    def serve(pipe: Connection) -> None:
        try:
            function()
            pipe.send("")
        except BaseException:
            pipe.send(traceback.format_exc())

    child = Child(serve)
    try:
        failure = child.pipe.recv()
    except EOFError:
        failure = "killed"
    status = child.end()
    assert not failure, f"in a task of its own: {failure}"
    assert status == 0
