"""What the Linux headers define under Apple's names, as C expressions to compare by.

`defined` is every name: macros, types, constants, functions, variables. `expressions` has what can
be said of them in constant expressions: values, sizes, signs, the places of fields, the types of
functions; those of the cdef's functions too, since C would convert what cffi passes in silence.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import toolchain
from toolchain import ROOT, THIS_LINUX

INCLUDE = toolchain.LINUX_HEADERS
CDEF = ROOT / "machio/csrc/mach.cdef.h"
# Ours only forward to the system's, with a declaration more.
OPTIONS = ["-D_GNU_SOURCE", "-D_DARWIN_C_SOURCE", "-w", "-ferror-limit=0"]
# What a macro with parameters is called with; those that yield no constant do not count.
ARGUMENTS = [(1, 2, 3, 4), (19, 18, 17, 0x80000000), (0x80001413, 0x12345678, 7, 99)]
# The cdef's calls with a capital letter are macros.
CALL = r"^([a-z][\w ]*?\**) ?\b([a-z]\w*)\(((?:[^;{}()]|\([^()]*\))*)\);"


def names() -> list[str]:
    """Return the headers under Apple's names, as programs include them."""
    paths = sorted(INCLUDE.rglob("*.h"))
    return [str(path.relative_to(INCLUDE)) for path in paths if "machio" not in path.name]


def stand_ins() -> list[str]:
    """Return the headers that zig's copy of Apple's lacks: ours stand in, and prove nothing."""
    apple = toolchain.zig_folder("libc/include/any-darwin-any")
    return [name for name in names() if not (apple / name).exists()]


def compared() -> list[str]:
    """Return the headers that zig has a copy of."""
    return sorted(set(names()) - set(stand_ins()))


def includes() -> str:
    """Return the lines that include everything, and what the assertions need."""
    return "".join(f"#include <{name}>\n" for name in ["stddef.h", *names()])


def without_comments(text: str) -> str:
    """Return C text on logical lines."""
    return re.sub(r"/\*.*?\*/", " ", text.replace("\\\n", " "), flags=re.DOTALL)


# --- macros --------------------------------------------------------------------------------------


def macros() -> Iterator[tuple[str, int | None, str]]:
    """Yield name, number of parameters (None: it has no list) and text of each macro."""
    for name in compared():
        text = without_comments((INCLUDE / name).read_text(encoding="utf-8"))
        guard = re.search(r"#ifndef (\w+)\s+#define \1\s*$", text, re.MULTILINE)
        pattern = r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?:\(([^)]*)\))?(.*)$"
        for macro, parameters, body in re.findall(pattern, text, re.MULTILINE):
            if not guard or macro != guard[1]:
                count = len(parameters.split(",")) if parameters else None
                yield macro, count, body.strip()


def _of_macros() -> Iterator[tuple[str, str]]:
    for name, parameters, text in macros():
        if parameters is None and text:
            yield name, f"(long long)({name})"
        elif parameters is not None:
            for arguments in ARGUMENTS:
                call = f"{name}({', '.join(map(str, arguments[:parameters]))})"
                yield call, f"(long long)({call})"


# --- declarations --------------------------------------------------------------------------------


def _tree() -> dict[str, Any]:
    """Return clang's syntax tree of our headers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "all.c")
        path.write_text(includes(), encoding="utf-8")
        command = [*toolchain.compiler(THIS_LINUX), f"-I{INCLUDE}", *OPTIONS]
        command += ["-Xclang", "-ast-dump=json", "-c", str(path), "-o", f"{folder}/all.o"]
        # No object comes of it, which zig takes for a failure.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"our headers do not compile:\n{done.stderr}")
    tree: dict[str, Any] = json.loads(done.stdout)
    return tree


def _files(node: Any) -> Iterator[str]:
    """Yield the files that the locations of a node name: each where it differs from the last."""
    if isinstance(node, list):
        for item in node:
            yield from _files(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "file":
                yield value
            elif key != "includedFrom":
                yield from _files(value)


@functools.cache
def _declarations() -> list[dict[str, Any]]:
    """Return the declarations at the top of our headers, as clang sees them."""
    file = ""
    wanted = {str(INCLUDE / name) for name in compared()}
    found = []
    for node in _tree()["inner"]:
        *_, file = file, *_files(node.get("loc", {}))
        if file in wanted:
            found.append(node)
        *_, file = file, *_files(node)
    return found


def _of_declarations() -> Iterator[tuple[str, str]]:
    records: dict[str, dict[str, Any]] = {}
    for node in _declarations():
        name = node.get("name", "")
        if node["kind"] == "EnumDecl":
            for constant in _constants(node):
                yield constant, f"(long long)({constant})"
        elif node["kind"] == "RecordDecl" and node.get("completeDefinition"):
            records[node["id"]] = node
            if name:
                yield from _of_record(f"{node['tagUsed']} {name}", node)
        elif node["kind"] == "TypedefDecl":
            yield from _of_type(name, node, records)
        elif node["kind"] == "FunctionDecl":
            yield f"{name}()", _is_declared(name, node["type"]["qualType"])
        elif node["kind"] == "VarDecl":
            yield name, _is_declared(name, node["type"]["qualType"])


def _is_declared(name: str, type_: str) -> str:
    return f"(long long)__builtin_types_compatible_p(__typeof__({name}), {type_})"


def _constants(node: dict[str, Any]) -> list[str]:
    inner = node.get("inner", [])
    return [each["name"] for each in inner if each["kind"] == "EnumConstantDecl"]


def _of_record(type_: str, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield type_, f"(long long)sizeof({type_})"
    fields = [each for each in record.get("inner", []) if each["kind"] == "FieldDecl"]
    for index, field in enumerate(fields):
        name = field.get("name")
        if name and field.get("isBitfield"):
            # All bits of it, and its place in the order of the fields.
            yield f"{type_}.{name} bits", f"(long long)(({type_}){{.{name} = -1}}).{name}"
            yield f"{type_}.{name} place", f"(long long)(({type_}){{{'0, ' * index}1}}).{name}"
        elif name:
            yield f"{type_}.{name}", f"(long long)offsetof({type_}, {name})"
            yield f"{type_}.{name} size", f"(long long)sizeof((({type_} *)0)->{name})"


def _of_type(
    name: str, node: dict[str, Any], records: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    desugared = node["type"].get("desugaredQualType", node["type"]["qualType"])
    if "(" in desugared or desugared.endswith("*"):  # of a function, or a pointer
        yield name, f"(long long)__builtin_types_compatible_p({name}, {desugared})"
        return
    for owner in _owned(node):
        if "*" not in desugared and owner in records and not records[owner].get("name"):
            yield from _of_record(name, records[owner])
            return
    yield name, f"(long long)sizeof({name})"
    if re.fullmatch(r"(unsigned |signed )?(char|short|int|long|long long)", desugared):
        yield f"{name} sign", f"(long long)(({name})-1 < 0)"


def _owned(node: dict[str, Any]) -> Iterator[str]:
    for inner in node.get("inner", []):
        if "ownedTagDecl" in inner:
            yield inner["ownedTagDecl"]["id"]
        if "decl" in inner:
            yield inner["decl"]["id"]
        yield from _owned(inner)


# --- the whole -----------------------------------------------------------------------------------


def _of_cdef() -> Iterator[tuple[str, str]]:
    text = without_comments(CDEF.read_text(encoding="utf-8"))
    for result, name, parameters in re.findall(CALL, text, re.MULTILINE):
        if not name.startswith("machio_"):
            yield f"cdef {name}()", _is_declared(name, f"{result} ({' '.join(parameters.split())})")


@functools.cache
def expressions() -> dict[str, str]:
    """Map what is compared, by a readable name, to the C expression for it."""
    return dict(_of_macros()) | dict(_of_declarations()) | dict(_of_cdef())


def subject(entry: str) -> str:
    """Return the name that an entry of `expressions` says something about."""
    return re.sub(r"^(struct|union|cdef) ", "", entry).partition(" ")[0].split(".")[0].split("(")[0]


def defined() -> set[str]:
    """Return every name that the compared headers define."""
    found = {name for name, _, _ in macros()}
    for node in _declarations():
        found.update(_constants(node))
        if "name" in node and not node.get("isImplicit"):
            found.add(node["name"])
    return found


def forget() -> None:
    """Have the headers read anew."""
    expressions.cache_clear()
    _declarations.cache_clear()
