"""Runs the examples and shows what their processes do, in order and with the time it took.

Run it: ``make demo``, or ``python demo.py``. On Linux the processes meet at a bootstrap server of
their own, which ends with the demo; with ``--default`` they use yours, which then starts by itself
if need be and leaves some seconds after the last process that needed it.

Colours appear on a terminal only, and never if NO_COLOR is set. The exit status is 0 if everything
went as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from machio import bootstrapd

HERE = Path(__file__).resolve().parent
LINE = re.compile(r"(parent|child) (\d+): (.*)")
PATIENCE = 30  # seconds for one example; the machine may be busy

COLOURS = {"parent": "36", "child": "33", "error": "31", "title": "1", "good": "32", "faint": "2"}
COLOURED = (
    sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
)


class Scene(NamedTuple):
    """A program to run, and what to tell the audience before."""

    program: str
    title: str
    story: str


SCENES = [
    Scene(
        "parent.py",
        "A parent hands its child a receive right",
        "The child serves, the parent checks in. The queue moves along with the right.",
    ),
    Scene(
        "reverse_parent.py",
        "A child gives its parent a send right",
        "The parent serves, the child checks in. Then the parent calls the child's service.",
    ),
    Scene(
        "once_parent.py",
        "A child gives its parent a send-once right",
        "One message or one notification: the child is never left waiting.",
    ),
    Scene(
        "task_parent.py",
        "A child gives its parent its task port",
        "The parent reads the pid from it and learns of the child's death.",
    ),
    Scene(
        "failures.py",
        "Four handshakes that fail",
        "No check-in, a wrong token, a wrong kind of right, a dead server.",
    ),
]


class DemoError(Exception):
    """Something did not go as it should; the text tells what."""


def paint(text: str, colour: str) -> str:
    return f"\033[{COLOURS[colour]}m{text}\033[0m" if COLOURED else text


def show(line: str = "") -> None:
    print(line, flush=True)


def show_said(milliseconds: float, line: str) -> None:
    """Show a line of an example in columns; the words of an error stand out."""
    clock = paint(f"{milliseconds:8.1f} ms", "faint")
    match = LINE.fullmatch(line)
    if match is None:
        show(f"  {clock}  {line}")
        return
    who, pid, text = match.groups()
    width = max(shutil.get_terminal_size((100, 24)).columns - 30, 40)
    first, *rest = textwrap.wrap(text, width) or [""]
    colour = "error" if re.match(r"\w+Error: ", text) else ""
    speaker = paint(f"{who:<6} {pid:>7}", who)
    show(f"  {clock}  {speaker}  {paint(first, colour) if colour else first}")
    for more in rest:
        show(" " * 31 + (paint(more, colour) if colour else more))


@contextlib.asynccontextmanager
async def private_server() -> AsyncIterator[None]:
    """Run a bootstrap server for the demo alone. Raises DemoError if it does not start."""
    with tempfile.TemporaryDirectory(prefix="machio-demo-", dir="/tmp") as directory:
        os.environ["MACHIO_BOOTSTRAP"] = directory
        try:
            bootstrapd.directory()
        except bootstrapd.StartError as problem:
            show(paint(f"The processes meet at your bootstrap server: {problem}.", "faint"))
            yield
            return
        server = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "machio.bootstrapd", stderr=asyncio.subprocess.PIPE
        )
        assert server.stderr is not None
        rest = None
        try:
            # Its first line says that it listens.
            first = (await server.stderr.readline()).decode()
            if "bootstrap server, pid" not in first:
                raise DemoError(f"no bootstrap server: {first}")
            rest = asyncio.create_task(server.stderr.read())
            told = f"A bootstrap server of the demo's own, pid {server.pid}, ends with it."
            show(paint(told, "faint"))
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.terminate()
            await server.wait()
            if rest is not None:
                await rest


async def play(number: int, scene: Scene) -> float:
    """Run one example, show what its processes say, and return the milliseconds it took."""
    show()
    show(paint(f"{number}. {scene.title}", "title") + paint(f"   {scene.program}", "faint"))
    show(f"   {scene.story}")
    begin = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / scene.program),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(PATIENCE):
            async for line in process.stdout:
                show_said((time.perf_counter() - begin) * 1000, line.decode().rstrip())
            status = await process.wait()
    except TimeoutError:
        raise DemoError(f"{scene.program} took more than {PATIENCE} seconds") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    took = (time.perf_counter() - begin) * 1000
    if status:
        raise DemoError(f"{scene.program} ended with status {status}\n{(await errors).decode()}")
    await errors
    return took


async def perform() -> None:
    total = 0.0
    for number, scene in enumerate(SCENES, 1):
        took = await play(number, scene)
        total += took
        show(paint(f"   {took:.0f} ms, most of it the start of Python processes", "faint"))
    show()
    show(
        paint(f"All {len(SCENES)} went as they should", "good")
        + f", in {total / 1000:.1f} s. The programs are in examples/: copy one to begin."
    )


async def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Watch processes exchange port rights.")
    parser.add_argument("--default", action="store_true", help="use your bootstrap server")
    options = parser.parse_args(arguments)
    show(
        paint("machio: processes exchange Mach port rights over the child port handshake", "title")
    )
    try:
        async with contextlib.AsyncExitStack() as stack:
            if not options.default:
                await stack.enter_async_context(private_server())
            await perform()
    except DemoError as problem:
        show(paint(f"The demo failed: {problem}", "error"))
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        show("interrupted")
        sys.exit(130)
