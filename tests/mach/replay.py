"""Replay recorded scripts of port operations on this system and print every line that differs.

    python tests/mach/replay.py FILE [FILE ...] [--script NAME] [--verbose]

A script is a list of operations with the answers that Apple's kernel code gave. Each task of a
script is a process of its own here. ``data/README.md`` tells the format.
"""

from __future__ import annotations

import argparse
import itertools
import re
import secrets
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from child import Child, answer_all

from machio._mach import ffi, lib

RIGHTS = {"send": 0, "recv": 1, "once": 2, "set": 3, "deadname": 4}
DISPOSITIONS = {
    "-": 0,
    "move_recv": 16,
    "move_send": 17,
    "move_once": 18,
    "copy_send": 19,
    "make_send": 20,
    "make_once": 21,
}
KINDS = {0: "-", 16: "recv", 17: "send", 18: "once"}
IDS = {65: "PORT_DELETED", 66: "SEND_POSSIBLE", 69: "PORT_DESTROYED", 70: "NO_SENDERS"}
IDS |= {71: "SEND_ONCE", 72: "DEAD_NAME"}
NOTIFY = {"port_destroyed": 69, "no_senders": 70, "dead_name": 72, "send_possible": 66}
TYPE_BITS = [
    (0x10000, "SEND"),
    (0x20000, "RECEIVE"),
    (0x40000, "SEND_ONCE"),
    (0x80000, "PORT_SET"),
    (0x100000, "DEAD_NAME"),
    (0x80000000, "DNREQUEST"),
]
NULL, DEAD = 0, 0xFFFFFFFF
# The recording could not make these calls: its stub refused a null notify port.
NOT_MADE = re.compile(r"notify \w+ \w+ \d+ null \w+ -> MACH_SEND_INVALID_DEST")
# Differences with a reason: out of all sets while in none is KERN_NOT_IN_SET in current kernels,
# and in Mach's documentation.
KNOWN = re.compile(r"member \w+ null -> OK \| KERN_NOT_IN_SET")
DIFFERENCES = Path(__file__).parent / "data" / "differences.txt"
SEND, RCV, SEND_TIMEOUT, RCV_TIMEOUT, SEQNO_TRAILER = 1, 2, 0x10, 0x100, 1 << 24


# --- one task: a process that does what it is told --------------------------------------------


class Task:
    """The calls, on this process's own name space. Names are plain numbers here."""

    def __init__(self) -> None:
        self.ffi, self.lib = ffi, lib
        self.me = lib.mach_task_self()
        self.buffer = ffi.new("uint8_t[8192]")
        self.boxes: dict[str, int] = {}
        self.box = NULL
        self.options = SEND | SEND_TIMEOUT

    def code(self, kr: int) -> str:
        if kr == 0:
            return "OK"
        for name in dir(self.lib):
            if name.startswith(("KERN_", "MACH_SEND_", "MACH_RCV_")):
                value = getattr(self.lib, name)
                error = kr <= 56 if name.startswith("KERN_") else kr >= 0x10000000
                if value == kr and error:
                    return name
        return hex(kr & 0xFFFFFFFF)

    def out(self, type_: str = "mach_port_name_t *") -> object:
        return self.ffi.new(type_)

    def alloc(self, right: str) -> list:
        name = self.out()
        kr = self.lib.mach_port_allocate(self.me, RIGHTS[right], name)
        return [self.code(kr)] + ([["bind", name[0]]] if kr == 0 else [])

    def dealloc(self, name: int) -> list:
        return [self.code(self.lib.mach_port_deallocate(self.me, name))]

    def destroy(self, name: int) -> list:
        return [self.code(self.lib.mach_port_destroy(self.me, name))]

    def modrefs(self, name: int, right: str, delta: str) -> list:
        kr = self.lib.mach_port_mod_refs(self.me, name, RIGHTS[right], int(delta))
        return [self.code(kr)]

    def refs(self, name: int, right: str) -> list:
        refs = self.out("mach_port_urefs_t *")
        kr = self.lib.mach_port_get_refs(self.me, name, RIGHTS[right], refs)
        return [self.code(kr)] + ([str(refs[0])] if kr == 0 else [])

    def type(self, name: int) -> list:
        type_ = self.out("mach_port_type_t *")
        kr = self.lib.mach_port_type(self.me, name, type_)
        if kr != 0:
            return [self.code(kr)]
        return ["OK", hex(type_[0]), *(text for bit, text in TYPE_BITS if type_[0] & bit)]

    def insert(self, name: int, poly: int, disposition: str) -> list:
        kr = self.lib.mach_port_insert_right(self.me, name, poly, DISPOSITIONS[disposition])
        return [self.code(kr)]

    def extract(self, name: int, disposition: str) -> list:
        poly, kind = self.out("mach_port_t *"), self.out("mach_msg_type_name_t *")
        kr = self.lib.mach_port_extract_right(self.me, name, DISPOSITIONS[disposition], poly, kind)
        return [self.code(kr)] + ([["name", poly[0]], KINDS[kind[0]]] if kr == 0 else [])

    def member(self, name: int, after: int) -> list:
        return [self.code(self.lib.mach_port_move_member(self.me, name, after))]

    def insmember(self, name: int, pset: int) -> list:
        return [self.code(self.lib.mach_port_insert_member(self.me, name, pset))]

    def extmember(self, name: int, pset: int) -> list:
        return [self.code(self.lib.mach_port_extract_member(self.me, name, pset))]

    def qlimit(self, name: int, limit: str) -> list:
        info = self.ffi.new("integer_t[1]", [int(limit)])
        return [self.code(self.lib.mach_port_set_attributes(self.me, name, 1, info, 1))]

    def status(self, name: int) -> list:
        info, count = self.ffi.new("integer_t[10]"), self.ffi.new("mach_msg_type_number_t *", 10)
        kr = self.lib.mach_port_get_attributes(self.me, name, 2, info, count)
        if kr != 0:
            return [self.code(kr)]
        fields = ["pset", "seqno", "mscount", "qlimit", "msgcount", "sorights", "srights"]
        values = dict(zip([*fields, "pdreq", "nsreq", "flags"], info, strict=True))
        order = ["mscount", "sorights", "srights", "msgcount", "qlimit", "pdreq", "nsreq"]
        return ["OK", *(f"{key}={values[key]}" for key in order)]

    def notify(self, name: int, what: str, sync: str, notify: int, disposition: str) -> list:
        previous = self.out()
        kr = self.lib.mach_port_request_notification(
            self.me, name, NOTIFY[what], int(sync), notify, DISPOSITIONS[disposition], previous
        )
        return [self.code(kr)] + ([["prev=", previous[0]]] if kr == 0 else [])

    def header(self) -> object:
        return self.ffi.cast("mach_msg_header_t *", self.buffer)

    def send(self, dest: int, dest_type: str, reply: int, reply_type: str, *rest: object) -> list:
        id_, rights = int(rest[0]), rest[1:]
        pairs = list(zip(rights[::2], rights[1::2], strict=True))
        bits = DISPOSITIONS[dest_type] | DISPOSITIONS[reply_type] << 8
        body = b""
        if pairs:
            bits |= 0x80000000
            body = struct.pack("=I", len(pairs))
            for name, disposition in pairs:
                body += struct.pack("=IIHBB", name, 0, 0, DISPOSITIONS[disposition], 0)
        message = struct.pack("=IIIIIi", bits, 24 + len(body), dest, reply, 0, id_) + body
        self.ffi.memmove(self.buffer, message, len(message))
        mr = self.lib.mach_msg(self.header(), self.options, len(message), 0, NULL, 0, NULL)
        answer = [self.code(mr)]
        if answer == ["MACH_SEND_TIMED_OUT"]:
            answer += ["pseudo", f"bits={self.header().msgh_bits:#x}"]
        return answer

    def receive(self, name: int, timeout: int) -> tuple[int, bytes]:
        mr = self.lib.mach_msg(
            self.header(), RCV | RCV_TIMEOUT | SEQNO_TRAILER, 0, 8192, name, timeout, NULL
        )
        return mr, bytes(self.ffi.buffer(self.buffer))

    def recv(self, name: int, timeout: int = 0) -> list:
        mr, data = self.receive(name, timeout)
        if mr != 0:
            return [self.code(mr)]
        bits, _, remote, local, _, id_ = struct.unpack_from("=IIIIIi", data)
        answer: list = ["OK", f"id={IDS.get(id_, id_)}", "seq=0"]  # recorded without numbers
        answer += [["local=", local, ":" + KINDS[bits >> 8 & 31]]]
        answer += [["remote=", remote, ":" + KINDS[bits & 31]]]
        if bits & 0x80000000:
            answer.append("complex")
            for i in range(struct.unpack_from("=I", data, 24)[0]):
                right, _, _, kind, _ = struct.unpack_from("=IIHBB", data, 28 + 12 * i)
                answer.append(["[" + KINDS[kind] + " ", right, "]"])
        elif id_ in (65, 66, 72):
            answer.append(["[", struct.unpack_from("=I", data, 32)[0], "]"])
        elif id_ == 70:
            answer.append(f"[{struct.unpack_from('=I', data, 32)[0]}]")
        return answer

    # --- give: a right travels through a port that the script does not see ---

    def open_box(self, service: str) -> list:
        port = self.out("mach_port_t *")
        name = service.encode()
        kr = self.lib.bootstrap_check_in(self.lib.bootstrap_port, name, port)
        self.box = port[0]
        return [self.code(kr)]

    def give_to(self, name: int, disposition: str, service: str) -> list:
        if service not in self.boxes:
            port = self.out("mach_port_t *")
            kr = self.lib.bootstrap_look_up(self.lib.bootstrap_port, service.encode(), port)
            if kr != 0:
                return ["look_up failed", self.code(kr)]
            self.boxes[service] = port[0]
        return self.send(self.boxes[service], "copy_send", NULL, "-", "1", name, disposition)

    def take(self) -> list:
        mr, data = self.receive(self.box, 10_000)
        if mr != 0:
            return [self.code(mr)]
        return ["OK", ["bind", struct.unpack_from("=I", data, 28)[0]]]


def serve_task(pipe: Connection, kind: type[Task]) -> None:
    """Be a task: what comes is an operation with its arguments, each is answered."""
    task = kind()
    answer_all(pipe, lambda words: getattr(task, words[0])(*words[1:]))


# --- the controller ----------------------------------------------------------------------------


@dataclass
class Process:
    """A task of the script, and what its symbols are bound to."""

    service: str
    symbols: dict[str, int] = field(default_factory=dict)
    has_box: bool = False
    kind: type[Task] = Task

    def __post_init__(self) -> None:
        self.child = Child(serve_task, self.kind)

    def do(self, *words: object) -> list:
        return self.child.ask(words)

    def end(self) -> None:
        self.child.end()


def is_symbol(word: str) -> bool:
    return word[0] in "vp" and word[1:].isdigit()


class Script:
    """One script while it is replayed."""

    def __init__(self, masked: bool) -> None:
        self.masked = masked
        self.tasks: dict[str, Process] = {}
        self.current = ""
        self.new_symbols = (f"p{i}" for i in itertools.count(1))
        self.unbound = itertools.count(0x00F00003, 0x100)

    def task(self, name: str) -> Process:
        if name not in self.tasks:
            self.tasks[name] = Process(f"replay.{secrets.token_hex(8)}")
        return self.tasks[name]

    def close(self) -> None:
        for task in self.tasks.values():
            task.end()

    def value(self, word: str) -> object:
        if word == "null":
            return NULL
        if word == "dead":
            return DEAD
        if not is_symbol(word):
            return word
        symbols = self.task(self.current).symbols
        if word not in symbols:
            symbols[word] = next(self.unbound)
        return symbols[word]

    def symbol(self, name: int) -> str:
        if name in (NULL, DEAD):
            return "dead" if name else "null"
        symbols = self.task(self.current).symbols
        for symbol, value in symbols.items():
            if value == name:
                return symbol
        symbol = next(self.new_symbols)
        symbols[symbol] = name
        return symbol

    def bind(self, task: Process, symbol: str, name: int, steal: bool) -> None:
        if steal:
            for other in [s for s, value in task.symbols.items() if value == name]:
                del task.symbols[other]
        task.symbols.pop(symbol, None)
        task.symbols[symbol] = name

    def render(self, answer: list, target: str | None, task: Process, steal: bool) -> str:
        words = []
        for part in answer:
            if isinstance(part, str):
                words.append(part)
            elif part[0] == "bind":
                self.bind(task, target, part[1], steal)
            elif part[0] == "name":
                words.append(self.symbol(part[1]))
            elif part[0] == "[":
                words.append("[*]" if self.masked else f"[{self.symbol(part[1])}]")
            else:
                words.append(part[0] + self.symbol(part[1]) + "".join(part[2:]))
        return " ".join(words)

    def give(self, right: str, disposition: str, to: str, target: str) -> str:
        giver, taker = self.task(self.current), self.task(to)
        if not taker.has_box:
            taker.do("open_box", taker.service)
            taker.has_box = True
        answer = giver.do("give_to", self.value(right), disposition, taker.service)
        if answer == ["OK"]:
            answer = taker.do("take")
        return self.render(answer, target, taker, steal=False)

    def run(self, line: str) -> str | None:
        operation, *words = line.split()
        if operation == "task":
            self.current = words[0]
            self.task(self.current)
            return None
        if operation == "exit":
            self.tasks.pop(words[0]).end()
            return None
        if operation == "give":
            return self.give(*words)
        task = self.task(self.current)
        target = words.pop(0) if operation == "alloc" else None
        answer = task.do(operation, *map(self.value, words))
        return self.render(answer, target, task, steal=True)


def scripts(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Split a file into its scripts: the name and the lines of each."""
    for block in path.read_text().split("=== ")[1:]:
        name, *lines = block.splitlines()
        yield name.strip(), [line for line in lines if line.strip()]


def replay(name: str, lines: list[str]) -> Iterator[tuple[int, str, str]]:
    """Replay one script; yields each line that differs: its number, as recorded, the answer."""
    script = Script(masked=any(line.startswith("task ") for line in lines))
    script.current = "A"
    try:
        for number, line in enumerate(lines, 1):
            operation, arrow, expected = line.partition(" -> ")
            if NOT_MADE.fullmatch(line):
                continue
            got = script.run(operation)
            if arrow and got != expected.strip() and not KNOWN.fullmatch(f"{line} | {got}"):
                yield number, line, got or ""
    finally:
        script.close()


def listed(path: Path) -> dict[tuple[str, int], bool]:
    """Read the lines that are known to differ; True: this one may also agree."""
    lines: dict[tuple[str, int], bool] = {}
    for line in path.read_text().split("\n"):
        if line and line[0] not in "#=":
            name, _, ranges = line.lstrip("~").partition(":")
            for part in ranges.split(","):
                first, _, last = part.partition("-")
                for number in range(int(first), int(last or first) + 1):
                    lines[name, number] = line.startswith("~")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--script", help="replay only this one")
    parser.add_argument("--verbose", action="store_true", help="name each script")
    options = parser.parse_args()
    known = listed(DIFFERENCES)
    total = differing = bad = 0
    for path in options.files:
        for name, lines in scripts(path):
            if options.script not in (None, name):
                continue
            total += 1
            if options.verbose:
                print(f"=== {name}", file=sys.stderr)
            differences = list(replay(name, lines))
            agreed = {at for at in known if at[0] == name and not known[at]}
            agreed -= {(name, number) for number, _, _ in differences}
            differences = [at for at in differences if (name, at[0]) not in known]
            differences += [
                (number, lines[number - 1], "as recorded, but listed as different")
                for _, number in sorted(agreed)
            ]
            bad += bool(differences)
            differing += len(differences)
            for number, line, got in differences:
                print(f"{name}:{number}: {line}\n    here: {got}")
    print(f"{total} scripts, {bad} differ in {differing} lines")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
