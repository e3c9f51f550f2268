"""The adapter between Mach and an asyncio event loop: one kqueue a loop, its fd given once to it.

How waiting works. Whoever wants something (a message, room in a queue) first *attempts* it without
blocking, and only on "not now" stands in a `Line` and waits to be woken. A wake-up carries nothing:
it means "attempt again". So a message is either still queued or was returned to the one task whose
own step received it; cancelling a task that was woken loses nothing, it only passes the wake-up on.
Lines are first in, first out: a newcomer does not attempt while others stand before it.

Registrations are edge-triggered (EV_CLEAR): an event comes when a queue goes from empty to not
empty. That suffices, because nobody waits who has not found the queue empty first, and because
whoever leaves the line wakes the next, for whom there may be more. Who has just been told that his
message was the last need not look again: the watch is `quiet` until its next event.

The kqueue also watches pipes for end of file (EVFILT_WRITE, EV_EOF), rather than `loop.add_reader`
on the write end: that one is level-triggered, reports a half-shut socket as readable for ever, and
would tell "no reader left" from "readable" only by a poll of its own. EV_EOF of EVFILT_WRITE means
exactly "nobody can read what is written here", for pipes and sockets, and comes once.

A kqueue does not outlive a fork: in a child, an adapter is forgotten without touching its fd.
Threads: an adapter belongs to the thread of its loop; only `Adapter.post` may be called by others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from . import _ffi
from ._ffi import EV_ADD, EV_CLEAR, EV_DELETE
from .errors import UsageError

if TYPE_CHECKING:
    import contextvars
    from collections.abc import AsyncGenerator, Callable, Generator

T = TypeVar("T")
W = TypeVar("W", bound="Watch")

GetLoop: TypeAlias = "weakref.ref[asyncio.AbstractEventLoop]"


class Place:
    """A task's place in a line, and what it sleeps on: as much of a future as a task asks for.

    A task that a future wakes runs in the loop's next pass. One that sleeps here can also run at
    once, inside the callback that learned of the event: a pass is half of what a wake-up costs.

    limit: the timer of the task's time limit; True once that has passed, False without one.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "get_loop", "limit")

    get_loop: GetLoop
    _asyncio_future_blocking: bool

    def __init__(self) -> None:
        # What lets the task run, while it sleeps, and in which context.
        self._callback: Callable[[Place], object] | None = None
        self._context: contextvars.Context | None = None
        self.limit: asyncio.TimerHandle | bool = False

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = self.get_loop()
        assert loop is not None  # it runs the task
        return loop

    def end_after(self, timeout: float) -> None:
        """Set the time limit, in seconds."""
        self.limit = self._loop().call_later(max(timeout, 0), self._expire)

    def end_never(self) -> None:
        """Take the time limit back."""
        if self.limit and self.limit is not True:
            self.limit.cancel()
        self.limit = False

    def _expire(self) -> None:
        self.limit = True
        self.resume_soon()

    def __await__(self) -> Generator[Place, None, None]:
        """Sleep until woken."""
        self._asyncio_future_blocking = True
        # As a generator that yields it would do it, in a fifth of the memory.
        return itertools.repeat(self, 1)  # type: ignore[return-value]

    def resume_soon(self) -> None:
        """Let the task run in the loop's next pass, if it sleeps."""
        callback, context = self._callback, self._context
        if callback is not None:
            self._callback = self._context = None
            self._loop().call_soon(callback, self, context=context)

    def resume_now(self) -> None:
        """Let the task run before this returns, if it sleeps; only where no task runs."""
        callback, context = self._callback, self._context
        if callback is not None and context is not None:
            self._callback = self._context = None
            context.run(callback, self)

    # What a task asks of a future.

    def add_done_callback(
        self, callback: Callable[[Place], object], *, context: contextvars.Context
    ) -> None:
        self._context = context
        self._callback = callback

    result = bool  # it has none, and cannot fail

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        self.resume_soon()
        return False  # the task is to raise CancelledError by itself


class Line(Place):
    """Tasks of one loop that wait for the same thing, first in, first out.

    adapter: that of the loop, where it is known; else the loop is whichever they run in. first:
    whose turn it is; None if nobody stands here. Whoever finds the line empty has the line itself
    for a place: few lines are longer, and so it is all that a wait needs.
    """

    __slots__ = ("_others", "adapter", "first")

    get_loop: GetLoop

    def __init__(self, adapter: Adapter | None = None) -> None:
        super().__init__()
        self.adapter: Adapter | None = adapter
        if adapter is not None:
            self.get_loop = adapter.get_loop
        self.first: Place | None = None
        self._others: deque[Place] | None = None  # made when there are some: an empty one is large

    def wake(self) -> None:
        """Let the first attempt again; as it leaves, by success or error, it wakes the next."""
        if self.first is not None:
            self.first.resume_soon()

    async def stand(
        self, attempt: Callable[[], T | None], timeout: float | None, *, attempted: bool = False
    ) -> T | None:
        """Return what `attempt` returns once it is this task's turn and that is not None.

        `attempt` must not block; what it raises ends the wait. After `timeout` seconds: None.
        `attempted` says that the caller has just attempted in vain. Cancellation leaves no trace.
        """
        place = self.join(timeout)
        try:
            while True:
                if self.first is place and not attempted:
                    result = attempt()
                    if result is not None:
                        return result
                attempted = False
                if place.limit is True:
                    return None
                await place
        finally:
            self.leave(place)

    def join(self, timeout: float | None) -> Place:
        """Return a place at the end of the line, to be awaited; the caller is to `leave` it."""
        place: Place = self
        if self.first is not None:
            place = Place()
            place.get_loop = self.get_loop
        elif self.adapter is None:
            self.get_loop = weakref.ref(asyncio.get_running_loop())
        if timeout is not None:
            place.end_after(timeout)
        if place is self:
            self.first = self
        elif self._others is None:
            self._others = deque((place,))
        else:
            self._others.append(place)
        return place

    def leave(self, place: Place) -> None:
        """Give a place up, and wake the next if it was the first."""
        if place.limit is not False:
            place.end_never()
        if self.first is not place:
            assert self._others is not None  # the place is there
            self._others.remove(place)
        elif self._others:
            self.first = self._others.popleft()
            self.first.resume_soon()
        else:
            self.first = self._others = None


class Watch(Line):
    """A port or a set that is registered in a kqueue, and whom to tell: the tasks in line.

    quiet: the port was seen empty, and no event has come since: to look for a message is in vain.
    """

    __slots__ = ("ident", "on_event", "quiet")

    filter: int = _ffi.EVFILT_MACHPORT
    adapter: Adapter

    def __init__(self, adapter: Adapter, ident: int) -> None:
        super().__init__(adapter)
        self.ident: int = ident
        self.quiet: bool = False
        self.on_event: Callable[[], None] | None = None

    @property
    def key(self) -> int:
        """What its events are known by. Of a port that is its name: a stale event only wakes."""
        return self.ident

    def fire(self, eof: int, *, at_once: bool) -> None:  # noqa: ARG002
        """Tell of an event that the kqueue has reported; at_once: only where no task runs."""
        self.quiet = False
        first = self.first
        if first is not None:
            if at_once:
                first.resume_now()
            else:
                first.resume_soon()
        if self.on_event is not None:
            self.on_event()

    def close(self) -> None:
        """Remove the registration; whoever stands in its line attempts again. Idempotent."""
        adapter = self.adapter
        if adapter.forget(self):
            # A port that is gone has taken its registration with it.
            with contextlib.suppress(OSError):
                adapter.kqueue.change(self.ident, self.filter, EV_DELETE)
        if self.first is not None:
            adapter.post(self.wake)


class FileWatch(Watch):
    """The same of a pipe or socket. eof: its other end is gone."""

    __slots__ = ("_key", "eof", "filter")

    def __init__(self, adapter: Adapter, ident: int, event_filter: int, key: int) -> None:
        super().__init__(adapter, ident)
        self.filter: int = event_filter
        self.eof: bool = False
        self._key = key

    @property
    def key(self) -> int:
        """What its events are known by: of a file that had its number before there may be some."""
        return self._key

    def fire(self, eof: int, *, at_once: bool) -> None:
        """As of a port; `eof` is noted."""
        if eof:
            self.eof = True
        super().fire(eof, at_once=at_once)


class Adapter:
    """One event loop's kqueue and its registrations. Get it with `current`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # The loop holds the adapter by its reader; a strong reference back would keep both alive.
        self.get_loop: GetLoop = weakref.ref(loop)
        self._file_keys = itertools.count(1 << 32)  # beyond the names of ports
        self._watches: dict[int, Watch] = {}
        self._at_close: list[Callable[[], None]] = []
        self.space: int = _ffi.space
        self.closed: bool = False
        self.mailbox: Any = None  # the notify port; _requests.py keeps it here
        self.reply_ports: Any = None  # the idle ones; ports.py keeps them here
        self.threads: Any = None  # how many there may be; bootstrap.py keeps it here
        self.sleeper: int = _sleeper_of(loop)
        self.kqueue: _ffi.Kqueue = _ffi.Kqueue()
        try:
            # For reading only: no kqueue becomes writable, and a Mac's cannot be asked for that.
            loop.add_reader(self.kqueue.fd, self._drain)
        except BaseException:
            self.kqueue.close()
            raise
        self._farewell: AsyncGenerator[None, None] | None = self._wait_for_shutdown()
        # One step, by hand: the loop now knows the generator and will end it before it closes.
        with contextlib.suppress(StopIteration):
            self._farewell.__anext__().send(None)

    async def _wait_for_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _register(self, watch: W, *, of_end: bool = False) -> W:
        """Have the kqueue watch; the caller closes the watch, before the fd. Raises OSError."""
        if self.closed:
            raise UsageError("the event loop is shutting down")
        key = watch.key
        if of_end:
            self.kqueue.watch_end(watch.ident, key << 1)
        else:
            self.kqueue.change(watch.ident, watch.filter, EV_ADD | EV_CLEAR, key << 1)
        self._watches[key] = watch
        return watch

    def watch_port(self, name: int) -> Watch:
        """Watch a receive right or a port set for messages and for its end.

        A port may be watched and a member of sets at once; whoever receives first has the message.
        """
        return self._register(Watch(self, name))

    def watch_reader(self, fd: int) -> FileWatch:
        """Watch a pipe or socket for something to read, end of file included."""
        return self._register(FileWatch(self, fd, _ffi.EVFILT_READ, next(self._file_keys)))

    def watch_writer(self, fd: int) -> FileWatch:
        """Watch a pipe or socket for room to write, and for the end of its readers (`eof`)."""
        return self._register(self._writer(fd))

    def watch_end(self, fd: int) -> FileWatch:
        """Watch a pipe or socket for the end of its readers, and for little else.

        Not while it is watched for room: a kqueue has one of the two.
        """
        return self._register(self._writer(fd), of_end=True)

    def _writer(self, fd: int) -> FileWatch:
        return FileWatch(self, fd, _ffi.EVFILT_WRITE, next(self._file_keys))

    def forget(self, watch: Watch) -> bool:
        """Drop a watch; True if it is still registered in a kqueue of this task."""
        if self._watches.get(watch.key) is not watch:
            return False
        self._watches.pop(watch.key, None)
        return self.usable()

    def at_close(self, call: Callable[[], None]) -> None:
        """Have something called while the adapter closes, the kqueue still being open."""
        self._at_close.append(call)

    def usable(self) -> bool:
        """Tell whether the kqueue is open and this is the process that made it."""
        return not self.closed and self.space == _ffi.space

    def alive(self) -> bool:
        """Tell whether the adapter is usable and its loop not closed."""
        loop = self.get_loop()
        return self.usable() and loop is not None and not loop.is_closed()

    def is_here(self) -> bool:
        """Tell whether the caller runs in the adapter's own loop, and not in a forked child."""
        # The call that never raises.
        return asyncio._get_running_loop() is self.get_loop() and self.space == _ffi.space  # noqa: SLF001

    def post(self, call: Callable[[], None]) -> None:
        """Call something in the loop: at once if this is its thread, else soon. Never raises."""
        if self.is_here():
            call()
            return
        loop = self.get_loop()
        if loop is not None and self.space == _ffi.space:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(call)

    def _drain(self) -> None:
        # One batch: the fd is level-triggered for the loop, and others have their turn in between.
        if self.closed or self.space != _ffi.space:
            return
        events, watches = self.kqueue.events(), self._watches
        try:
            for event in events:
                if (watch := watches.get(event >> 1)) is not None:
                    watch.fire(event & 1, at_once=True)
        except BaseException:  # of a task that has ended the loop, SystemExit say
            for event in events:
                if (watch := watches.get(event >> 1)) is not None:
                    watch.fire(event & 1, at_once=False)
            raise

    def close(self) -> None:
        """Close the kqueue; whoever waits attempts again, and fails. Idempotent."""
        if self.closed:
            return
        if self.space != _ffi.space:
            # The fd number may be another file's by now, and the loop's selector is the parent's.
            self.closed = True
            self.kqueue.fd = -1
            return
        for call in self._at_close:
            call()
        self.closed = True
        self._farewell = None  # it refers to the loop
        watches = list(self._watches.values())
        self._watches.clear()
        loop = self.get_loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self.kqueue.fd)
        self.kqueue.close()
        for watch in watches:
            watch.wake()


def _sleeper_of(loop: Any) -> int:
    """Return the descriptor that a loop sleeps in; -1: it does not tell. The layer may use it."""
    with contextlib.suppress(AttributeError):
        return int(loop._selector.fileno())  # noqa: SLF001 - asyncio's
    with contextlib.suppress(AttributeError):
        return int(loop._get_backend_id())  # noqa: SLF001 - uvloop's
    return -1


_adapters: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Adapter] = (
    weakref.WeakKeyDictionary()
)

# What `current` returned last: most processes have one loop.
_latest: Callable[[], Adapter | None] = lambda: None  # noqa: E731


def kept_rights() -> list[Any]:
    """Return the rights that the loops of this task keep open for their own use."""
    return [right for adapter in _adapters.values() for right in adapter.reply_ports or ()]


def current() -> Adapter:
    """Return the running loop's adapter, made on first use. Raises RuntimeError outside a loop."""
    global _latest
    latest = _latest()
    if latest is not None and latest.is_here() and not latest.closed:
        return latest
    loop = asyncio.get_running_loop()
    adapter = _adapters.get(loop)
    if adapter is not None and adapter.usable():
        _latest = weakref.ref(adapter)
        return adapter
    for other, stale in list(_adapters.items()):
        if other.is_closed():  # it was closed without asyncio.run's courtesies
            stale.close()
            del _adapters[other]
    adapter = Adapter(loop)
    _adapters[loop] = adapter
    return adapter
