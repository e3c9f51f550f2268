"""Workers that share one listening socket: whoever is free takes the next connection.

Run it: ``python worker_pool.py``. It starts the workers, which are this program too.

The parent makes the socket and passes it on as a right, a file port: one line here and one in the
worker. Then it closes its own descriptor and right, and the workers alone keep the socket open.
When one of them is killed the others go on; when the block ends they are asked to end, and reaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys

import machio

WORKERS, CLIENTS = 3, 30


async def work() -> None:
    """Be a worker: take the socket over from the parent, and serve."""
    with await machio.parent.serve() as right:
        listener = socket.socket(fileno=machio.fileport_makefd(right))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.readline()
        writer.write(b"%d %s" % (os.getpid(), question.upper()))
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, sock=listener) as server:
        await server.serve_forever()


async def ask(host: str, port: int) -> tuple[int, str]:
    """Be a client; return the pid of the worker, and what it answered."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"hello\n")
    pid, answer = (await reader.read()).decode().split()
    writer.close()
    await writer.wait_closed()
    return int(pid), answer


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        command = [sys.executable, __file__, "work"]
        pool = [await stack.enter_async_context(machio.spawn(command)) for _ in range(WORKERS)]
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            machio.fileport_makeport(listener) as right,
        ):
            address = listener.getsockname()
            for worker in pool:
                await worker.give((right, machio.Disposition.COPY_SEND))

        answers = await asyncio.gather(*(ask(*address) for _ in range(CLIENTS)))
        said = {answer for _, answer in answers}
        print(f"{len(answers)} answers: {said}")
        print("all from the workers:", {pid for pid, _ in answers} <= {one.pid for one in pool})

        pool[0].send_signal(signal.SIGKILL)
        print(f"a worker ended with {await pool[0].wait()}")
        pid, answer = await ask(*address)
        print(f"another one answers {answer}: {pid != pool[0].pid}")
    print(f"the others ended with {[worker.returncode for worker in pool[1:]]}")


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1:] else main())
