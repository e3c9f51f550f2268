"""A thousand services and their clients come and go in one process, which is then as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, gc, json, resource, sys, tracemalloc
sys.path.insert(0, sys.argv[2])
from common import LOOPS, open_fds, rights_held
import machio
from machio import mig

class Math(mig.Subsystem, base=4000):
    @mig.routine
    async def double(self, number: mig.int32) -> mig.int32:
        return number * 2

async def one(name):
    async with machio.Service(name) as service:
        service.add(Math())
        serving = asyncio.ensure_future(service.serve())
        async with machio.connect(Math, name, timeout=30) as client:
            assert await client.double(3) == 6
        service.stop()
        await serving

def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def now():
    gc.collect()
    return {
        "rights": len(rights_held()),
        "fds": len(open_fds()),
        "traced": tracemalloc.get_traced_memory()[0],
        "resident": resident(),
    }

async def main():
    for index in range(1000):
        if index == 200:
            tracemalloc.start()
        if index == 300:
            told = [now()]
        await one(f"org.machio.tests.one-of-{index % 7}")
    told.append(now())
    print(json.dumps(told))

with asyncio.Runner(loop_factory=LOOPS[sys.argv[1]]) as runner:
    runner.run(main())
"""


@pytest.mark.timeout(180)
def test_a_thousand_services_and_clients_leave_nothing(loop_name, bootstrap_env):
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(
        [*command, loop_name, str(Path(__file__).parent)],
        env=bootstrap_env,
        stdout=subprocess.PIPE,
        check=True,
    )
    before, after = json.loads(done.stdout)
    assert (after["rights"], after["fds"]) == (before["rights"], before["fds"])
    assert after["traced"] - before["traced"] < 700 * 60, "less than 60 bytes for each"
    assert after["resident"] - before["resident"] < 2**21, "with what C and the system keep"
