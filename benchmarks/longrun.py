"""A long run: ten million messages between two processes, while memory and files stay flat."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from report import digits, pyplot, save
from runs import HERE, Place, Settings, place, started
from usage import open_files, private_memory

Sample = dict[str, float]  # "seconds", and memory and fds of both processes
SERIES = {"memory": ("memory, MiB", 2**20), "fds": ("open files", 1)}
SIDES = ("first", "second")
SETTLED = 0.1  # the part of the run after which nothing may grow


def sample(pid: int) -> Sample:
    """Return what a process and its child have. Raises OSError, ValueError if one is not there."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    (child,) = map(int, children.split())
    taken: Sample = {}
    for side, one in zip(SIDES, (pid, child), strict=True):
        taken |= {f"{side} memory": private_memory(one), f"{side} fds": open_files(one)}
    return taken


def watch(command: list[str], messages: int, here: Place) -> list[Sample]:
    """Run a command to its end, and look at it again and again."""
    samples: list[Sample] = []
    begin = told = time.monotonic()
    every = min(1.0, messages / 1e6)
    with started(command, Settings(here, pinned=True, seconds=0)) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                seconds = time.monotonic() - begin
                samples.append({"seconds": seconds, **sample(process.pid)})
            if samples and time.monotonic() > told + 10:
                told = time.monotonic()
                print(f"{told - begin:4.0f} s  {shown(samples[-1])}", file=sys.stderr, flush=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(every)
        if process.returncode or not samples:
            raise SystemExit(f"{command[0]} failed, or was too fast to be looked at")
    return samples


def shown(taken: Sample) -> str:
    """Say in a few words what both processes have."""
    sides = [(taken[f"{side} memory"] / 2**20, taken[f"{side} fds"]) for side in SIDES]
    return " and ".join(f"{memory:.2f} MiB, {files:.0f} files" for memory, files in sides)


def growth(samples: list[Sample], name: str) -> tuple[float, float]:
    """Return a figure after a tenth of the run, and how far it ever was above that afterwards."""
    settled = samples[int(len(samples) * SETTLED) :]
    return settled[0][name], max(one[name] for one in settled) - settled[0][name]


HEADS = [
    "| | seconds | looks | first process | grew | second process | grew | open files | grew |",
    "| --- |" + " --: |" * 8,
]


def row(title: str, samples: list[Sample]) -> str:
    """Return a row of the table: memory in MiB, and its growth in KiB."""
    cells = [title, f"{samples[-1]['seconds']:.0f}", str(len(samples))]
    for side in SIDES:
        memory, grown = growth(samples, f"{side} memory")
        cells += [f"{digits(memory / 2**20)} MiB", f"{grown / 1024:.0f} KiB"]
    files = [growth(samples, f"{side} fds") for side in SIDES]
    cells += [" and ".join(f"{count:.0f}" for count, _ in files)]
    cells += [f"{sum(grown for _, grown in files):.0f}"]
    return f"| {' | '.join(cells)} |"


def table(result: dict[str, Any]) -> list[str]:
    """Return the table of a long run."""
    return [*HEADS, *(row(title, samples) for title, samples in result["samples"].items())]


def blocks(result: dict[str, Any]) -> dict[str, list[str]]:
    """Return what goes after a mark in the documents."""
    return {"<!-- bench long -->\n": table(result)}


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw memory and open files of all processes over the time."""
    if (plt := pyplot()) is None:
        return
    runs = result["samples"]
    drawing, axes = plt.subplots(
        len(runs), len(SERIES), figsize=(8, 2.2 * len(runs)), squeeze=False, layout="constrained"
    )
    for (title, samples), line in zip(runs.items(), axes, strict=True):
        for (name, (label, unit)), axis in zip(SERIES.items(), line, strict=True):
            for side, style in zip(SIDES, ("-", "--"), strict=True):
                axis.plot(
                    [one["seconds"] for one in samples],
                    [one[f"{side} {name}"] / unit for one in samples],
                    style,
                    label=f"{side} process",
                )
            axis.set_ylim(bottom=0)
            axis.set_title(f"{title}: {label}", fontsize=9, loc="left")
            axis.set_xlabel("seconds", fontsize=8)
            axis.tick_params(labelsize=8)
            axis.legend(fontsize=7, loc="lower right")
            axis.spines[["top", "right"]].set_visible(False)
    save(drawing, path)
    plt.close(drawing)


def run(messages: int, out: Path) -> None:
    """Make the run; print a table, and keep it with a picture in `out`."""
    trips = str(messages // 2)
    worker = [sys.executable, str(HERE / "worker.py"), "last", "ours.Machio", "asyncio", trips]
    result: dict[str, Any] = {"messages": messages, "samples": {}}
    with place(out) as here:
        commands = {"in C": [str(here.programs / "mach"), "1e9", "64", trips], "in Python": worker}
        for title, command in commands.items():
            print(f"{messages:,} messages {title}, on one core", file=sys.stderr)
            result["samples"][title] = watch(command, messages, here)
    (out / "long-run.json").write_text(json.dumps(result), encoding="utf-8")
    plot(result, out / "long-run.svg")
    print("\n".join(table(result)))
