"""Messages: an id, bytes, rights, memory, a reply right, and who sent it, as the system attests.

To send, say what the message is made of; rights in it are given away when it is sent::

    Message(7, b"body", rights=[receive_right, (send_right, Disposition.COPY_SEND)], reply=port)

A right without a disposition *moves*: the Python object is emptied. A `ReceiveRight` as the reply
makes a send-once right and stays (MACH_MSG_TYPE_MAKE_SEND_ONCE). What arrives has the rights as new
objects, which the receiver owns; close what is not taken, one by one or all with `Message.close`.

What is too large for the body travels beside it::

    Message(8, b"640x480", memory=[frame])                   # a machio.Memory: moves
    Message(8, b"640x480", memory=[bytes_or_array])          # copied, whatever has a buffer
    Message(9, descriptors=[memory, right, RightArray([right, right])])  # in this order
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from . import _wire
from ._closable import Closable
from .codes import CEnum
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

    from ._right import Right


class Disposition(CEnum, prefix="MACH_MSG_TYPE_"):
    """What a message does with a right of its sender."""

    MOVE_RECEIVE = 16
    MOVE_SEND = 17
    MOVE_SEND_ONCE = 18
    COPY_SEND = 19
    MAKE_SEND = 20
    MAKE_SEND_ONCE = 21


class PortRightType(CEnum, prefix="MACH_PORT_RIGHT_"):
    """The kinds of right that a name can stand for."""

    SEND = 0
    RECEIVE = 1
    SEND_ONCE = 2
    PORT_SET = 3
    DEAD_NAME = 4


class NotificationId(CEnum, prefix="MACH_NOTIFY_"):
    """Ids of the messages that the system sends; believe them only if `Sender.is_kernel`."""

    PORT_DELETED = 65
    SEND_POSSIBLE = 66
    PORT_DESTROYED = 69
    NO_SENDERS = 70
    SEND_ONCE = 71
    DEAD_NAME = 72


# As received, a disposition says what kind of right arrived.
ARRIVES_AS: dict[int, PortRightType] = {
    Disposition.MOVE_RECEIVE: PortRightType.RECEIVE,
    Disposition.MOVE_SEND: PortRightType.SEND,
    Disposition.MOVE_SEND_ONCE: PortRightType.SEND_ONCE,
}

Carried: TypeAlias = "Right | tuple[Right | None, Disposition] | None"

MEMORY_MAX = 0xFFFF_FFFF  # what the size of a descriptor can say


class Payload:
    """What an out-of-line descriptor carries: a `Memory`, a `RightArray`, bytes to be copied."""

    __slots__ = ()

    def close(self) -> None:
        """Give up what the object holds; idempotent."""
        raise NotImplementedError


class Copied(Payload):
    """A buffer of somebody else's, to be copied when it is sent; `Message` makes it of those."""

    __slots__ = ("view",)

    def __init__(self, buffer: Any) -> None:
        self.view: memoryview = memoryview(buffer)

    def __len__(self) -> int:
        return self.view.nbytes

    def close(self) -> None:
        """Let go of the buffer."""
        self.view.release()


class RightArray(Payload):
    """Any number of rights of one kind in one descriptor (MACH_MSG_OOL_PORTS_DESCRIPTOR).

    Without a disposition they move; None is a null right. On arrival `rights` are owned, and the
    disposition says of what kind they are.
    """

    __slots__ = ("disposition", "rights")

    def __init__(
        self, rights: Iterable[Right | None], disposition: Disposition | None = None
    ) -> None:
        # `Any`: see `Message.rights`.
        self.rights: tuple[Any, ...] = tuple(rights)
        if disposition is None:
            kinds = (one.dispositions[0] for one in self.rights if one is not None)
            disposition = next(kinds, Disposition.MOVE_SEND)
        self.disposition: Disposition = disposition

    def close(self) -> None:
        """Close every right that is still in the array; idempotent."""
        for right in self.rights:
            if right is not None:
                right.close()

    def __repr__(self) -> str:
        return f"RightArray({list(self.rights)}, {self.disposition})"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a message, in the words of the kernel: the audit token of the trailer.

    A message of the system itself (a notification) has a token of zeros: `is_kernel`. A process of
    another pid namespace shows pid 0 but never a token of zeros.
    """

    audit_token: tuple[int, ...]

    @property
    def pid(self) -> int:
        """The process id at the time of sending."""
        return self.audit_token[5]

    @property
    def uid(self) -> int:
        """The effective user id at the time of sending."""
        return self.audit_token[1]

    @property
    def gid(self) -> int:
        """The effective group id at the time of sending."""
        return self.audit_token[2]

    @property
    def real_uid(self) -> int:
        """The real user id at the time of sending."""
        return self.audit_token[3]

    @property
    def real_gid(self) -> int:
        """The real group id at the time of sending."""
        return self.audit_token[4]

    @property
    def is_kernel(self) -> bool:
        """True for the system's own messages: every word of the token is zero."""
        return not any(self.audit_token)


def sender_of(trailer: bytes) -> Sender | None:
    """Return the sender that an audit trailer names; None if there is no trailer."""
    return Sender(_wire.AUDIT_TRAILER.unpack(trailer)[5:]) if trailer else None


class Message(Closable):
    """One message, to be sent or received.

    id: msgh_id, a signed 32-bit number. body: bytes; on the wire padded with zeros to a multiple
    of 4, and received so. rights: on arrival a tuple of owned rights, with None for one that was
    null or whose port died on the way. memory: `Memory`, which moves, and buffers, which are
    copied when the message is sent; on arrival a tuple of owned `Memory`. reply: on arrival a
    SendRight or SendOnceRight, or None. port: on arrival the name of the port it was sent to,
    which a set's receiver wants to know.

    descriptors: rights, memory and `RightArray` in their order, instead of rights and memory, which
    are parts of it. Whoever takes rights or memory out of a message assigns what is left.
    """

    __slots__ = ("_trailer", "body", "descriptors", "id", "port", "reply")

    def __init__(
        self,
        id: int,  # noqa: A002 - Mach's own word
        body: bytes | bytearray | memoryview = b"",
        rights: Iterable[Carried] = (),
        reply: Carried = None,
        *,
        memory: Iterable[Buffer] = (),
        descriptors: Iterable[Carried | Payload | Buffer] = (),
        port: int = _wire.NAME_NULL,
        trailer: bytes = b"",
    ) -> None:
        self.id: int = id
        self.body: bytes = body if type(body) is bytes else bytes(body)  # a call less
        # What a received message holds is rights; `Any` spares the receiver an isinstance of each.
        self.descriptors: tuple[Any, ...] = tuple(rights)
        if memory:
            self.descriptors += tuple(map(payload, memory))
        if descriptors:
            if self.descriptors:
                raise UsageError("a message has either descriptors=, or rights= and memory=")
            self.descriptors = tuple(map(_carried, descriptors))
        self.reply: Any = reply
        self.port: int = port
        self._trailer = trailer

    def __repr__(self) -> str:
        parts = [f"id={self.id}", f"body={len(self.body)} bytes"]
        if self.rights:
            parts.append(f"rights={list(self.rights)}")
        if len(self.rights) < len(self.descriptors):
            parts.append(f"out of line={[one for one in self.descriptors if _is_payload(one)]}")
        if self.reply is not None:
            parts.append(f"reply={self.reply}")
        return f"<Message {' '.join(parts)}>"

    @property
    def rights(self) -> tuple[Any, ...]:
        """The rights among the descriptors, those in arrays excepted; may be assigned."""
        if not self.descriptors:
            return ()
        return tuple(one for one in self.descriptors if not _is_payload(one))

    @rights.setter
    def rights(self, rights: Iterable[Carried]) -> None:
        self.descriptors = (*rights, *filter(_is_payload, self.descriptors))

    @property
    def memory(self) -> tuple[Any, ...]:
        """The memory among the descriptors; may be assigned."""
        return tuple(one for one in self.descriptors if is_memory(one))

    @memory.setter
    def memory(self, memory: Iterable[Buffer]) -> None:
        others = (one for one in self.descriptors if not is_memory(one))
        self.descriptors = (*others, *map(payload, memory))

    @property
    def sender(self) -> Sender | None:
        """Who sent it; None for a message that was not received."""
        return sender_of(self._trailer)

    @property
    def seqno(self) -> int | None:
        """The port's number for it, assigned at receive; None if it was not received."""
        if not self._trailer:
            return None
        seqno: int = _wire.AUDIT_TRAILER.unpack(self._trailer)[2]
        return seqno

    @property
    def is_notification(self) -> bool:
        """True if the system itself sent it, as it does all its notifications."""
        return _wire.is_from_kernel(self._trailer)

    def close(self) -> None:
        """Close every right and all memory that is still in the message; idempotent."""
        for carried in (*self.descriptors, self.reply):
            if carried is not None:
                right = carried[0] if isinstance(carried, tuple) else carried
                if right is not None:
                    right.close()


def _is_payload(carried: Any) -> bool:
    return isinstance(carried, Payload)


def is_memory(carried: Any) -> bool:
    """Tell whether a descriptor carries memory: a Memory, or bytes to be copied."""
    return isinstance(carried, Payload) and not isinstance(carried, RightArray)


def payload(memory: Any) -> Payload:
    """Return a Memory, or what has a buffer as something to be copied. Raises UsageError."""
    if isinstance(memory, Payload):
        return memory
    try:
        return Copied(memory)
    except TypeError:
        raise UsageError(f"{memory!r} is neither a Memory nor has it a buffer to copy") from None


def _carried(one: Any) -> Any:
    """Return what a descriptor may carry: a buffer is wrapped, and all else is as it was."""
    if one is None or isinstance(one, (tuple, Payload)) or hasattr(one, "dispositions"):
        return one
    return payload(one)
