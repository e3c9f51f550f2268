"""Either side is cancelled, at each step: nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

import pytest

import machio
from machio import (
    Message,
    ReceiveRight,
    _checkin,
    _ffi,
    _loop,
    _pipes,
    bootstrap,
)

from .acts import (
    MOVE_RECEIVE,
    RECEIVE,
    check_in_with,
    held_up,
    later,
    name_in,
    patched,
    serve_in_vain,
    still_works,
    then,
)
from .stage import LIMIT, variants


def _cancel_while_asked(task, done):
    """While the bootstrap server is asked; its answer comes to nobody."""
    return patched(_ffi, "bootstrap_ask", then(task.cancel))


def _cancel_when_answered(task, done):
    """When the bootstrap server has answered, and the task does not know."""

    def fire(original, watch, flags, *, at_once):
        task.cancel()
        original(watch, flags, at_once=at_once)

    return patched(_loop.Watch, "fire", fire)


@contextlib.contextmanager
def in_a_thread(name, call):
    """Have a call of the bootstrap server's made in another thread, by `call(original, name)`."""
    with patched(_ffi, "bootstrap_ask", lambda *_: None), patched(_ffi, name, call):
        yield


def _cancel_while_called(task, done):
    """While the bootstrap server is called in another thread; the right comes after it."""

    def check_in(original, name):
        task.get_loop().call_soon_threadsafe(task.cancel)
        assert done.wait(LIMIT)
        return original(name)

    return in_a_thread("bootstrap_check_in", check_in)


def _cancel_when_called(task, done):
    """When the bootstrap server has answered, in another thread, and the task does not know."""

    def check_in(original, name):
        result = original(name)
        task.get_loop().call_soon_threadsafe(task.cancel)
        assert done.wait(LIMIT)
        return result

    return in_a_thread("bootstrap_check_in", check_in)


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
    return patched(_pipes, "write_now", then(lambda: task.get_loop().call_soon(task.cancel)))


def _cancel_when_empty(task, done):
    """When the server has looked at the queue, and waits."""
    return patched(_checkin.Server, "empty", then(lambda: task.get_loop().call_soon(task.cancel)))


@contextlib.contextmanager
def _fired(fire):
    """Have a wait for a check-in end by `fire(original, watch, flags)`."""
    waits = []

    def call(original, watch, flags, *, at_once):
        if waits and watch.filter == _ffi.EVFILT_MACHPORT:
            fire(original, watch, flags)
        else:
            original(watch, flags, at_once=at_once)

    empty = then(lambda: waits.append(True))
    with patched(_checkin.Server, "empty", empty), patched(_loop.Watch, "fire", call):
        yield


def _cancel_when_come(task, done):
    """When the check-in has come and the server is about to be woken."""

    def fire(original, watch, flags):
        task.cancel()
        original(watch, flags, at_once=True)

    return _fired(fire)


def _cancel_when_woken(task, done):
    """When the check-in has come and the server has been woken, but has not run."""

    def fire(original, watch, flags):
        original(watch, flags, at_once=False)
        task.cancel()

    return _fired(fire)


@variants(
    **{
        step.__name__.removeprefix("_cancel_"): (step.__doc__, step)
        for step in (
            _cancel_while_asked,
            _cancel_when_answered,
            _cancel_while_called,
            _cancel_when_called,
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
                tell = then(lambda: stage.tell("client"))
                stack.enter_context(patched(_checkin.Server, "empty", tell))
            begun.set()
            with pytest.raises(asyncio.CancelledError):
                await task
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
    LookingUpInAThread=("It asks the bootstrap server in another thread.", 2),
    WaitingForRoom=("It waits for room in the service's queue.", 3),
)
class ClientCancelled:
    """The client is cancelled before the check-in: its right is where it was, the server is told."""

    async def server(stage, step):
        if step == 0:
            await stage.hear("client")
            await serve_in_vain(stage)
        elif step in (1, 2):
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

            async def full(original, *arguments, **named):
                asyncio.get_running_loop().call_soon(task.cancel)
                return await original(*arguments, **named)

            async with stage.offer() as offer:
                with contextlib.ExitStack() as stack:
                    if step == 1:
                        asked = then(lambda: asyncio.current_task().cancel())
                        stack.enter_context(patched(_ffi, "bootstrap_ask", asked))
                    elif step == 2:
                        stack.enter_context(in_a_thread("bootstrap_look_up", look_up))
                    else:
                        await stage.hear("server")
                        service = stack.enter_context(await bootstrap.look_up(name_in(offer)))
                        with pytest.raises(machio.SendTimedOut):
                            while True:
                                service.send_nowait(Message(1))
                        stack.enter_context(patched(machio._requests, "wait_for_room", full))
                    task = asyncio.create_task(later(check_in_with(offer, port, MOVE_RECEIVE)))
                    task.add_done_callback(lambda _: done.set())
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    await still_works(port, send)
            stage.tell("server", "done")
