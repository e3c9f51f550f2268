"""Results as tables, as pictures, and beside earlier ones."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from figures import FIGURES, Figure

COLORS = {"floors": "#999999", "ours": "#2a6fb0", "peers": "#d9a441"}
DRAWN = ("round trip, asyncio, one core", "round trip, uvloop, one core")
Runs = dict[str, dict[str, Any]]  # the figures of each contender


def machine() -> dict[str, Any]:
    """Describe what this runs on, and what of machio runs."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "commit": commit,
        "load before": os.getloadavg()[0],
    }


def digits(value: float) -> str:
    """Write a number with three digits, or all before its point."""
    return f"{value:,.{0 if value >= 99.5 else 1 if value >= 9.95 else 2}f}"


def microseconds(value: float) -> str:
    """Write nanoseconds in microseconds."""
    return digits(value / 1e3)


def whole(value: float) -> str:
    """Write a number without what is after its point."""
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    """Write how many times one thing is another."""
    return f"{value:.2f}"


# What a run may tell: the head of its column, and how it is written.
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "median": ("µs", microseconds),
    "own": ("bytes of its own each", whole),
    "rate": ("a second", whole),
    "p50": ("waited, p50", microseconds),
    "p99": ("p99", microseconds),
    "p99.9": ("p99.9", microseconds),
    "cpu": ("CPU", microseconds),
    "system": ("of the system each, about", whole),
    "memory": ("MiB", lambda value: digits(value / 2**20)),
    "fds": ("fds", lambda value: f"{value:,.{0 if value >= 10 else 1}f}"),
}


def tables(result: dict[str, Any]) -> Iterator[tuple[str, Figure, Runs]]:
    """Yield title, figure and runs of what was measured, in the order of `FIGURES`."""
    for figure in FIGURES:
        for title, _ in figure.variants(quick=False):
            if title in result["figures"]:
                yield title, figure, result["figures"][title]


def goals(figure: Figure, *columns: Runs | None) -> list[str]:
    """Return the rows that say of each goal of a figure whether it is met.

    columns: what was measured, on one core say, and then on all; None: that was not.
    """
    made = []
    for one, other, limit in figure.goals:
        names = f"{figure.name(one)}, {COLUMNS[figure.by][0]}"
        write, most = whole, whole(limit)
        if other is not None:
            names = f"{figure.name(one)} / {figure.name(other)}"
            write, most = ratio, f"{limit:.3g}"
        values = [None if runs is None else compared(runs, figure, one, other) for runs in columns]
        met = [value <= limit for value in values if value is not None]
        if met:
            cells = ["" if value is None else write(value) for value in values]
            said = "met" if all(met) else "partly" if any(met) else "not met"
            made.append(f"| {names} | {' | '.join(cells)} | {most} | {said} |")
    return made


def compared(runs: Runs, figure: Figure, one: str, other: str | None) -> float | None:
    """Return what a goal is about: a figure, or the ratio of two; None if one is missing."""
    if "missing" in runs[one] or (other is not None and "missing" in runs[other]):
        return None
    value: float = runs[one][figure.by]
    return value if other is None else value / runs[other][figure.by]


def rows(figure: Figure, runs: Runs) -> list[str]:
    """Return the table of a figure."""
    told = [name for run in runs.values() if "missing" not in run for name in run]
    others = [name for name in COLUMNS if name in told and name != figure.by]
    head, write = COLUMNS[figure.by]
    heads = [head, "of the runs", *(COLUMNS[name][0] for name in others), "ratio"]
    lines = []
    for contender, run in runs.items():
        if "missing" in run:
            cells = [f"missing: {run['missing']}", *([""] * (len(heads) - 1))]
        else:
            spread = f"{write(run['least'])} to {write(run['greatest'])}"
            cells = [write(run[figure.by]), spread]
            cells += [COLUMNS[name][1](run[name]) for name in others]
            cells.append(to_floor(figure, runs, contender))
        lines.append([figure.name(contender), *cells])
    return columns(heads, lines)


def brief(figure: Figure, places: dict[str, Runs]) -> list[str]:
    """Return the table of a figure that was measured in several places: its value in each."""
    head, write = COLUMNS[figure.by]
    heads = [title for place in places for title in (f"{place}, {head}", "ratio")]
    lines = []
    for contender in next(iter(places.values())):
        cells = [figure.name(contender)]
        for runs in places.values():
            run = runs[contender]
            cells += [
                "missing" if "missing" in run else write(run[figure.by]),
                to_floor(figure, runs, contender),
            ]
        lines.append(cells)
    return columns(heads, lines)


def to_floor(figure: Figure, runs: Runs, contender: str) -> str:
    """Write the ratio to the figure's floor; nothing if one is missing."""
    value = compared(runs, figure, contender, figure.contenders[0])
    return "" if value is None else ratio(value)


def columns(heads: list[str], lines: list[list[str]]) -> list[str]:
    """Return a table in Markdown: names to the left, figures to the right."""
    table = [f"| | {' | '.join(heads)} |", "| --- |" + " --: |" * len(heads)]
    return table + [f"| {' | '.join(cells)} |" for cells in lines]


def about(result: dict[str, Any]) -> str:
    """Say in a sentence what was measured where and when."""
    on = result["machine"]
    return (
        f"{on['cpu']}, {on['cores']} cores, {on['system']}, Python {on['python']},"
        f" commit {on['commit']}, {result['time']},"
        f" load {on['load before']:.1f} before and {result['load'][0]:.1f} after."
    )


def table(result: dict[str, Any]) -> str:
    """Return all results in Markdown."""
    lines = [about(result)]
    for title, figure, runs in tables(result):
        lines += ["", f"## {title}", "", *rows(figure, runs)]
        if known := goals(figure, runs):
            lines += ["", "| goal | is | at most | |", "| --- | --: | --: | --- |", *known]
    return "\n".join(lines) + "\n"


def pyplot() -> Any:
    """Return what draws SVG, or None and say so."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
        return None
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "machio"
    from matplotlib import pyplot as plt

    return plt


def save(drawing: Any, path: Path) -> None:
    """Write a picture that has the same bytes if it shows the same."""
    drawing.savefig(path, metadata={"Date": None})


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the round trips as bars, with the spread of the runs."""
    shown = {
        title: (figure, {name: run for name, run in runs.items() if "missing" not in run})
        for title, figure, runs in tables(result)
        if title in DRAWN
    }
    if not shown or (plt := pyplot()) is None:
        return
    heights = [len(runs) for _, runs in shown.values()]
    drawing, axes = plt.subplots(
        len(shown),
        1,
        figsize=(8, 0.9 + 0.36 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for (title, (figure, runs)), axis in zip(shown.items(), axes[:, 0], strict=True):
        names = [figure.name(name).replace("`", "") for name in runs]
        medians = [run["median"] / 1000 for run in runs.values()]
        errors = [
            [(run["median"] - run["least"]) / 1000 for run in runs.values()],
            [(run["greatest"] - run["median"]) / 1000 for run in runs.values()],
        ]
        colors = [COLORS[name.partition(".")[0]] for name in runs]
        axis.barh(names, medians, xerr=errors, color=colors, ecolor="#444444", capsize=2)
        axis.invert_yaxis()
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("µs, less is better", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    save(drawing, path)
    plt.close(drawing)


def compare(history: Path, files: list[str]) -> str:
    """Return two results side by side: those of two files, or the last two of the history."""
    if len(files) == 2:
        results = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
    elif files:
        raise SystemExit("name two files with results, or none")
    else:
        lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
        results = [json.loads(line) for line in lines[-2:]]
    if len(results) < 2:
        raise SystemExit("there are no two full runs to compare: run `make bench` twice")
    before, after = results
    text = [about(before), about(after)]
    for title, figure, runs in tables(after):
        for contender, run in runs.items():
            old = before["figures"].get(title, {}).get(contender, {})
            if figure.by in run and figure.by in old:
                write = COLUMNS[figure.by][1]
                was, now = old[figure.by], run[figure.by]
                text.append(
                    f"{title:42} {figure.name(contender):42} {write(was):>9} {write(now):>9}"
                    f" {100 * (now / was - 1):+6.1f} %"
                )
    return "\n".join(text)
