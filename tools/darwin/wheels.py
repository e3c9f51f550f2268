"""Build machio's wheels on Linux: this machine's Linux, macOS on arm64 and on x86_64.

    python tools/darwin/wheels.py [FOLDER]      (dist)

The wheels are made from the sdist, by the build backend and `machio_build.py`, as pip would make
them on a Mac; only the compiler, the linker and the platform's name come from here. The same
sources give the same bytes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from toolchain import (
    HERE,
    MACOS,
    MACS,
    ROOT,
    THIS_LINUX,
    MissingToolError,
    Target,
    compiler,
    need_all,
)

EPOCH = "1577836800"  # 2020-01-01: the time of every file in a wheel
HOOK = """
import sys
from setuptools import build_meta
kind, folder, *options = sys.argv[1:]
build_meta.build_sdist(folder) if kind == "sdist" else build_meta.build_wheel(
    folder, {"--build-option": options})
"""


def run_backend(source: Path, environment: dict[str, str], *words: str) -> None:
    """Run a hook of the build backend in `source`. Raises RuntimeError with all that it printed."""
    command = [sys.executable, "-c", HOOK, *words]
    done = subprocess.run(
        command,
        cwd=source,
        env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "PYTHONHASHSEED": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0o022,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{done.stdout}\nmachio's build failed: {words}")


def environment(target: Target) -> dict[str, str]:
    """Return the variables by which setuptools builds for `target`."""
    words = compiler(target)
    variables = {"CC": shlex.join(words), "CFLAGS": "-O2 -g0", "LDFLAGS": "", "CPPFLAGS": ""}
    if target.system == "macos":
        variables["LDSHARED"] = shlex.join([sys.executable, str(HERE / "link.py"), target.arch])
        variables["_PYTHON_HOST_PLATFORM"] = f"macosx-{MACOS}-{target.arch}"
        variables["MACOSX_DEPLOYMENT_TARGET"] = MACOS
    else:
        variables["LDSHARED"] = shlex.join([*words, "-shared", "-s"])
        variables["_PYTHON_HOST_PLATFORM"] = f"linux-{target.arch}"
    return variables


def unpack_sdist(folder: Path) -> Path:
    """Make the sdist, unpack it below `folder` and return its root."""
    run_backend(ROOT, {}, "sdist", str(folder))
    (archive,) = folder.glob("machio-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
    (source,) = folder.glob("machio-*")
    for path in source.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return source


def build(target: Target, source: Path, output: Path) -> Path:
    """Build one wheel into `output`; `source` is an unpacked sdist, for this build alone."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["wheel", folder, f"--plat-name={target.platform}"]
        run_backend(source, environment(target), *options)
        (wheel,) = Path(folder).glob("*.whl")
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(wheel, output))


def build_all(output: Path, targets: list[Target] | None = None) -> list[Path]:
    """Build the wheels for `targets`, all by default, into `output`."""
    need_all()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        source = unpack_sdist(Path(folder))

        def build_one(target: Target) -> Path:
            return build(target, shutil.copytree(source, Path(folder, str(target))), output)

        return list(pool.map(build_one, targets or [THIS_LINUX, *MACS]))


def main(arguments: list[str]) -> int:
    """Build, and print the names."""
    try:
        wheels = build_all(Path(arguments[0] if arguments else "dist").resolve())
    except (MissingToolError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    for wheel in wheels:
        print(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
