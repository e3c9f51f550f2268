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
import warnings
from collections.abc import Callable, Generator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Self

from kit import MAKE_SEND, NULL, CallError, receive_right
from letters import message, port, take

from machio._mach import ffi, lib


def fork() -> int:
    with warnings.catch_warnings():  # since 3.12, of any thread, and libraries have some
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


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
        self._pipe, theirs = Pipe()
        self.pid = fork()
        if self.pid == 0:
            self._pipe.close()
            _serve(theirs, service, function, arguments)
        theirs.close()
        self.outbox = self.take()

    def answer(self) -> Any:
        """Let the other task go on to its next answer."""
        self._pipe.send("go on")
        failed, result = self._pipe.recv()
        assert not failed, f"in the other task:\n{result}"
        return result

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Let the other task exit, with all that it holds."""
        if self.pid:
            self._pipe.close()
            os.waitpid(self.pid, 0)
            self.pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _serve(
    pipe: Connection, service: str, function: Callable[..., Generator], arguments: tuple
) -> NoReturn:
    try:
        line = Line(receive_right(), look_up(service))
        line.give(line.inbox, MAKE_SEND)
        steps = function(line, *arguments)
        while pipe.recv():
            try:
                pipe.send((False, next(steps)))
            except BaseException:  # the test is told whatever it is
                pipe.send((True, traceback.format_exc()))
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def run_apart(function: Callable[[], None]) -> None:
    """Run a function in a task of its own, which is expected to survive it."""
    ours, theirs = Pipe()
    pid = fork()
    if pid == 0:
        try:
            function()
            theirs.send("")
        except BaseException:
            theirs.send(traceback.format_exc())
        finally:
            os._exit(0)
    theirs.close()
    try:
        failure = ours.recv()
    except EOFError:
        failure = "killed"
    ours.close()
    _, status = os.waitpid(pid, 0)
    assert not failure, f"in a task of its own: {failure}"
    assert status == 0
