"""A forked child, and a pipe to it. It is a task of its own, with an empty name space."""

from __future__ import annotations

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any


def fork() -> int:
    with warnings.catch_warnings():  # since 3.12, of any thread, and libraries have some
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class Child:
    """Runs ``serve(pipe, *arguments)`` and exits; None from the pipe asks it to return."""

    def __init__(self, serve: Callable[..., None], *arguments: Any) -> None:
        self.pipe, theirs = Pipe()
        self.pid = fork()
        if self.pid == 0:
            self.pipe.close()
            try:
                serve(theirs, *arguments)
            except EOFError:
                pass
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        theirs.close()

    def ask(self, question: Any) -> Any:
        """Raises EOFError or OSError if the child has ended."""
        self.pipe.send(question)
        return self.pipe.recv()

    def end(self) -> int:
        """Let it return, and wait for it. Returns its status; 0 if it had been waited for."""
        if not self.pid:
            return 0
        with contextlib.suppress(OSError):  # it has ended
            self.pipe.send(None)  # no end of file would tell: later children have copies
        self.pipe.close()
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return status


def answer_all(pipe: Connection, answer: Callable[[Any], Any]) -> None:
    """Answer what comes until there is nothing more."""
    while (question := pipe.recv()) is not None:
        pipe.send(answer(question))
