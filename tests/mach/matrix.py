"""The conformance matrix: each statement, its sentence, and where it holds.

    python tests/mach/matrix.py            print docs/conformance.md as it should be
    python tests/mach/matrix.py --write    and write it

The sentences are the docstrings of the tests. That a statement passes is what the tests say, since
a test without a gate must pass and one with a gate must fail: run them first (`make conformance`).
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "conformance.md"
DIFFERENCES = ROOT / "DIFFERENCES.md"
STATEMENTS = [f"S-{number:03}" for number in range(1, 234)]
# Of calls that none of them is about; each stands behind the one it would have followed.
OWN_STATEMENTS = [f"S-209{letter}" for letter in "abcde"]
SYSTEM = sys.platform.rstrip("0123456789")

RULE = "| --- | --- | --- | --- |"
HEAD = """# What of Mach holds, statement by statement

Each line is a test in `tests/mach/`, written against Mach's C API alone: the same files run on
either system. `make conformance` runs them and writes this page. A statement that cannot hold on a
system is gated in `tests/mach/gates.toml` with the reason, and its test must then fail there.

On Linux {passing} of {total} statements pass, {gated} are gated. On macOS the tests have not been
run yet. Statements with a letter are machio's own, {own} beside those {total}, of calls that none
of them is about.
"""


@dataclass(frozen=True)
class Gate:
    id: str
    system: str
    reason: str
    differences: str = ""


@dataclass(frozen=True)
class Statement:
    id: str
    sentence: str
    subject: str


def gates(path: Path = HERE / "gates.toml") -> list[Gate]:
    return [Gate(**entry) for entry in tomllib.loads(path.read_text()).get("gate", [])]


def gates_here() -> dict[str, Gate]:
    """Map the statements that are gated on this system to their gates."""
    return {gate.id: gate for gate in gates() if gate.system == SYSTEM}


def statement_of(test: str) -> str:
    """Return the id in the name of a test, or nothing."""
    found = re.match(r"test_S_(\d{3}[a-z]?)_", test)
    return f"S-{found[1]}" if found else ""


def statements() -> Iterator[Statement]:
    """Yield each test of a statement, in the files' order."""
    for path in HERE.glob("test_mach_*.py"):
        module = ast.parse(path.read_text())
        subject = (ast.get_docstring(module) or "").splitlines()[0].rstrip(".")
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and (number := statement_of(node.name)):
                sentence = " ".join((ast.get_docstring(node) or "").split())
                yield Statement(number, sentence, subject)


def render() -> str:
    """Return the text of docs/conformance.md."""
    on_linux = {gate.id: gate for gate in gates() if gate.system == "linux"}
    all_statements = sorted(statements(), key=lambda statement: statement.id)
    gated = len(on_linux.keys() - OWN_STATEMENTS)
    total, own = len(STATEMENTS), len(OWN_STATEMENTS)
    lines = [HEAD.format(passing=total - gated, total=total, gated=gated, own=own)]
    subject = ""
    for statement in all_statements:
        if statement.subject != subject:
            subject = statement.subject
            lines += [
                f"\n## {subject}\n",
                "| | statement | Linux | macOS |",
                "| --- | --- | --- | --- |",
            ]
        gate = on_linux.get(statement.id)
        here = f"gated: {gate.reason}" if gate else "passes"
        sentence = statement.sentence.replace("|", "\\|")
        lines.append(f"| {statement.id} | {sentence} | {here} | not run |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(render())
    print(render(), end="")
