"""The benchmarks run, tell what their tables show, and leave nothing. How fast is none of this."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import documents
import longrun
import pytest
import report
from figures import FIGURES, Figure
from rounds import Bench
from runs import Place, Settings, place

pytestmark = pytest.mark.timeout(240)  # they compile the C layer, and start many a Python

ROOT = Path(__file__).resolve().parent.parent
BENCH = [sys.executable, str(ROOT / "benchmarks")]
TINY = 0.01  # seconds for a contender
TRIP = {"median", "p99", "cpu"}
CROWD = {"median", "rate", "p50", "p99", "p99.9", "memory", "fds"}
ROWS = {  # the contenders of figures, of small size, and what they tell
    "handshake, both sides running": (TRIP, ["floors.Rendezvous", "ours.Handshake"]),
    "start of a child in C": (TRIP, ["starts.Start", "starts.Spawn"]),
    "start of a child in Python": (TRIP, ["starts.StartMachio", "starts.SpawnPython"]),
    "memory of what waits": (
        {"own", "system", "fds"},
        ["floors.Waiting:30", "ours.WaitingAlone:30", "ours.Waiting:60"],
    ),
    "senders to one receiver": (
        CROWD,
        ["floors.Floor:2", "ours.Machio:3", "ours.Wide:2", "peers.Streams:2"],
    ),
    "clients of one service": (CROWD, ["floors.Floor:3", "ours.Service:3", "peers.Streams:3"]),
    "round trip in C": ({"median", "p99", "p99.9"}, ["bare", "mach"]),
    "round trip, asyncio": (TRIP, ["ours.Handler"]),
    "round trip, uvloop": (TRIP, ["ours.Machio", "ours.Service"]),
    "one way, asyncio": ({"median", "cpu"}, ["ours.Machio", "peers.AnyioStreams"]),
    "look-up": (TRIP, ["ours.LookUp"]),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the programs in C."""
    with place(tmp_path_factory.mktemp("bench")) as here:
        return here.programs


@pytest.fixture
def here(programs: Path) -> Iterator[Place]:
    """A place for runs, of which nothing may be left."""
    with place(programs) as here:
        yield here
        left = running(str(here.directory), patience=5, but="machio.bootstrapd")
    assert left == []
    assert running(str(here.directory), patience=5) == []
    assert not here.directory.exists()


def processes(mark: str) -> Iterator[Path]:
    """Yield the folders of the processes with `mark` in the environment."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (path / "environ").read_bytes():
                yield path


def running(mark: str, patience: float = 0, but: str = "\n") -> list[str]:
    """Return the commands of processes with `mark` in the environment, which get time to end."""
    deadline = time.monotonic() + patience
    while True:
        found = []
        for path in processes(mark):
            with contextlib.suppress(OSError):
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        found = [command for command in found if but not in command]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def figure(title: str) -> Figure:
    return next(figure for figure in FIGURES if figure.title == title)


@pytest.mark.parametrize(
    ("title", "contender"),
    [(title, contender) for title, (_, contenders) in ROWS.items() for contender in contenders],
)
def test_a_row_tells_what_its_table_shows(title, contender, here):
    run = figure(title).how(contender, Settings(here, False, TINY))
    assert run.keys() == ROWS[title][0]


def test_what_a_machine_lacks_is_named(here):
    floor, lacking = "floors.Waiting:30", "floors.Waiting:50000000"
    memory = replace(figure("memory of what waits"), contenders=[floor, lacking], goals=[])
    results = Bench(here, True, rounds=2, seconds=60, each=TINY).measure([memory])
    (runs,) = results.values()
    assert runs[floor]["runs"] == 2
    assert "| missing: needs 100,000,100 descriptors, and " in report.rows(memory, runs)[-1]


def test_a_run_that_fails_is_told_and_the_others_go_on(here, capfd):
    wrong = replace(figure("look-up"), contenders=["ours.Nobody", "ours.LookUp"], goals=[])
    bench = Bench(here, True, rounds=2, seconds=60, each=TINY)
    (runs,) = bench.measure([wrong]).values()
    assert runs["ours.Nobody"] == {"missing": "it failed"}
    assert runs["ours.LookUp"]["runs"] == 2
    assert bench.failed == ["look-up, one core: ours.Nobody"]
    assert "has no attribute 'Nobody'" in capfd.readouterr().err


@pytest.mark.parametrize(("seconds", "turns"), [(60, "ABcABcAB"), (0, "ABc")])
def test_contenders_take_turns_while_there_is_time(seconds, turns, here):
    made = []

    def how(contender: str, settings: Settings) -> dict:
        made.append(contender)
        return {"median": len(made)}

    first = Figure("first", ["A", "B"], how, pinned=(True,))
    second = Figure("second", ["c"], how, pinned=(True,), rounds=2)
    results = Bench(here, False, rounds=3, seconds=seconds, each=TINY).measure([first, second])
    assert "".join(made) == turns
    at = [place + 1 for place, contender in enumerate(turns) if contender == "B"]
    told = {"median": at[len(at) // 2], "least": at[0], "greatest": at[-1], "runs": len(at)}
    assert results["first, one core"]["B"] == told


def test_the_program_prints_keeps_and_compares_results(programs):
    history = ROOT / "benchmarks/history.jsonl"
    before = history.read_bytes() if history.exists() else b""
    small = ["--only", "round trip in C", "--rounds", "2", "--each", str(TINY)]
    printed = json.loads(bench(*small, "--json", "--out", str(programs)))
    kept = programs / "results.json"
    assert printed == json.loads(kept.read_text(encoding="utf-8"))
    assert printed["figures"]["round trip in C, all cores"]["mach"]["runs"] == 2
    assert "| `mach_msg` / bare `sendmsg` and `recvmsg` |" in (programs / "table.md").read_text()
    assert (history.read_bytes() if history.exists() else b"") == before
    compared = bench("--compare", str(kept), str(kept))
    assert compared.count("+0.0 %") == 4


def bench(*options: str) -> str:
    return subprocess.run([*BENCH, *options], stdout=subprocess.PIPE, text=True, check=True).stdout


def test_ctrl_c_leaves_nothing(tmp_path, programs):
    mark = str(tmp_path)
    options = ["--only", "look-up", "--each", "30", "--out", str(programs)]
    process = subprocess.Popen(
        [*BENCH, *options],
        env={**os.environ, "MACHIO_BENCHMARK_TEST": mark},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        while not any(map(is_echoing, processes(mark))):
            assert process.poll() is None
            time.sleep(0.01)
        directories = {path for path in Path("/tmp").glob("machio-benchmark-*") if of(mark, path)}
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate()[1].endswith("ended; nothing is left running\n")
    assert process.returncode == 1
    assert running(mark, patience=5) == []
    assert len(directories) == 1
    assert not directories.pop().exists()


def is_echoing(path: Path) -> bool:
    """Return whether a process would answer messages for ever, and has come so far."""
    with contextlib.suppress(OSError):
        used = int((path / "schedstat").read_text().split()[0])
        return b"\0echo\0ours.Machio\0" in (path / "cmdline").read_bytes() and used > 10**9
    return False


def of(mark: str, directory: Path) -> bool:
    """Return whether processes with `mark` use a directory."""
    return bool(set(running(mark)) & set(running(str(directory))))


def test_a_long_run_is_looked_at_and_drawn(tmp_path, programs):
    told = bench("--long", "--messages", "10000", "--out", str(programs))
    result = json.loads((programs / "long-run.json").read_text(encoding="utf-8"))
    names = {f"{side} {what}" for side in ("first", "second") for what in ("memory", "fds")}
    for title in ("in C", "in Python"):
        assert result["samples"][title][-1].keys() == {"seconds"} | names
        assert f"| {title} |" in told


def test_growth_is_told_from_a_tenth_of_the_run_on():
    memory = [1, 9, 5, 5, 6, 5, 5, 5, 8, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]
    samples = [{"first memory": value} for value in memory]
    assert longrun.growth(samples, "first memory") == (5, 3)


def test_documents_are_filled_where_they_are_marked():
    other = "<!-- bench other -->\nkept\n<!-- bench end -->\n"
    text = f"a\n<!-- bench: x -->\nold\n<!-- bench end -->\nb\n{other}"
    filled = documents.filled(text, {"<!-- bench: x -->\n": ["| 1 |", "| 2 |"]})
    assert filled == text.replace("old\n", "\n| 1 |\n| 2 |\n\n")
    assert documents.filled(filled, {"<!-- bench: x -->\n": ["| 1 |", "| 2 |"]}) == filled


def test_every_mark_in_the_documents_is_known():
    titles = {title for figure in FIGURES for title, _ in figure.variants(quick=False)}
    titles |= {figure.title for figure in FIGURES}
    for name in documents.DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        marks = [match[1].strip() for match in documents.MARK.finditer(text)]
        assert marks
        for mark in marks:
            kind, _, title = mark.removeprefix("<!-- bench").removesuffix("-->").partition(":")
            assert (title.strip() in titles) if title else (kind.strip() in documents.KINDS), mark


HISTOGRAM = """
#include "times.h"
int main(void) {
    static struct times times;
    for (int64_t i = 1; i <= 1000000; i++)
        note(&times, i);
    note(&times, INT64_MAX);
    printf("%d %d %d", (int)quantile(&times, 0.0001), (int)quantile(&times, 0.5),
           (int)quantile(&times, 0.999));
    return quantile(&times, 1 - 1e-7) < INT64_MAX / 256 * 255 || times.count != 1000001;
}
"""


def test_the_histogram_in_c_tells_quantiles(tmp_path):
    source, program = tmp_path / "histogram.c", tmp_path / "histogram"
    source.write_text(HISTOGRAM, encoding="utf-8")
    include = f"-I{ROOT / 'benchmarks'}"
    command = [*shlex.split(os.environ.get("CC", "cc")), include, str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    told = map(int, subprocess.run([program], check=True, capture_output=True).stdout.split())
    for quantile, true in zip(told, (100, 500_000, 999_000), strict=True):
        assert true * 255 / 256 <= quantile <= true + 1
