"""Services: a name, its port, and the tasks that answer what arrives there.

::

    class Echo(mig.Subsystem, base=7000):
        @mig.routine
        def shout(self, text: Text) -> Text:
            return text.upper()

    async with machio.Service("org.example.echo") as service:
        service.add(Echo())
        await service.serve()

    async with machio.connect(Echo, "org.example.echo", timeout=5) as echo:
        print(await echo.shout("hello"))

A handler that waits for nothing is a plain function and runs right where its request arrives: no
task is made for it, and nothing else of the loop runs meanwhile. Any other is an ``async def``,
which a task of its own runs, `concurrency` of them at a time: a request is taken from the queue
only when one may begin, so the rest wait in the queue, and then their senders do. Each has a
context (contextvars) of its own. `serve` returns after `stop`, when all requests that were taken
have been answered; cancelling it cancels the tasks, whose callers then get ServerDiedError at once.

What becomes of a request: a handler's result is its answer; an exception is an error answer and a
line in the log "machio.service"; no handler is MIG_BAD_ID; a sender that `allow` refuses gets
KERN_NO_ACCESS, a handler that takes too long KERN_OPERATION_TIMED_OUT. Whatever rights are still in
the request after that are closed. An answer never waits: a peer that has no room for it loses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar

from . import bootstrap
from ._loop import Line
from ._miglayout import make_error
from ._right import Right
from ._subsystem import Subsystem
from .codes import KernCode, MigCode, ReceiveCode, split
from .errors import BadMessageError, KernError, MachioError, ReceiveError, RoutineError, UsageError
from .messages import Message, NotificationId, RightArray, Sender, is_memory
from .ports import PortSet

if TYPE_CHECKING:
    from types import TracebackType

    from .ports import ReceiveRight

Answer: TypeAlias = "Message | Awaitable[Message | None] | None"
Handler: TypeAlias = Callable[[Message], Answer]
Place: TypeAlias = "str | ReceiveRight"
Allow: TypeAlias = Callable[[Sender], bool]
H = TypeVar("H", bound=Handler)
S = TypeVar("S", bound=Subsystem)

_log = logging.getLogger(__name__)
_request: contextvars.ContextVar[Message] = contextvars.ContextVar("machio request")
_NOTIFICATIONS = frozenset(NotificationId)
# Receives that failed after they had taken a message.
_LOST = (ReceiveCode.BODY_ERROR, ReceiveCode.HEADER_ERROR)


def current_request() -> Message:
    """Return the request that is being handled here: its `sender`, its `port`, its `id`.

    The rights of a typed routine are among its arguments. Raises LookupError outside a handler.
    """
    return _request.get()


@contextlib.asynccontextmanager
async def connect(
    subsystem: type[S], name: str, *, timeout: float | None = None
) -> AsyncIterator[S]:
    """Look a service up and yield a client of one of its subsystems; closed at the end.

    `timeout` is for each call, in seconds. Raises UnknownServiceError, BootstrapError.
    """
    with await bootstrap.look_up(name) as right:
        yield subsystem.client(right, timeout=timeout)


class Service:
    """Ports, the handlers of what arrives there, and the tasks that run them.

    ports: service names, which are checked in when the context is entered, and receive rights,
    which are taken over. concurrency: how many requests are handled at a time. deadline: seconds
    for each; a plain function cannot be interrupted, so none is set for it. allow: is asked for
    the attested sender of each request, but not for the system.
    queue_limit: messages queued at each port before senders wait, 0 to 1024; as it is if None.

    Context manager. Leaving it stops the service, waits for the requests that it had taken, and
    closes the ports: what is queued there is destroyed, and its callers learn it at once.

    Raises UsageError for no port, or less than one request at a time.
    """

    def __init__(
        self,
        *ports: str | ReceiveRight,
        concurrency: int = 64,
        deadline: float | None = None,
        allow: Allow | None = None,
        queue_limit: int | None = None,
    ) -> None:
        if not ports or concurrency < 1:
            raise UsageError("a service needs a port, and to handle at least one request at a time")
        self._wanted = ports
        self._deadline = deadline
        self._allow = allow
        self._concurrency = concurrency
        self._queue_limit = queue_limit
        self._room = Line()  # for a request more to be handled
        self._ports: dict[Place, ReceiveRight] = {}
        self._at: dict[int, dict[int, Handler]] = {}  # the handlers by the names of the ports
        self._entered = False
        self._source: ReceiveRight | PortSet | None = None  # what is received from: all the ports
        self._handlers: dict[Place | None, dict[int, Handler]] = {None: {}}  # None: at all ports
        self._stopped = False
        self._handing_over = False
        self._handed_over = asyncio.Event()  # or not: whenever nothing is being handed over
        self._handed_over.set()
        self._serving = False
        self._receiver: asyncio.Task[None] | None = None
        # Each task with its request, and with what it awaits, should it end before it has begun.
        self._busy: dict[asyncio.Task[None], tuple[Message, Awaitable[Message | None]]] = {}

    async def __aenter__(self) -> Self:
        """Check the names in, and take the rights over.

        Raises BootstrapError, KernError for the queue limit; then the service has no port.
        """
        if self._entered:
            raise UsageError("a service is entered once")
        self._entered = True
        try:
            for place in self._wanted:
                if isinstance(place, str):
                    self._ports[place] = await bootstrap.check_in(place)
            self._ports |= {place: place for place in self._wanted if not isinstance(place, str)}
            self._ports = {place: self._ports[place] for place in self._wanted}
            if self._queue_limit is not None:
                for port in self._ports.values():
                    port.queue_limit = self._queue_limit
            if len(self._wanted) > 1:
                self._source = PortSet.allocate()
            self._join()
        except BaseException:
            for place in self._wanted:
                if not isinstance(place, str):
                    self._ports.pop(place, None)
            self._close()
            raise
        return self

    def _join(self) -> None:
        """Receive from all ports; note under which names they are known now."""
        for place, port in self._ports.items():
            if isinstance(self._source, PortSet):
                try:
                    self._source.add(port)
                except KernError as error:
                    if error.code is not KernCode.ALREADY_IN_SET:
                        raise
            else:
                self._source = port  # a set of one would be a detour
            self._at[port.name] = self._handlers.setdefault(place, {})

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        try:
            if kind is None:
                await self._finish()
            else:
                await self._abandon()
        except BaseException:
            for task in self._busy:
                task.cancel()
            raise
        finally:
            self._close()

    def _close(self) -> None:
        for port in self._ports.values():
            port.close()
        if self._source is not None:
            self._source.close()

    # --- what is served ---------------------------------------------------------------------------

    def add(self, subsystem: Subsystem, *, at: Place | None = None) -> None:
        """Have a subsystem answer; `at` one of the service's ports, or at all of them.

        Raises UsageError if one of its ids has a handler there already, or `at` is none of them.
        """
        for message_id in subsystem.ids():
            self._set_handler(message_id, at, subsystem.respond)

    def on(self, message_id: int, *, at: Place | None = None) -> Callable[[H], H]:
        """Decorate a handler of the messages with an id: ``def handler(message)``, or async.

        What it returns is sent to the message's reply right, unless it is None. It may take rights
        out of the message (``message.rights = ()``, ``message.reply = None``); what it leaves there
        is closed. For an id of `NotificationId` it gets the system's messages alone. Raises as
        `add`.
        """

        def set_handler(handler: H) -> H:
            self._set_handler(message_id, at, handler)
            return handler

        return set_handler

    def _set_handler(self, message_id: int, at: Place | None, handler: Handler) -> None:
        if at is not None and at not in self._wanted:
            raise UsageError(f"{at!r} is no port of this service")
        for place in self._handlers if at is None else (at, None):
            if message_id in self._handlers.get(place, ()):
                raise UsageError(f"there is a handler for the id {message_id} already")
        self._handlers.setdefault(at, {})[message_id] = handler

    # --- serving ----------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Answer requests until `stop` or `hand_over`, and then until none is left unanswered.

        One task at a time. Cancelling it cancels the handlers. Raises UsageError if the service has
        not been entered or is being served, MachError if its ports are gone.
        """
        if self._source is None or self._serving:
            raise UsageError("a service is entered first, and then served by one task")
        self._serving = True
        try:
            while not self._stopped:
                self._receiver = asyncio.ensure_future(self._receive(self._source))
                try:
                    await asyncio.wait([self._receiver])
                finally:
                    self._receiver.cancel()
                if not self._receiver.cancelled():
                    self._receiver.result()
                await self._handed_over.wait()
            await self._finish()
        except BaseException:
            await self._abandon()
            raise
        finally:
            self._serving = False

    def stop(self) -> None:
        """Take no more requests; `serve` returns once those taken are answered. Idempotent."""
        self._stopped = True
        if self._receiver is not None:
            self._receiver.cancel()

    async def hand_over(self, give: Callable[..., Awaitable[object]]) -> None:
        """Give the live ports to a successor: ``await service.hand_over(child.give)``.

        Nothing is received any more; then ``await give(port, ...)`` is called with the receive
        rights, in the order in which the service was given them, and moves them elsewhere, with
        what is queued. Requests that were taken before are answered here, all later ones there:
        none is lost, none answered twice. Then `serve` returns. If `give` raises, the rights that
        are still here are served on, and the exception is passed on. Raises UsageError if the
        service has not been entered, has been stopped, or is being handed over. Mach: MOVE_RECEIVE.
        """
        if self._source is None or self._stopped or self._handing_over:
            raise UsageError("the service is not open, or is being handed over")
        self._handing_over = True
        self._handed_over.clear()
        try:
            if self._receiver is not None:
                self._receiver.cancel()
                await asyncio.wait([self._receiver])
            await give(*self._ports.values())
        finally:
            self._ports = {at: port for at, port in self._ports.items() if not port.closed}
            self._join()  # a right that was away has left the set, even if it is back
            if not self._ports:
                self._stopped = True
            self._handing_over = False
            self._handed_over.set()

    async def _receive(self, source: ReceiveRight | PortSet) -> None:
        await asyncio.sleep(0)  # `serve` has to know this task before a handler stops the service
        # A handler that runs at once may have changed either.
        while not (self._stopped or self._handing_over):
            if self._busy and not self._may_begin():
                await self._room.stand(self._may_begin, None)
            try:
                found = await source.receive()
            except (BadMessageError, ReceiveError) as error:
                # The message is gone, and its sender learns that: the reply right was in it.
                if isinstance(error, ReceiveError) and split(error.number)[0] not in _LOST:
                    raise
                _log.warning("a message could not be received: %s", error)
            else:
                request = found if isinstance(found, Message) else found[1]
                contextvars.copy_context().run(self._handle, request)

    def _may_begin(self) -> bool | None:
        return len(self._busy) < self._concurrency or None

    def _handled(self, task: asyncio.Task[None]) -> None:
        request, answering = self._busy.pop(task)
        if task.cancelled():  # before it had begun, it may be
            request.close()
            if isinstance(answering, Coroutine):
                answering.close()
        self._room.wake()

    async def _finish(self) -> None:
        while self._busy:
            await asyncio.wait(self._busy)

    async def _abandon(self) -> None:
        for task in self._busy:
            task.cancel()
        await self._finish()

    # --- one request ------------------------------------------------------------------------------

    def _handle(self, request: Message) -> None:
        """Have a request answered, at once or by a task; in a context of the request's own."""
        _request.set(request)
        handler = self._at.get(request.port, {}).get(request.id)
        if handler is None:
            handler = self._handlers[None].get(request.id)
        try:
            if handler is None or (request.id in _NOTIFICATIONS and not request.is_notification):
                answer: Answer = make_error(request.id, MigCode.BAD_ID)
            elif self._allow is not None and not self._allows(self._allow, request):
                answer = make_error(request.id, KernCode.NO_ACCESS)
            else:
                answer = handler(request)
        except Exception as error:
            answer = _failed(request, error)
        except BaseException:
            request.close()
            raise
        if answer is None or isinstance(answer, Message):
            _conclude(request, answer)
            return
        task = _start(self._answer_later(request, answer))
        if not task.done():
            self._busy[task] = request, answer
            task.add_done_callback(self._handled)

    @staticmethod
    def _allows(allow: Allow, request: Message) -> bool:
        sender = request.sender
        if request.is_notification or (sender is not None and allow(sender)):
            return True
        _log.warning("%s may not send %d here", sender, request.id)
        return False

    async def _answer_later(self, request: Message, answering: Awaitable[Message | None]) -> None:
        limit: asyncio.Timeout | None = None
        try:
            if self._deadline is None:
                answer = await answering
            else:
                async with asyncio.timeout(self._deadline) as limit:
                    answer = await answering
        except Exception as error:
            if isinstance(error, TimeoutError) and limit is not None and limit.expired():
                _log.warning("request %d took longer than %s s", request.id, self._deadline)
                answer = make_error(request.id, KernCode.OPERATION_TIMED_OUT)
            else:
                answer = _failed(request, error)
        except BaseException:
            request.close()
            raise
        _conclude(request, answer)


def _start(handling: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Return the task, which has begun if Python can do that and the program has no factory."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
        return asyncio.Task(handling, loop=loop, eager_start=True)
    return loop.create_task(handling)


def _failed(request: Message, error: Exception) -> Message:
    """Return the answer that tells of an exception, which is logged unless it is a routine's."""
    if isinstance(error, RoutineError):
        return make_error(request.id, error.number)
    _log.error("the handler of request %d failed", request.id, exc_info=error)
    return make_error(request.id, MigCode.EXCEPTION)


def _conclude(request: Message, answer: Message | None) -> None:
    """Send the answer without waiting, if there is one, and close what is left in the request."""
    try:
        try:
            if answer is not None and request.reply is not None:
                request.reply.send_nowait(answer)
            elif answer is not None:
                _close_moving(answer)
        except Exception as error:
            assert answer is not None
            _give_up(request, answer, error)
        finally:
            request.close()
    except Exception:  # a handler may put anything into a message; the service lives on
        _log.exception("what was left of request %d is of no kind that can be", request.id)


def _give_up(request: Message, answer: Message, error: Exception) -> None:
    """Close the rights that were to move with an answer; tell the caller if it was a wrong one."""
    _close_moving(answer)
    if isinstance(error, MachioError) and not isinstance(error, UsageError):
        _log.info("the answer to request %d was not sent: %s", request.id, error)
        return
    with contextlib.suppress(MachioError):
        request.reply.send_nowait(_failed(request, error))


def _close_moving(answer: Message) -> None:
    for carried in answer.descriptors:
        if is_memory(carried):
            carried.close()
            continue
        if isinstance(carried, RightArray):
            pairs = [(right, carried.disposition) for right in carried.rights]
        else:
            pairs = [carried if isinstance(carried, tuple) else (carried, None)]
        for right, disposition in pairs:
            if isinstance(right, Right) and disposition in (None, right.dispositions[0]):
                right.close()
