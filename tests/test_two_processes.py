"""Each thing that machio is for, between two processes, both on each loop: nothing stays behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from common import LOOPS
from test_examples import PYTHON, SLOW

import machio

sys.path.insert(0, str(Path(__file__).parent / "programs"))

import items

pytestmark = pytest.mark.usefixtures("bootstrap_server")


async def play(name, loop_name):
    command = [*PYTHON, items.__file__, name, loop_name]
    async with machio.spawn(command, stderr=subprocess.PIPE) as child:
        left = await items.play(items.rounds_here(name, child))
        _, complaints = await child.process.communicate()
        assert (child.returncode, SLOW.sub("", complaints.decode()), left) == (0, "", "")


@pytest.mark.parametrize("name", items.ITEMS)
def test_both_sides_end_as_they_began(name, loop_name):
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(asyncio.wait_for(play(name, loop_name), 50))
