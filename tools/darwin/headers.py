"""Compare what the Linux headers define under Apple's names with Apple's own headers.

    python tools/darwin/headers.py

One table is read off `machio/csrc/linux/include` by a compiler: each constant and its value, each
type with its size and signedness, each structure with the offset and size of its fields. Of every
entry becomes a static assertion, and the assertions are compiled against Apple's headers for each
architecture, and against ours. What Apple's headers lack, or have otherwise, must be listed in
`headers.toml` with the reason, and nothing else may be.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import toolchain
from toolchain import LINUX_HEADERS, MACS, THIS_LINUX, Target

LISTED = Path(__file__).with_name("headers.toml")
# Ours only forward to the system's, with a declaration more.
OPTIONS = ["-D_GNU_SOURCE", "-D_DARWIN_C_SOURCE", "-w", "-ferror-limit=0"]


def names() -> list[str]:
    """Return the headers, as programs include them."""
    return sorted(str(path.relative_to(LINUX_HEADERS)) for path in LINUX_HEADERS.rglob("*.h"))


def stand_ins() -> list[str]:
    """Return the headers that zig's copy of Apple's lacks: ours stand in, and prove nothing."""
    apple = toolchain.zig_folder("libc/include/any-darwin-any")
    return [name for name in names() if not (apple / name).exists()]


def includes() -> str:
    """Return the lines that include everything, and what the assertions need."""
    return "".join(f"#include <{name}>\n" for name in ["stddef.h", *names()])


def _tree() -> dict[str, Any]:
    """Return clang's syntax tree of our headers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "all.c")
        path.write_text(includes(), encoding="utf-8")
        command = [*toolchain.compiler(THIS_LINUX), f"-I{LINUX_HEADERS}", *OPTIONS]
        command += ["-Xclang", "-ast-dump=json", "-c", str(path), "-o", f"{folder}/all.o"]
        # No object comes of it, which zig takes for a failure.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"our headers do not compile:\n{done.stderr}")
    tree: dict[str, Any] = json.loads(done.stdout)
    return tree


# --- the table -----------------------------------------------------------------------------------


def macros() -> Iterator[str]:
    """Yield the names of the object-like macros with a value."""
    for name in set(names()) - set(stand_ins()):
        text = (LINUX_HEADERS / name).read_text(encoding="utf-8").replace("\\\n", " ")
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
        yield from re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+\S", text, re.MULTILINE)


def _declarations() -> Iterator[dict[str, Any]]:
    """Yield the declarations at the top of our headers, as clang sees them."""
    file = ""
    compared = {str(LINUX_HEADERS / name) for name in set(names()) - set(stand_ins())}
    for node in _tree()["inner"]:
        location = node.get("loc", {})
        location = location.get("expansionLoc", location)
        file = location.get("file", file)
        if file in compared:
            yield node


def _fields(record: dict[str, Any]) -> list[str]:
    return [
        field["name"]
        for field in record.get("inner", [])
        if field["kind"] == "FieldDecl" and "name" in field and not field.get("isBitfield")
    ]


@functools.cache
def expressions() -> dict[str, str]:
    """Map what is compared, by a readable name, to the C expression for it."""
    found = {name: f"(long long)({name})" for name in macros()}
    records: dict[str, dict[str, Any]] = {}
    for node in _declarations():
        name = node.get("name")
        if node["kind"] == "EnumDecl":
            for constant in node.get("inner", []):
                if constant["kind"] == "EnumConstantDecl":
                    found[constant["name"]] = f"(long long)({constant['name']})"
        elif node["kind"] == "RecordDecl" and node.get("completeDefinition"):
            records[node["id"]] = node
            if name:
                found |= _of_record(f"{node['tagUsed']} {name}", node)
        elif node["kind"] == "TypedefDecl":
            found |= _of_type(name or "", node, records)
    return found


def _of_record(type_: str, record: dict[str, Any]) -> dict[str, str]:
    found = {type_: f"(long long)sizeof({type_})"}
    for field in _fields(record):
        found[f"{type_}.{field}"] = f"(long long)offsetof({type_}, {field})"
        found[f"{type_}.{field} size"] = f"(long long)sizeof((({type_} *)0)->{field})"
    return found


def _of_type(name: str, node: dict[str, Any], records: dict[str, dict[str, Any]]) -> dict[str, str]:
    for owner in _owned(node):
        if owner in records and not records[owner].get("name"):
            return _of_record(name, records[owner])
    desugared = node["type"].get("desugaredQualType", node["type"]["qualType"])
    found = {} if "(" in desugared else {name: f"(long long)sizeof({name})"}
    if re.fullmatch(r"(unsigned |signed )?(char|short|int|long|long long)", desugared):
        found[f"{name} sign"] = f"(long long)(({name})-1 < 0)"
    return found


def _owned(node: dict[str, Any]) -> Iterator[str]:
    for inner in node.get("inner", []):
        if "ownedTagDecl" in inner:
            yield inner["ownedTagDecl"]["id"]
        if "decl" in inner:
            yield inner["decl"]["id"]
        yield from _owned(inner)


@functools.cache
def table() -> dict[str, int]:
    """Map what is compared to our value; macros that are no numbers are left out."""
    wanted = dict(expressions())
    while bad := _errors(
        THIS_LINUX, {name: f"{e} == {e}" for name, e in wanted.items()}, ours=True
    ):
        for name in bad:
            del wanted[name]
    printed = "".join(f'printf("%lld\\n", {expression});\n' for expression in wanted.values())
    source = f"#include <stdio.h>\n{includes()}int main(void) {{\n{printed}return 0;\n}}\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "print.c")
        path.write_text(source, encoding="utf-8")
        command = [
            *toolchain.zig(),
            "cc",
            f"-I{LINUX_HEADERS}",
            *OPTIONS,
            "-fno-sanitize=undefined",
        ]
        subprocess.run([*command, str(path), "-o", f"{folder}/print"], check=True)
        values = subprocess.run(
            [f"{folder}/print"], capture_output=True, text=True, check=True
        ).stdout.split()
    return dict(zip(wanted, map(int, values), strict=True))


# --- the assertions ------------------------------------------------------------------------------


def _errors(target: Target, conditions: dict[str, str], *, ours: bool = False) -> set[str]:
    """Return which of the conditions do not hold, or do not compile, with the target's headers."""
    lines = [f'_Static_assert({text}, "{name}");' for name, text in conditions.items()]
    source = includes() + '#line 1 "assertions"\n' + "\n".join(lines) + "\n"
    options = [*OPTIONS, f"-I{LINUX_HEADERS}"] if ours else OPTIONS
    with tempfile.TemporaryDirectory() as folder:
        done = toolchain.compile_c(target, source, Path(folder, "assert.o"), *options)
    found = {
        int(number) for number in re.findall(r"^assertions:(\d+):\d+: error", done.stderr, re.M)
    }
    if done.returncode and not found:
        raise RuntimeError(f"the headers of {target} do not compile:\n{done.stderr}")
    all_names = list(conditions)
    return {all_names[number - 1] for number in found}


def differences(target: Target, values: dict[str, int]) -> set[str]:
    """Return what the target's own headers do not have, or have with another value."""
    wanted = expressions()
    return _errors(
        target,
        {name: f"{wanted[name]} == {value}LL" for name, value in values.items()},
        ours=target.system == "linux",
    )


def listed(target: Target) -> dict[str, str]:
    """Map what is known to differ on the target to the reason."""
    sections = tomllib.loads(LISTED.read_text(encoding="utf-8"))["difference"]
    return {
        name: section["reason"]
        for section in sections
        if target.arch in section.get("architectures", [target.arch])
        for name in section["names"]
    }


def problems() -> Iterator[str]:
    """Yield what is wrong: a difference that is not listed, a listed one that is none."""
    values = table()
    for name in differences(THIS_LINUX, values):
        yield f"{name}: our own headers do not agree with themselves"
    for target in MACS:
        found, known = differences(target, values), listed(target)
        for name in sorted(found - known.keys()):
            yield f"{target}: {name} is {values[name]} here, and otherwise or not at all at Apple's"
        for name in sorted(known.keys() - found):
            yield f"{target}: {name} is listed as different, and is not"


def main() -> int:
    """Print the problems; the exit status tells whether there are any."""
    found = list(problems())
    for problem in found:
        print(problem)
    print(f"{len(table())} constants, types and fields compared; {len(found)} problems")
    print(f"not compared, since zig has no copy of Apple's: {', '.join(stand_ins())}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
