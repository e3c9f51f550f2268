"""Clients that do not check in: the server fails cleanly, and promptly."""

from __future__ import annotations

import signal
import socket

import pytest

import machio
from machio import (
    _pipes,
)

from .acts import (
    RECEIVE,
    name_in,
    patched,
    promptly,
    serve_in_vain,
)
from .stage import Scenario, variants


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
