"""Lies in the pipe."""

from __future__ import annotations

import os
import tracemalloc

import pytest

import machio
from machio import (
    ReceiveRight,
)

from .acts import (
    MOVE_RECEIVE,
    promptly,
    still_works,
)
from .stage import variants

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
