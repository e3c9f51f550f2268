"""Check machio's wheels without running them.

    python tools/darwin/verify.py WHEEL...

Of every wheel: its tag, its RECORD, its metadata, and that only Python's stable ABI is used. Of a
macOS wheel's extension: a bundle for the architecture and macOS of the tag, libSystem its only
library, exactly the imports listed in imports.txt, each of them exported by libSystem, and every
page as its code signature says. Of a Linux wheel: the glibc of its tag suffices.
"""

from __future__ import annotations

import base64
import csv
import email.parser
import hashlib
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import lief
from toolchain import HERE, MACOS, libsystem_symbols

EXTENSION = "machio/_mach.abi3.so"
TAG = re.compile(r"machio-[^-]+-cp311-abi3-(macosx|manylinux)_(\d+)_(\d+)_(\w+)\.whl")
CPU = {"arm64": "ARM64", "x86_64": "X86_64"}
PYTHON_LOOKUP = -2  # a binding's ordinal: looked for in everything that is loaded
CS_MAGIC_EMBEDDED, CS_MAGIC_DIRECTORY = 0xFADE0CC0, 0xFADE0C02


def expected_imports() -> set[str]:
    """Return the names that the extension takes from libSystem."""
    lines = (HERE / "imports.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def verify(wheel: Path) -> list[str]:
    """Return what is wrong with the wheel, a sentence each."""
    match = TAG.fullmatch(wheel.name)
    if not match:
        return [f"{wheel.name}: not the name of a wheel of machio for cp311-abi3"]
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    problems = [*check_contents(contents, wheel.name), *check_stable_abi(wheel)]
    if EXTENSION in contents:
        if match[1] == "macosx":
            problems += check_bundle(contents[EXTENSION], match[4], f"{match[2]}.{match[3]}")
        else:
            problems += check_glibc(wheel, match)
    return [f"{wheel.name}: {problem}" for problem in problems]


def check_contents(contents: dict[str, bytes], name: str) -> list[str]:
    """Check the RECORD, the tag and the metadata."""
    folders = {path.split("/")[0] for path in contents if ".dist-info/" in path}
    if len(folders) != 1:
        return [f"has {len(folders)} dist-info folders"]
    info = folders.pop()
    problems = []
    record = {
        row[0]: row[1:] for row in csv.reader(contents[f"{info}/RECORD"].decode().splitlines())
    }
    if set(record) != set(contents):
        problems.append(f"RECORD and contents differ in {sorted(set(record) ^ set(contents))}")
    for path, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        if not path.endswith("/RECORD") and record.get(path) != [
            f"sha256={digest}",
            str(len(data)),
        ]:
            problems.append(f"RECORD has another hash or size of {path}")
    parse = email.parser.BytesParser().parsebytes
    tags = parse(contents[f"{info}/WHEEL"]).get_all("Tag")
    if tags != [name.removesuffix(".whl").split("-", 2)[2]]:
        problems.append(f"its WHEEL says {tags}")
    metadata = parse(contents[f"{info}/METADATA"])
    if (metadata["Name"], metadata["Requires-Python"]) != ("machio", ">=3.11"):
        problems.append("its METADATA has another name or requires another Python")
    extensions = [path for path in contents if path.endswith((".so", ".dylib", ".pyd"))]
    if extensions != [EXTENSION]:
        problems.append(f"has the binaries {extensions}")
    return problems


def check_stable_abi(wheel: Path) -> list[str]:
    """Run abi3audit, which knows since when each name of Python's is stable."""
    command = [sys.executable, "-m", "abi3audit", "--strict", "--assume-minimum-abi3", "3.11"]
    done = subprocess.run(
        [*command, str(wheel)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return [f"abi3audit: {done.stdout}{done.stderr}".strip()] if done.returncode else []


def check_glibc(wheel: Path, match: re.Match[str]) -> list[str]:
    """Have auditwheel tell which glibc the extension needs."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "auditwheel", "show", str(wheel.resolve())]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    said = " ".join(done.stdout.split())
    found = re.search(r'tag: "manylinux_(\d+)_(\d+)_(\w+)"', said)
    if not found:
        return [f"auditwheel: {done.stdout}{done.stderr}".strip()]
    if (int(found[1]), int(found[2])) > (int(match[2]), int(match[3])) or found[3] != match[4]:
        return [f"the extension is for {found[0]}"]
    return []


def check_bundle(data: bytes, arch: str, minimum: str) -> list[str]:
    """Check the macOS extension."""
    fat = lief.MachO.parse(list(data))
    if fat is None or len(fat) != 1:
        return ["the extension is not one Mach-O file"]
    binary = fat.at(0)
    problems = []
    if binary.header.file_type != lief.MachO.Header.FILE_TYPE.BUNDLE:
        problems.append(f"the extension is a {binary.header.file_type}, not a bundle")
    if binary.header.cpu_type.name != CPU.get(arch):
        problems.append(f"the extension is for {binary.header.cpu_type.name}")
    built = ".".join(map(str, binary.build_version.minos[:2])) if binary.has_build_version else "?"
    if built != minimum or minimum != MACOS:
        problems.append(f"the extension needs macOS {built}, the tag says {minimum}")
    libraries = [library.name for library in binary.libraries]
    if libraries != ["/usr/lib/libSystem.B.dylib"]:
        problems.append(f"the extension links {libraries}")
    exports = [symbol.name for symbol in binary.exported_symbols]
    if exports != ["_PyInit__mach"]:
        problems.append(f"the extension exports {exports}")
    problems += [
        f"segment {segment.name} does not begin with a page"
        for segment in binary.segments
        if segment.virtual_address % 0x1000 or segment.file_offset % 0x1000
    ]
    return [*problems, *check_imports(binary, arch), *check_signature(data, binary, arch)]


def check_imports(binary: lief.MachO.Binary, arch: str) -> list[str]:
    """Check where every name comes from: Python's are looked up, the others are libSystem's."""
    problems = []
    system = set()
    for binding in binary.bindings:
        name = binding.symbol.name.removeprefix("_")
        if binding.library_ordinal == PYTHON_LOOKUP:
            if not re.match(r"_?Py", name):
                problems.append(f"{name} is neither Python's nor libSystem's")
        else:
            # The compiler's name for memset(..., 0, ...) depends on the architecture.
            system.add("bzero" if name == "__bzero" else name)
            if name not in libsystem_symbols(arch) and name != "dyld_stub_binder":
                problems.append(f"libSystem does not export {name} for {arch}")
    expected = expected_imports()
    problems += [f"{name} is imported but not in imports.txt" for name in sorted(system - expected)]
    problems += [f"{name} is in imports.txt but not imported" for name in sorted(expected - system)]
    return problems


def check_signature(data: bytes, binary: lief.MachO.Binary, arch: str) -> list[str]:
    """Compare the hash of every page with the code signature; arm64 runs nothing unsigned."""
    if not binary.has_code_signature:
        return ["the extension has no code signature"] if arch == "arm64" else []
    start = binary.code_signature.data_offset
    magic, _, count = struct.unpack_from(">III", data, start)
    blobs = [struct.unpack_from(">II", data, start + 12 + 8 * index) for index in range(count)]
    directories = [start + offset for kind, offset in blobs if kind == 0]
    if magic != CS_MAGIC_EMBEDDED or len(directories) != 1:
        return ["the code signature has no code directory"]
    at = directories[0]
    (blob_magic, _, _, _, hashes, _, _, slots, limit) = struct.unpack_from(">9I", data, at)
    size, kind, _, log2 = struct.unpack_from(">4B", data, at + 36)
    if blob_magic != CS_MAGIC_DIRECTORY or (size, kind) != (32, 2):
        return ["the code directory is not of SHA-256 hashes"]
    page = 1 << log2
    if limit != start or slots != -(-limit // page):
        return ["the code signature does not cover the whole extension"]
    return [
        f"page {slot} is not as the code signature says"
        for slot in range(slots)
        if hashlib.sha256(data[slot * page : min((slot + 1) * page, limit)]).digest()
        != data[at + hashes + 32 * slot : at + hashes + 32 * (slot + 1)]
    ]


def main(arguments: list[str]) -> int:
    """Verify each wheel and print what is wrong."""
    problems = [problem for name in arguments for problem in verify(Path(name))]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems or not arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
