"""Plays scenarios: for each one, two or three fresh processes that share a handshake's pipe.

``play.py [--nofile N] [--user UID] [--namespace]`` reads orders from its standard input, a JSON
object a line, and answers each with one line: what went wrong, per role, and how everyone ended. It
holds no right itself and stays free of threads, so that it can fork the parent of every play; the
parent forks the others before anybody touches Mach, and each becomes a task of its own. With
``--namespace`` the child is in a pid namespace of its own.

Roles are server and client, the parent being either, and sometimes an attacker. Each pair of roles
has a socket pair to wait for one another without sleeping; it also tells of the other's death.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import itertools
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import LOOPS, block_in_vain, leaked_fds, open_fds, rights_held
from places import enter_pid_namespace
from scenarios import SCENARIOS, Stage

import machio
from machio import bootstrapd

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 20  # seconds for one role; the machine may be busy
PATIENCE = 5.0
PR_SET_CHILD_SUBREAPER = 36
SO_NOSIGPIPE = 0x1022
# Linux: the kernel tells who speaks. macOS: whoever speaks to nobody survives it.
SIDE_OPTION = (socket.SO_PASSCRED, 1) if sys.platform == "linux" else (SO_NOSIGPIPE, 1)
REPORT_SIZE = 3500  # a report is written in one piece, below PIPE_BUF

Order = dict[str, Any]
Sides = dict[str, socket.socket]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nofile", type=int)
    parser.add_argument("--user", type=int, help="become this user before anything is played")
    parser.add_argument("--namespace", action="store_true")
    arguments = parser.parse_args()
    if arguments.user:
        os.setgroups([])
        os.setgid(arguments.user)
        os.setuid(arguments.user)
    # Whoever dies of a broken pipe shall be seen to.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if sys.platform == "linux":
        # The child of a parent that has died shall be waited for here.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()  # what is here already need not be looked through in every process again
    with contextlib.ExitStack() as stack:
        if arguments.user or arguments.namespace:
            stack.enter_context(names())
        for line in sys.stdin:
            place = {"apart": arguments.namespace, "nofile": arguments.nofile}
            print(json.dumps(play({**json.loads(line), **place})), flush=True)


@contextlib.contextmanager
def names() -> Iterator[None]:
    """Have a bootstrap server that is forked off: here, and not by the first who needs it.

    The user may not be able to start this Python, and a pid namespace's server ends with it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(Path(os.environ["MACHIO_BOOTSTRAP"]) / "socket"))
        listener.listen()
        server = os.fork()
        if server == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (sys.stdin.fileno(), sys.stdout.fileno()):
                os.dup2(null, fd)
            os.dup2(listener.fileno(), bootstrapd.INHERITED_FROM)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
            os._exit(bootstrapd.main(["--idle", "3600"]))
    try:
        yield
    finally:
        os.kill(server, signal.SIGTERM)
        assert os.waitpid(server, 0)[1] == 0, "the bootstrap server"


def play(order: Order) -> Order:
    """Have one scenario played; return ``{"reports": [...], "ends": {pid: status}}``."""
    out, report = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(out)
        os.setpgid(0, 0)
        begin(order, report)
        os._exit(0)
    os.close(report)
    lines = read_until(out, time.monotonic() + LIMIT + 2 * PATIENCE)
    os.close(out)
    if lines is None:
        os.killpg(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        return {"reports": [], "ends": {}, "stuck": True}
    reports = [json.loads(line) for line in lines]
    roles = {"parent": parent}
    for found in reports:
        roles.update(found.pop("pids", {}))
    ends = {}
    for role, pid in roles.items():
        try:
            ends[role] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:  # not a system where one can wait for a grandchild
            ends[role] = None
    ends[order["parent"]] = ends.pop("parent")
    return {"reports": [found for found in reports if found], "ends": ends, "stuck": False}


def read_until(fd: int, deadline: float) -> list[bytes] | None:
    """Return the lines that come before the end of file; None if it does not come in time."""
    data = b""
    while select.select([fd], [], [], max(deadline - time.monotonic(), 0))[0]:
        piece = os.read(fd, 65536)
        if not piece:
            return data.splitlines()
        data += piece
    return None


def begin(order: Order, report: int) -> None:
    """Be the parent: make the pipe, start the others, play the parent's part."""
    scenario = SCENARIOS[order["scenario"]]
    roles = ["server", "client"] + ["attacker"] * hasattr(scenario, "attacker")
    sides: dict[str, Sides] = {role: {} for role in roles}
    for one, other in itertools.combinations(roles, 2):
        sides[one][other], sides[other][one] = socket.socketpair()
        for side in (sides[one][other], sides[other][one]):
            side.setsockopt(socket.SOL_SOCKET, *SIDE_OPTION)
    handshake = machio.ChildPortHandshake()
    child = next(role for role in roles[:2] if role != order["parent"])
    give = handshake.server_write_fd if child == "server" else handshake.client_read_fd
    fd = give()
    others = [child, *roles[2:]]
    pids = {}
    for role in others:
        pids[role] = os.fork()
        if pids[role] == 0:
            for name in roles:
                if name != role:
                    close_all(sides[name])
            handshake.close()
            if role == "attacker":
                os.close(fd)
            if role == child and order["apart"]:
                enter_pid_namespace()
            perform(order, role, fd if role == child else -1, sides[role], report)
            os._exit(0)
    os.close(fd)
    for role in others:
        close_all(sides[role])
    os.write(report, json.dumps({"pids": pids}).encode() + b"\n")
    perform(order, order["parent"], handshake, sides[order["parent"]], report)


def close_all(sides: Sides) -> None:
    for side in sides.values():
        side.close()


def perform(
    order: Order, role: str, pipe: machio.ChildPortHandshake | int, sides: Sides, report: int
) -> None:
    """Play one part to its end and report what was wrong with it."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    if order["nofile"] and role != "attacker":
        resource.setrlimit(resource.RLIMIT_NOFILE, (order["nofile"],) * 2)
    problems: list[str] = []
    sys.unraisablehook = lambda info: problems.append(
        f"unraisable: {info.exc_value!r} in {info.object!r}"
    )
    threading.excepthook = lambda info: problems.append(f"in a thread: {info.exc_value!r}")
    try:
        with asyncio.Runner(loop_factory=LOOPS[order["loop"]]) as runner:
            runner.get_loop().set_exception_handler(
                lambda _, context: problems.append(f"the loop: {context}")
            )
            runner.run(count(order, role, pipe, sides, problems))
    except BaseException:
        problems.append(traceback.format_exc())
    gc.collect()
    close_all(sides)
    text = json.dumps({"role": role, "problems": "\n".join(problems)[-REPORT_SIZE // 2 :]})
    os.write(report, text.encode() + b"\n")
    faulthandler.cancel_dump_traceback_later()


async def count(
    order: Order,
    role: str,
    pipe: machio.ChildPortHandshake | int,
    sides: Sides,
    problems: list[str],
) -> None:
    """Play the part between two counts of files and rights."""
    await warm_up()
    stage = Stage(role, pipe, sides)
    before, rights = open_fds(), rights_held()
    await getattr(SCENARIOS[order["scenario"]], role)(stage)
    stage.close()
    # The pipe and what was given with it were open before, and are closed now.
    ours = {fd: what for fd, what in before.items() if fd not in stage.consumed}
    deadline = time.monotonic() + PATIENCE
    while (leaked := rights_held() - rights) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    if leaked:
        problems.append(f"leaked rights (name, type, urefs): {sorted(leaked)}")
    if files := leaked_fds(ours, PATIENCE):
        problems.append(f"leaked files: {files}")


async def warm_up() -> None:
    """Open what stays open for the life of a process, and be connected to the bootstrap server."""
    with machio.bootstrap.port() as foreign, contextlib.suppress(machio.ReceiveTimedOut):
        await foreign.died(0.001)
    block_in_vain()
    with machio.ChildPortHandshake() as handshake, machio.ReceiveRight.allocate() as port:
        offer = asyncio.create_task(
            machio.serve_fd(handshake.server_write_fd(), machio.PortRightType.SEND)
        )
        fd = handshake.client_read_fd()
        await machio.check_in_fd(fd, port.make_send(), machio.Disposition.MOVE_SEND)
        (await offer).close()
        with port.make_send() as send:
            full = port.queue_limit
            for number in range(full):
                send.send_nowait(machio.Message(number))
            waiting = asyncio.create_task(send.send(machio.Message(full)))
            for number in range(full + 1):
                assert (await port.receive()).id == number
            await waiting
            dead = asyncio.create_task(send.died())
            await asyncio.sleep(0)
            port.close()
            await dead


if __name__ == "__main__":
    main()
