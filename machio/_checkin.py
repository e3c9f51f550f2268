"""The check-in protocol as a pure state machine: it knows no file, no port and no loop.

The server writes an offer into a pipe: a secret token and the name of its service. The client reads
it and sends one message to the service, the check-in: the token and a port right. Whoever knows the
token has read the pipe; that is all the proof there is, and all that is needed.

The check-in has the bytes of a simpleroutine of MIG, Crashpad's child_port_check_in: the right,
NDR, and the token as a uint64_t. It is not declared as one (tests/test_checkin.py does): to import
MIG costs a child more than all else that it needs to check in.

Both sides are driven from outside. The transitions stand in the two tables; an event that a table
does not list in a state is a mistake of the driver (KeyError).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from . import _wire, tracing
from .errors import ProtocolError, ServerGoneError
from .messages import Disposition, PortRightType

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    # Where the server is.
    ServerState: TypeAlias = Literal[
        "waiting",  # for a check-in, or for the pipe's end
        "draining",  # the pipe has ended; what was sent before that is still in the queue
        "accepted",  # the right has come
        "wrong right",  # a genuine check-in with a right of another kind
        "nobody",  # the pipe has ended and nobody had checked in
    ]
    # What happens to the server.
    ServerEvent: TypeAlias = Literal[
        "genuine",  # a check-in with the token and the kind of right expected
        "wrong kind",  # one with the token, but another kind of right
        "strange",  # any other message
        "empty",  # the queue has nothing more
        "hang up",  # the pipe has no reader any more
    ]
    # Which part of the offer the client reads.
    ClientState: TypeAlias = Literal[
        "token",
        "length",  # of the service name
        "name",
        "ready",  # none: it has been read
        "failed",  # none any more
    ]
    # What happens to the client.
    ClientEvent: TypeAlias = Literal[
        "filled",  # all bytes of the part are there, and possible
        "lie",  # they are there, and impossible
        "end",  # the pipe has ended before
    ]

try:  # by itself: the module that has it for all brings every hash along
    from _operator import _compare_digest as compare_digest
except ImportError:
    from hmac import compare_digest  # type: ignore[no-redef]

TOKEN_SIZE = 8
MAX_NAME = 127  # BOOTSTRAP_MAX_NAME_LEN counts the NUL
CHECK_IN_ID = 10011
CHECK_IN_SIZE = _wire.size_of(_wire.PORT_DESCRIPTOR.size, len(_wire.NDR) + TOKEN_SIZE)
tracing.name_ids({CHECK_IN_ID: "ChildPort.child_port_check_in"})

_LENGTH = struct.Struct("=I")

_KINDS = {
    PortRightType.RECEIVE: {Disposition.MOVE_RECEIVE},
    PortRightType.SEND: {Disposition.MOVE_SEND, Disposition.MOVE_SEND_ONCE},
    PortRightType.SEND_ONCE: {Disposition.MOVE_SEND_ONCE},
}

SERVER_TABLE: dict[tuple[ServerState, ServerEvent], ServerState] = {
    ("waiting", "genuine"): "accepted",
    ("waiting", "wrong kind"): "wrong right",
    ("waiting", "strange"): "waiting",
    ("waiting", "empty"): "waiting",
    ("waiting", "hang up"): "draining",
    ("draining", "genuine"): "accepted",
    ("draining", "wrong kind"): "wrong right",
    ("draining", "strange"): "draining",
    ("draining", "empty"): "nobody",
    ("draining", "hang up"): "draining",
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
        self.state: ServerState = "waiting"
        self.refused = 0
        self._token = token
        self.service_name = name
        self._name = encoded
        self._kinds = _KINDS[expected]
        self._budget = 0

    @property
    def done(self) -> bool:
        """True in the three final states."""
        return self.state not in ("waiting", "draining")

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
        return self._step("genuine" if fits else "wrong kind")

    def refuse(self) -> ServerState:
        """Take note of a message that is no check-in; when draining, so many and no more."""
        self.refused += 1
        state = self._step("strange")
        if state == "draining":
            self._budget -= 1
            if self._budget <= 0:
                return self._step("empty")
        return state

    def empty(self) -> ServerState:
        """Take note that the queue is empty."""
        return self._step("empty")

    def hang_up(self, queued: int) -> ServerState:
        """Take note of the pipe's end, `queued` messages being in the queue.

        A check-in from before the end is among them, so a flood cannot make the drain endless.
        """
        if self.state == "waiting":
            self._budget = max(queued, 1)
        return self._step("hang up")

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


CLIENT_TABLE: dict[tuple[ClientState, ClientEvent], ClientState] = {
    ("token", "filled"): "length",
    ("token", "end"): "failed",
    ("length", "filled"): "name",
    ("length", "lie"): "failed",
    ("length", "end"): "failed",
    ("name", "filled"): "ready",
    ("name", "lie"): "failed",
    ("name", "end"): "failed",
}


class Client:
    """The side that reads the offer and checks in. Reads no byte beyond the offer."""

    def __init__(self) -> None:
        self.state: ClientState = "token"
        self.name: str = ""
        # How many bytes to read next, at most; 0 when ready. The length is part of any offer.
        self.needed: int = TOKEN_SIZE + _LENGTH.size
        self._size = TOKEN_SIZE  # of the part that is read
        self._part = b""
        self._token = b""

    def feed(self, data: bytes) -> ClientState:
        """Take in at most `needed` bytes from the pipe, none for its end; return the new state.

        Raises ServerGoneError for an end too early, ProtocolError for what cannot be an offer.
        """
        if len(data) > self.needed:
            raise ValueError("more bytes than are needed")
        if not data:
            self._end()
        self._part += data
        while 0 < self._size <= len(self._part):
            part, self._part = self._part[: self._size], self._part[self._size :]
            self._fill(part)
            self.state = CLIENT_TABLE[self.state, "filled"]
        after = _LENGTH.size if self.state == "token" else 0
        self.needed = self._size + after - len(self._part)
        return self.state

    def body(self) -> bytes:
        """Return what follows the descriptor in the check-in message: NDR and the token."""
        if self.state != "ready":
            raise ValueError("the offer has not been read")
        return _wire.NDR + self._token

    def _fill(self, part: bytes) -> None:
        if self.state == "token":
            self._token = part
            self._size = _LENGTH.size
        elif self.state == "length":
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
        where = f"{len(self._part)} of {self._size} bytes of the offer's {self.state}"
        self.state = CLIENT_TABLE[self.state, "end"]
        raise ServerGoneError(f"the handshake's server closed the pipe after {where}")

    def _lie(self, what: str) -> None:
        self.state = CLIENT_TABLE[self.state, "lie"]
        self.needed = 0
        raise ProtocolError(f"the pipe holds no child port handshake: {what}")
