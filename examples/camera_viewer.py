"""A viewer of camera.py, which has to run: frames arrive as memory of its own."""

from __future__ import annotations

import asyncio
import sys

from camera import DEPTH, HEIGHT, SERVICE, WIDTH, Camera

import machio


async def main() -> None:
    async with machio.connect(Camera, SERVICE, timeout=10) as camera:
        for _ in range(3):
            number, frame = await camera.snap()
            # It is freed here, or by the last view; NumPy: numpy.frombuffer(frame.view, "u1").
            with frame, frame.view as view:
                pixel = (HEIGHT // 2 * WIDTH + WIDTH // 2) * DEPTH
                middle = view[pixel : pixel + DEPTH]
                print(f"frame {number}: {len(frame)} bytes, in the middle {tuple(middle)}")
                middle[0] = 0  # its own copy of a page; the other pages are still shared
                middle.release()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except machio.UnknownServiceError:
        sys.exit("camera_viewer.py: start camera.py first")
