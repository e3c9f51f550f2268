"""A client of echo_service.py, which has to run: the routines of a subsystem are calls."""

from __future__ import annotations

import asyncio
import os
import sys

from echo_service import SERVICE, Echo

import machio


async def main() -> None:
    async with machio.connect(Echo, SERVICE, timeout=5) as echo:
        print(await echo.echo("hello", 2))
        # Many calls at a time, each with its own answer.
        words = ["one", "two", "three", "four"]
        print(await asyncio.gather(*(echo.echo(word, times=1) for word in words)))
        print("the service knows my pid:", await echo.who_am_i() == os.getpid())
        try:
            await echo.echo("hello", 4)
        except machio.RoutineError as error:
            print("it refuses:", error.code)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except machio.UnknownServiceError:
        sys.exit("echo_client.py: start echo_service.py first")
