"""What is not run on a system is a test that there is, and has a reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import systems

HERE = Path(__file__).parent


@pytest.mark.parametrize("entry", systems.entries(), ids=lambda entry: entry[0])
def test_each_entry_is_a_test_with_a_reason(entry: tuple[str, str, str]) -> None:
    pattern, system, reason = entry
    assert system in ("linux", "darwin")
    assert reason.strip()
    file, *path = pattern.partition("[")[0].split("::")
    body = ast.parse((HERE / file).read_text(encoding="utf-8")).body
    for name in path:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        body = next(node for node in body if isinstance(node, kinds) and node.name == name).body


def test_patterns() -> None:
    table = "test_handshake.py::test_table"
    assert systems.matches("test_c.py", "test_c.py::test_program[a-b]")
    assert not systems.matches("test_c.py", "test_c.pyx::test_program")
    assert systems.matches(table, f"{table}[plain-asyncio-Drain-client]")
    assert systems.matches(f"{table}[*-Drain-*]", f"{table}[plain-asyncio-Drain-client]")
    assert not systems.matches(f"{table}[*-Drain-*]", f"{table}[plain-asyncio-Frames-client]")
    assert not systems.matches(f"{table}[*-Drain-*]", f"{table}s[plain-asyncio-Drain-client]")


def test_a_system_runs_all_but_what_is_listed() -> None:
    (frames,) = (entry for entry in systems.entries() if "Frames" in entry[0])
    test = "test_handshake.py::test_table[plain-asyncio-Frames-client]"
    assert systems.why_not(test, "darwin") == frames[2]
    assert systems.why_not(test, "linux") == ""
    assert systems.why_not("test_ports.py::test_anything", "darwin") == ""
