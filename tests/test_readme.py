"""What the README promises: its programs run, its commands and links exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_examples import SLOW

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "DIFFERENCES.md",
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "children.md",
    ROOT / "docs" / "services.md",
    ROOT / "docs" / "memory.md",
    ROOT / "docs" / "watching.md",
    ROOT / "examples" / "README.md",
]


def programs():
    """Return the README's Python snippets by the file names in their first lines."""
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", readme(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == readme().count("```python")
    return dict(blocks)


def readme():
    return PAGES[0].read_text()


def run_programs(python: Path | str, bootstrap_env: dict[str, str], directory: Path) -> None:
    """Copy the programs into a directory, and run them there in development mode."""
    found = programs()
    assert set(found) == {"parent.py", "child.py", "echo.py", "pool.py"}
    for name, text in found.items():
        (directory / name).write_text(text)
    strict = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error", "MACHIO_BOOTSTRAPD_IDLE": "0.5"}
    for name, output in {
        "parent.py": r"'hello, child' from pid \d+\n",
        "echo.py": r"HELLO\n",
        "pool.py": r"served by a worker\nits status is 0\n",
    }.items():
        process = subprocess.run(
            [python, name],
            cwd=directory,
            env={**bootstrap_env, **strict},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert (process.returncode, SLOW.sub("", process.stderr)) == (0, "")
        assert re.fullmatch(output, process.stdout)


def test_the_programs_run_as_copied(bootstrap_env, tmp_path):
    run_programs(sys.executable, bootstrap_env, tmp_path)


def test_the_commands_exist():
    commands = re.findall(r"^    make (\w+) ", readme(), re.MULTILINE)
    assert commands == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{command}: .*## ", makefile, re.MULTILINE) for command in commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
