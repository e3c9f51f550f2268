"""What Apple's kernel code answered is what this system answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def replay(env: dict[str, str], *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HERE / "replay.py", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_one_task_answers_as_recorded(bootstrap_env: dict[str, str]) -> None:
    done = replay(bootstrap_env, HERE / "data" / "single.txt")
    assert (done.stdout, done.stderr) == ("200 scripts, 0 differ in 0 lines\n", "")
    assert done.returncode == 0


def test_a_wrong_answer_is_told(bootstrap_env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "wrong.txt"
    script.write_text("=== wrong\nalloc v1 recv -> OK\nrefs v1 recv -> OK 2\n")
    done = replay(bootstrap_env, script)
    assert done.stdout == (
        "wrong:2: refs v1 recv -> OK 2\n    here: OK 1\n1 scripts, 1 differ in 1 lines\n"
    )
    assert done.returncode == 1
