"""The check-in protocol as a pure state machine: it knows no file, no port and no loop.

The server writes an offer into a pipe: a secret token and the name of its service. The client reads
it and sends one message to the service, the check-in: the token and a port right. Whoever knows the
token has read the pipe; that is all the proof there is, and all that is needed. The check-in is a
simpleroutine of MIG, declared as `ChildPort`.

Both sides are driven from outside. The transitions stand in the two tables; an event that a table
does not list in a state is a mistake of the driver (KeyError).
"""

from __future__ import annotations

import enum
import struct
from typing import Annotated, Any

from . import _wire
from ._migdescriptors import Port
from ._migtypes import Number
from ._subsystem import Subsystem, simpleroutine
from .errors import ProtocolError, ServerGoneError
from .messages import Disposition, PortRightType

try:  # by itself: the module that has it for all brings every hash along
    from _operator import _compare_digest as compare_digest
except ImportError:
    from hmac import compare_digest  # type: ignore[no-redef]


class ChildPort(Subsystem, base=10011):
    """Crashpad's child_port.defs."""

    @simpleroutine
    async def child_port_check_in(
        self,
        token: Annotated[int, Number("uint64_t", "Q")],
        port: Annotated[Any, Port(None, null=True)],
    ) -> None:
        """Give the process that knows the token a right of any kind."""


CHECK_IN = ChildPort.routines["child_port_check_in"]
CHECK_IN_ID = CHECK_IN.id
CHECK_IN_SIZE = CHECK_IN.request.size
TOKEN_SIZE = 8
MAX_NAME = 127  # BOOTSTRAP_MAX_NAME_LEN counts the NUL

_LENGTH = struct.Struct("=I")
_TOKEN = struct.Struct("=Q")

_KINDS = {
    PortRightType.RECEIVE: {Disposition.MOVE_RECEIVE},
    PortRightType.SEND: {Disposition.MOVE_SEND, Disposition.MOVE_SEND_ONCE},
    PortRightType.SEND_ONCE: {Disposition.MOVE_SEND_ONCE},
}


class ServerState(enum.Enum):
    """Where the server is."""

    WAITING = enum.auto()  # for a check-in, or for the pipe's end
    DRAINING = enum.auto()  # the pipe has ended; what was sent before that is still in the queue
    ACCEPTED = enum.auto()  # the right has come
    WRONG_RIGHT = enum.auto()  # a genuine check-in with a right of another kind
    NOBODY = enum.auto()  # the pipe has ended and nobody had checked in


class ServerEvent(enum.Enum):
    """What happens to the server."""

    GENUINE = enum.auto()  # a check-in with the token and the kind of right expected
    WRONG_KIND = enum.auto()  # one with the token, but another kind of right
    STRANGE = enum.auto()  # any other message
    EMPTY = enum.auto()  # the queue has nothing more
    HANG_UP = enum.auto()  # the pipe has no reader any more


_S, _E = ServerState, ServerEvent
SERVER_TABLE: dict[tuple[ServerState, ServerEvent], ServerState] = {
    (_S.WAITING, _E.GENUINE): _S.ACCEPTED,
    (_S.WAITING, _E.WRONG_KIND): _S.WRONG_RIGHT,
    (_S.WAITING, _E.STRANGE): _S.WAITING,
    (_S.WAITING, _E.EMPTY): _S.WAITING,
    (_S.WAITING, _E.HANG_UP): _S.DRAINING,
    (_S.DRAINING, _E.GENUINE): _S.ACCEPTED,
    (_S.DRAINING, _E.WRONG_KIND): _S.WRONG_RIGHT,
    (_S.DRAINING, _E.STRANGE): _S.DRAINING,
    (_S.DRAINING, _E.EMPTY): _S.NOBODY,
    (_S.DRAINING, _E.HANG_UP): _S.DRAINING,
}


class Server:
    """The side that makes the offer and waits.

    token: 8 secret bytes, good for one check-in. name: the service's, 1 to 127 ASCII characters.
    expected: RECEIVE; SEND, which takes a send-once right as well; or SEND_ONCE.
    """

    def __init__(self, token: bytes, name: str, expected: PortRightType) -> None:
        encoded = name.encode("ascii")
        if len(token) != TOKEN_SIZE or not 1 <= len(encoded) <= MAX_NAME:
            raise ValueError("a token has 8 bytes, a service name 1 to 127 characters")
        if expected not in _KINDS:
            raise ValueError(f"{PortRightType(expected)} cannot be checked in")
        self.state: ServerState = ServerState.WAITING
        self.refused = 0
        self._token = token
        self.service_name = name
        self._name = encoded
        self._kinds = _KINDS[expected]
        self._budget = 0

    @property
    def done(self) -> bool:
        """True in the three final states."""
        return self.state not in (ServerState.WAITING, ServerState.DRAINING)

    def offer(self) -> bytes:
        """Return the bytes for the pipe."""
        return self._token + _LENGTH.pack(len(self._name)) + self._name

    def judge(self, message: bytes | memoryview) -> ServerState:
        """Take note of a message (header, descriptors, body); return the new state.

        Only in ACCEPTED is the right in it wanted; in any other the driver destroys the message.
        """
        if not self._is_genuine(message):
            return self.refuse()
        name, disposition = right_of(message)
        real = name not in (_wire.NAME_NULL, _wire.NAME_DEAD)
        fits = real and disposition in self._kinds
        return self._step(ServerEvent.GENUINE if fits else ServerEvent.WRONG_KIND)

    def refuse(self) -> ServerState:
        """Take note of a message that is no check-in; when draining, so many and no more."""
        self.refused += 1
        state = self._step(ServerEvent.STRANGE)
        if state is ServerState.DRAINING:
            self._budget -= 1
            if self._budget <= 0:
                return self._step(ServerEvent.EMPTY)
        return state

    def empty(self) -> ServerState:
        """Take note that the queue is empty."""
        return self._step(ServerEvent.EMPTY)

    def hang_up(self, queued: int) -> ServerState:
        """Take note of the pipe's end, `queued` messages being in the queue.

        A check-in from before the end is among them, so a flood cannot make the drain endless.
        """
        if self.state is ServerState.WAITING:
            self._budget = max(queued, 1)
        return self._step(ServerEvent.HANG_UP)

    def _is_genuine(self, message: bytes | memoryview) -> bool:
        if len(message) != CHECK_IN_SIZE:
            return False
        bits, size, _, _, _, message_id = _wire.HEADER.unpack_from(message)
        (count,) = _wire.COUNT.unpack_from(message, _wire.HEADER_SIZE)
        kind = _wire.PORT_DESCRIPTOR.unpack_from(message, _wire.DESCRIPTORS_AT)[4]
        return (
            bool(bits & _wire.BITS_COMPLEX)
            and size == CHECK_IN_SIZE
            and message_id == CHECK_IN_ID
            and count == 1
            and kind == _wire.PORT_TYPE
            and compare_digest(bytes(message[-TOKEN_SIZE:]), self._token)
        )

    def _step(self, event: ServerEvent) -> ServerState:
        self.state = SERVER_TABLE[self.state, event]
        return self.state


def right_of(message: bytes | memoryview) -> tuple[int, int]:
    """Return name and disposition of the right in a check-in message."""
    name, _, _, disposition, _ = _wire.PORT_DESCRIPTOR.unpack_from(message, _wire.DESCRIPTORS_AT)
    return name, disposition


class ClientState(enum.Enum):
    """Which part of the offer the client reads."""

    TOKEN = "the token"
    LENGTH = "the length of the service name"
    NAME = "the service name"
    READY = "nothing more"
    FAILED = "nothing any more"


class ClientEvent(enum.Enum):
    """What happens to the client."""

    FILLED = enum.auto()  # all bytes of the part are there, and possible
    LIE = enum.auto()  # they are there, and impossible
    END = enum.auto()  # the pipe has ended before


_C, _V = ClientState, ClientEvent
CLIENT_TABLE: dict[tuple[ClientState, ClientEvent], ClientState] = {
    (_C.TOKEN, _V.FILLED): _C.LENGTH,
    (_C.TOKEN, _V.END): _C.FAILED,
    (_C.LENGTH, _V.FILLED): _C.NAME,
    (_C.LENGTH, _V.LIE): _C.FAILED,
    (_C.LENGTH, _V.END): _C.FAILED,
    (_C.NAME, _V.FILLED): _C.READY,
    (_C.NAME, _V.LIE): _C.FAILED,
    (_C.NAME, _V.END): _C.FAILED,
}


class Client:
    """The side that reads the offer and checks in. Reads no byte beyond the offer."""

    def __init__(self) -> None:
        self.state: ClientState = ClientState.TOKEN
        self.name: str = ""
        # How many bytes to read next, at most; 0 when READY. The length is part of any offer.
        self.needed: int = TOKEN_SIZE + _LENGTH.size
        self._size = TOKEN_SIZE  # of the part that is read
        self._part = b""
        self._token = b""

    def feed(self, data: bytes) -> ClientState:
        """Take in at most `needed` bytes from the pipe, none for its end; return the new state.

        Raises ServerGoneError for an end before READY, ProtocolError for what cannot be an offer.
        """
        if len(data) > self.needed:
            raise ValueError("more bytes than are needed")
        if not data:
            self._end()
        self._part += data
        while 0 < self._size <= len(self._part):
            part, self._part = self._part[: self._size], self._part[self._size :]
            self._fill(part)
            self.state = CLIENT_TABLE[self.state, ClientEvent.FILLED]
        after = _LENGTH.size if self.state is ClientState.TOKEN else 0
        self.needed = self._size + after - len(self._part)
        return self.state

    def body(self) -> bytes:
        """Return what follows the descriptor in the check-in message: NDR and the token."""
        if self.state is not ClientState.READY:
            raise ValueError("the offer has not been read")
        return CHECK_IN.request.pack((*_TOKEN.unpack(self._token), None))[1]

    def _fill(self, part: bytes) -> None:
        if self.state is ClientState.TOKEN:
            self._token = part
            self._size = _LENGTH.size
        elif self.state is ClientState.LENGTH:
            (length,) = _LENGTH.unpack(part)
            if not 1 <= length <= MAX_NAME:
                self._lie(f"it announces a service name of {length} characters (1 to {MAX_NAME})")
            self._size = length
        else:
            if not part.isascii() or b"\0" in part:
                self._lie("the service name is not plain ASCII")
            self.name = part.decode("ascii")
            self._size = 0

    def _end(self) -> None:
        where = f"{len(self._part)} of {self._size} bytes of {self.state.value}"
        self.state = CLIENT_TABLE[self.state, ClientEvent.END]
        raise ServerGoneError(f"the handshake's server closed the pipe after {where}")

    def _lie(self, what: str) -> None:
        self.state = CLIENT_TABLE[self.state, ClientEvent.LIE]
        self.needed = 0
        raise ProtocolError(f"the pipe holds no child port handshake: {what}")
