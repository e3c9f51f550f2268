"""The wheels are right, and the verifier finds one that is not."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import lief
import pytest
import toolchain
import verify
import wheels

pytestmark = pytest.mark.timeout(600)  # the machine may be busy


def rewritten(wheel: Path, folder: Path, changes: dict[str, Callable[[bytes], bytes]]) -> Path:
    """A copy of the wheel with some files changed and a RECORD that says so."""
    copy = folder / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(copy, "w") as new:
        files = {name: old.read(name) for name in old.namelist()}
        record = next(name for name in files if name.endswith("/RECORD"))
        for ending, change in changes.items():
            name = next(name for name in files if name.endswith(ending))
            before, files[name] = files[name], change(files[name])
            assert files[name] != before
            hashed = hashlib.sha256(files[name]).digest()
            digest = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
            lines = files[record].decode().splitlines()
            line = f"{name},sha256={digest},{len(files[name])}"
            lines = [line if old.startswith(f"{name},") else old for old in lines]
            files[record] = "\n".join(lines).encode()
        for name, data in files.items():
            new.writestr(name, data)
    return copy


def test_every_wheel_is_right(built: dict[str, Path]) -> None:
    assert len(built) == 3
    assert [problem for path in built.values() for problem in verify.verify(path)] == []


@pytest.mark.parametrize("target", [str(target) for target in toolchain.MACS])
def test_the_verifier_finds_a_wrong_symbol(
    built: dict[str, Path], tmp_path: Path, target: str
) -> None:
    def misspell(data: bytes) -> bytes:
        return data.replace(b"_mach_port_get_srights\0", b"_mach_port_get_zrights\0")

    problems = verify.verify(rewritten(built[target], tmp_path, {".so": misspell}))
    assert any("libSystem does not export mach_port_get_zrights" in each for each in problems)
    assert any("mach_port_get_zrights is imported but not in" in each for each in problems)
    assert any("mach_port_get_srights is in imports.txt but not" in each for each in problems)


def test_the_verifier_finds_a_name_that_nobody_has(built: dict[str, Path], tmp_path: Path) -> None:
    def misspell(data: bytes) -> bytes:
        return data.replace(b"_PyErr_Occurred\0", b"_QyErr_Occurred\0")

    wheel = rewritten(built["macos x86_64"], tmp_path, {".so": misspell})
    assert any("QyErr_Occurred is neither" in problem for problem in verify.verify(wheel))


def test_the_verifier_finds_an_unstable_name_of_python(
    built: dict[str, Path], tmp_path: Path
) -> None:
    def misspell(data: bytes) -> bytes:
        return data.replace(b"_PyErr_Occurred\0", b"_PyErr_Occurres\0")

    wheel = rewritten(built["macos x86_64"], tmp_path, {".so": misspell})
    assert any("abi3audit" in problem for problem in verify.verify(wheel))


def test_the_verifier_finds_a_changed_page(built: dict[str, Path], tmp_path: Path) -> None:
    def change(data: bytes) -> bytes:
        return data[:0x5000] + bytes([data[0x5000] ^ 1]) + data[0x5001:]

    wheel = rewritten(built["macos arm64"], tmp_path, {".so": change})
    assert [problem.partition(": ")[2] for problem in verify.verify(wheel)] == [
        "page 5 is not as the code signature says"
    ]


def test_the_verifier_finds_what_is_not_signed(built: dict[str, Path], tmp_path: Path) -> None:
    def unsign(data: bytes) -> bytes:
        fat = lief.MachO.parse(list(data))
        assert fat.at(0).remove_signature()
        return bytes(fat.raw())

    wheel = rewritten(built["macos arm64"], tmp_path, {".so": unsign})
    assert [problem.partition(": ")[2] for problem in verify.verify(wheel)] == [
        "the extension has no code signature"
    ]


def test_the_verifier_finds_a_wrong_tag(built: dict[str, Path], tmp_path: Path) -> None:
    name = built["macos arm64"].name.replace("arm64", "x86_64")
    copy = Path(shutil.copy(built["macos arm64"], tmp_path / name))
    problems = " ".join(verify.verify(copy))
    assert "its WHEEL says" in problems
    assert "the extension is for ARM64" in problems


def test_the_verifier_finds_a_wrong_macos(built: dict[str, Path], tmp_path: Path) -> None:
    name = built["macos arm64"].name.replace("11_0", "12_0")
    copy = Path(shutil.copy(built["macos arm64"], tmp_path / name))
    assert any("needs macOS 11.0, the tag says 12.0" in each for each in verify.verify(copy))


def test_the_verifier_finds_a_file_that_the_record_does_not_know(
    built: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copy(built["macos arm64"], tmp_path))
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("machio/extra.py", "")
    assert any("RECORD and contents differ" in problem for problem in verify.verify(copy))


def test_a_second_build_has_the_same_bytes(
    built: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))  # or zig hands out the first build's
    for first, second in zip(built.values(), wheels.build_all(tmp_path / "again"), strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes(), first.name


@pytest.mark.parametrize(
    ("platform", "target"),
    [
        ("macosx_11_0_arm64", "macos arm64"),
        ("macosx_14_0_arm64", "macos arm64"),
        ("macosx_12_0_x86_64", "macos x86_64"),
        (toolchain.THIS_LINUX.platform, str(toolchain.THIS_LINUX)),
    ],
)
def test_pip_picks_the_right_wheel(
    built: dict[str, Path], tmp_path: Path, platform: str, target: str
) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-index"]
    command += ["--find-links", str(built[target].parent), "--only-binary=:all:"]
    command += ["--python-version", "3.13", "--platform", platform, "--dest", str(tmp_path)]
    subprocess.run([*command, "machio"], check=True, timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == [built[target].name]


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "LINKERS", ["no-such-linker"])
    toolchain.linker.cache_clear()
    with pytest.raises(toolchain.MissingToolError, match="Debian: lld-16"):
        toolchain.need_all()
    toolchain.linker.cache_clear()


def test_an_unsupported_system_is_named(tmp_path: Path) -> None:
    """In one sentence, and nothing is compiled."""
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", "--quiet"]
    command += ["build_ext", f"--build-temp={tmp_path}", f"--build-lib={tmp_path}"]
    done = subprocess.run(
        command,
        cwd=toolchain.ROOT,
        env={
            **os.environ,
            "_PYTHON_HOST_PLATFORM": "freebsd-14.1-amd64",
            "PYTHONWARNINGS": "ignore",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: machio runs on macOS, which has Mach, and on Linux, for which it brings one;"
        " it cannot be built for freebsd-14.1-amd64.\n"
    )
    assert list(tmp_path.iterdir()) == []
