"""The only importer of `machio._mach`: thin, typed helpers around Mach's calls.

Names are plain integers here and belong to whoever holds them. Every helper that can fail raises
the `MachError` of what Mach returned; the two halves of `mach_msg` return the code instead, since
their callers decide by it. No helper blocks unless it is given a timeout other than zero.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from machio._mach import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SEND: int = lib.MACH_SEND_MSG
SEND_TIMEOUT: int = lib.MACH_SEND_TIMEOUT
SEND_INTERRUPT: int = lib.MACH_SEND_INTERRUPT
RECEIVE_TIMEOUT: int = lib.MACH_RCV_TIMEOUT
RECEIVE_INTERRUPT: int = lib.MACH_RCV_INTERRUPT
RECEIVE_LARGE: int = lib.MACH_RCV_LARGE
# Every receive asks for the audit trailer: it is how a message tells who sent it.
RECEIVE: int = lib.MACH_RCV_MSG | (lib.MACH_RCV_TRAILER_AUDIT << 24)
RECEIVE_NOW: int = RECEIVE | RECEIVE_TIMEOUT | RECEIVE_LARGE
RECEIVED_LAST: int = lib.MACHIO_RECEIVED_LAST
SEND_NOW: int = SEND | SEND_TIMEOUT

TYPE_DEAD_NAME: int = lib.MACH_PORT_TYPE_DEAD_NAME

BUFFER_SIZE = 16 * 1024
_WORDS = 16  # notifications that are taken at a time


class Buffer:
    """Memory for one message: `header` is what mach_msg takes, `view` what Python reads."""

    __slots__ = ("_memory", "header", "size", "view")

    def __init__(self, size: int) -> None:
        self._memory = ffi.new("char[]", size)
        self.header: Any = ffi.cast("mach_msg_header_t *", self._memory)
        self.view: Any = ffi.buffer(self._memory)  # like a memoryview, but its slices are bytes
        self.size = size


# Buffers of the usual size that nobody uses. A pool rather than one buffer a thread: a signal
# handler or a finalizer may send in between. What each message goes through saves itself the calls.
pool: deque[Buffer] = deque(maxlen=8)


def take_buffer(size: int = BUFFER_SIZE) -> Buffer:
    """Return a buffer of at least `size` bytes that nobody else uses."""
    if size > BUFFER_SIZE:
        return Buffer(size)
    try:
        return pool.pop()
    except IndexError:
        return Buffer(BUFFER_SIZE)


def return_buffer(buffer: Buffer) -> None:
    """Take back what `take_buffer` gave."""
    if buffer.size == BUFFER_SIZE:
        pool.append(buffer)


# A fork makes the child a new task with an empty name space. Whoever holds a name remembers the
# number of the space it belongs to, and neither uses nor releases it in another.
space = 0


def _begin_new_space() -> None:
    global space
    space += 1


os.register_at_fork(after_in_child=_begin_new_space)


def task_self() -> int:
    """Return the task's own name for itself; no uref is added (mach_task_self)."""
    name: int = lib.mach_task_self()
    return name


def bootstrap_port() -> int:
    """Return the name of the send right to the bootstrap server; no uref is added."""
    name: int = lib.bootstrap_port
    return name


def _check(number: int, call: str) -> None:
    if number:
        from .errors import mach_error  # here, for a program that starts without it

        raise mach_error(number, call)


def allocate(right: int) -> int:
    """Make a receive right or a port set; the caller owns it (mach_port_allocate)."""
    name = ffi.new("mach_port_name_t *")
    _check(lib.mach_port_allocate(lib.mach_task_self(), right, name), "mach_port_allocate")
    return int(name[0])


def deallocate(name: int) -> None:
    """Drop one uref of a send, send-once or dead name; NULL and DEAD are ignored."""
    _check(lib.mach_port_deallocate(lib.mach_task_self(), name), "mach_port_deallocate")


def mod_refs(name: int, right: int, delta: int) -> None:
    """Change the urefs that `name` holds of one kind of right (mach_port_mod_refs)."""
    _check(lib.mach_port_mod_refs(lib.mach_task_self(), name, right, delta), "mach_port_mod_refs")


def get_refs(name: int, right: int) -> int:
    """Return the urefs that `name` holds of one kind of right (mach_port_get_refs)."""
    refs = ffi.new("mach_port_urefs_t *")
    _check(lib.mach_port_get_refs(lib.mach_task_self(), name, right, refs), "mach_port_get_refs")
    return int(refs[0])


def port_type(name: int) -> int:
    """Return the MACH_PORT_TYPE bits of what `name` stands for (mach_port_type)."""
    kind = ffi.new("mach_port_type_t *")
    _check(lib.mach_port_type(lib.mach_task_self(), name, kind), "mach_port_type")
    return int(kind[0])


def names() -> list[int]:
    """Return every name of the task's name space (mach_port_names)."""
    arrays = [ffi.new("mach_port_name_array_t *"), ffi.new("mach_port_type_array_t *")]
    counts = [ffi.new("mach_msg_type_number_t *") for _ in arrays]
    code = lib.mach_port_names(lib.mach_task_self(), arrays[0], counts[0], arrays[1], counts[1])
    _check(code, "mach_port_names")
    found = list(ffi.unpack(arrays[0][0], counts[0][0])) if counts[0][0] else []
    for array, count in zip(arrays, counts, strict=True):
        free_memory(int(ffi.cast("uintptr_t", array[0])), 4 * count[0])
    return found


def is_dead(name: int) -> bool:
    """Return whether `name` is a dead name."""
    return bool(port_type(name) & TYPE_DEAD_NAME)


def insert_right(name: int, poly: int, disposition: int) -> None:
    """Put a right made or taken from `poly` under `name` (mach_port_insert_right)."""
    code = lib.mach_port_insert_right(lib.mach_task_self(), name, poly, disposition)
    _check(code, "mach_port_insert_right")


def extract_right(name: int, disposition: int) -> int:
    """Make or take a right from `name`; the caller owns it under the name returned."""
    poly = ffi.new("mach_port_t *")
    kind = ffi.new("mach_msg_type_name_t *")
    code = lib.mach_port_extract_right(lib.mach_task_self(), name, disposition, poly, kind)
    _check(code, "mach_port_extract_right")
    return int(poly[0])


def insert_member(member: int, port_set: int) -> None:
    """Add a receive right to a port set, its other memberships untouched."""
    code = lib.mach_port_insert_member(lib.mach_task_self(), member, port_set)
    _check(code, "mach_port_insert_member")


def extract_member(member: int, port_set: int) -> None:
    """Remove a receive right from a port set."""
    code = lib.mach_port_extract_member(lib.mach_task_self(), member, port_set)
    _check(code, "mach_port_extract_member")


def receive_status(name: int) -> tuple[int, ...]:
    """Return the ten words of mach_port_status_t in their order (mach_port_get_attributes)."""
    words = ffi.new("integer_t[10]")
    count = ffi.new("mach_msg_type_number_t *", 10)
    code = lib.mach_port_get_attributes(
        lib.mach_task_self(), name, lib.MACH_PORT_RECEIVE_STATUS, words, count
    )
    _check(code, "mach_port_get_attributes")
    return tuple(words)


def set_queue_limit(name: int, limit: int) -> None:
    """Set how many messages the port queues before senders wait (mach_port_set_attributes)."""
    words = ffi.new("integer_t[1]", [limit])
    code = lib.mach_port_set_attributes(
        lib.mach_task_self(), name, lib.MACH_PORT_LIMITS_INFO, words, 1
    )
    _check(code, "mach_port_set_attributes")


def request_notification(name: int, message_id: int, sync: int, notify: int, poly: int) -> int:
    """Register or (notify 0) cancel a request (mach_port_request_notification).

    Returns the send-once right registered before, which the caller owns, or 0.
    """
    previous = ffi.new("mach_port_t *")
    code = lib.mach_port_request_notification(
        lib.mach_task_self(), name, message_id, sync, notify, poly, previous
    )
    _check(code, "mach_port_request_notification")
    return int(previous[0])


def request_room(name: int, notify: int, kqueue: Kqueue, sleeper: int) -> int:
    """Ask to be told of room, at once if there is some; in turn with others who ask so.

    Whoever has asked and sends nothing calls `pass_room`. sleeper: the epoll that the loop sleeps
    in, or -1. Returns as `request_notification`. Mach: MACH_NOTIFY_SEND_POSSIBLE, sync.
    """
    previous = ffi.new("mach_port_t *")
    code = lib.machio_request_room(name, notify, kqueue.fd, sleeper, previous)
    _check(code, "mach_port_request_notification")
    return int(previous[0])


def pass_room(name: int) -> None:
    """Let the next who waits for room have this task's turn, if it has come."""
    lib.machio_pass_room(name)


def notifications(port: int) -> list[int]:
    """Take the system's notifications off a port, without waiting.

    Each is its id << 32, and the name or the count that it tells. Messages that are not the
    system's are destroyed.
    """
    words = ffi.new("uint64_t[]", _WORDS)
    found: list[int] = []
    while True:
        count = lib.machio_notifications(port, words, _WORDS)
        found += ffi.unpack(words, count)  # type: ignore[arg-type]
        if count < _WORDS:
            return found


def allocate_memory(size: int) -> int:
    """Return the address of pages of zeros, which the caller owns (machio_memory_allocate)."""
    address = ffi.new("mach_vm_address_t *")
    _check(lib.machio_memory_allocate(size, address), "machio_memory_allocate")
    return int(address[0])


def free_memory(address: int, size: int) -> None:
    """Free pages: allocated ones, or received out-of-line memory (mach_vm_deallocate)."""
    lib.mach_vm_deallocate(lib.mach_task_self(), address, size)


def pages(address: int, end: Callable[[object], None]) -> object:
    """Return an object that stands for pages; `end` is called when nobody holds it any more."""
    return ffi.gc(ffi.cast("char *", address), end)


def view(pages: object, size: int) -> memoryview:
    """Return a writable view of pages, which holds them."""
    return memoryview(ffi.buffer(pages, size))


class Pinned:
    """What a message points to while it is sent: another object's bytes, or an array of names."""

    __slots__ = ("_data", "address")

    def __init__(self, data: Any) -> None:
        self._data = data
        self.address = int(ffi.cast("uintptr_t", data))

    @classmethod
    def buffer(cls, data: memoryview) -> Pinned:
        """Hold a buffer. Raises BufferError or ValueError if it is not in one piece."""
        return cls(ffi.from_buffer(data))

    @classmethod
    def names(cls, names: list[int]) -> Pinned:
        """Make an array of names."""
        return cls(ffi.new("mach_port_name_t[]", names))


def read_names(address: int, count: int) -> list[int]:
    """Return the names in an array that a message brought."""
    names: Any = ffi.cast("mach_port_name_t *", address)
    return [names[index] for index in range(count)]


def pid_for_task(name: int) -> int:
    """Return the pid of the task whose task port `name` is (pid_for_task)."""
    pid = ffi.new("int *")
    _check(lib.pid_for_task(name, pid), "pid_for_task")
    return int(pid[0])


def fileport_makeport(fd: int) -> int:
    """Return the name of a new right to the open file behind `fd` (fileport_makeport)."""
    name = ffi.new("mach_port_t *")
    if lib.fileport_makeport(fd, name) < 0:
        raise OSError(ffi.errno, f"fileport_makeport: {os.strerror(ffi.errno)}")
    return int(name[0])


def fileport_makefd(name: int) -> int:
    """Return a new descriptor for the open file that a right stands for (fileport_makefd)."""
    fd = int(lib.fileport_makefd(name))
    if fd < 0:
        raise OSError(ffi.errno, f"fileport_makefd: {os.strerror(ffi.errno)}")
    return fd


# Calls without a wrapper: what every message goes through. `Buffer.header` is what they take.
#
# compose_and_send(header, bits, remote, local, id, payload, size, option, milliseconds): lay out a
# message in a buffer that has room for it, and send it.
# receive_now(header, option, size, name): receive without waiting; the code is RECEIVED_LAST if
# nothing more is queued, and a kqueue that watches `name` tells of what comes next.
compose_and_send: Callable[[Any, int, int, int, int, bytes, int, int, int], int] = lib.machio_send
receive_now: Callable[[Any, int, int, int], int] = lib.machio_receive_now


def send(buffer: Buffer, option: int, milliseconds: int = 0) -> int:
    """Send the message in `buffer`; returns the code. Ownership as of mach_msg, SEND half."""
    code: int = lib.mach_msg(buffer.header, option, buffer.header.msgh_size, 0, 0, milliseconds, 0)
    return code


def receive(buffer: Buffer, name: int, option: int, milliseconds: int = 0) -> int:
    """Receive from a port or set into `buffer`; returns the code. The caller owns what arrived."""
    code: int = lib.mach_msg(buffer.header, option, 0, buffer.size, name, milliseconds, 0)
    return code


def destroy(buffer: Buffer) -> None:
    """Release every right and all memory of the message in `buffer` (mach_msg_destroy)."""
    lib.mach_msg_destroy(buffer.header)


def last_error() -> str:
    """Return what this thread's last failure was, where its code says too little; or nothing."""
    sentence = lib.machio_last_error()
    return cast("bytes", ffi.string(sentence)).decode(errors="replace") if sentence else ""


def _bootstrap(number: int, call: str) -> None:
    if number:
        from .errors import bootstrap_error

        raise bootstrap_error(number, call, last_error())


def bootstrap_check_in(name: bytes) -> int:
    """Return the receive right of the service, which the caller owns. May block."""
    port = ffi.new("mach_port_t *")
    code = lib.bootstrap_check_in(lib.bootstrap_port, name, port)
    _bootstrap(code, f"bootstrap_check_in({name.decode()!r})")
    return int(port[0])


def bootstrap_look_up(name: bytes) -> int:
    """Return a send right to the service, which the caller owns. May block."""
    port = ffi.new("mach_port_t *")
    code = lib.bootstrap_look_up(lib.bootstrap_port, name, port)
    _bootstrap(code, f"bootstrap_look_up({name.decode()!r})")
    return int(port[0])


def bootstrap_register(name: bytes, port: int) -> None:
    """Give the bootstrap server a copy of a send right under a service name. May block."""
    code = lib.bootstrap_register(lib.bootstrap_port, name, port)
    _bootstrap(code, f"bootstrap_register({name.decode()!r})")


# What is asked for in two halves, and the call that it is otherwise.
ASK_CHECK_IN: int = lib.MACHIO_ASK_CHECK_IN
ASK_REGISTER: int = lib.MACHIO_ASK_REGISTER
ASK_LOOK_UP: int = lib.MACHIO_ASK_LOOK_UP
_ASKED = {
    ASK_CHECK_IN: "bootstrap_check_in",
    ASK_REGISTER: "bootstrap_register",
    ASK_LOOK_UP: "bootstrap_look_up",
}


def bootstrap_knock() -> int | None:
    """Return a connection to a server that listens, which the caller owns; never waits for it.

    None: there is none, or another reason to make the call that may block.
    """
    fd = ffi.new("int *")
    return None if lib.machio_bootstrap_knock(fd) else int(fd[0])


def bootstrap_enter(fd: int) -> bool | None:
    """Take the server's right from the connection, which stays the caller's. Never blocks.

    None: it has not come; False: nor will it.
    """
    code = lib.machio_bootstrap_enter(fd)
    return None if code == lib.MACH_RCV_TIMED_OUT else not code


def bootstrap_ask(what: int, name: bytes, port: int, reply: int) -> int | None:
    """Send a request, to be answered at the receive right `reply`; never blocks.

    Returns what `bootstrap_answer` wants to know of the connection; None: nothing was sent, and
    the call that may block is to be made.
    """
    connection = ffi.new("unsigned int *")
    if lib.machio_bootstrap_ask(what, name, port, reply, connection):
        return None
    return int(connection[0])


def bootstrap_answer(what: int, name: bytes, port: int, reply: int, connection: int) -> int | None:
    """Return the right that the answer brings, or `port`; the caller owns it. Never blocks.

    None: the answer has not come; 0: nor will it, since the server has died.
    """
    found = ffi.new("mach_port_t *")
    code = lib.machio_bootstrap_answer(what, name, port, reply, connection, found)
    if code == 0:
        return int(found[0])
    if code == lib.MACH_RCV_TIMED_OUT:
        return None
    if code != lib.MIG_SERVER_DIED:
        _bootstrap(code, f"{_ASKED[what]}({name.decode()!r})")
    return 0


class Kqueue:
    """A kqueue and its fd. `change` may be called from any thread, `events` by one at a time."""

    BATCH = 64

    def __init__(self) -> None:
        self.fd: int = lib.kqueue()
        if self.fd < 0:
            raise OSError(ffi.errno, f"kqueue: {os.strerror(ffi.errno)}")
        self._words = ffi.new("uint64_t[]", self.BATCH)
        self._now = ffi.new("struct timespec *")

    def change(self, ident: int, event_filter: int, flags: int, udata: int = 0) -> None:
        """Register or delete one event. Raises OSError."""
        change = ffi.new(
            "struct kevent64_s *",
            {"ident": ident, "filter": event_filter, "flags": flags, "udata": udata},
        )
        if lib.kevent64(self.fd, change, 1, ffi.NULL, 0, 0, self._now) < 0:
            raise OSError(ffi.errno, f"kevent64: {os.strerror(ffi.errno)}")

    def watch_end(self, fd: int, udata: int) -> None:
        """Register EVFILT_WRITE of `fd` for the end of its readers alone, where that is possible.

        Raises OSError.
        """
        if lib.machio_watch_end(self.fd, fd, udata) < 0:
            raise OSError(ffi.errno, f"kevent64: {os.strerror(ffi.errno)}")

    def events(self) -> Sequence[int]:
        """Return what has happened, at most BATCH events at a time, without waiting.

        Each is its udata, which was registered as an even number, plus 1 at the end of a file.
        """
        count = lib.machio_events(self.fd, self._words, self.BATCH)
        if count == 1:
            return (self._words[0],)
        return cast("Sequence[int]", ffi.unpack(self._words, count)) if count > 0 else ()

    def close(self) -> None:
        """Close the fd; idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


EVFILT_MACHPORT: int = lib.EVFILT_MACHPORT
EVFILT_READ: int = lib.EVFILT_READ
EVFILT_WRITE: int = lib.EVFILT_WRITE
EV_ADD: int = lib.EV_ADD
EV_CLEAR: int = lib.EV_CLEAR
EV_DELETE: int = lib.EV_DELETE
EV_ONESHOT: int = lib.EV_ONESHOT


def _name_the_bootstrap_server() -> None:
    """Have the server, should it be started, run in this interpreter with this machio."""
    # Without it, some python3 of PATH would run, which need not have machio. Embedded: no name.
    if sys.executable:
        command = (sys.executable, "-P", "-m", "machio.bootstrapd")
        words = [ffi.new("char[]", os.fsencode(word)) for word in command]
        _check(lib.machio_set_bootstrap_command([*words, ffi.NULL]), "machio_set_bootstrap_command")


_name_the_bootstrap_server()
