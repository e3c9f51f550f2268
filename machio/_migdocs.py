"""What a declaration tells a C programmer: a .defs file, and the messages as structs."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from ._migdescriptors import Rights
from ._migtypes import Kind, structs_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._miglayout import Layout, Routine
    from ._subsystem import Subsystem


def defs(subsystem: type[Subsystem]) -> str:
    """Return the subsystem as a .defs file for MIG; types that it cannot name get definitions."""
    routines = list(subsystem.routines.values())
    base = min((one.id for one in routines), default=0)
    lines = [
        *_comment(subsystem.__doc__ or ""),
        f"subsystem {_snake(subsystem.__name__)} {base};",
        "",
        "#include <mach/std_types.defs>",
        "#include <mach/mach_types.defs>",
    ]
    declared: dict[str, None] = {}
    for one in routines:
        for _, kind in _arguments(one):
            for struct in structs_in(kind):
                declared[f"type {struct.defs} = struct[{struct.size}] of char;"] = None
            if (name := _type_name(kind)) != kind.defs:
                declared[f"type {name} = {kind.defs};"] = None
    lines += ["", *declared] if declared else []
    place = base
    for one in sorted(routines, key=lambda routine: routine.id):
        lines += ["", *["skip;"] * (one.id - place), *_comment(one.doc)]
        place = one.id + 1
        word = "simpleroutine" if one.reply is None else "routine"
        taken = [f"{name} : {_type_name(kind)}" for name, kind in one.request.arguments]
        results = [] if one.reply is None else one.reply.arguments
        given = [f"out {name} : {_type_name(kind)}" for name, kind in results]
        arguments = ["server : mach_port_t", *taken, *given]
        lines += [f"{word} {one.name}(", ";\n".join(f"    {text}" for text in arguments) + ");"]
    return "\n".join(lines) + "\n"


def c_header(subsystem: type[Subsystem]) -> str:
    """Return the messages of a subsystem as C structures, for stubs written by hand.

    What has a varying length has its largest size there; what follows it moves forward.
    """
    guard = f"_{_snake(subsystem.__name__)}_messages_h_"
    lines = [
        *_comment(subsystem.__doc__ or ""),
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "#include <mach/mach.h>",
        "#include <mach/ndr.h>",
    ]
    structs = {
        found: None
        for one in subsystem.routines.values()
        for _, kind in _arguments(one)
        for found in structs_in(kind)
    }
    for struct in structs:
        members = [kind.declare(name) for name, kind, _ in struct.members]
        lines += ["", "typedef struct {", *_indented(members), f"}} {struct.defs};"]
    lines += ["", "#pragma pack(push, 4)"]
    for one in subsystem.routines.values():
        lines += ["", *_comment(one.doc), f"enum {{ {one.name}_id = {one.id} }};"]
        lines += _struct(f"__Request__{one.name}_t", one.request, simple_reply=False)
        if one.reply is not None:
            simple = not one.reply.descriptors
            lines += _struct(f"__Reply__{one.name}_t", one.reply, simple_reply=simple)
    return "\n".join([*lines, "", "#pragma pack(pop)", "", "#endif", ""])


def _struct(name: str, layout: Layout, *, simple_reply: bool) -> list[str]:
    fields = ["mach_msg_header_t Head"]
    if layout.descriptors:
        fields.append("mach_msg_body_t msgh_body")
        for argument, kind in layout.arguments:
            count = f"[{kind.count}]" if isinstance(kind, Rights) and not kind.variable else ""
            if kind.descriptors:
                fields.append(f"{kind.descriptor_type} {argument}{count}")
    if layout.head:
        fields.append("NDR_record_t NDR")
    if simple_reply:
        fields.append("kern_return_t RetCode")
    for argument, kind in layout.arguments:
        fields += kind.fields(argument)
    return ["typedef struct {", *_indented(fields), f"}} {name};"]


def _arguments(one: Routine) -> Iterator[tuple[str, Kind]]:
    yield from one.request.arguments
    if one.reply is not None:
        yield from one.reply.arguments


def _type_name(kind: Kind) -> str:
    """Return a name for the type: its own if it has one, else one made of its definition."""
    if re.fullmatch(r"\w+", kind.defs):
        return kind.defs
    words = kind.defs.replace("*:", "up_to_").replace("^", "ool_")
    return re.sub(r"\W+", "_", words).strip("_") + "_t"


def _indented(fields: list[str]) -> list[str]:
    return [f"    {field};" for field in fields]


def _comment(text: str) -> list[str]:
    if not text:
        return []
    wrapped = [line for part in text.splitlines() for line in textwrap.wrap(part, 90) or [""]]
    first, *rest = wrapped
    return (
        [f"/* {first}", *[f" * {line}".rstrip() for line in rest], " */"]
        if rest
        else [f"/* {first} */"]
    )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
