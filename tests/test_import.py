"""What `import machio` brings: every public name when it is asked for, and little before that."""

import importlib
import subprocess
import sys

import pytest

import machio


@pytest.mark.parametrize("name", machio.__all__)
def test_a_public_name_is_there(name):
    home = next((home for home, names in machio._HOMES.items() if name in names), None)
    module = importlib.import_module(f"machio.{home or name}")
    assert getattr(machio, name) is (getattr(module, name) if home else module)
    assert name in dir(machio)


def test_each_name_has_one_home():
    names = [name for names in machio._HOMES.values() for name in names]
    assert sorted([*names, "bootstrap", "mig", "parent"]) == sorted(machio.__all__)


def test_another_name_is_not():
    with pytest.raises(AttributeError, match="module 'machio' has no attribute 'Massage'"):
        _ = machio.Massage


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import machio", ["asyncio", "anyio", "logging", "machio.errors"]),
        ("import machio; machio.Message", ["asyncio", "machio.ports"]),
        ("from machio import ReceiveRight", ["machio.service", "machio.handshake", "machio.mig"]),
        ("from machio import ReceiveRight, parent", ["machio._subsystem", "machio.children"]),
        ("import machio.errors; machio.errors.UsageError", ["machio.ports"]),
    ],
)
def test_nothing_is_imported_that_is_not_used(statement, absent):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "machio._ffi" in done.stdout.split()
    assert not {*absent} & {*done.stdout.split()}
