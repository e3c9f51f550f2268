"""Measure machio beside its floors and peers: ``python benchmarks [--quick] [--only WORD]``.

Each figure runs its contenders in turn (A B A B ...), every run in processes of its own. What is
printed is the median over the runs of each run's median, with the least and the greatest of them;
ratios are those of the medians. The results go to build/bench/ as JSON, a table and a picture, and
a full run adds a line to history.jsonl, of which ``python benchmarks --compare`` lays the last two
side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from figures import BUILD, FIGURES, HERE, Figure, Run
from report import compare, machine, plot, table

ROOT = HERE.parent


def build() -> None:
    """Compile the programs in C."""
    BUILD.mkdir(parents=True, exist_ok=True)
    cc = os.environ.get("CC", "cc").split()
    flags = ["-O2", "-D_GNU_SOURCE", "-pthread", f"-I{ROOT / 'machio/csrc/linux/include'}"]
    library = [str(path) for path in sorted((ROOT / "machio/csrc/linux").glob("*.c"))]
    for name, sources in {"bare": [], "mach": library}.items():
        command = [*cc, *flags, str(HERE / f"{name}.c"), *sources, "-o", str(BUILD / name)]
        subprocess.run(command, check=True)


def summary(runs: list[Run]) -> Run:
    """Return the median over runs, and how far they lie apart."""
    if "missing" in runs[0]:
        return runs[0]
    medians = [run["median"] for run in runs]
    result = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**result, "least": min(medians), "greatest": max(medians), "runs": len(runs)}


def measure(figure: Figure, pinned: bool, rounds: int, quick: bool) -> dict[str, Run]:
    """Run the contenders of a figure in turn."""
    runs: dict[str, list[Run]] = {name: [] for name in figure.contenders}
    for _ in range(rounds):
        for name, results in runs.items():
            if not results or "missing" not in results[0]:
                results.append(figure.run(name, pinned, quick))
    return {name: summary(results) for name, results in runs.items()}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one core, few and short runs")
    parser.add_argument("--only", default="", help="figures with this word in the title")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="the last two full runs")
    options = parser.parse_args()
    history = HERE / "history.jsonl"
    if options.compare:
        sys.exit(compare(history))

    build()
    rounds = options.rounds or (3 if options.quick else 5)
    result = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine(), "figures": {}}
    with tempfile.TemporaryDirectory(prefix="machio-benchmark-") as directory:
        os.environ["MACHIO_BOOTSTRAP"] = directory
        for figure in FIGURES:
            if options.only not in figure.title:
                continue
            for pinned in figure.pinned[:1] if options.quick else figure.pinned:
                title = f"{figure.title}, {'one core' if pinned else 'all cores'}"
                print(f"measuring: {title}", file=sys.stderr)
                result["figures"][title] = measure(figure, pinned, rounds, options.quick)
    result["load"] = os.getloadavg()

    text = table(result)
    print(text)
    (BUILD / "results.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (BUILD / "table.md").write_text(text, encoding="utf-8")
    plot(result, BUILD / "round-trips.svg")
    if not options.quick and not options.only:
        with history.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
