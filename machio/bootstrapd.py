"""The bootstrap server for Linux: it keeps names for ports, so that processes can find each other.

It starts by itself with the first process that needs it and leaves when nobody does. To run one
in the foreground and watch it: ``python -m machio.bootstrapd``. docs/bootstrap.md has the protocol,
the directory it lives in and the limits; on macOS launchd does all of this.

The server is an ordinary program of machio: one port, one loop. It is never in the way of messages
between others, and nothing a client sends can make it wait: replies go to send-once rights, which
never block, and whatever has not exactly the shape of a request is dropped with all its rights.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import _ffi
from ._ffi import ffi, lib  # type: ignore[attr-defined]
from ._registry import MOST, Registry, RequestId
from ._wire import NDR
from .codes import BootstrapCode, KernCode, MigCode, explain
from .errors import BadMessageError, MachError, ReceiveError
from .messages import Carried, Disposition, Message, NotificationId
from .ports import ReceiveRight, SendOnceRight, SendRight
from .tracing import name_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

log: logging.Logger = logging.getLogger("machio.bootstrapd")

MOST_PARKED = 256
RECOVERY = 1.0  # seconds in which the tasks of a server that crashed come back
IDLE = 10.0  # seconds without names and without tasks before a server that was started leaves
LISTED_AT_ONCE = 64

NAME_SIZE = 128
REQUEST = struct.Struct(f"=8s{NAME_SIZE}s")
RETURN_CODE = struct.Struct("=8si")
STATUS = struct.Struct("=8sii")
LIST_HEAD = struct.Struct("=8siI")
LIST_ENTRY = struct.Struct(f"=iI{NAME_SIZE}s")
NOTIFICATION = struct.Struct("=8sI")
CREDENTIALS = struct.Struct("=iII")
# How many rights a request has; others have none. Registering none withdraws a declaration.
RIGHTS: dict[RequestId, tuple[int, ...]] = {
    RequestId.CHECK_IN: (1,),
    RequestId.REGISTER: (0, 1),
    RequestId.CREATE_SERVICE: (1,),
}

INHERITED_FROM = 3  # SD_LISTEN_FDS_START
STARTED_BY_A_TASK = "machio-started"  # the name of the socket, in LISTEN_FDNAMES


REPLY = 100

name_ids({one: f"bootstrap {one.name.lower()}" for one in RequestId})
name_ids({one + REPLY: f"bootstrap {one.name.lower()} reply" for one in RequestId})


class StartError(Exception):
    """The server cannot run; the text says why and what to do."""


# --- requests ----------------------------------------------------------------------------------


def parse(message: Message) -> tuple[RequestId, bytes] | None:
    """Return what a message asks for and the name in it, or None if it is no request."""
    try:
        request = RequestId(message.id)
    except ValueError:
        return None
    rights = len(message.rights)
    if rights not in RIGHTS.get(request, (0,)) or len(message.body) != REQUEST.size:
        return None
    if rights != len(message.descriptors):
        return None
    field = REQUEST.unpack(message.body)[1]
    name, end, _ = field.partition(b"\0")
    if not end or (not name and request is not RequestId.LIST):
        return None
    return request, name


def shown(name: bytes) -> str:
    """Return a name fit for a terminal, whatever its owner put into it."""
    return repr(name.decode(errors="backslashreplace"))


def _tell(pid: int, what: RequestId, name: bytes, code: int) -> None:
    if log.isEnabledFor(logging.INFO):
        said = explain(code) if code else "done"
        log.info("pid %d: %s %s: %s", pid, what.name.lower(), shown(name), said)


class Server:
    """The server behind a listening socket, which it owns from here on.

    idle: seconds without names and without tasks after which `run` returns; None: never.
    how_to_leave: MACHIO_LEAVE_UNLINK if the socket is to be removed, 0 if it is systemd's.
    """

    def __init__(
        self, listener: socket.socket, *, idle: float | None, how_to_leave: int, crashed: bool
    ) -> None:
        most = min(MOST, max(_fd_limit() // 2 - 32, 16))
        self.registry: Registry = Registry(
            most, watch=lambda name: self._request(name, NotificationId.DEAD_NAME)
        )
        listener.setblocking(False)
        self._listener = listener
        self._idle = idle
        self._how_to_leave = how_to_leave
        self._port = ReceiveRight.allocate()
        self._port.queue_limit = 1024
        self._attached = False  # some task holds a right to the port
        self._armed = False  # ... and a no-senders notification will tell when none does
        self._changed = asyncio.Event()
        self._stopping = False
        self._parked: list[tuple[bytes, SendOnceRight]] = []
        self._recovery_ends = time.monotonic() + RECOVERY if crashed else 0.0

    def stop(self) -> None:
        """Make `run` return soon."""
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Serve until `stop` or idle. The socket is closed and all rights are given up then."""
        workers = [
            asyncio.create_task(work) for work in (self._welcome(), self._serve(), self._recover())
        ]
        leaving = asyncio.create_task(self._until_time_to_leave())
        try:
            done, _ = await asyncio.wait(
                [leaving, *workers[:2]], return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()  # a worker ends only by an error
        finally:
            for task in (leaving, *workers):
                task.cancel()
            await asyncio.gather(leaving, *workers, return_exceptions=True)
            self._listener.close()
            for _, reply in self._parked:
                reply.close()
            self.registry.close()
            self._port.close()

    # --- coming and going

    async def _until_time_to_leave(self) -> None:
        while True:
            idle = self._idle is not None and not self._attached and not self.registry
            self._changed.clear()
            try:
                async with asyncio.timeout(self._idle if idle else None):
                    await self._changed.wait()
            except TimeoutError:
                if lib.machio_bootstrap_leave(self._listener.fileno(), self._how_to_leave) == 0:
                    log.info("nobody has needed me for %g s: leaving", self._idle)
                    return
            if self._stopping:
                how = self._how_to_leave | lib.MACHIO_LEAVE_NOW
                lib.machio_bootstrap_leave(self._listener.fileno(), how)
                log.info("told to stop: leaving; %d names are forgotten", len(self.registry))
                return

    async def _welcome(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as problem:
                if problem.errno != errno.ECONNABORTED:
                    log.warning("cannot accept a client: %s", problem.strerror)
                    await asyncio.sleep(0.1)  # too many open files: some will be closed
                continue
            with connection:
                self._welcome_one(connection)

    def _welcome_one(self, connection: socket.socket) -> None:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        pid, uid, _ = CREDENTIALS.unpack(raw)
        if uid not in (os.geteuid(), 0):
            log.warning("refused pid %d: it runs as uid %d", pid, uid)
            return
        code = lib.machio_bootstrap_welcome(connection.fileno(), self._port.name)
        if code not in (0, KernCode.ABORTED):
            log.warning("cannot welcome pid %d: %s", pid, explain(code))
        elif code == 0:
            log.info("pid %d is attached", pid)
        self._arm()

    def _arm(self) -> None:
        """See whether any task is attached, and if so ask to be told when none is."""
        before = self._attached
        self._attached = self._armed or bool(self._port.status.has_send_rights)
        if self._attached and not self._armed:
            self._armed = True
            self._request(self._port.name, NotificationId.NO_SENDERS)
        if self._attached != before:
            self._changed.set()

    def _names_changed(self) -> None:
        if not self._attached:  # else it is no time to leave, whatever the names are
            self._changed.set()

    def _request(self, name: int, notification: NotificationId) -> None:
        previous = _ffi.request_notification(
            name, notification, 0, self._port.name, Disposition.MAKE_SEND_ONCE
        )
        if previous:
            _ffi.deallocate(previous)

    # --- requests

    async def _serve(self) -> None:
        while True:
            try:
                message = await self._port.receive()
            except BadMessageError as problem:
                log.info("dropped a message: %s", problem)
                continue
            except ReceiveError as problem:
                log.warning("cannot receive: %s", problem)
                await asyncio.sleep(0.1)  # too many open files: some will be closed
                continue
            with message:
                if message.id == NotificationId.PORT_DESTROYED:
                    self._returned(message)
                elif message.is_notification:
                    self._notified(message)
                else:
                    self._requested(message)

    def _notified(self, message: Message) -> None:
        if message.id == NotificationId.NO_SENDERS:
            self._armed = False
            self._arm()
        elif message.id == NotificationId.DEAD_NAME:
            name = NOTIFICATION.unpack(message.body)[1]
            for gone in self.registry.drop_port(name):
                log.info("%s is free: its port died", shown(gone))
            _ffi.deallocate(name)  # the notification came with a reference
            self._names_changed()

    def _returned(self, message: Message) -> None:
        """Keep the receive right of a declared service whose owner does not want it any more.

        Another task's layer says so, and who else has the receive right may say it as well.
        """
        right = message.rights[0] if len(message.rights) == 1 else None
        if isinstance(right, ReceiveRight) and self.registry.take_back(right):
            message.rights = ()
            self._names_changed()

    def _requested(self, message: Message) -> None:
        request = parse(message)
        sender = message.sender
        if request is None or sender is None or not isinstance(message.reply, SendOnceRight):
            log.info("dropped a message that is no request: %r", message)
            return
        what, name = request
        if what is RequestId.LOOK_UP:
            self._look_up(name, message.reply, sender.pid)
        elif what is RequestId.LIST:
            self._list(name, message.reply)
        elif what is RequestId.STATUS:
            self._status(name, message.reply)
        else:
            self._change(what, name, message, sender.pid)

    def _change(self, what: RequestId, name: bytes, message: Message, pid: int) -> None:
        kept = self.registry.kept(name) if what is RequestId.CHECK_IN else None
        code, carried = 0, None
        if kept is not None:
            code, carried = self._lend(kept)
        elif not message.descriptors:
            self.registry.withdraw(name, pid)
        else:
            code = self._add(what, name, message, pid)
            right = self.registry.look_up(name) if what is RequestId.CREATE_SERVICE else None
            if not code and right is not None:
                carried = (right, Disposition.COPY_SEND)
        _tell(pid, what, name, code)
        body = b"" if carried else RETURN_CODE.pack(NDR, code)
        if self._reply(message.reply, what, body, carried) and kept is not None and kept.closed:
            self.registry.was_checked_in(name, pid)
        self._names_changed()
        if not code:
            self._answer_parked(name)

    def _lend(self, kept: ReceiveRight) -> tuple[int, Carried]:
        """Have a receive right come back when it is destroyed where it goes now."""
        try:
            self._request(kept.name, NotificationId.PORT_DESTROYED)
        except MachError:
            return BootstrapCode.NO_MEMORY, None
        return 0, (kept, Disposition.MOVE_RECEIVE)

    def _add(self, what: RequestId, name: bytes, message: Message, pid: int) -> int:
        right = message.rights[0]
        if right is None:
            return BootstrapCode.NO_MEMORY  # it died on the way
        if not isinstance(right, SendRight) or right.name == self._port.name:
            return MigCode.TYPE_ERROR  # a name of the server's own port would never end
        if what is not RequestId.CREATE_SERVICE:
            code = self.registry.add(name, right, pid, what)
        elif _is_task(right, pid):
            code = self.registry.declare(name, right, pid)
        else:
            return MigCode.TYPE_ERROR
        if not code:
            message.rights = ()
        return code

    def _status(self, name: bytes, reply: SendOnceRight) -> None:
        if self.registry.look_up(name) is None:
            body = RETURN_CODE.pack(NDR, BootstrapCode.UNKNOWN_SERVICE)
        elif self.registry.kept(name) is None:
            body = STATUS.pack(NDR, 0, lib.BOOTSTRAP_STATUS_ACTIVE)
        else:
            body = STATUS.pack(NDR, 0, lib.BOOTSTRAP_STATUS_ON_DEMAND)
        self._reply(reply, RequestId.STATUS, body)

    def _look_up(self, name: bytes, reply: SendOnceRight, pid: int) -> None:
        right = self.registry.look_up(name)
        if right is None and self._may_come_back():
            self._parked.append((name, SendOnceRight(reply.release())))
            return
        code = 0 if right is not None else BootstrapCode.UNKNOWN_SERVICE
        _tell(pid, RequestId.LOOK_UP, name, code)
        self._found(reply, right)

    def _may_come_back(self) -> bool:
        return time.monotonic() < self._recovery_ends and len(self._parked) < MOST_PARKED

    def _found(self, reply: SendOnceRight, right: SendRight | None) -> None:
        if right is None:
            body = RETURN_CODE.pack(NDR, BootstrapCode.UNKNOWN_SERVICE)
            self._reply(reply, RequestId.LOOK_UP, body)
        else:
            self._reply(reply, RequestId.LOOK_UP, b"", (right, Disposition.COPY_SEND))

    def _list(self, after: bytes, reply: SendOnceRight) -> None:
        entries = []
        for name, service in self.registry.after(after):
            entries.append(LIST_ENTRY.pack(service.owner, service.made_by, name))
            if len(entries) == LISTED_AT_ONCE:
                break
        self._reply(reply, RequestId.LIST, LIST_HEAD.pack(NDR, 0, len(entries)) + b"".join(entries))

    def _reply(
        self, to: SendOnceRight, what: RequestId, body: bytes, carried: Carried = None
    ) -> bool:
        """Return whether the reply was sent; if not, a right that was to move is back."""
        try:
            to.send(Message(what + REPLY, body, () if carried is None else (carried,)))
        except MachError as problem:
            log.info("cannot reply: %s", problem)
            to.close()
            return False
        return True

    # --- after a crash

    async def _recover(self) -> None:
        """Let who looks up an unknown name wait while its owner may be about to come back."""
        await asyncio.sleep(max(self._recovery_ends - time.monotonic(), 0))
        while self._parked:
            name, reply = self._parked.pop()
            self._found(reply, self.registry.look_up(name))

    def _answer_parked(self, name: bytes) -> None:
        for parked in [parked for parked in self._parked if parked[0] == name]:
            self._parked.remove(parked)
            self._found(parked[1], self.registry.look_up(name))


def _is_task(right: SendRight, pid: int) -> bool:
    """Return whether a right is to the task port of a process; pid 0 is one that is not seen."""
    try:
        return _ffi.pid_for_task(right.name) == pid
    except MachError:
        return pid == 0


# --- the program -------------------------------------------------------------------------------


def inherited_listener() -> tuple[socket.socket, str] | None:
    """Return the listening socket passed in the manner of systemd, and its name, if there is one.

    The variables that tell of it are removed. Raises StartError if what was passed does not fit.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not pid.isdecimal() or int(pid) != os.getpid() or not count.isdecimal() or int(count) == 0:
        return None
    if int(count) != 1:
        raise StartError(f"{count} sockets were passed in LISTEN_FDS; pass one")
    try:
        listener = socket.socket(fileno=INHERITED_FROM)
    except OSError as problem:
        raise StartError(f"LISTEN_FDS promises a socket at fd 3: {problem.strerror}") from None
    fits = listener.family == socket.AF_UNIX and listener.type == socket.SOCK_SEQPACKET
    if not fits or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise StartError(
            "fd 3 is no listening socket of AF_UNIX, SOCK_SEQPACKET; in a systemd unit"
            " that is ListenSequentialPacket="
        )
    listener.set_inheritable(False)
    return listener, names[0]


def _fail(code: int, what: str) -> NoReturn:
    detail = lib.machio_last_error()
    sentence = os.fsdecode(ffi.string(detail)) if detail else explain(code)
    raise StartError(f"{what}: {sentence}")


def _own_listener() -> socket.socket:
    fd = ffi.new("int *")
    if code := lib.machio_bootstrap_listen(fd):
        _fail(code, "cannot listen")
    return socket.socket(fileno=fd[0])


def _fd_limit() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _raise_fd_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def directory() -> Path:
    """Return the bootstrap directory of this environment. Raises StartError."""
    buffer = ffi.new("char[]", 4096)
    code = lib.machio_bootstrap_directory(buffer, 4096)
    if code == KernCode.NOT_SUPPORTED:
        raise StartError("this system has a bootstrap server of its own")
    if code:
        _fail(code, "there is no bootstrap directory")
    return Path(os.fsdecode(ffi.string(buffer)))


async def _serve(listener: socket.socket, idle: float | None, how_to_leave: int) -> None:
    crashed = ffi.new("int *")
    if code := lib.machio_bootstrap_claim(crashed):
        listener.close()
        _fail(code, "cannot serve")
    if crashed[0]:
        log.info("the server before me died: waiting for the names of its tasks")
    server = Server(listener, idle=idle, how_to_leave=how_to_leave, crashed=bool(crashed[0]))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    await server.run()


def serve(idle: float | None, *, verbose: bool) -> None:
    """Run the server: on a socket that was passed, else in the foreground. Raises StartError."""
    os.umask(0o077)
    _raise_fd_limit()
    inherited = inherited_listener()
    foreground = inherited is None
    logging.basicConfig(
        level=logging.INFO if foreground or verbose else logging.WARNING,
        format="%(asctime)s  %(message)s" if foreground else "%(message)s",
        datefmt="%H:%M:%S",
    )
    path = directory()
    if inherited is None:
        listener, how_to_leave = _own_listener(), lib.MACHIO_LEAVE_UNLINK
        log.info("bootstrap server, pid %d, in %s; Ctrl-C stops it", os.getpid(), path)
    else:
        listener, name = inherited
        how_to_leave = lib.MACHIO_LEAVE_UNLINK if name == STARTED_BY_A_TASK else 0
        idle = IDLE if idle is None else idle
    asyncio.run(_serve(listener, idle, how_to_leave))


def listing(timeout: float = 10.0) -> list[tuple[str, int, str]]:
    """Ask the running server for its names: (name, pid of the owner, how). Raises StartError."""
    if code := lib.machio_bootstrap_connect(0):
        _fail(code, "nothing to list")
    _ffi.mod_refs(_ffi.bootstrap_port(), 0, 1)
    found: list[tuple[str, int, str]] = []
    last = b""
    with SendRight(_ffi.bootstrap_port()) as server, ReceiveRight.allocate() as reply_port:
        while True:
            body = REQUEST.pack(NDR, last)
            request = Message(RequestId.LIST, body, reply=reply_port)
            server.send_blocking(request, timeout)
            with reply_port.receive_blocking(timeout) as reply:
                if reply.id != RequestId.LIST + REPLY or len(reply.body) < LIST_HEAD.size:
                    raise StartError("the bootstrap server does not answer this request")
                count = LIST_HEAD.unpack_from(reply.body)[2]
                entries = list(LIST_ENTRY.iter_unpack(reply.body[LIST_HEAD.size :]))
            for pid, made_by, field in entries:
                last = field.rstrip(b"\0")
                found.append((shown(last), pid, RequestId(made_by).name.lower()))
            if count < LISTED_AT_ONCE:
                return found


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m machio.bootstrapd",
        description="The bootstrap server: names for ports. It starts by itself when it is needed;"
        " run by hand it stays in the foreground and tells what it does.",
        epilog="Environment: MACHIO_BOOTSTRAP is the absolute path of the directory that it lives"
        " in; without it, that is $XDG_RUNTIME_DIR/machio or /tmp/machio-<uid>.",
    )
    parser.add_argument("--directory", metavar="DIR", help="live in DIR, as MACHIO_BOOTSTRAP=DIR")
    parser.add_argument(
        "--idle",
        type=float,
        metavar="SECONDS",
        default=os.environ.get("MACHIO_BOOTSTRAPD_IDLE"),
        help="leave after so long without names and without attached tasks (started by a task or"
        f" by systemd: {IDLE:g}; in the foreground: never). Also MACHIO_BOOTSTRAPD_IDLE",
    )
    parser.add_argument("--list", action="store_true", help="list the running server's names")
    parser.add_argument("-v", "--verbose", action="store_true", help="tell also in the background")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    options = _arguments(arguments)
    if options.directory:
        os.environ["MACHIO_BOOTSTRAP"] = str(Path(options.directory).absolute())
    try:
        if options.list:
            directory()
            for name, pid, how in listing():
                print(f"{name}  pid {pid}  {how}")
        else:
            serve(options.idle, verbose=options.verbose)
    except StartError as problem:
        print(f"machio.bootstrapd: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
