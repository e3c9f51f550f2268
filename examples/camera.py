"""A camera: frames of eight megabytes, each sent to whoever asks, without being copied on Linux.

    python examples/camera.py &
    python examples/camera_viewer.py

A frame is a `Memory`. The routine fills it and returns it, and the reply takes its pages along:
from then on they are the viewer's. Here they are drawn by the program itself; a real camera would
read into the view.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import machio
from machio import mig

SERVICE = "org.example.camera"
WIDTH, HEIGHT, DEPTH = 1920, 1080, 4

Frame = Annotated[machio.Memory, mig.OutOfLine(max=WIDTH * HEIGHT * DEPTH)]


class Camera(mig.Subsystem, base=7300):
    """What the camera can do."""

    @mig.routine
    async def snap(self) -> tuple[mig.uint32, Frame]:
        """Return the number of a frame, and the frame: rows of pixels of four bytes."""
        raise NotImplementedError


class TestPattern(Camera):
    """A camera that sees stripes, which move from frame to frame."""

    def __init__(self) -> None:
        self._number = 0

    @mig.routine
    def snap(self) -> tuple[int, machio.Memory]:
        """Draw the next frame."""
        self._number += 1
        frame = machio.Memory(WIDTH * HEIGHT * DEPTH)
        with frame.view as view:  # what has views cannot be given away
            for row in range(HEIGHT):
                pixel = bytes((self._number % 256, row % 256, 0, 255))
                view[row * WIDTH * DEPTH : (row + 1) * WIDTH * DEPTH] = pixel * WIDTH
        return self._number, frame


async def main() -> None:
    async with machio.Service(SERVICE) as service:
        service.add(TestPattern())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, service.stop)
        print("camera: ready", flush=True)
        await service.serve()


if __name__ == "__main__":
    asyncio.run(main())
