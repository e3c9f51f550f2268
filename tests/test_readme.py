"""What the README promises: its programs run, its commands and links exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "DIFFERENCES.md",
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "children.md",
    ROOT / "docs" / "services.md",
]


def programs():
    """Return the README's Python snippets by the file names in their first lines."""
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", readme(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == readme().count("```python")
    return dict(blocks)


def readme():
    return PAGES[0].read_text()


def test_the_programs_run_as_copied(bootstrap_env, tmp_path):
    found = programs()
    assert set(found) == {"parent.py", "child.py", "echo.py"}
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    for name, output in {
        "parent.py": r"'hello, child' from pid \d+\n",
        "echo.py": r"HELLO\n",
    }.items():
        run(name, output, bootstrap_env, tmp_path)


def run(name, output, bootstrap_env, directory):
    process = subprocess.run(
        [sys.executable, "-W", "error", name],
        cwd=directory,
        env={**bootstrap_env, "PYTHONWARNINGS": "error", "MACHIO_BOOTSTRAPD_IDLE": "0.5"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert re.fullmatch(output, process.stdout)


@pytest.mark.skipif(not shutil.which("make"), reason="make is not there")
def test_the_commands_exist():
    commands = re.findall(r"^    make (\w+) ", readme(), re.MULTILINE)
    assert commands == ["demo", "test"]
    listing = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert all(re.search(rf"^  {command} ", listing, re.MULTILINE) for command in commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
