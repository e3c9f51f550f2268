"""Nobody dies of a broken pipe: processes where SIGPIPE has its default, which is to kill.

Python ignores the signal, but a program may have set it back, as many that write to pipes do. The
whole table of the handshake is played so, too (`programs/play.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from machio import _pipes

PROGRAM = """
import asyncio, contextlib, os, signal, socket, sys, threading
sys.path.insert(0, sys.argv[3])
from common import LOOPS
import machio
from machio import PortRightType

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
CLOSES = (
    "import os, sys; os.close(int(os.environ['MACHIO_PARENT_FD']));"
    "print(flush=True); sys.stdin.read()"
)

async def in_vain(serving):
    try:
        await serving
    except machio.NoCheckInError:
        return
    raise SystemExit("there was no error")

async def handshake():
    with machio.ChildPortHandshake() as one:
        os.close(one.client_read_fd())
        await in_vain(one.serve(PortRightType.SEND))

async def child():
    reader, writer = os.pipe()
    os.close(reader)
    await in_vain(machio.serve_fd(writer, PortRightType.SEND))

async def spawn():
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    async with machio.spawn([sys.executable, "-c", CLOSES], **pipes) as child:
        await child.process.stdout.readline()
        await in_vain(child.receive_right())

async def parent():
    ours, theirs = socket.socketpair()
    ours.close()
    os.environ["MACHIO_PARENT_FD"] = str(theirs.detach())
    await in_vain(machio.parent.serve())

async def abandoned():
    # A look-up that is cancelled goes on in a thread, which tells the loop when it is done.
    looking = asyncio.ensure_future(machio.bootstrap.look_up("org.machio.tests.slow"))
    while not began.is_set():  # no executor, which tells the loop of its own end
        await asyncio.sleep(0)
    looking.cancel()
    await asyncio.wait([looking])

began, go_on = threading.Event(), threading.Event()

def slow(name):
    began.set()
    go_on.wait()
    raise machio.UnknownServiceError(1102, "bootstrap_look_up")

if sys.argv[1] == "abandoned":
    machio._ffi.bootstrap_ask = lambda *_: None  # so that it is done in a thread
    machio._ffi.bootstrap_look_up = slow
with asyncio.Runner(loop_factory=LOOPS[sys.argv[2]]) as runner:
    runner.run(globals()[sys.argv[1]]())
    if sys.argv[1] == "abandoned":
        # As in the midst of closing: asyncio closes this end of its pipe to itself first.
        ours = getattr(runner.get_loop(), "_ssock", None)
        if ours is not None:  # uvloop has none
            ours.shutdown(socket.SHUT_RD)
        go_on.set()
        for thread in threading.enumerate():
            if "bootstrap" in thread.name:
                thread.join()
print("alive")
"""


@pytest.mark.parametrize("where", ["handshake", "child", "spawn", "parent", "abandoned"])
def test_a_broken_pipe_is_an_error_and_no_death(where, loop_name, bootstrap_env):
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, where, loop_name, str(Path(__file__).parent)],
        env=bootstrap_env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


@pytest.mark.parametrize("pending", [False, True], ids=["none", "one"])
def test_a_signal_that_was_pending_before_a_write_stays(pending):
    reader, writer = os.pipe()
    os.close(reader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        if pending:
            signal.raise_signal(signal.SIGPIPE)
        with pytest.raises(BrokenPipeError):
            _pipes.write_now(writer, b"offer")
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before | {signal.SIGPIPE}
        assert (signal.SIGPIPE in signal.sigpending()) == pending
        if pending:
            signal.sigwait({signal.SIGPIPE})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writer)
