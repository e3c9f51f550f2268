"""Port rights and port sets as owned objects, and sending and receiving with them.

::

    with ReceiveRight.allocate() as port, port.make_send() as send:
        await send.send(Message(1, b"ping"))
        message = await port.receive()

and, if the receiver answers by the reply right that the message brings it::

    answer = await send.call(Message(1, b"ping"), timeout=5)

Each object owns its right until it is closed or given away (see `machio._right.Right`, from which
all have `name`, `close`, `release`, `from_name`). Receiving is cancel-safe: a message is either
still queued or was returned. Sending is, too: a cancelled or timed-out send has sent nothing, and
every right that was to move is back in its object.

Each operation comes in three manners: a coroutine (waits in the event loop, without a thread),
`_nowait` (raises at once), and `_blocking` (blocks the thread, not the interpreter). Timeouts are
seconds; None waits for ever.

Rights are anyio's object streams: `async for message in port` ends when the port is closed.
"""

from __future__ import annotations

import weakref
from typing import ClassVar, NamedTuple

from anyio.abc import ObjectSendStream

from . import _ffi, _loop, _notices, _requests
from ._deadline import Deadline
from ._incoming import CLASSES, Receiver, adopt
from ._outgoing import Outgoing, send_now
from ._right import Right
from .codes import MigCode, ReceiveCode, SendCode
from .errors import WouldBlock, mach_error
from .messages import Disposition, Message, NotificationId, PortRightType

# Looked up once: an enum is slow to tell its members.
_COPY_SEND, _MOVE_SEND_ONCE = Disposition.COPY_SEND, Disposition.MOVE_SEND_ONCE
_DROPPED = NotificationId.SEND_ONCE
# Reply ports that an event loop keeps for its next calls.
_IDLE_REPLY_PORTS = 32


class PortStatus(NamedTuple):
    """mach_port_status_t, in its order: the state of a port as its receiver sees it."""

    in_set: int
    seqno: int
    make_send_count: int
    queue_limit: int
    queued: int
    send_once_rights: int
    has_send_rights: int
    has_port_destroyed_request: int
    has_no_senders_request: int
    flags: int


class ReceiveRight(Receiver[Message]):
    """The receive right of a port: there is one, and its holder gets the messages."""

    __slots__ = ()

    kind = PortRightType.RECEIVE
    dispositions: ClassVar[tuple[Disposition, ...]] = (
        Disposition.MOVE_RECEIVE,
        Disposition.MAKE_SEND,
        Disposition.MAKE_SEND_ONCE,
    )

    @classmethod
    def allocate(cls, queue_limit: int | None = None) -> ReceiveRight:
        """Make a new port; the caller owns its receive right. Raises KernError.

        queue_limit: messages queued before senders wait, 0 to 1024; 5 if None.
        """
        port = cls(_ffi.allocate(PortRightType.RECEIVE))
        try:
            if queue_limit is not None:
                port.queue_limit = queue_limit
        except BaseException:
            port.close()
            raise
        return port

    _adopt = staticmethod(adopt)

    def make_send(self) -> SendRight:
        """Make a send right, which the caller owns (mach_port_insert_right, MAKE_SEND).

        Raises KernError, RightClosedError.
        """
        name = self.name
        _ffi.insert_right(name, name, Disposition.MAKE_SEND)
        return SendRight(name)

    def make_send_once(self) -> SendOnceRight:
        """Make a send-once right, which the caller owns (mach_port_extract_right).

        Raises KernError, RightClosedError.
        """
        return SendOnceRight(_ffi.extract_right(self.name, Disposition.MAKE_SEND_ONCE))

    async def no_senders(self, timeout: float | None = None) -> int:
        """Wait until no send right to the port is left, at once if there is none.

        Returns the make-send count. Send-once rights do not count, messages in the queue do. One
        task at a time may wait; cancelling leaves nothing behind. Raises UsageError if another
        waits, RightClosedError if the port is closed meanwhile, ReceiveTimedOut. Mach:
        MACH_NOTIFY_NO_SENDERS.
        """
        count = await _notices.wait_for_no_senders(self.name, lambda: self.closed, timeout)
        if count is None:
            raise mach_error(ReceiveCode.TIMED_OUT, "no_senders")
        return count

    async def dropped(self, timeout: float | None = None) -> Message | None:
        """Wait until a send-once right to the port was dropped without being used: None.

        If a message comes instead it is returned, and the caller owns the rights in it. Meant for a
        port with one send-once right out. Raises as `receive`. Mach: MACH_NOTIFY_SEND_ONCE.
        """
        message = await self.receive(timeout)
        if message.is_notification and message.id == NotificationId.SEND_ONCE:
            return None
        return message

    @property
    def status(self) -> PortStatus:
        """The port's state (mach_port_get_attributes, MACH_PORT_RECEIVE_STATUS)."""
        return PortStatus(*_ffi.receive_status(self.name))

    @property
    def queue_limit(self) -> int:
        """How many messages queue before senders wait; settable to 0 to 1024, else KernError."""
        return self.status.queue_limit

    @queue_limit.setter
    def queue_limit(self, limit: int) -> None:
        _ffi.set_queue_limit(self.name, limit)

    def _destroy(self, name: int) -> None:
        _ffi.mod_refs(name, PortRightType.RECEIVE, -1)


class _Sender(Right):
    """What can be sent to: a send or a send-once right."""

    __slots__ = ()

    @property
    def is_dead(self) -> bool:
        """True if the port has died: the name is a dead name (mach_port_type)."""
        return _ffi.is_dead(self.name)

    async def died(self, timeout: float | None = None) -> None:
        """Wait until the port has died; at once if it has.

        The right stays the caller's, as a dead name. Cancelling leaves nothing behind. Raises
        RightClosedError if it is closed or given away meanwhile, ReceiveTimedOut. Mach:
        MACH_NOTIFY_DEAD_NAME, by way of SEND_POSSIBLE.
        """
        if not await _requests.wait_for_death(self.name, lambda: self.is_dead, timeout):
            raise mach_error(ReceiveCode.TIMED_OUT, "died")

    @classmethod
    def _accepted_types(cls) -> int:
        return super()._accepted_types() | _ffi.TYPE_DEAD_NAME

    def _let_go(self, name: int) -> None:
        _requests.touch(name)

    def _destroy(self, name: int) -> None:
        _ffi.deallocate(name)


class SendRight(_Sender, ObjectSendStream[Message]):
    """A send right: one user reference of it. Several objects may share one name."""

    __slots__ = ()

    kind = PortRightType.SEND
    dispositions: ClassVar[tuple[Disposition, ...]] = (Disposition.MOVE_SEND, Disposition.COPY_SEND)

    async def send(self, message: Message, timeout: float | None = None) -> None:
        """Send; waits while the queue is full. First waiter, first served.

        Ownership: rights in the message are given away, or used as their dispositions say, once the
        kernel has the message; on failure and cancellation they stay with the caller, but for a
        SendError that says they were destroyed. Raises SendTimedOut, DeadDestinationError,
        SendError, UsageError. Mach: mach_msg, COPY_SEND.
        """
        waits = _requests.is_awaited(self._name)
        post = Outgoing.load if waits else send_now
        outgoing = post(message, self, _COPY_SEND)
        if outgoing is not None:
            await _requests.wait_for_room(self._name, outgoing, timeout, attempted=not waits)

    def send_nowait(self, message: Message) -> None:
        """Send, or raise WouldBlock at once if the queue is full; otherwise as `send`.

        It does not overtake those of this task who wait for room.
        """
        if _requests.is_awaited(self.name):
            raise WouldBlock(SendCode.TIMED_OUT, "send_nowait")
        outgoing = send_now(message, self, _COPY_SEND)
        if outgoing is not None:
            outgoing.give_back()
            raise WouldBlock(SendCode.TIMED_OUT, "mach_msg")

    def send_blocking(self, message: Message, timeout: float | None = None) -> None:
        """Send, blocking the thread while the queue is full; otherwise as `send`."""
        Outgoing.load(message, self, _COPY_SEND).send_blocking(timeout)

    async def call(self, message: Message, timeout: float | None = None) -> Message:
        """Send a request and return its answer; the caller owns the rights in that.

        The message's own reply right must be None: a send-once right to a port of this call alone
        takes the place, so any number of calls may be under way, and an answer that comes after
        its call has ended reaches no other: it is destroyed, with every right in it. `timeout` is
        for both ways together.

        Raises, at once, ServerDiedError if the receiver drops the request or dies before it
        answers. While the request has not been sent, as `send`, rights that move being back;
        afterwards ReceiveTimedOut, BadMessageError. Mach: mach_msg, MAKE_SEND_ONCE.
        """
        deadline = None if timeout is None else Deadline(timeout)
        adapter = _loop.current()
        port = take_reply_port(adapter)
        try:
            waits = _requests.is_awaited(self._name)
            post = Outgoing.load if waits else send_now
            outgoing = post(message, self, _COPY_SEND, port)
            if outgoing is not None:
                await _requests.wait_for_room(self._name, outgoing, timeout, attempted=not waits)
            answer = await port.receive(None if deadline is None else deadline.seconds())
        except BaseException:
            port.close()  # and with it the answer, whenever it comes
            raise
        return_reply_port(adapter, port)
        return _answer(answer) if answer.id == _DROPPED else answer

    def call_blocking(self, message: Message, timeout: float | None = None) -> Message:
        """As `call`, blocking the thread meanwhile."""
        deadline = Deadline(timeout)
        with ReceiveRight.allocate() as port:
            outgoing = Outgoing.load(message, self, _COPY_SEND, port)
            outgoing.send_blocking(timeout)
            return _answer(port.receive_blocking(deadline.seconds()))

    def copy(self) -> SendRight:
        """Return another object with a user reference of its own (mach_port_mod_refs).

        Raises KernError if the port is dead.
        """
        name = self.name
        _ffi.mod_refs(name, PortRightType.SEND, 1)
        return SendRight(name)

    async def send_possible(self, timeout: float | None = None) -> None:
        """Wait until the port's queue has room, at once if it has.

        Another sender may take the room first. Raises DeadDestinationError, SendTimedOut,
        RightClosedError if the right is closed or given away meanwhile. Cancelling leaves nothing
        behind. Mach: MACH_NOTIFY_SEND_POSSIBLE.
        """

        def check() -> None:
            if self.is_dead:
                raise mach_error(SendCode.INVALID_DEST, "send_possible")

        if not await _requests.wait_until_possible(self.name, check, timeout):
            raise mach_error(SendCode.TIMED_OUT, "send_possible")

    async def aclose(self) -> None:
        """Close, as anyio calls it; the same as `close`, and never waits."""
        self.close()


class SendOnceRight(_Sender):
    """A right to send exactly one message; dropping it sends a send-once notification instead."""

    __slots__ = ()

    kind = PortRightType.SEND_ONCE
    dispositions: ClassVar[tuple[Disposition, ...]] = (Disposition.MOVE_SEND_ONCE,)

    def send(self, message: Message) -> None:
        """Send, which empties the object; never waits, since it passes the queue limit.

        On failure the right stays with the caller, and otherwise all is as with `SendRight.send`.
        """
        outgoing = send_now(message, self, _MOVE_SEND_ONCE)
        if outgoing is not None:
            outgoing.give_back()
            raise mach_error(SendCode.TIMED_OUT, "mach_msg")

    send_nowait = send  # as a SendRight has it: a reply right is one or the other


class PortSet(Receiver["tuple[ReceiveRight | None, Message]"]):
    """A set of ports that are received from together. Members stay their owners' objects.

    ``async for port, message in port_set`` takes from each member in turn, so that a busy one does
    not keep the others waiting; members may come and go meanwhile. With a message comes the member
    that it was sent to, or None for a port that was not put into the set by `add`.
    """

    __slots__ = ("_members",)

    kind = PortRightType.PORT_SET

    def __init__(self, name: int) -> None:
        self._members: weakref.WeakValueDictionary[int, ReceiveRight] = (
            weakref.WeakValueDictionary()
        )
        super().__init__(name)

    @classmethod
    def allocate(cls) -> PortSet:
        """Make an empty set; the caller owns it. Raises KernError."""
        return cls(_ffi.allocate(PortRightType.PORT_SET))

    def add(self, port: ReceiveRight) -> None:
        """Make a port a member; it may be one of other sets too (mach_port_insert_member).

        A port leaves its sets when it is closed or given away, also if a send of it times out.
        Raises KernError (it is a member already), RightClosedError.
        """
        _ffi.insert_member(port.name, self.name)
        self._members[port.name] = port

    def remove(self, port: ReceiveRight) -> None:
        """Take a port out of the set (mach_port_extract_member). Raises KernError if not in it."""
        _ffi.extract_member(port.name, self.name)
        self._members.pop(port.name, None)

    def _adopt(self, buffer: _ffi.Buffer) -> tuple[ReceiveRight | None, Message]:
        message = adopt(buffer)
        member = self._members.get(message.port)
        return (None if member is None or member.closed else member), message

    def _destroy(self, name: int) -> None:
        _ffi.mod_refs(name, PortRightType.PORT_SET, -1)


def take_reply_port(adapter: _loop.Adapter) -> ReceiveRight:
    """Return an empty port of this loop's that nobody else uses; the caller owns it."""
    idle: list[ReceiveRight] | None = adapter.reply_ports
    return idle.pop() if idle else ReceiveRight.allocate()


def return_reply_port(adapter: _loop.Adapter, port: ReceiveRight) -> None:
    """Take back a port whose one send-once right was used: nothing more can come to it."""
    if adapter.reply_ports is None:
        adapter.reply_ports = []
        adapter.at_close(lambda idle=adapter.reply_ports: _close_all(idle))  # type: ignore[misc]
    idle: list[ReceiveRight] = adapter.reply_ports
    if len(idle) < _IDLE_REPLY_PORTS and adapter.usable():
        idle.append(port)
    else:
        port.close()


def _close_all(ports: list[ReceiveRight]) -> None:
    while ports:
        ports.pop().close()


def _answer(message: Message) -> Message:
    """Return the answer of a call, unless it is the system's word that none will come."""
    if message.id == _DROPPED and message.is_notification:
        message.close()
        raise mach_error(MigCode.SERVER_DIED, "call")
    return message


for _kind in (ReceiveRight, SendRight, SendOnceRight):
    CLASSES[_kind.kind] = _kind
