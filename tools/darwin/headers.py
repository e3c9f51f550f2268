"""Compare what the Linux headers define under Apple's names with Apple's own headers.

    python tools/darwin/headers.py

One table is read off `machio/csrc/linux/include` by a compiler: each constant and its value, each
type with its size and signedness, each structure with its fields, each function with its type. Of
every entry becomes a static assertion, and the assertions are compiled against Apple's headers for
each architecture, and against ours. What Apple's headers lack, or have otherwise, and what cannot
be compared must be listed in `headers.toml` with the reason, and nothing else may be.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import declared
import toolchain
from declared import OPTIONS, expressions, includes
from toolchain import MACS, THIS_LINUX, Target

LISTED = Path(__file__).with_name("headers.toml")


@functools.cache
def table() -> dict[str, int]:
    """Map what is compared to our value; what is no constant is left out."""
    wanted = dict(expressions())
    while bad := _errors(
        THIS_LINUX, {name: f"{e} == {e}" for name, e in wanted.items()}, ours=True
    ):
        for name in bad:
            del wanted[name]
    # The compiler works them out, as it does for an assertion, and not the program.
    constants = ",\n".join(wanted.values())
    source = f"""#include <stdio.h>
{includes()}
static const long long values[] = {{ {constants} }};
int main(void) {{
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++)
        printf("%lld\\n", values[i]);
}}
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "print.c")
        path.write_text(source, encoding="utf-8")
        command = [
            *toolchain.zig(),
            "cc",
            f"-I{declared.INCLUDE}",
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
    options = [*OPTIONS, f"-I{declared.INCLUDE}"] if ours else OPTIONS
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


def _sections(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(LISTED.read_text(encoding="utf-8"))[kind]
    return found


def listed(target: Target) -> dict[str, str]:
    """Map what is known to differ on the target to the reason."""
    return {
        name: section["reason"]
        for section in _sections("difference")
        if target.arch in section.get("architectures", [target.arch])
        for name in section["names"]
    }


def escaped() -> Iterator[str]:
    """Yield what is not compared and not listed, and what is listed and is compared."""
    names = declared.defined()
    subjects = set(map(declared.subject, table()))
    for kind, what, missing in (
        ("uncompared", "is defined by our headers and not compared", names - subjects),
        ("header", "is a header that zig has no copy of", set(declared.stand_ins())),
    ):
        known = {name for section in _sections(kind) for name in section["names"]}
        yield from (f"{name} {what}" for name in sorted(missing - known))
        yield from (f"{name} is listed in vain" for name in sorted(known - missing))


def problems() -> Iterator[str]:
    """Yield what is wrong: a difference that is not listed, a listed one that is none."""
    values = table()
    yield from escaped()
    for name in values:
        if name.endswith("()") and not values[name]:
            yield f"{name}: our own headers have another type"
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
    print(f"{len(table())} constants, types, fields and functions; {len(found)} problems")
    for section in [*_sections("header"), *_sections("uncompared")]:
        print(f"not compared: {', '.join(section['names'])}. {section['reason']}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
