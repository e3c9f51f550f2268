"""A service of typed routines: its declaration, its server, and a client in Python.

Run it: ``python calculator.py``. It serves, and calls itself from a second process.

``python calculator.py serve`` only serves, ``python calculator.py call`` only calls: then the other
side may be c/calculator.c, where the same routines are stubs in C, as MIG lays them out. Neither
side can tell in what language the other is written. ``python calculator.py defs`` prints the .defs
file from which Apple's MIG would make those stubs.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Sequence
from typing import Annotated

import machio
from machio import mig

SERVICE = "org.machio.example.calculator"

Name = Annotated[str, mig.CString(32)]
Text = Annotated[str, mig.CString(max=256)]
Values = Annotated[Sequence[float], mig.Array(mig.float64, max=16)]
# Out of line: pages that change hands, and an array of rights.
Numbers = Annotated[machio.Memory, mig.OutOfLine(max=1 << 20)]
Given = Annotated[Sequence[mig.MakeSend], mig.Rights(mig.MakeSend, max=8)]
Returned = Annotated[Sequence[machio.SendRight], mig.Rights(mig.MoveSend, max=8)]


class Point(mig.Struct):
    """A place, as a C structure."""

    layer: mig.int16
    x: mig.float64
    y: mig.float64


Triangle = Annotated[Sequence[Point], mig.Array(Point, 3)]


class Calculator(mig.Subsystem, base=8000):
    """Some arithmetic."""

    @mig.routine
    def add(self, a: mig.int8, b: mig.uint16, c: mig.int64) -> mig.int64:
        """Return the sum."""
        return a + b + c

    @mig.routine
    def mean(self, values: Values, scale: mig.uint32) -> mig.float64:
        """Return the mean of up to 16 values, times `scale`."""
        if not values:
            raise machio.RoutineError(machio.KernCode.INVALID_VALUE)
        return sum(values) / len(values) * scale

    @mig.routine
    def greet(self, name: Name, title: Text, loud: mig.boolean) -> tuple[Text, mig.int32]:
        """Return a greeting, and how long it is."""
        text = f"Good day, {title} {name}"
        return text.upper() if loud else text, len(text)

    @mig.routine
    def move(self, triangle: Triangle, by: Point) -> Triangle:
        """Return a triangle moved."""
        return [Point(one.layer + by.layer, one.x + by.x, one.y + by.y) for one in triangle]

    @mig.routine
    def join(self, listener: mig.MakeSend, first: mig.uint8) -> tuple[mig.MoveSend, mig.uint8]:
        """Return the send right that was given, and `first` + 1."""
        return listener, first + 1

    @mig.routine
    def sums(self, numbers: Numbers, listeners: Given) -> tuple[Numbers, Returned]:
        """Turn int64_t into their sums so far, and return the listeners, the last one first."""
        if len(numbers) % 8:
            raise machio.RoutineError(machio.KernCode.INVALID_VALUE)
        with numbers.view as view, view.cast("q") as values:
            for index in range(1, len(values)):
                values[index] += values[index - 1]
        return numbers, listeners[::-1]

    @mig.simpleroutine
    def note(self, text: Text) -> None:
        """Take note of something; nobody waits for it."""
        print(f"server: noted {text!r}", flush=True)


async def serve() -> None:
    async with machio.Service(SERVICE, deadline=10) as service:
        service.add(Calculator())
        print("server: ready", flush=True)
        await service.serve()


async def call() -> None:
    async with machio.connect(Calculator, SERVICE, timeout=10) as calculator:
        await calculator.note("a client in Python")
        print("client: add:", await calculator.add(-1, 40_000, 2**40))
        print("client: mean:", await calculator.mean([1.0, 2.0, 6.0], 10))
        print("client: greet:", await calculator.greet("Lovelace", "Countess", True))
        corners = [Point(0, 0, 0), Point(0, 1, 0), Point(0, 0, 1)]
        print("client: move:", (await calculator.move(corners, by=Point(1, 0.5, -0.5)))[2])
        with machio.ReceiveRight.allocate() as port:
            right, following = await calculator.join(port, 6)
            with right:  # it is to the port that it was made from
                await right.send(machio.Message(following))
            print("client: join:", (await port.receive()).id)
        await call_out_of_line(calculator)
        try:
            await calculator.mean([], 1)
        except machio.RoutineError as error:
            print("client: mean of nothing:", error.code)


async def call_out_of_line(calculator: Calculator) -> None:
    numbers = machio.Memory(3 * 8)
    with numbers.view as view:
        view[:] = struct.pack("3q", 1, 2, 2**40)
    with machio.ReceiveRight.allocate() as one, machio.ReceiveRight.allocate() as two:
        sums, rights = await calculator.sums(numbers, [one, two])  # the numbers are gone now
        with sums, rights[0], rights[1]:
            await rights[1].send(machio.Message(1))
            print("client: sums:", struct.unpack("3q", bytes(sums)), (await one.receive()).id)


async def both() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "serve", stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    try:
        await server.stdout.readline()  # it is ready
        await call()
        print((await server.stdout.readline()).decode(), end="")
    finally:
        server.terminate()
        await server.wait()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["defs"]:
            print(mig.defs(Calculator))
        case ["serve"]:
            asyncio.run(serve())
        case ["call"]:
            asyncio.run(call())
        case _:
            asyncio.run(both())
