"""Run the macOS x86_64 extension in Linux's CPython.

macOS and Linux share the C calling convention on x86_64. `flatten` turns the bundle into one image
with a list of what to patch; `load` maps it, binds Python's names to this interpreter and
libSystem's to the Linux layer, built as a shared object, and calls PyInit. `install` has
``machio._mach`` imported so, in this process and, by way of `sitecustomize`, in those it starts;
the bootstrap server, which is not launchd's to prove, runs on Linux's own extension.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import json
import mmap
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = "MACHIO_DARWIN_IMAGE"
NAME = "machio._mach"


def flatten(data: bytes, folder: Path) -> None:
    """Write the bundle's image and its patches into `folder`."""
    import lief

    fat = lief.MachO.parse(list(data))
    binary = fat.at(0)
    size = max(segment.virtual_address + segment.virtual_size for segment in binary.segments)
    image = bytearray(size)
    for segment in binary.segments:
        content = bytes(segment.content)
        image[segment.virtual_address : segment.virtual_address + len(content)] = content
    (init,) = (symbol.value for symbol in binary.exported_symbols)
    patches = {
        "init": init,
        "rebases": [each.address for each in binary.relocations if each.size == 64],
        "binds": [
            [each.address, each.symbol.name.removeprefix("_"), each.addend]
            for each in binary.bindings
        ],
    }
    folder.joinpath("image").write_bytes(image)
    folder.joinpath("patches.json").write_text(json.dumps(patches))


def _address(name: str, libraries: list[Any]) -> int:
    for library in libraries:
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(library, name))
        except ValueError:
            continue
    raise ImportError(f"nobody has {name}, which the macOS extension needs")


def load(folder: Path) -> Any:
    """Map the image in `folder` and return the module."""
    image = folder.joinpath("image").read_bytes()
    patches = json.loads(folder.joinpath("patches.json").read_text())
    # Private, which is not mmap's default: a forked child has data of its own from here on.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    prot = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    memory = mmap.mmap(-1, len(image), flags=flags, prot=prot)
    memory[:] = image
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    mach = ctypes.CDLL(str(folder / "libmach.so"))
    system = [mach, ctypes.CDLL(None)]
    # The code outlives every object: what is freed as the interpreter ends calls into it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))

    def put(address: int, value: int) -> None:
        memory[address : address + 8] = value.to_bytes(8, "little")

    for address in patches["rebases"]:
        put(address, int.from_bytes(memory[address : address + 8], "little") + base)
    for address, name, addend in patches["binds"]:
        if name == "dyld_stub_binder":
            continue  # binds lazily, and all is bound here
        libraries: list[Any] = [ctypes.pythonapi] if name.lstrip("_").startswith("Py") else system
        put(address, _address("bzero" if name == "__bzero" else name, libraries) + addend)
    return ctypes.PYFUNCTYPE(ctypes.py_object)(base + patches["init"])()


class _Loader:
    @staticmethod
    def create_module(spec: importlib.machinery.ModuleSpec) -> Any:
        return load(Path(spec.origin or ""))

    @staticmethod
    def exec_module(module: Any) -> None:
        pass


class _Finder:
    @staticmethod
    def find_spec(name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name != NAME:
            return None
        return importlib.machinery.ModuleSpec(name, _Loader(), origin=os.environ[FOLDER])  # type: ignore[arg-type]


def install() -> None:
    """Have `machio._mach` come from the image, except in the bootstrap server."""
    if FOLDER in os.environ and "machio.bootstrapd" not in sys.orig_argv:
        sys.meta_path.insert(0, _Finder())
