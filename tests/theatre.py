"""The tests' side of `programs/play.py`: gives it orders and judges what it reports."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from places import Place
from scenarios import SCENARIOS

from machio.testing import bootstrap_directory

PLAY = Path(__file__).parent / "programs" / "play.py"


class Theatre:
    """One process that plays scenarios one after the other in a place; context manager.

    dev: in Python's development mode, which finds more and takes twice the time.
    """

    def __init__(self, place: Place, dev: bool) -> None:
        self._directory = contextlib.ExitStack()
        directory = self._directory.enter_context(bootstrap_directory())
        if place.user is not None:
            os.chown(directory, place.user, place.user)
        self._process = subprocess.Popen(
            [sys.executable, *dev * ["-X", "dev"], "-W", "error", str(PLAY), *place.options],
            env={
                **os.environ,
                "MACHIO_BOOTSTRAP": str(directory),
                "MACHIO_BOOTSTRAPD": f"{sys.executable} -m machio.bootstrapd",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def play(self, scenario: str, parent: str, loop: str) -> None:
        """Have one scenario played. Raises AssertionError with everything that went wrong."""
        order = {"scenario": scenario, "parent": parent, "loop": loop}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the players' process ended: {self._process.wait()}"
        if wrong := judge(scenario, json.loads(answer)):
            raise AssertionError(f"{order}\n" + "\n".join(wrong))

    def close(self) -> None:
        self._process.communicate()
        self._directory.close()
        assert self._process.returncode == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def judge(scenario: str, answer: dict[str, Any]) -> list[str]:
    """Return what went wrong: a failed part, a leak, a death that was not in the script."""
    if answer["stuck"]:
        return ["a process was stuck and was killed"]
    wrong = [
        f"{report['role']}: {report['problems']}"
        for report in answer["reports"]
        if report["problems"]
    ]
    dies = SCENARIOS[scenario].dies
    reported = {report["role"] for report in answer["reports"]}
    for role, end in answer["ends"].items():
        died = end not in (0, None)
        if died != (role == dies):
            wrong.append(f"{role} ended with {end}")
        if role not in reported and role != dies:
            wrong.append(f"{role} has not reported")
    return wrong
