"""Measure machio beside its floors and its peers.

Each round runs the contenders of every figure in turn, every run in processes of its own; there
are as many rounds as the time allows, five at most. A table has the medians of the runs' medians
and the least and the greatest of them; ratios are those of the medians. The results go to
build/bench as JSON, tables and a picture, and a full run adds a line to benchmarks/history.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import documents
import longrun
from figures import FIGURES
from report import compare, machine, plot, table
from rounds import Bench
from runs import HERE, ROOT, place

HISTORY = HERE / "history.jsonl"
ALLOWED = {True: 45.0, False: 480.0}  # seconds for all rounds, if quick or not
EACH = {True: 0.12, False: 0.6}  # for a contender in a round


def parse() -> argparse.Namespace:
    """Return what the command line says."""
    first, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=first, epilog=more)
    add = parser.add_argument
    add("--quick", action="store_true", help="one core, short runs, a minute")
    add("--only", default="", metavar="WORD", help="figures with this in the title, no history")
    add("--rounds", type=int, default=5, metavar="N", help="at most so many rounds (5)")
    add("--time", type=float, metavar="SECONDS", help="begin no round later than that (480)")
    add("--each", type=float, metavar="SECONDS", help="for a contender in a round (0.6)")
    add("--json", action="store_true", help="print the results as JSON, not as tables")
    add("--out", type=Path, default=ROOT / "build/bench", metavar="DIR", help="build/bench")
    add("--list", action="store_true", help="list the figures")
    other = parser.add_argument_group("instead of measuring so")
    add = other.add_argument
    add("--long", action="store_true", help="ten million messages: do memory and files stay flat?")
    add("--messages", type=int, default=10_000_000, metavar="N", help="so many of them")
    add("--compare", nargs="*", metavar="JSON", help="two results, or the history's last two")
    add("--docs", action="store_true", help="write the last results into README.md and docs/")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.time = ALLOWED[options.quick] if options.time is None else options.time
    options.each = EACH[options.quick] if options.each is None else options.each
    return options


def bench(options: argparse.Namespace) -> None:
    """Measure, print and keep the results."""
    figures = [figure for figure in FIGURES if options.only in figure.title]
    if not figures:
        raise SystemExit(f"no figure has {options.only!r} in its title")
    result: dict[str, Any] = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine()}
    with place(options.out) as here:
        runs = Bench(here, options.quick, options.rounds, options.time, options.each)
        result["figures"] = runs.measure(figures)
    result["load"] = os.getloadavg()
    text = table(result)
    print(json.dumps(result, indent=1) if options.json else text)
    (options.out / "results.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    (options.out / "table.md").write_text(text, encoding="utf-8")
    plot(result, options.out / "round-trips.svg")
    if not (options.quick or options.only):
        with HISTORY.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(result) + "\n")
    if runs.failed:
        raise SystemExit("these failed: " + ", ".join(runs.failed))


def interrupt(*_: object) -> None:
    """End, and let nothing disturb that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Do what the command line asks for."""
    options = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        if options.list:
            print("\n".join(figure.title for figure in FIGURES))
        elif options.compare is not None:
            print(compare(HISTORY, options.compare))
        elif options.docs:
            documents.write(options.out)
        elif options.long:
            longrun.run(options.messages, options.out)
        else:
            bench(options)
    except KeyboardInterrupt:
        sys.exit("\nended; nothing is left running")


if __name__ == "__main__":
    main()
