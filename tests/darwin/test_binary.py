"""The macOS x86_64 extension that is shipped runs its part of the suite, on Linux's Mach.

What it cannot show: libSystem, launchd and XNU themselves, and arm64.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import macho
import pytest
import toolchain
import verify

# The longest first: as many run at once as there are cores.
SUITE = [
    "tests/test_handshake.py -k plain-asyncio",
    "tests/mach/test_replay.py",
    "tests/mach/test_mach_*.py",
    "tests/test_ports.py",
    "tests/test_loop.py",
    "tests/test_messages.py",
]
# What a forked task looks up first in cffi's data is written there, and no other may see it.
FORKS = """
import os
from machio._mach import lib
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if lib.mach_task_self() else 1)
    assert os.waitpid(pid, 0)[1] == 0
"""
# An interpreter, the macOS module and what says that it is the macOS module.
WHERE = "import machio._mach as m, sys; sys.exit(0 if m.__spec__.origin == sys.argv[1] else 1)"

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the calling convention is x86_64's"),
]


@pytest.fixture(scope="module")
def image(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the image of the shipped extension and the Linux layer to bind it to."""
    folder = tmp_path_factory.mktemp("image")
    with zipfile.ZipFile(built["macos x86_64"]) as wheel:
        macho.flatten(wheel.read(verify.EXTENSION), folder)
    sources = sorted((toolchain.ROOT / "machio/csrc/linux").glob("*.c"))
    command = ["cc", "-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-pthread"]
    command += [f"-I{toolchain.LINUX_HEADERS}", f"-I{toolchain.ROOT / 'machio/csrc'}"]
    command += [*map(str, sources), "-o", str(folder / "libmach.so")]
    subprocess.run(command, check=True, timeout=120)
    folder.joinpath("sitecustomize.py").write_text("import macho\nmacho.install()\n")
    return folder


def environment(image: Path) -> dict[str, str]:
    return {
        **os.environ,
        macho.FOLDER: str(image),
        "MACHIO_BOOTSTRAPD": f"{sys.executable} -P -m machio.bootstrapd",
        "PYTHONPATH": os.pathsep.join([str(image), str(toolchain.HERE)]),
    }


def run(image: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=environment(image),
        cwd=toolchain.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
    )


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, image: Path
) -> dict[str, subprocess.CompletedProcess[str]]:
    """Each part of the suite that is asked for, run to its end: their pipes outlive no test."""
    options = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [
        item for item in request.session.items if item.function is test_the_shipped_binary_runs
    ]
    parts = [item.callspec.params["part"] for item in tests]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda part: run(image, *options, *words(part)), parts)
        return dict(zip(parts, done, strict=True))


def words(part: str) -> list[str]:
    """The files and options of a part, with `*` replaced as a shell would."""
    pattern, *options = part.split()
    files = sorted(str(path) for path in toolchain.ROOT.glob(pattern))
    assert files, f"there is no {pattern}"
    return [*files, *options]


def test_the_module_is_the_one_for_macos(image: Path) -> None:
    assert run(image, "-c", WHERE, str(image)).returncode == 0
    assert run(image, "-c", WHERE, "elsewhere").returncode == 1


def test_a_name_that_the_system_lacks_is_an_import_error(image: Path, tmp_path: Path) -> None:
    for name in ("image", "libmach.so"):
        (tmp_path / name).symlink_to(image / name)
    patches = (image / "patches.json").read_text()
    (tmp_path / "patches.json").write_text(patches.replace('"mach_msg"', '"mach_nsg"'))
    done = run(tmp_path, "-c", "import macho; macho.install(); import machio._mach")
    assert "ImportError: nobody has mach_nsg" in done.stderr


def test_a_forked_task_has_data_of_its_own(image: Path) -> None:
    done = run(image, "-W", "error", "-c", FORKS)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("part", SUITE)
def test_the_shipped_binary_runs(
    results: dict[str, subprocess.CompletedProcess[str]], part: str
) -> None:
    done = results[part]
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
