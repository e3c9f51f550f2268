"""The last results, written into the documents between the marks that are there for them.

    <!-- bench: round trip, asyncio, one core -->    the table of a figure
    <!-- bench: round trip, asyncio -->              the same on one core and on all, in short
    <!-- bench goals -->                             the goals, on one core and on all
    <!-- bench about -->                             the machine and the date
    <!-- bench long -->                              the long run

each up to <!-- bench end -->. What was not measured stays as it is.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import longrun
from figures import FIGURES
from report import about, brief, goals, rows, tables
from runs import ROOT

DOCUMENTS = ("README.md", "docs/performance.md")
KINDS = ("about", "goals", "long")  # marks without a title
PICTURES = ("round-trips.svg", "long-run.svg")
GOALS = ("| | goal | one core | all cores | at most | |", "| --- | --- | --: | --: | --: | --- |")
MARK = re.compile(r"(<!-- bench(?! end).*? -->\n).*?(?=<!-- bench end -->)", re.DOTALL)


def blocks(result: dict[str, Any]) -> dict[str, list[str]]:
    """Return what goes after each mark, by the mark."""
    made = {" about": [about(result)], " goals": list(GOALS)}
    measured = result["figures"]
    for title, figure, runs in tables(result):
        made[f": {title}"] = rows(figure, runs)
    for figure in FIGURES:
        titles = {title.rpartition(", ")[2]: title for title, _ in figure.variants(quick=False)}
        places = {place: measured[title] for place, title in titles.items() if title in measured}
        if places:
            made[f": {figure.title}"] = brief(figure, places)
        if "one core" in places:
            known = goals(figure, places["one core"], places.get("all cores"))
            made[" goals"] += [f"| {figure.title} {goal}" for goal in known]
    return {f"<!-- bench{mark} -->\n": lines for mark, lines in made.items()}


def filled(text: str, made: dict[str, list[str]]) -> str:
    """Return a document with its blocks filled in."""

    def block(match: re.Match[str]) -> str:
        mark = match[1]
        return "\n".join([mark, *made[mark], "", ""]) if mark in made else match[0]

    return MARK.sub(block, text)


def write(source: Path) -> None:
    """Write the results of a directory into the documents, and copy its pictures."""
    made: dict[str, list[str]] = {}
    for name, read in {"results.json": blocks, "long-run.json": longrun.blocks}.items():
        if (source / name).exists():
            made |= read(json.loads((source / name).read_text(encoding="utf-8")))
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8"), made), encoding="utf-8")
    for name in PICTURES:
        if (source / name).exists():
            shutil.copy(source / name, ROOT / "docs" / name)
