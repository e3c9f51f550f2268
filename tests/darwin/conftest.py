"""The proofs on macOS binaries; `make darwin` runs them, with their tools installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools/darwin"))

import toolchain
import wheels


@pytest.fixture(scope="session")
def _tools() -> None:
    toolchain.need_all()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, _tools: None) -> dict[str, Path]:
    """The wheels, freshly built, by the names of their targets."""
    paths = wheels.build_all(tmp_path_factory.mktemp("wheels"))
    targets = [toolchain.THIS_LINUX, *toolchain.MACS]
    return dict(zip(map(str, targets), paths, strict=True))
