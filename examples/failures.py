"""What goes wrong in a handshake, and how the program learns of it: always by an exception.

Run it: ``python failures.py``. It starts itself again as the other side, in a process of its own
that misbehaves. No side waits for ever, and no right is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import machio


def say(text: str) -> None:
    who = "child" if len(sys.argv) > 1 else "parent"
    print(f"{who} {os.getpid()}: {text}", flush=True)


@contextlib.asynccontextmanager
async def other_side(role: str, fd: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run this program in `role`, with `fd`, which is consumed; its end is awaited."""
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, __file__, role, str(fd), pass_fds=[fd]
        )
    finally:
        os.close(fd)
    try:
        yield child
    except BaseException:
        if child.returncode is None:
            child.terminate()  # otherwise it ends by itself
        raise
    finally:
        await child.wait()


# --- the parent, each time with another child ----------------------------------------------------


async def nobody_checks_in() -> None:
    with machio.ChildPortHandshake() as handshake:
        async with other_side("mute", handshake.client_read_fd()):
            try:
                await handshake.serve(machio.PortRightType.SEND)
            except machio.NoCheckInError as error:
                say(f"NoCheckInError: {error}")
            else:
                raise AssertionError("somebody checked in")


async def wrong_token() -> None:
    with machio.ChildPortHandshake() as handshake:
        async with other_side("liar", handshake.client_read_fd()):
            try:
                await handshake.serve(machio.PortRightType.SEND)
            except machio.NoCheckInError as error:
                say(f"NoCheckInError: {error}")
            else:
                raise AssertionError("a wrong token was good enough")


async def wrong_right() -> None:
    with machio.ChildPortHandshake() as handshake:
        async with other_side("muddler", handshake.client_read_fd()):
            try:
                await handshake.serve(machio.PortRightType.RECEIVE)
            except machio.WrongRightError as error:
                say(f"WrongRightError: {error}")
            else:
                raise AssertionError("a send right was taken for a receive right")


async def dead_server() -> None:
    with machio.ReceiveRight.allocate() as port, machio.ChildPortHandshake() as handshake:
        async with other_side("mortal", handshake.server_write_fd()):
            try:
                await handshake.check_in(port, machio.Disposition.MOVE_RECEIVE)
            except machio.ServerGoneError as error:
                say(f"ServerGoneError: {error}")
            else:
                raise AssertionError("there was a server")
        # A right that could not be given away is still its owner's, and works.
        with port.make_send() as send:
            await send.send(machio.Message(1, b"still mine"))
            with await port.receive() as message:
                say(f"the receive right is still mine: I received {message.body[:10].decode()!r}")


# --- the child -----------------------------------------------------------------------------------


def mute(fd: int) -> None:
    os.read(fd, 1)
    say("I read a little and exit")


async def liar(fd: int) -> None:
    """Send what a process would send that found the service, but does not know the secret."""
    offer = b""
    while len(offer) < 12 or len(offer) < 12 + int.from_bytes(offer[8:12], sys.byteorder):
        offer += (part := os.read(fd, 256))
        if not part:
            sys.exit("the pipe ended before the offer did")
    token, name = offer[:8], offer[12:].decode()
    wrong = bytes(byte ^ 0xFF for byte in token)
    ndr = bytes((0, 0, 0, 0, 1, 0, 0, 0))
    with (
        await machio.bootstrap.look_up(name) as service,
        machio.ReceiveRight.allocate() as port,
    ):
        right = (port, machio.Disposition.MAKE_SEND)
        say("I check in with a wrong token, then I close the pipe")
        await service.send(machio.Message(10011, ndr + wrong, rights=[right]))
        # Destroyed with the message: nobody can send to the port.
        await port.no_senders(timeout=10)
        say("my message was destroyed, and the right in it")
    os.close(fd)


async def muddler(fd: int) -> None:
    with machio.ReceiveRight.allocate() as port:
        say("a receive right is expected; I check in with a send right")
        await machio.check_in_fd(fd, port, machio.Disposition.MAKE_SEND)


def mortal(fd: int) -> None:
    os.write(fd, b"tok")
    say("I am the server, begin to write, and die of signal 9")
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    match sys.argv[1:]:
        case []:
            await nobody_checks_in()
            await wrong_token()
            await wrong_right()
            await dead_server()
        case ["mute", fd]:
            mute(int(fd))
        case ["liar", fd]:
            await liar(int(fd))
        case ["muddler", fd]:
            await muddler(int(fd))
        case ["mortal", fd]:
            mortal(int(fd))
        case _:
            sys.exit("failures.py takes no arguments")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
