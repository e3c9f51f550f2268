"""The tools that make and check macOS binaries on Linux, and how each is called.

- zig (PyPI: ziglang) is a clang that carries Apple's headers and the list of libSystem's symbols.
- LLVM's ld64.lld (Debian: lld-16) links: zig's own linker makes no bundle.
- lief and abi3audit (PyPI) read what came out.

What is missing raises `MissingToolError`, which says how to get it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LINUX_HEADERS = ROOT / "machio/csrc/linux/include"
MACOS = "11.0"  # the oldest macOS that the wheels are for
GLIBC = "2.28"  # the oldest glibc that the Linux wheels are for
LINKERS = [*(f"ld64.lld-{version}" for version in range(16, 30)), "ld64.lld"]


class MissingToolError(Exception):
    """A tool is not there; the message tells which, and how to get it."""


@dataclass(frozen=True)
class Target:
    """What a compiler and a linker are told to make."""

    system: str  # "macos" or "linux"
    arch: str  # as the system names it

    @property
    def triple(self) -> str:
        """Return zig's name for it."""
        if self.system == "macos":
            return f"{'aarch64' if self.arch == 'arm64' else self.arch}-macos.{MACOS}"
        return f"{self.arch}-linux-gnu.{GLIBC}"

    @property
    def platform(self) -> str:
        """The platform tag of a wheel."""
        if self.system == "macos":
            return f"macosx_{MACOS.replace('.', '_')}_{self.arch}"
        return f"manylinux_{GLIBC.replace('.', '_')}_{self.arch}"

    def __str__(self) -> str:
        return f"{self.system} {self.arch}"


MACS = [Target("macos", "arm64"), Target("macos", "x86_64")]
THIS_LINUX = Target("linux", os.uname().machine)


@functools.cache
def linker() -> str:
    """Return the path of an ld64.lld."""
    for name in LINKERS:
        if path := shutil.which(name):
            return path
    raise MissingToolError("ld64.lld is missing, LLVM's linker for macOS (Debian: lld-16)")


def zig() -> list[str]:
    """Return the words that run zig."""
    if importlib.util.find_spec("ziglang") is None:
        raise MissingToolError("ziglang is missing (pip install --group darwin)")
    return [sys.executable, "-m", "ziglang"]


@functools.cache
def zig_folder(name: str) -> Path:
    """Return a folder of zig's library."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise MissingToolError("ziglang is missing (pip install --group darwin)")
    folder = Path(spec.origin).parent / "lib" / name
    if not folder.exists():
        raise MissingToolError(f"this ziglang has no lib/{name}: another version may")
    return folder


def need_all() -> None:
    """Raise MissingToolError unless every tool is there."""
    missing = []
    for look in (linker, zig, lambda: zig_folder("libc/darwin/libSystem.tbd")):
        try:
            look()
        except MissingToolError as error:
            missing.append(str(error))
    missing += [
        f"{name} is missing (pip install --group darwin)"
        for name in ("lief", "abi3audit", "auditwheel")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingToolError("\n".join(missing))


def compiler(target: Target) -> list[str]:
    """Return the words that compile C for `target`.

    Headers that Apple has and zig does not come from the Linux layer's folder, which is looked at
    last of all; the header proof knows which these are.
    """
    words = [*zig(), "cc", "-target", target.triple, "-fno-sanitize=undefined"]
    if target.system == "macos":
        words += ["-idirafter", str(LINUX_HEADERS)]
    return words


def compile_c(
    target: Target, source: str, output: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Compile C text to an object file; the caller looks at the result's returncode and stderr."""
    path = output.with_suffix(".c")
    path.write_text(source, encoding="utf-8")
    command = [*compiler(target), "-std=gnu11", *options, "-c", str(path), "-o", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def python_include() -> str:
    """Return the folder of this Python's headers; with the limited API they serve macOS as well."""
    return sysconfig.get_path("include")


# --- libSystem -------------------------------------------------------------------------------


@functools.cache
def libsystem_text(arch: str) -> str:
    """Return libSystem's text stub in words that older LLVMs know, for one architecture.

    A Mac's own libraries are built for arm64e, and plain arm64 programs link to them.
    """
    text = zig_folder("libc/darwin/libSystem.tbd").read_text(encoding="utf-8")
    text = re.sub(r"arm64e\.\w+-\w+,?\s*", "", text)
    text = re.sub(r",?\s*\]", " ]", text)
    return text.replace("arm64e-", "arm64-") if arch == "arm64" else text


@functools.cache
def libsystem_symbols(arch: str) -> frozenset[str]:
    """Return the C names that libSystem exports to programs of `arch`."""
    found: set[str] = set()
    section = re.compile(
        r"- targets:\s*\[([^\]]*)\]((?:\s*(?:symbols|weak-symbols|objc-\w+):\s*\[[^\]]*\])+)"
    )
    for targets, lists in section.findall(libsystem_text(arch)):
        if f"{arch}-macos" in re.split(r"[\s,]+", targets):
            for names in re.findall(r"(?:weak-)?symbols:\s*\[([^\]]*)\]", lists):
                words = (word.strip().strip("'\"") for word in names.split(","))
                found.update(word[1:] for word in words if word.startswith("_"))
    return frozenset(found)
