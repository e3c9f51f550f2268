"""The examples in C compile for macOS, without a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
import toolchain

FOLDER = toolchain.ROOT / "examples/c"
PROGRAMS = sorted(FOLDER.glob("*.c"))

pytestmark = pytest.mark.timeout(300)


def complaints(target: toolchain.Target, source: str, folder: Path) -> str:
    options = ["-Wall", "-Wextra", "-Werror", "-I", str(FOLDER)]
    return toolchain.compile_c(target, source, folder / "program.o", *options).stderr


@pytest.mark.parametrize("target", toolchain.MACS, ids=str)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_it_compiles(target: toolchain.Target, program: Path, tmp_path: Path) -> None:
    assert complaints(target, program.read_text(), tmp_path) == ""


def test_a_call_that_macos_does_not_declare_is_found(tmp_path: Path) -> None:
    source = "#include <mach/mach.h>\nint main(void) { return (int)mach_reply_port(); }\n"
    assert "undeclared function 'mach_reply_port'" in complaints(
        toolchain.MACS[0], source, tmp_path
    )
