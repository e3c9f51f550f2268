"""The scenarios of the child port handshake, a class each: what is played, and by whom.

A scenario has a coroutine for each role, `server`, `client` and sometimes `attacker`; each runs in
a process of its own (see `programs/play.py`) on the `Stage` it is given, and asserts what its role
must see. Either the server's or the client's process is the parent of the others. `dies` names
the role whose process does not survive, and so cannot count what it holds.

Nobody sleeps: roles wait for one another with `Stage.tell` and `Stage.hear`, and where the order of
two events matters, the functions that they pass through are patched so that it is forced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

import pytest

import machio
from machio import (
    Disposition,
    Message,
    PortRightType,
    ReceiveRight,
    SendOnceRight,
    SendRight,
    _checkin,
    _ffi,
    _loop,
    _pipes,
    bootstrap,
)
from machio._mach import ffi, lib
from machio.codes import KernCode

RECEIVE, SEND, SEND_ONCE = PortRightType.RECEIVE, PortRightType.SEND, PortRightType.SEND_ONCE
MOVE_RECEIVE = Disposition.MOVE_RECEIVE

# No wait in a scenario is meant to reach this; it says which one hung.
LIMIT = 15.0
# What "promptly" means, on a busy machine.
PROMPT = 3.0

CREDENTIALS = struct.Struct("=iII")  # pid, uid, gid

SCENARIOS: dict[str, type[Scenario]] = {}


class Scenario:
    """What is played. A class with `server` and `client` joins SCENARIOS, documented by itself."""

    dies: ClassVar[str | None] = None
    server: ClassVar[Callable[[Stage], Any]]
    client: ClassVar[Callable[[Stage], Any]]

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "server") and hasattr(cls, "client"):
            add(cls.__name__, cls)


def add(name: str, scenario: type[Scenario]) -> None:
    assert scenario.__doc__, f"{name} has nothing to say"
    scenario.server = staticmethod(scenario.server)
    scenario.client = staticmethod(scenario.client)
    SCENARIOS[name] = scenario


def variants(**choices: tuple[str, Any]) -> Callable[[type], None]:
    """Add a scenario for each of the choices: name=(sentence, value); the value is `cls.choice`."""

    def decorate(cls: type) -> None:
        for name, (sentence, value) in choices.items():
            members = {"__doc__": f"{cls.__doc__} {sentence}", "choice": value}
            bases = (cls, Scenario)
            made = type(f"{cls.__name__}_{name}", bases, members)
            for role in ("server", "client", "attacker"):
                if hasattr(cls, role):
                    setattr(made, role, staticmethod(_with(getattr(cls, role), value)))
            add(made.__name__, made)

    return decorate


def _with(part: Callable[..., Any], value: Any) -> Callable[[Stage], Any]:
    return lambda stage: part(stage, value)


class Stage:
    """What a role has: its end of the pipe, and lines to the other roles."""

    def __init__(
        self, role: str, pipe: machio.ChildPortHandshake | int, sides: dict[str, socket.socket]
    ) -> None:
        self.role = role
        self._pipe = pipe
        self._sides = sides
        if isinstance(pipe, int):
            self.consumed = {pipe}
        else:
            self.consumed = {pipe._read_fd, pipe._write_fd}

    # The pipe: the parent has the object, the child an fd.

    async def serve(self, kind: PortRightType, timeout: float | None = LIMIT) -> Any:
        if isinstance(self._pipe, int):
            return await machio.serve_fd(self.take_fd(), kind, timeout)
        return await self._pipe.serve(kind, timeout)

    async def check_in(
        self, right: machio.Right, disposition: Disposition, timeout: float | None = LIMIT
    ) -> None:
        if isinstance(self._pipe, int):
            await machio.check_in_fd(self.take_fd(), right, disposition, timeout)
        else:
            await self._pipe.check_in(right, disposition, timeout)

    def take_fd(self) -> int:
        """Take the end of the pipe; the caller closes it."""
        pipe = self._pipe
        if isinstance(pipe, int):
            self._pipe = -1
            return pipe
        return pipe.server_write_fd() if self.role == "server" else pipe.client_read_fd()

    def close(self) -> None:
        if not isinstance(self._pipe, int):
            self._pipe.close()
        elif self._pipe >= 0:
            os.close(self.take_fd())

    @contextlib.asynccontextmanager
    async def offer(self) -> AsyncIterator[bytes]:
        """Read the offer's bytes as the client; the pipe stays open until the block is left."""
        fd = self.take_fd()
        try:
            data = await asyncio.to_thread(read_offer, fd)
            yield data
        finally:
            os.close(fd)

    # The lines to the others.

    def tell(self, role: str, what: str = "go") -> None:
        with contextlib.suppress(ConnectionError):
            self._sides[role].send(what.encode(), socket.MSG_NOSIGNAL)

    def hear_now(self, role: str) -> str:
        """Wait for what a role tells, and block the loop; "" if the role's process has ended."""
        self._sides[role].settimeout(LIMIT)
        try:
            return self._sides[role].recv(4096).decode()
        except ConnectionError:
            return ""

    async def hear(self, role: str) -> str:
        return await asyncio.to_thread(self.hear_now, role)

    async def hear_pid(self, role: str) -> int:
        """Wait for what a role tells; the kernel says who that is, 0 in another pid namespace."""
        side = self._sides[role]
        side.settimeout(LIMIT)
        space = socket.CMSG_SPACE(CREDENTIALS.size)
        _, control, _, _ = await asyncio.to_thread(side.recvmsg, 4096, space)
        return next(
            CREDENTIALS.unpack(data)[0]
            for level, kind, data in control
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        )


def rights_held() -> set[tuple[int, int, int]]:
    """Return name, type and send urefs of all that the task's name space holds."""
    names, types = ffi.new("mach_port_name_array_t *"), ffi.new("mach_port_type_array_t *")
    counts = ffi.new("mach_msg_type_number_t[2]")
    me = lib.mach_task_self()
    assert lib.mach_port_names(me, names, counts, types, counts + 1) == 0
    held = set()
    for name, kind in zip(names[0][0 : counts[0]], types[0][0 : counts[1]], strict=True):
        try:
            refs = _ffi.get_refs(name, SEND)
        except machio.KernError as error:
            if error.code != KernCode.INVALID_NAME:
                raise
            continue  # gone meanwhile
        held.add((name, kind & 0x1F0000, refs))
    for array, count in ((names[0], counts[0]), (types[0], counts[1])):
        lib.vm_deallocate(me, int(ffi.cast("uintptr_t", array)), count * 4)
    return held


def read_offer(fd: int) -> bytes:
    """Read an offer, blocking."""
    client, data = _checkin.Client(), b""
    while client.needed:
        data += os.read(fd, client.needed)
        client.feed(data[-client.needed :] if len(data) > client.needed else data)
    return data


def name_in(offer: bytes) -> str:
    return offer[12:].decode()


def flipped(offer: bytes) -> bytes:
    """Return an offer with another token."""
    return bytes(byte ^ 0xFF for byte in offer[:8]) + offer[8:]


async def check_in_with(
    offer: bytes, right: machio.Right, disposition: Disposition, timeout: float | None = LIMIT
) -> None:
    """Check in as one who has read `offer` would."""
    read, write = os.pipe()
    os.write(write, offer)
    os.close(write)
    await machio.check_in_fd(read, right, disposition, timeout)


def patched(owner: object, name: str, wrapper: Callable[..., Any]) -> Any:
    """Let `wrapper(original, *arguments)` stand for a function or method."""
    original = getattr(owner, name)

    def call(*arguments: Any, **keywords: Any) -> Any:
        return wrapper(original, *arguments, **keywords)

    return mock.patch.object(owner, name, call)


@contextlib.contextmanager
def promptly() -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < PROMPT


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def use(right: SendRight | SendOnceRight, number: int) -> None:
    """Send a message over a right that has come."""
    if isinstance(right, SendOnceRight):
        right.send(Message(number))
    else:
        await right.send(Message(number), LIMIT)


async def expect_dead(right: SendRight) -> None:
    """Wait until the receive right of a port has been destroyed, and close the send right."""
    with right:
        await right.died(LIMIT)


# --- every kind of right -------------------------------------------------------------------------


class ReceiveRightMoves(Scenario):
    """A receive right; a message queued before the move arrives after it, and others follow."""

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            assert isinstance(port, ReceiveRight)
            for number in range(3):
                assert (await port.receive(LIMIT)).id == number
                stage.tell("client")
            assert await port.no_senders(LIMIT) == 0  # a move resets the make-send count

    async def client(stage):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            await send.send(Message(0), LIMIT)
            await stage.check_in(port, MOVE_RECEIVE)
            assert port.closed
            for number in (1, 2):
                assert await stage.hear("server")
                await send.send(Message(number, b"queued"), LIMIT)
            assert await stage.hear("server")


class SenderAttested(Scenario):
    """Who sent a message is what the kernel says, whoever may see whose pid."""

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            pid = await stage.hear_pid("client")
            with await port.receive(LIMIT) as message:
                assert message.sender.pid == pid
                assert (message.sender.uid, message.sender.gid) == (os.getuid(), os.getgid())
                assert not message.sender.is_kernel

    async def client(stage):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            await stage.check_in(port, MOVE_RECEIVE)
            await send.send(Message(1), LIMIT)
            stage.tell("server")


class BootstrapPort(Scenario):
    """The client's own bootstrap port, as a send right; the server has a name for it already."""

    async def server(stage):
        with await stage.serve(SEND) as right, bootstrap.port() as ours:
            assert isinstance(right, SendRight)
            assert right.name == ours.name

    async def client(stage):
        right = bootstrap.port()
        await stage.check_in(right, Disposition.MOVE_SEND)
        assert right.closed


class SendRightCopied(Scenario):
    """A send right that the client copies and keeps; messages flow, the last one ends its senders."""

    async def server(stage):
        with await stage.serve(SEND) as right:
            await use(right, 5)

    async def client(stage):
        with ReceiveRight.allocate() as port:
            with port.make_send() as send:
                await stage.check_in(send, Disposition.COPY_SEND)
                assert not send.closed
            assert (await port.receive(LIMIT)).id == 5
            await port.no_senders(LIMIT)


class SendRightMade(Scenario):
    """A send right that the message makes from the client's receive right."""

    async def server(stage):
        with await stage.serve(SEND) as right:
            await use(right, 5)

    async def client(stage):
        with ReceiveRight.allocate() as port:
            await stage.check_in(port, Disposition.MAKE_SEND)
            assert (await port.receive(LIMIT)).id == 5
            await port.no_senders(LIMIT)


@variants(
    MovedAsSendOnce=("The server asked for a send-once right.", (SEND_ONCE, False)),
    MadeAsSendOnce=("It is made by the message.", (SEND_ONCE, True)),
    MovedAsSend=("The server asked for a send right and takes it all the same.", (SEND, False)),
)
class SendOnce:
    """A send-once right: using it works, once."""

    async def server(stage, choice):
        right = await stage.serve(choice[0])
        assert isinstance(right, SendOnceRight)
        right.send(Message(9))
        assert right.closed

    async def client(stage, choice):
        with ReceiveRight.allocate() as port:
            if choice[1]:
                await stage.check_in(port, Disposition.MAKE_SEND_ONCE)
            else:
                await stage.check_in(port.make_send_once(), Disposition.MOVE_SEND_ONCE)
            assert (await port.receive(LIMIT)).id == 9
            await stage.hear("server")
            with pytest.raises(machio.ReceiveTimedOut):
                port.receive_nowait()


class TaskPort(Scenario):
    """The client's task port: the server reads its pid from it and learns of its death."""

    dies = "client"

    async def server(stage):
        with await stage.serve(SEND) as task:
            if pid := await stage.hear_pid("client"):
                assert machio.pid_for_task(task) == pid
            else:
                with pytest.raises(machio.KernError):
                    machio.pid_for_task(task)
            stage.tell("client")
            await task.died(LIMIT)

    async def client(stage):
        await stage.check_in(machio.task_self(), Disposition.MOVE_SEND)
        stage.tell("server")
        await stage.hear("server")
        die()


# --- clients that do not check in ------------------------------------------------------------------


async def serve_in_vain(stage: Stage, kind: PortRightType = RECEIVE) -> None:
    with pytest.raises(machio.NoCheckInError):
        await stage.serve(kind)


@variants(
    BeforeTheServerBegins=("It is closed before the server begins.", True),
    WhileTheServerBegins=("", False),
)
class PipeClosedAtOnce:
    """The client closes its end of the pipe at once."""

    async def server(stage, first):
        if first:
            await stage.hear("client")
        with promptly():
            await serve_in_vain(stage)
        stage.tell("client")

    async def client(stage, first):
        stage.close()
        stage.tell("server")
        await stage.hear("server")


class ReadsAndExits(Scenario):
    """The client reads the offer, and exits without checking in."""

    async def server(stage):
        await serve_in_vain(stage)

    async def client(stage):
        async with stage.offer() as offer:
            assert name_in(offer).startswith("org.machio.")


class ExitsWithoutReading(Scenario):
    """The client exits without reading, the offer being in the pipe."""

    async def server(stage):
        def write(original, fd, data):
            written = original(fd, data)
            assert written == len(data)
            stage.tell("client")
            return written

        with patched(_pipes, "write_now", write):
            await serve_in_vain(stage)

    async def client(stage):
        await stage.hear("server")


class NobodyThere(Scenario):
    """There is no client at all any more when the server begins. SIGPIPE is at its default."""

    async def server(stage):
        assert signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL
        assert await stage.hear("client") == ""
        with promptly():
            await serve_in_vain(stage)

    async def client(stage):
        stage.close()
        for side in stage._sides.values():
            side.shutdown(socket.SHUT_RDWR)


class WaitsForEver(Scenario):
    """The client does nothing, and the server's time limit ends the wait."""

    async def server(stage):
        with pytest.raises(machio.HandshakeTimedOut):
            await stage.serve(RECEIVE, 0.05)
        stage.tell("client")

    async def client(stage):
        await stage.hear("server")


# --- tokens and kinds ------------------------------------------------------------------------------


class WrongToken(Scenario):
    """A wrong token: refused, the right destroyed; the wait goes on and fails at the pipe's end."""

    async def server(stage):
        with pytest.raises(machio.NoCheckInError, match=r"\b1\b"):
            await stage.serve(RECEIVE)

    async def client(stage):
        async with stage.offer() as offer:
            with ReceiveRight.allocate() as port:
                send = port.make_send()
                await check_in_with(flipped(offer), port, MOVE_RECEIVE)
            await expect_dead(send)


class WrongThenRightToken(Scenario):
    """A wrong token, then the right one: the right of the second is the server's."""

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            assert (await port.receive(LIMIT)).id == 2

    async def client(stage):
        async with stage.offer() as offer:
            for number, data in ((1, flipped(offer)), (2, offer)):
                with ReceiveRight.allocate() as port, port.make_send() as send:
                    await send.send(Message(number), LIMIT)
                    await check_in_with(data, port, MOVE_RECEIVE)
                    if number == 1:
                        await send.died(LIMIT)


@variants(
    SendForReceive=("A send right for a receive right.", (RECEIVE, SEND)),
    SendOnceForReceive=("A send-once right for a receive right.", (RECEIVE, SEND_ONCE)),
    ReceiveForSend=("A receive right for a send right.", (SEND, RECEIVE)),
    ReceiveForSendOnce=("A receive right for a send-once right.", (SEND_ONCE, RECEIVE)),
    SendForSendOnce=("A send right for a send-once right.", (SEND_ONCE, SEND)),
)
class WrongKind:
    """The right token with a right of the wrong kind: failure, and the right is destroyed."""

    async def server(stage, choice):
        with pytest.raises(machio.WrongRightError):
            await stage.serve(choice[0])

    async def client(stage, choice):
        with ReceiveRight.allocate() as port:
            if choice[1] == RECEIVE:
                send = port.make_send()
                await stage.check_in(port, MOVE_RECEIVE)
                await expect_dead(send)
            elif choice[1] == SEND:
                await stage.check_in(port.make_send(), Disposition.MOVE_SEND)
                await port.no_senders(LIMIT)
            else:
                await stage.check_in(port.make_send_once(), Disposition.MOVE_SEND_ONCE)
                with await port.receive(LIMIT) as message:
                    assert message.is_notification
                    assert message.id == machio.NotificationId.SEND_ONCE


class SecondCheckIn(Scenario):
    """A second check-in with the same token finds no service, and its right stays."""

    async def server(stage):
        with await stage.serve(RECEIVE):
            stage.tell("client")

    async def client(stage):
        async with stage.offer() as offer:
            with ReceiveRight.allocate() as port:
                await check_in_with(offer, port, MOVE_RECEIVE)
            await stage.hear("server")
            with ReceiveRight.allocate() as port, port.make_send() as send:
                with pytest.raises(machio.ServerGoneError):
                    await check_in_with(offer, port, MOVE_RECEIVE)
                await still_works(port, send)


async def still_works(port: ReceiveRight, send: SendRight) -> None:
    """A right that was to be moved is where it was, and works."""
    assert not port.closed
    await send.send(Message(77), LIMIT)
    assert (await port.receive(LIMIT)).id == 77


# --- the race of the check-in and the pipe's end -----------------------------------------------------


def _events_sorted(eof_first: bool) -> Any:
    def events(original, kqueue):
        return sorted(
            original(kqueue), key=lambda event: bool(event[1] & _ffi.EV_EOF), reverse=eof_first
        )

    return patched(_ffi.Kqueue, "events", events)


@variants(
    BeforeTheFirstLook=("The server has not looked at the queue before.", False),
    AfterTheFirstLook=("The server has found the queue empty once.", True),
)
class SentAndClosed:
    """The check-in is sent and the pipe closed before the server looks: it counts."""

    async def server(stage, looked):
        with held_up(stage, looked), await stage.serve(RECEIVE):
            pass

    async def client(stage, looked):
        await check_in_and_close(stage, looked)


@variants(
    PipeFirst=("The end of the pipe is seen first.", True),
    MessageFirst=("The message is seen first.", False),
)
class SeenInOrder:
    """The server waits with an empty queue, then both events come at once: the check-in counts."""

    async def server(stage, eof_first):
        with _events_sorted(eof_first), held_up(stage, True), await stage.serve(RECEIVE):
            pass

    async def client(stage, eof_first):
        await check_in_and_close(stage, True)


class MessageSentByNoReader(Scenario):
    """The client has closed the pipe before it sends; the server has not noticed: it counts."""

    async def server(stage):
        with held_up(stage, True), await stage.serve(RECEIVE):
            pass

    async def client(stage):
        async with stage.offer() as offer:
            await stage.hear("server")
        with ReceiveRight.allocate() as port:
            await check_in_with(offer, port, MOVE_RECEIVE)
        stage.tell("server", "done")


@contextlib.contextmanager
def held_up(stage: Stage, looked: bool) -> Iterator[None]:
    """Stop the server's loop, once, until the client is done: before or after its first look."""
    held = False

    def hold() -> None:
        nonlocal held
        if not held:
            held = True
            stage.tell("client")
            assert stage.hear_now("client") == "done"

    def look(original, queue):
        if not looked:
            hold()
        return original(queue)

    def empty(original, server):
        state = original(server)
        hold()
        return state

    from machio.handshake import _Queue

    with patched(_Queue, "look", look), patched(_checkin.Server, "empty", empty):
        yield
    assert held


async def check_in_and_close(stage: Stage, looked: bool) -> None:
    async with stage.offer() as offer:
        await stage.hear("server")
        with ReceiveRight.allocate() as port:
            await check_in_with(offer, port, MOVE_RECEIVE)
    stage.tell("server", "done")


# --- death -------------------------------------------------------------------------------------------


@variants(
    BeforeReading=("It has read nothing.", 0),
    InTheOffer=("It has read the token.", 1),
    AfterTheOffer=("It has read the offer.", 2),
    AfterLookUp=("It holds a right to the service.", 3),
    WaitingForRoom=("It waits for room in the service's queue.", 4),
)
class ClientKilled:
    """The client is killed with -9 at a step before the check-in."""

    dies = "client"

    async def server(stage, step):
        if step == 4:
            with held_up_until_dead(stage):
                await serve_in_vain(stage)
        else:
            await serve_in_vain(stage)

    async def client(stage, step):
        if step == 1:
            fd = stage.take_fd()
            await asyncio.to_thread(os.read, fd, 8)
        elif step == 2:
            async with stage.offer():
                die()
        elif step == 3:
            async with stage.offer() as offer:
                with await bootstrap.look_up(name_in(offer)):
                    die()
        elif step == 4:
            async with stage.offer() as offer:
                with await bootstrap.look_up(name_in(offer)) as service:
                    await stage.hear("server")
                    with pytest.raises(machio.SendTimedOut):
                        while True:
                            service.send_nowait(Message(1))
                    with ReceiveRight.allocate() as port:
                        waiting = asyncio.create_task(check_in_with(offer, port, MOVE_RECEIVE))
                        await asyncio.sleep(0)
                        with patched(SendRight, "send", lambda *_: die()):
                            await waiting
        die()


@contextlib.contextmanager
def held_up_until_dead(stage: Stage) -> Iterator[None]:
    """Stop the server's loop after its first look until the client's process has ended."""
    held = False

    def empty(original, server):
        nonlocal held
        state = original(server)
        if not held:
            held = True
            stage.tell("client")
            assert stage.hear_now("client") == ""
        return state

    with patched(_checkin.Server, "empty", empty):
        yield


class ClientKilledAfterCheckIn(Scenario):
    """The client is killed with -9 when it has checked in: the right in the message is good."""

    dies = "client"

    async def server(stage):
        with await stage.serve(RECEIVE) as port:
            assert await stage.hear("client") == ""
            assert (await port.receive(LIMIT)).id == 1
            await port.no_senders(LIMIT)

    async def client(stage):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            await send.send(Message(1), LIMIT)
            await stage.check_in(port, MOVE_RECEIVE)
            die()


@variants(
    BeforeItsWrites=("Before its writes.", 0),
    BetweenItsWrites=("Between its writes, the token being in the pipe.", 8),
    InTheLength=("In the length of the name.", 10),
    InTheName=("In the name.", 40),
)
class ServerKilled:
    """The server is killed with -9: the client fails cleanly and keeps the right to be moved."""

    dies = "server"

    async def server(stage, written):
        def write(original, fd, data):
            if written:
                assert original(fd, data[:written]) == written
            die()

        with patched(_pipes, "write_now", write):
            await stage.serve(RECEIVE)

    async def client(stage, written):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            with pytest.raises(machio.ServerGoneError):
                await stage.check_in(port, MOVE_RECEIVE)
            await still_works(port, send)


@variants(
    BeforeLookUp=("Before the client looks the service up.", 0),
    AfterLookUp=("After the client has looked the service up.", 1),
    WhileQueueFull=("While the client waits for room in the service's queue.", 2),
)
class ServerKilledAfterItsWrites:
    """The server is killed with -9 after its writes: the client keeps the right to be moved."""

    dies = "server"

    async def server(stage, step):
        def look(original, queue):
            stage.tell("client")
            stage.hear_now("client")
            die()

        from machio.handshake import _Queue

        with patched(_Queue, "look", look):
            await stage.serve(RECEIVE)

    async def client(stage, step):
        async with stage.offer() as offer:
            await stage.hear("server")
            with contextlib.ExitStack() as stack:
                if step == 0:
                    await end_of_server(stage)
                elif step == 1:
                    stack.enter_context(
                        patched(_ffi, "bootstrap_look_up", _then(lambda: _end_now(stage)))
                    )
                else:
                    service = stack.enter_context(await bootstrap.look_up(name_in(offer)))
                    with pytest.raises(machio.SendTimedOut):
                        while True:
                            service.send_nowait(Message(1))
                    stack.enter_context(patched(machio._requests, "wait_for_room", _told(stage)))
                with ReceiveRight.allocate() as port, port.make_send() as send:
                    with pytest.raises(machio.ServerGoneError):
                        await check_in_with(offer, port, MOVE_RECEIVE)
                    await still_works(port, send)


def _then(what: Callable[[], None]) -> Callable[..., Any]:
    def wrapper(original, *arguments):
        result = original(*arguments)
        what()
        return result

    return wrapper


def _end_now(stage: Stage) -> None:
    stage.tell("server")
    assert stage.hear_now("server") == ""


def _told(stage: Stage) -> Callable[..., Any]:
    async def wrapper(original, *arguments):
        waiting = asyncio.ensure_future(original(*arguments))
        await asyncio.sleep(0)
        stage.tell("server")
        return await waiting

    return wrapper


async def end_of_server(stage: Stage) -> None:
    await asyncio.to_thread(_end_now, stage)


# --- cancellation --------------------------------------------------------------------------------------


def _cancel_while_asked(task, done):
    """While the bootstrap server is asked, in another thread; the right comes after it."""

    def check_in(original, name):
        task.get_loop().call_soon_threadsafe(task.cancel)
        assert done.wait(LIMIT)
        return original(name)

    return patched(_ffi, "bootstrap_check_in", check_in)


def _cancel_when_answered(task, done):
    """When the bootstrap server has answered, in another thread, and the task does not know."""

    def check_in(original, name):
        result = original(name)
        task.get_loop().call_soon_threadsafe(task.cancel)
        assert done.wait(LIMIT)
        return result

    return patched(_ffi, "bootstrap_check_in", check_in)


def _cancel_while_full(task, done):
    """While the pipe has no room for the offer."""

    def write(original, fd, data):
        written = original(fd, data)
        assert written is None
        task.get_loop().call_soon(task.cancel)
        return written

    return patched(_pipes, "write_now", write)


def _cancel_when_written(task, done):
    """When the offer is written."""
    return patched(_pipes, "write_now", _then(lambda: task.get_loop().call_soon(task.cancel)))


def _cancel_when_empty(task, done):
    """When the server has looked at the queue, and waits."""
    return patched(_checkin.Server, "empty", _then(lambda: task.get_loop().call_soon(task.cancel)))


def _cancel_when_come(task, done):
    """When the check-in has come and the server is about to be woken."""

    def fire(original, watch, flags):
        if watch.filter == _ffi.EVFILT_MACHPORT:
            task.cancel()
        original(watch, flags)

    return patched(_loop.Watch, "fire", fire)


def _cancel_when_woken(task, done):
    """When the check-in has come and the server has been woken, but has not run."""

    def fire(original, watch, flags):
        original(watch, flags)
        if watch.filter == _ffi.EVFILT_MACHPORT:
            task.cancel()

    return patched(_loop.Watch, "fire", fire)


@variants(
    **{
        step.__name__.removeprefix("_cancel_"): (step.__doc__, step)
        for step in (
            _cancel_while_asked,
            _cancel_when_answered,
            _cancel_while_full,
            _cancel_when_written,
            _cancel_when_empty,
            _cancel_when_come,
            _cancel_when_woken,
        )
    }
)
class ServerCancelled:
    """The server is cancelled: its service and its pipe are gone, and the client is told."""

    async def server(stage, step):
        done = threading.Event()
        if step is _cancel_while_full:
            fd = stage.take_fd()
            fill(fd)
            work = machio.serve_fd(fd, RECEIVE)
        else:
            work = stage.serve(RECEIVE, None)
        begun = asyncio.Event()

        async def begin():
            await begun.wait()
            return await work

        task = asyncio.create_task(begin())
        task.add_done_callback(lambda _: done.set())
        with contextlib.ExitStack() as stack:
            stack.enter_context(step(task, done))
            if step in (_cancel_when_come, _cancel_when_woken):
                tell = _then(lambda: stage.tell("client"))
                stack.enter_context(patched(_checkin.Server, "empty", tell))
            begun.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            # A call in another thread may still be under way, and has to be cleaned up as well.
            await asyncio.get_running_loop().shutdown_default_executor()
        stage.tell("client")

    async def client(stage, step):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            if step in (_cancel_when_come, _cancel_when_woken):
                await stage.hear("server")  # it has found its queue empty, and waits
                await stage.check_in(port, MOVE_RECEIVE)
                await send.died(LIMIT)
                return
            await stage.hear("server")
            error = machio.ProtocolError if step is _cancel_while_full else machio.ServerGoneError
            with pytest.raises(error):
                await stage.check_in(port, MOVE_RECEIVE)
            await still_works(port, send)


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"\xff" * 4096)
    os.set_blocking(fd, True)


@variants(
    Reading=("It waits for the offer.", 0),
    LookingUp=("It asks the bootstrap server.", 1),
    WaitingForRoom=("It waits for room in the service's queue.", 2),
)
class ClientCancelled:
    """The client is cancelled before the check-in: its right is where it was, the server is told."""

    async def server(stage, step):
        if step == 0:
            await stage.hear("client")
            await serve_in_vain(stage)
        elif step == 1:
            await serve_in_vain(stage)
        else:
            with held_up(stage, False):
                await serve_in_vain(stage)

    async def client(stage, step):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            if step == 0:
                task = asyncio.create_task(stage.check_in(port, MOVE_RECEIVE))
                asyncio.get_running_loop().call_soon(task.cancel)
                with pytest.raises(asyncio.CancelledError):
                    await task
                stage.close()
                stage.tell("server", "done")
                await still_works(port, send)
                return
            done = threading.Event()

            def look_up(original, name):
                result = original(name)
                task.get_loop().call_soon_threadsafe(task.cancel)
                assert done.wait(LIMIT)
                return result

            async def full(original, *arguments):
                asyncio.get_running_loop().call_soon(task.cancel)
                return await original(*arguments)

            async with stage.offer() as offer:
                with contextlib.ExitStack() as stack:
                    if step == 1:
                        stack.enter_context(patched(_ffi, "bootstrap_look_up", look_up))
                    else:
                        await stage.hear("server")
                        service = stack.enter_context(await bootstrap.look_up(name_in(offer)))
                        with pytest.raises(machio.SendTimedOut):
                            while True:
                                service.send_nowait(Message(1))
                        stack.enter_context(patched(machio._requests, "wait_for_room", full))
                    task = asyncio.create_task(check_in_with(offer, port, MOVE_RECEIVE))
                    task.add_done_callback(lambda _: done.set())
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    await still_works(port, send)
            stage.tell("server", "done")


# --- lies in the pipe ----------------------------------------------------------------------------------

_TOKEN = b"8 bytes!"
_GONE, _LIE = machio.ServerGoneError, machio.ProtocolError


@variants(
    Nothing=("Nothing at all, and its end.", (b"", True, _GONE)),
    ShortToken=("A short token, and its end.", (_TOKEN[:7], True, _GONE)),
    TokenOnly=("A token, and its end.", (_TOKEN, True, _GONE)),
    ShortLength=("Half a length, and its end.", (_TOKEN + b"\4\0", True, _GONE)),
    Zero=("A name of no length.", (_TOKEN + bytes(4), False, _LIE)),
    FourGiB=("A name of 4 GiB, and some of it.", (_TOKEN + b"\xff" * 60000, False, _LIE)),
    OneTooMany=("A name of 128.", (_TOKEN + b"\x80\0\0\0" + b"n" * 128, False, _LIE)),
    NotAscii=("A name that is not ASCII.", (_TOKEN + b"\4\0\0\0n\xc3\xa9e", False, _LIE)),
    Nul=("A name with a NUL.", (_TOKEN + b"\4\0\0\0na\0e", False, _LIE)),
    ShortName=("A short name, and its end.", (_TOKEN + b"\7\0\0\0name", True, _GONE)),
    NoService=("A name that nobody has.", (_TOKEN + b"\4\0\0\0nobd", False, _GONE)),
)
class Lies:
    """What the pipe holds is no offer: a clear error at the client, at once, in little memory."""

    async def server(stage, choice):
        data, ends, _ = choice
        fd = stage.take_fd()
        try:
            os.set_blocking(fd, False)
            assert os.write(fd, data) == len(data)
            if not ends:
                await stage.hear("client")
        finally:
            os.close(fd)

    async def client(stage, choice):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            tracemalloc.start()
            try:
                with promptly(), pytest.raises(choice[2]):
                    await stage.check_in(port, MOVE_RECEIVE)
                assert tracemalloc.get_traced_memory()[1] < 2 << 20
            finally:
                tracemalloc.stop()
            stage.tell("server")
            await still_works(port, send)
