"""One async iterator for whoever looks after many rights at a time.

The single waits are methods of the rights: `SendRight.died`, `SendRight.send_possible`,
`ReceiveRight.no_senders`, `ReceiveRight.dropped`. A supervisor has many of them going and tells of
each as it ends::

    async with machio.Supervisor() as supervisor:
        for worker in workers:
            supervisor.died(worker.task, label=worker)
        async for event in supervisor:
            restart(event.label)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import anyio

from ._loop import Line
from .errors import RightClosedError, UsageError
from .messages import Message, NotificationId
from .ports import ReceiveRight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from ._right import Right
    from .ports import SendOnceRight, SendRight

    _Wait = Callable[[], Awaitable[Any]]  # called in the task, which may be cancelled before that


class Event(NamedTuple):
    """What a supervisor tells.

    kind: DEAD_NAME, SEND_POSSIBLE, NO_SENDERS or SEND_ONCE. right: the object that was given, which
    stays its owner's; for SEND_ONCE None. label: as given. value: for NO_SENDERS the make-send
    count; for SEND_ONCE the message if the right was used, which the reader owns, None if it was
    dropped.
    """

    kind: NotificationId
    right: Right | None
    label: Any
    value: Any


class Watched:
    """One right that a supervisor watches."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Stop watching; what has happened already is still told. Idempotent."""
        self._task.cancel()


class Supervisor:
    """Many rights watched at a time, and what becomes of them as an async iterator.

    An async context manager of one event loop; leaving it ends all watching and the iteration. Each
    right stays its owner's, and closing it ends its watch without an event. An event is told once,
    to one reader; cancelling the reader loses none. A failed watch raises in the iteration; who
    asks for one after the end gets a UsageError.
    """

    def __init__(self) -> None:
        self._events: deque[Event | Exception] = deque()
        self._line: Line = Line()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def died(self, right: SendRight | SendOnceRight, label: object = None) -> Watched:
        """Tell once when the port of `right` has died (DEAD_NAME)."""
        return self._watch(NotificationId.DEAD_NAME, right, label, right.died)

    def send_possible(self, right: SendRight, label: object = None) -> Watched:
        """Tell once when the queue that `right` sends to has room (SEND_POSSIBLE)."""
        return self._watch(NotificationId.SEND_POSSIBLE, right, label, right.send_possible)

    def no_senders(self, port: ReceiveRight, label: object = None) -> Watched:
        """Tell once when nobody has a send right to `port` any more (NO_SENDERS)."""
        return self._watch(NotificationId.NO_SENDERS, port, label, port.no_senders)

    def dropped(self, label: object = None) -> SendOnceRight:
        """Make a send-once right for the caller to give away, and tell its end (SEND_ONCE).

        It ends by being used or by being dropped, as it is when its holder dies.
        """
        port = ReceiveRight.allocate()
        try:
            once = port.make_send_once()
            self._watch(NotificationId.SEND_ONCE, None, label, lambda: _end_of_once(port))
        except BaseException:
            port.close()
            raise
        return once

    def _watch(
        self,
        kind: NotificationId,
        right: Right | None,
        label: object,
        end: _Wait,
    ) -> Watched:
        if self._closed:
            raise UsageError("the supervisor is closed")
        task = asyncio.create_task(self._tell(kind, right, label, end))
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return Watched(task)

    async def _tell(
        self,
        kind: NotificationId,
        right: Right | None,
        label: object,
        end: _Wait,
    ) -> None:
        try:
            event: Event | Exception = Event(kind, right, label, await end())
        except RightClosedError:
            return
        except Exception as error:
            event = error
        self._events.append(event)
        self._line.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; the iteration ends when the supervisor is closed."""
        event = await self._line.stand(self._take, None)
        assert event is not None
        return event

    def _take(self) -> Event | None:
        if self._closed:
            raise StopAsyncIteration
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, Exception):
            raise event
        return event

    async def aclose(self) -> None:
        """Stop watching. Messages in events that nobody read are closed. Idempotent."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            if tasks:
                await asyncio.wait(tasks)
        while self._events:
            event = self._events.popleft()
            if isinstance(event, Event) and isinstance(event.value, Message):
                event.value.close()
        self._line.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


async def _end_of_once(port: ReceiveRight) -> Message | None:
    with contextlib.closing(port):
        return await port.dropped()
