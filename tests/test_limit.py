"""The time limit that each test has ends it, whatever it waits for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from common import LOOPS

WAITS = """
import asyncio, sys
sys.path.insert(0, {path!r})
from common import LOOPS

def test_waits():
    with asyncio.Runner(loop_factory=LOOPS[{name!r}]) as runner:
        runner.run(asyncio.Event().wait())
"""


@pytest.mark.parametrize("name", LOOPS)
def test_a_task_that_waits_for_ever(name: str, tmp_path: Path) -> None:
    test = tmp_path / "test_waits.py"
    test.write_text(WAITS.format(path=str(Path(__file__).parent), name=name))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=0.5", str(test)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "Timeout (>0.5s)" in done.stdout + done.stderr
