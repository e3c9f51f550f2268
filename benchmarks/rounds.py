"""Rounds: the contenders of every figure in turn, and again while there is time."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from figures import Figure, Run
from runs import Place, Settings


@dataclass
class Table:
    """A figure, on one core or on all, and the runs that its contenders have made."""

    title: str
    figure: Figure
    pinned: bool
    runs: dict[str, list[Run]]
    seconds: float = 0  # that the last round took

    def results(self) -> dict[str, Run]:
        """Return for each contender the medians over its runs, and the spread of what counts."""
        return {contender: self._summary(runs) for contender, runs in self.runs.items()}

    def _summary(self, runs: list[Run]) -> Run:
        if "missing" in runs[-1]:
            return runs[-1]
        values = [run[self.figure.by] for run in runs]
        spread = {"least": min(values), "greatest": max(values), "runs": len(runs)}
        return {key: statistics.median(run[key] for run in runs) for key in runs[0]} | spread


@dataclass
class Bench:
    """How to measure: on one core, or on each as a figure wants it; how often and how long.

    rounds: at most so many. seconds: no part of a round that would be later than that is begun; but
    the first round is made whole. each: seconds for a contender. failed: what did, in the end.
    """

    place: Place
    quick: bool
    rounds: int
    seconds: float
    each: float
    failed: list[str] = field(default_factory=list)

    def measure(self, figures: list[Figure]) -> dict[str, dict[str, Run]]:
        """Return the results by the titles of the tables."""
        tables = [
            Table(title, figure, pinned, {contender: [] for contender in figure.contenders})
            for figure in figures
            for title, pinned in figure.variants(self.quick)
        ]
        begin = time.monotonic()
        for number in range(self.rounds):
            for table in tables:
                start = time.monotonic()
                late = start + table.seconds > begin + self.seconds
                if number and (late or number >= table.figure.rounds):
                    continue
                told = f"{start - begin:4.0f} s  round {number + 1}: {table.title}"
                print(told, file=sys.stderr, flush=True)
                self._round(table)
                table.seconds = time.monotonic() - start
        return {table.title: table.results() for table in tables}

    def _round(self, table: Table) -> None:
        settings = Settings(self.place, table.pinned, self.each)
        for contender, runs in table.runs.items():
            if runs and "missing" in runs[-1]:
                continue
            try:
                runs.append(table.figure.how(contender, settings))
            except subprocess.SubprocessError as problem:
                print(problem, file=sys.stderr)
                self.failed.append(f"{table.title}: {contender}")
                runs.append({"missing": "it failed"})
