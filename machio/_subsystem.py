"""A Python class declares a subsystem: what its routines are, how they are called and answered."""

from __future__ import annotations

import functools
import inspect
import typing
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, Self, TypeVar, overload

from ._miglayout import REPLY_OFFSET, Layout, Routine, make_error
from ._migtypes import Fault, kind_of
from .codes import MigCode
from .errors import RoutineError, UsageError
from .messages import Message
from .tracing import name_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

F = TypeVar("F", bound="Callable[..., Coroutine[Any, Any, Any]]")
P = ParamSpec("P")
R = TypeVar("R")
_MARK = "_machio_routine"
_PLAIN = "_machio_plain"  # the function of a routine that is not async
# What a request that does not fit raises, and what a routine does to say which code it answers.
_REFUSALS = (Fault, NotImplementedError, RoutineError)
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class Callee(Protocol):
    """What a client sends to: a SendRight."""

    async def send(self, message: Message, timeout: float | None = None) -> None:
        """Send a request that has no answer."""

    async def call(self, message: Message, timeout: float | None = None) -> Message:
        """Send a request and return its answer."""
        ...


class Declare(Protocol):
    """A decorator of routines: to its callers, a plain function is a coroutine function as well."""

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...


@overload
def routine(function: F, /) -> F: ...
@overload
def routine(function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def routine(*, number: int) -> Declare: ...
def routine(function: Any = None, /, *, number: int | None = None) -> Any:
    """Declare a routine: a request with an answer.

    One that waits for nothing is a plain ``def``: a server runs it right where the request arrives,
    without a task. Its callers await it in either case. `number` is its place in the subsystem,
    counted from 0, where it does not follow the one before.
    """
    return _marked(function, number, has_reply=True)


@overload
def simpleroutine(function: F, /) -> F: ...
@overload
def simpleroutine(function: Callable[P, R], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def simpleroutine(*, number: int) -> Declare: ...
def simpleroutine(function: Any = None, /, *, number: int | None = None) -> Any:
    """Declare a simpleroutine: a request without an answer, whose caller does not wait.

    As with `routine`, it may be a plain ``def``.
    """
    return _marked(function, number, has_reply=False)


def _marked(function: Any, number: int | None, *, has_reply: bool) -> Any:
    def mark(function: Any) -> Any:
        marked = function if inspect.iscoroutinefunction(function) else _awaitable(function)
        setattr(marked, _MARK, (number, has_reply))
        return marked

    return mark if function is None else mark(function)


def _awaitable(function: Any) -> Any:
    """Return what a plain function is to those who call it on an object of their own."""

    @functools.wraps(function)
    async def call(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    setattr(call, _PLAIN, function)
    return call


class Subsystem:
    """Base of subsystems: routines with consecutive ids, the first of which is `base`.

    ::

        class Clock(mig.Subsystem, base=7000):
            @mig.routine
            async def now(self, zone: Annotated[str, mig.CString(64)]) -> mig.float64:
                "Return the time in a zone."
                raise NotImplementedError

    The body of a routine is what a server does; a class that derives from it may define it instead,
    as an ``async def``, or as a plain one with `@mig.routine` before it again.
    `raise NotImplementedError` answers MIG_BAD_ID. `client` makes the other side of the same type.
    A class body that declares what MIG cannot carry raises TypeError, with the name of the routine.
    """

    routines: ClassVar[dict[str, Routine]] = {}
    _by_id: ClassVar[dict[int, Routine]] = {}
    _right: Callee
    _timeout: float | None

    def __init_subclass__(cls, base: int | None = None) -> None:
        super().__init_subclass__()
        found = [
            (function, *getattr(function, _MARK))
            for function in vars(cls).values()
            if hasattr(function, _MARK)
        ]
        if base is None:
            for function, number, has_reply in found:
                known = cls.routines.get(function.__name__)
                if known is None or number is not None or has_reply is (known.reply is None):
                    raise TypeError(f"{cls.__name__} declares routines, so it needs a base=")
            return
        cls.routines, place = {}, 0
        for function, number, has_reply in found:
            place = place if number is None else number
            cls.routines[function.__name__] = _declare(function, base + place, has_reply)
            place += 1
        cls._by_id = {one.id: one for one in cls.routines.values()}
        if len(cls._by_id) != len(cls.routines):
            raise TypeError(f"two routines of {cls.__name__} have the same number")
        for one in cls.routines.values():
            name = f"{cls.__name__}.{one.name}"
            name_ids({one.id: name, one.id + REPLY_OFFSET: f"{name} reply"})

    @classmethod
    def client(cls, right: Callee, *, timeout: float | None = None) -> Self:
        """Return an object whose routines are calls by `right`, which stays the caller's.

        `timeout` is for each call, in seconds. A call raises what `SendRight.call` does, UsageError
        for arguments that do not fit, RoutineError for the code that the server's routine returned,
        MigError for a reply of the wrong shape. Rights that arguments move are back in their
        objects if the request was not sent. The caller owns the rights in results.
        """
        stubs = vars(cls).get("_stubs")
        if stubs is None:
            methods = {name: _stub(cls, one) for name, one in cls.routines.items()}
            stubs = cls._stubs = type(f"{cls.__name__}Client", (cls,), methods)  # type: ignore[attr-defined]
        made: Self = object.__new__(stubs)
        made._right = right
        made._timeout = timeout
        return made

    def ids(self) -> list[int]:
        """Return the ids of all routines."""
        return list(self._by_id)

    async def answer(self, request: Message) -> Message | None:
        """Run the routine that a request asks for; return the reply, None for a simpleroutine.

        What does not fit is answered by MIG_BAD_ID, MIG_BAD_ARGUMENTS or MIG_TYPE_ERROR, and a
        RoutineError by its code. A routine that returns owns the rights among its arguments, taken
        out of `request`; else they are there still, for the caller to close. Raises what the
        routine raises.
        """
        reply = self.respond(request)
        return reply if reply is None or isinstance(reply, Message) else await reply

    def respond(self, request: Message) -> Message | Coroutine[Any, Any, Message | None] | None:
        """Do as `answer`; a coroutine is returned only if the routine is an ``async def``."""
        found = self._by_id.get(request.id)
        if found is None:
            return make_error(request.id, MigCode.BAD_ID)
        try:
            arguments = found.request.read_flat(request)
            if arguments is None:
                arguments = found.request.unpack(request.descriptors, request.body)
            function = getattr(self, found.name)
            plain = getattr(function, _PLAIN, None)
            if type(plain) is not FunctionType:  # an attribute of something that stands in for one
                return self._respond_later(found, request, function, arguments)
            result = plain(self, *arguments)
        except _REFUSALS as error:
            return found.refuse(error)
        request.descriptors = ()
        return found.make_reply(result)

    @staticmethod
    async def _respond_later(
        found: Routine, request: Message, function: Any, arguments: Sequence[Any]
    ) -> Message | None:
        try:
            result = await function(*arguments)
        except _REFUSALS as error:
            return found.refuse(error)
        request.descriptors = ()
        return found.make_reply(result)


def _declare(function: Any, routine_id: int, has_reply: bool) -> Routine:
    what = f"{function.__qualname__}"
    if getattr(function, _PLAIN, function).__code__.co_flags & _GENERATOR:
        raise TypeError(f"{what} must return its result, and yield none")
    hints = typing.get_type_hints(function, include_extras=True)
    result = hints.pop("return", type(None))
    names = list(inspect.signature(function).parameters)[1:]
    many = typing.get_origin(result) is tuple
    results = typing.get_args(result) if many else [] if result is type(None) else [result]
    if results and not has_reply:
        raise TypeError(f"{what} is a simpleroutine and returns nothing")
    try:
        request = Layout(routine_id, [(name, kind_of(hints[name])) for name in names])
        outcomes = [
            (f"result{index}" if many else "result", kind_of(one))
            for index, one in enumerate(results)
        ]
    except KeyError as error:
        raise TypeError(f"{what}: {error} has no annotation") from None
    except TypeError as error:
        raise TypeError(f"{what}: {error}") from None
    return Routine(
        function.__name__,
        routine_id,
        inspect.getdoc(function) or "",
        request,
        Layout(routine_id + REPLY_OFFSET, outcomes, is_reply=True) if has_reply else None,
        many,
    )


def _stub(cls: type[Subsystem], called: Routine) -> Any:
    declared = getattr(cls, called.name)
    signature = inspect.signature(declared)
    wanted = len(called.request.arguments)

    async def stub(self: Subsystem, *arguments: Any, **named: Any) -> Any:
        if named or len(arguments) != wanted:
            bound = signature.bind(self, *arguments, **named)
            bound.apply_defaults()
            arguments = bound.args[1:]
        try:
            request = called.request.write(arguments)
        except UsageError as error:
            raise UsageError(f"{called.name}: {error}") from None
        if called.reply is None:
            return await self._right.send(request, self._timeout)
        return called.read_reply(await self._right.call(request, self._timeout))

    stub.__name__ = called.name
    stub.__qualname__ = f"{cls.__qualname__}.{called.name}"
    stub.__doc__ = declared.__doc__
    stub.__signature__ = signature  # type: ignore[attr-defined]
    return stub
