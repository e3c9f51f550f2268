"""Random operations agree with the model of what Mach does to rights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Each seed is a different few hundred operations; `make rules` plays new ones.
SEEDS = range(3)


def play(
    env: dict[str, str], *arguments: str, program: Path = HERE / "rules.py"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, program, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_random_operations_agree_with_the_model(bootstrap_env: dict[str, str], seed: int) -> None:
    done = play(bootstrap_env, "--examples=40", "--steps=60", f"--seed={seed}", "--first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "40 sequences of up to 60 operations agree with the model\n"


def test_a_disagreement_is_told(bootstrap_env: dict[str, str], tmp_path: Path) -> None:
    for name in ("rules.py", "referee.py", "members.py", "replay.py", "child.py", "model.py"):
        text = (HERE / name).read_text()
        if name == "model.py":
            text = text.replace("port.make_sends += 1", "port.make_sends += 2")
        (tmp_path / name).write_text(text)
    done = play(bootstrap_env, "--examples=5", "--seed=1", "--first", program=tmp_path / "rules.py")
    assert done.returncode == 1
    assert "Failing test case" in done.stderr or "Falsifying example" in done.stderr
