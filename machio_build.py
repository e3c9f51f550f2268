"""Builds the extension module ``machio._mach`` - the only place that asks for the platform.

``pyproject.toml`` names this file's `build_ext` as its build command. One cdef describes Mach's C
API; the compiler fills in every value and layout from the headers of the system:

- macOS: ``<mach/mach.h>`` and its relatives are Apple's, the functions are libSystem's.
- Linux: both come from ``machio/csrc/linux``.

The system is that of the platform which setuptools builds for: this one, or in a cross build the
one that ``_PYTHON_HOST_PLATFORM`` names, as in builds of CPython.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI
from setuptools import Extension
from setuptools.command.build_ext import build_ext as _build_ext
from setuptools.errors import PlatformError

ROOT = Path(__file__).resolve().parent
CSRC = Path("machio/csrc")
MODULE = "machio._mach"

HEADERS = [
    "mach/mach.h",
    "mach/mach_time.h",
    "mach/mach_vm.h",
    "mach/notify.h",
    "servers/bootstrap.h",
    "sys/event.h",
    "bsm/libbsm.h",
]
LOCAL_HEADERS = ["descriptors.h", "shim.h"]


def files(*patterns: str) -> list[str]:
    """List the files below ``machio/csrc`` that match, as sorted paths relative to the root."""
    found = {path.relative_to(ROOT) for pattern in patterns for path in (ROOT / CSRC).glob(pattern)}
    return [str(path) for path in sorted(found)]


def preamble() -> str:
    """Return the includes that the generated C begins with."""
    lines = [f"#include <{name}>" for name in HEADERS]
    lines += [f'#include "{name}"' for name in LOCAL_HEADERS if (ROOT / CSRC / name).exists()]
    return "\n".join(lines)


def generate(target: Path) -> None:
    """Write the C source of the module to `target`; an unchanged file is left alone."""
    ffi = FFI()
    for name in files("*.cdef.h"):
        ffi.cdef((ROOT / name).read_text(encoding="utf-8"))
    ffi.set_source(MODULE, preamble(), py_limited_api=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(target))


def configure(extension: Extension, platform: str) -> None:
    """Add what the extension needs on `platform`, "linux-x86_64" say or "macosx-11.0-arm64".

    Raises PlatformError if machio does not run there.
    """
    extension.sources = files("*.c")
    extension.include_dirs = [str(CSRC)]
    extension.depends = ["machio_build.py", *files("**/*.[ch]")]
    extension.define_macros = [("Py_LIMITED_API", "0x030B0000")]
    extension.extra_compile_args = ["-std=gnu11", "-Werror=implicit-function-declaration"]
    # Hidden: no other library's kqueue() or kevent() may stand in for ours, nor ours for its.
    extension.extra_compile_args += ["-fvisibility=hidden"]
    if platform.startswith("linux-"):
        extension.sources += files("linux/*.c")
        extension.include_dirs += [str(CSRC / "linux" / "include")]
        extension.define_macros += [("_GNU_SOURCE", None)]
        extension.extra_compile_args += ["-pthread"]
        extension.extra_link_args = ["-pthread"]
    elif platform.startswith("macosx-"):
        # Reading a token is arithmetic on eight words: not worth another library, libbsm.
        extension.sources += files("linux/token.c")
        # What is newer than the oldest macOS that is built for would be a null pointer there.
        extension.extra_compile_args += ["-Werror=unguarded-availability-new"]
    else:
        raise PlatformError(
            f"machio runs on macOS, which has Mach, and on Linux, for which it brings one;"
            f" it cannot be built for {platform}."
        )


class build_ext(_build_ext):  # noqa: N801 - setuptools knows the command by this name
    """Generates the module's C source and compiles it with the sources of this system."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension; machio has one."""
        configure(ext, self.plat_name)
        generated = Path(self.build_temp) / "_mach.c"
        generate(generated)
        ext.sources = [*ext.sources, str(generated)]
        super().build_extension(ext)
