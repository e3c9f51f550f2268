"""Cancelling a coroutine at each place where it waits, in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any


class _Counted:
    """Awaits a coroutine; at its `fatal`-th wait the running task is cancelled."""

    def __init__(self, work: Coroutine[Any, Any, None], fatal: int) -> None:
        self._work = work
        self._fatal = fatal
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        sent: BaseException | None = None
        while True:
            try:
                future = next(steps) if sent is None else steps.throw(sent)
            except StopIteration:
                return
            self.waits += 1
            if self.waits == self._fatal:
                asyncio.current_task().cancel()
            sent = None
            try:
                yield future
            except BaseException as error:
                sent = error


async def cancelled_everywhere(
    make: Callable[[], Coroutine[Any, Any, None]], after: Callable[[], Awaitable[None]]
) -> int:
    """Run `make()` again and again, cancelled at its first wait, its second, and so on.

    `after` looks at what is left behind each time. Returns how many waits there were, after the
    first run that came to its end before it was cancelled.
    """
    for fatal in range(1, 10_000):
        counted = _Counted(make(), fatal)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(_run(counted))
        await after()
        if counted.waits < fatal:
            return counted.waits
    raise AssertionError("it waits too often")


async def _run(counted: _Counted) -> None:
    await counted


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Yield a task that has come to its first wait; it is cancelled if it still runs at the end."""
    task = asyncio.create_task(work)
    try:
        await asyncio.sleep(0)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
