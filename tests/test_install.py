"""machio as somebody has it who ran ``pip install .``: in an environment that has nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from shutil import copytree

import pytest
from mutate import LEFT_OUT, ROOT
from test_readme import run_programs

pytestmark = pytest.mark.timeout(400)  # it is compiled first
FDS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
IMPORT = f"""
import os
before = os.listdir({FDS!r})
import machio
assert os.listdir({FDS!r}) == before
print(machio.__file__)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment, with a machio that was built from a copy of the sources.

    No index is asked: the build tools and the dependencies are those of the tests' environment.
    """
    scratch = tmp_path_factory.mktemp("install")
    copytree(ROOT, scratch / "source", ignore=LEFT_OUT)
    (scratch / "source" / "machio" / "_mach.abi3.so").unlink(missing_ok=True)
    environment = {**os.environ, "CFLAGS": "-O0", "PYTHONWARNINGS": "ignore"}
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    wheel += ["--wheel-dir", str(scratch), str(scratch / "source")]
    subprocess.run(wheel, env=environment, check=True, timeout=300)
    target = scratch / "venv"
    venv.create(target, symlinks=True)
    (package,) = scratch.glob("machio-*.whl")
    into = [*pip, "--python", str(target / "bin" / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*into, str(package)], check=True, timeout=60)
    (packages,) = target.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return target / "bin" / "python"


def test_an_import_opens_no_file_and_warns_of_nothing(
    python: Path, bootstrap_env: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [python, "-X", "dev", "-W", "error", "-c", IMPORT],
        cwd=tmp_path, env=bootstrap_env, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).is_relative_to(python.parent.parent)


def test_the_programs_of_the_readme_run(
    python: Path, bootstrap_env: dict[str, str], tmp_path: Path
) -> None:
    run_programs(python, bootstrap_env, tmp_path)


def test_it_has_what_it_requires(python: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "check"],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert "machio" not in done.stdout
