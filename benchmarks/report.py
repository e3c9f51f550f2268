"""Results as a table, as a picture, and beside earlier ones."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from figures import FIGURES, NAMES, Run

COLORS = {"floors": "#999999", "ours": "#2a6fb0", "peers": "#d9a441"}


def machine() -> dict[str, Any]:
    """Describe what this runs on, and what of machio runs."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "commit": commit,
        "load before": os.getloadavg()[0],
    }


def microseconds(value: float) -> str:
    """Write nanoseconds in microseconds, three digits."""
    return f"{value / 1000:.{0 if value >= 99_500 else 1 if value >= 9_950 else 2}f}"


def goals_of(title: str, runs: dict[str, Run]) -> list[str]:
    """Say of each goal of a figure whether it is met."""
    lines = []
    for figure in FIGURES:
        if not title.startswith(figure.title + ", "):
            continue
        for one, other, limit in figure.goals:
            if "missing" in runs[one] or "missing" in runs[other]:
                continue
            ratio = runs[one]["median"] / runs[other]["median"]
            verdict = "met" if ratio <= limit else "not met"
            names = f"{NAMES.get(one, one)} / {NAMES.get(other, other)}"
            lines.append(f"| {names} | {ratio:.2f} | {limit:g} | {verdict} |")
    return lines


def table(result: dict[str, Any]) -> str:
    """Return all results in Markdown."""
    about = result["machine"]
    head = (
        f"{about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']},"
        f" commit {about['commit']}, {result['time']},"
        f" load {about['load before']:.1f} before and {result['load'][0]:.1f} after."
    )
    lines = [head]
    floors = {figure.title: figure.floor for figure in FIGURES}
    for title, runs in result["figures"].items():
        floor = runs[floors[title.rpartition(", ")[0]]]
        lines += ["", f"## {title}", ""]
        lines += ["| | µs | of the runs | p99 | CPU | ratio |", "| --- |" + " --: |" * 5]
        for name, run in runs.items():
            shown = NAMES.get(name, name)
            if "missing" in run:
                lines.append(f"| {shown} | missing: {run['missing']} | | | | |")
                continue
            us = {key: microseconds(value) for key, value in run.items() if key != "runs"}
            spread = f"{us['least']} to {us['greatest']}"
            cells = [shown, us["median"], spread, us.get("p99", ""), us.get("cpu", "")]
            lines.append(f"| {' | '.join(cells)} | {run['median'] / floor['median']:.2f} |")
        goals = goals_of(title, runs)
        if goals:
            lines += ["", "| goal | is | at most | |", "| --- | --: | --: | --- |", *goals]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the round trips as bars, with the spread of the runs."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "machio"
    from matplotlib import pyplot as plt

    shown = {
        title: {name: run for name, run in runs.items() if "missing" not in run}
        for title, runs in result["figures"].items()
        if title.startswith("round trip, ") and title.endswith("one core") and "ports" not in title
    }
    if not shown:
        return
    heights = [len(runs) for runs in shown.values()]
    figure, axes = plt.subplots(
        len(shown),
        1,
        figsize=(8, 0.9 + 0.36 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for (title, runs), axis in zip(shown.items(), axes[:, 0], strict=True):
        names = [NAMES.get(name, name) for name in runs]
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
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def compare(history: Path) -> str | int:
    """Print the last two runs side by side; a sentence instead if there are none."""
    runs = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    if len(runs) < 2:
        return "there are no two full runs to compare: run `make bench` twice"
    before, after = runs[-2:]
    for run in (before, after):
        print(f"{run['time']} {run['machine']['commit']}, load {run['load'][0]:.1f}")
    for title, figures in after["figures"].items():
        for name, run in figures.items():
            old = before["figures"].get(title, {}).get(name, {})
            if "median" in run and "median" in old:
                change = 100 * (run["median"] / old["median"] - 1)
                print(
                    f"{title:45} {NAMES.get(name, name):32} {microseconds(old['median']):>8}"
                    f" {microseconds(run['median']):>8} µs {change:+6.1f} %"
                )
    return 0
