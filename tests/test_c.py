"""Runs the C tests, each TEST() of ``tests/c/test_*.c`` in a process of its own.

They are compiled with the C library in several flavours, on all cores, in a directory of the
session. A test program named ``test_shim*.c`` is linked with ``machio/csrc/shim.c`` as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "machio/csrc"
INCLUDE = CSRC / "linux/include"
LIBRARY = sorted((CSRC / "linux").glob("*.c"))
SHIM = CSRC / "shim.c"
PROGRAMS = sorted((ROOT / "tests/c").glob("test_*.c"))

CC = shlex.split(os.environ.get("CC", "cc"))
CXX = shlex.split(os.environ.get("CXX", "c++"))
INCLUDES = [f"-I{path}" for path in (INCLUDE, CSRC, CSRC / "linux", ROOT / "tests/c")]
CFLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", *INCLUDES]
FLAVOURS = {
    "plain": ["-O2"],
    "sanitized": [
        "-O1",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ],
    "threads": ["-O1", "-fsanitize=thread"],
    "valgrind": ["-O1"],
}
# What runs a program of a flavour.
RUNNERS = {
    "valgrind": [
        "valgrind",
        "--quiet",
        "--error-exitcode=99",
        "--child-silent-after-fork=yes",
    ],
}
# What valgrind cannot run, and why. Leaks are the address sanitizer's subject.
NOT_UNDER_VALGRIND = {
    "rendezvous": "valgrind's own files are in the server that the test starts, and are found",
    "wire-a_message_is_never_half_received": "valgrind keeps the highest descriptors for itself",
    "wire-nor_when_others_took_the_descriptors": "valgrind lowers its own limit, not the kernel's",
    "wire-looking_first_receives_the_same": "valgrind refuses to raise the limit of descriptors",
    "limits-thousands_of_ports_with_rights_elsewhere": "the same",
    "distinct": "the same",
    "bundles-a_large_message_is_never_half_received": "valgrind keeps the highest descriptors",
    "bundles-nor_one_that_comes_as_a_surprise": "the same",
    "bundles-what_a_task_can_never_hold_is_dropped": "the same",
    "fileport-too_few_descriptors": "the same",
    "memory-what_cannot_be_read_destroys_the_message": "it reports the bad addresses of the test",
    "arrays-arrays_that_are_wrong": "the same",
    "region-with_other_memory_in_the_message_it_is_copied": "the same",
    "region-a_failure_before_the_rights_are_taken_leaves_it_and_one_after_destroys_it": "the same",
}
# The bootstrap server is started with the Python that runs the tests.
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
# `make sanitize` asks for the slow ones.
SELECTED = os.environ.get("MACHIO_C_FLAVOURS", "plain,sanitized").split(",")
TIME_LIMIT = 60.0 if SELECTED == ["plain", "sanitized"] else 240.0


def names_in(program: Path) -> list[str]:
    """List the TEST()s of a program; one without any runs as a whole."""
    return re.findall(r"^TEST\((\w+)\)", program.read_text(encoding="utf-8"), re.MULTILINE) or [""]


def everything() -> Iterator[Any]:
    """Yield each test of each program in each flavour."""
    for flavour in SELECTED:
        for program in PROGRAMS:
            stem = program.stem.removeprefix("test_")
            for name in names_in(program):
                id_ = f"{stem}-{name or 'main'}"
                if flavour != "valgrind" or not {stem, id_} & NOT_UNDER_VALGRIND.keys():
                    yield pytest.param(program, name, flavour, id=f"{id_}-{flavour}")


def make(target: Path, *arguments: str | Path) -> Path:
    """Have the compiler make a file; what it complains about becomes the test's failure."""
    command = [*CC, *CFLAGS, *map(str, arguments), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{CC[0]} cannot make {target}:\n{done.stderr}", pytrace=False)
    return target


class Build:
    """The programs of one flavour."""

    def __init__(self, pool: ThreadPoolExecutor, flags: list[str], directory: Path) -> None:
        """Begin to compile the library."""
        self.pool, self.flags, self.directory = pool, flags, directory
        directory.mkdir()
        self.objects = {source: self._compile(source) for source in LIBRARY}

    def add(self, program: Path) -> None:
        """Begin to compile a program."""
        if program not in self.objects:
            self.objects[program] = self._compile(program)

    def executable(self, program: Path) -> Path:
        """Return the executable of a program, linked when first asked for."""
        target = self.directory / program.stem
        if not target.exists():
            objects = [self.objects[source].result() for source in (program, *LIBRARY)]
            shim = [SHIM] if program.stem.startswith("test_shim") else []
            make(target, *self.flags, *objects, *shim)
        return target

    def _compile(self, source: Path) -> Future[Path]:
        target = self.directory / f"{source.parent.name}-{source.stem}.o"
        return self.pool.submit(make, target, *self.flags, "-c", source)


@pytest.fixture(scope="module")
def builds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Build]:
    """Compile what the selected tests want, in each flavour; done before the first test runs."""
    directory = tmp_path_factory.mktemp("c")
    builds: dict[str, Build] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def build(flavour: str) -> Build:
            if flavour not in builds:
                builds[flavour] = Build(pool, FLAVOURS[flavour], directory / flavour)
            return builds[flavour]

        for item in request.session.items:
            if item.function is test_program:
                build(item.callspec.params["flavour"]).add(item.callspec.params["program"])
            elif item.function is test_cxx_as_it_is_written_for_macos:
                build("plain")
    return builds


@pytest.fixture(scope="session")
def working_flavours(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The flavours whose programs compile and run: some compilers come without sanitizers."""
    if tool := next((RUNNERS[name][0] for name in SELECTED if name in RUNNERS), None):
        assert shutil.which(tool), f"{tool} is not there (Debian: install {tool})"
    directory = tmp_path_factory.mktemp("flavours")
    (directory / "main.c").write_text("int main(void) { return 0; }\n")

    def works(name: str) -> bool:
        compiled = subprocess.run(
            [*CC, "-g", *FLAVOURS[name], str(directory / "main.c"), "-o", str(directory / name)],
            capture_output=True,
            check=False,
        )
        ran = compiled.returncode == 0 and subprocess.run(
            [*RUNNERS.get(name, []), directory / name], capture_output=True, check=False
        )
        return bool(ran) and ran.returncode == 0

    return {name for name in SELECTED if works(name)}


def run(command: list[str | Path], environment: dict[str, str], log: Path) -> tuple[int, str]:
    """Run a program to its end and return its status and all it printed.

    The output goes to a file: a server that the program leaves behind would keep a pipe open. That
    one has a session of its own; whoever else the program leaves behind ends with it.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status = process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            status = -signal.SIGALRM
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, log.read_text(errors="replace")


@pytest.mark.timeout(900)  # the first waits for the compiler
@pytest.mark.parametrize(("program", "name", "flavour"), list(everything()))
def test_program(
    program: Path,
    name: str,
    flavour: str,
    builds: dict[str, Build],
    working_flavours: set[str],
    bootstrap_env: dict[str, str],
    tmp_path: Path,
) -> None:
    if flavour not in working_flavours:
        pytest.skip(f"{CC[0]} makes no {flavour} programs that run here")
    environment = {
        "ASAN_OPTIONS": "detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": f"suppressions={ROOT / 'tests/c/tsan.supp'}",
        **bootstrap_env,
        "PATH": PATH,
    }
    executable = builds[flavour].executable(program)
    command = [*RUNNERS.get(flavour, []), executable, *([name] if name else [])]
    expect_success(command, environment, tmp_path / "log")


def expect_success(command: list[str | Path], environment: dict[str, str], log: Path) -> None:
    """Run a program; how it ended and what it printed becomes the test's failure."""
    status, output = run(command, environment, log)
    if status == -signal.SIGALRM:
        pytest.fail(f"not done after {TIME_LIMIT:.0f} s:\n{output}", pytrace=False)
    if status < 0:
        pytest.fail(f"killed by {signal.Signals(-status).name}:\n{output}", pytrace=False)
    if status:
        pytest.fail(f"exited with {status}:\n{output}", pytrace=False)


def test_a_failing_program_leaves_no_children(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command: list[str | Path] = ["sh", "-c", f"exec 3> {fifo}; sleep 600 & exit 1"]
    assert run(command, dict(os.environ), tmp_path / "log") == (1, "")
    ended = select.poll()
    ended.register(held, 0)
    assert ended.poll(10_000) == [(held, select.POLLHUP)]
    os.close(held)


@pytest.mark.parametrize("side", ["User", "Server"])
def test_what_mig_generates_compiles_as_cxx(side: str, tmp_path: Path) -> None:
    """As C it is part of test_mig.c."""
    source = ROOT / f"tests/c/mig/arith{side}.c"
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-I", INCLUDE, "-o", tmp_path / "side.o"]
    command = [*CXX, "-x", "c++", *flags, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("standard", ["c11", "c++17", "c++20"])
@pytest.mark.parametrize(
    "header", sorted(str(path.relative_to(INCLUDE)) for path in INCLUDE.rglob("*.h"))
)
def test_header_stands_alone(header: str, standard: str, tmp_path: Path) -> None:
    """Each public header compiles on its own, twice included, in C and in C++."""
    compile_with, name = (CXX, "main.cc") if "++" in standard else (CC, "main.c")
    source = tmp_path / name
    source.write_text(f"#include <{header}>\n#include <{header}>\nint main(void) {{ return 0; }}\n")
    command = [
        *compile_with,
        f"-std={standard}",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
        "-fsyntax-only",
        f"-I{INCLUDE}",
        str(source),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"no {compile_with[0]} here")
    assert done.returncode == 0, done.stderr


def test_the_folder_compiles_with_one_line(tmp_path: Path) -> None:
    """A plain program needs the folder, an include path, -pthread and one header, as on macOS."""
    source = tmp_path / "prog.c"
    source.write_text(
        "#include <mach/mach.h>\n"
        "int main(void) {\n"
        "    mach_port_t port;\n"
        "    const size_t size = sizeof NULL;\n"
        "    bool made = !mach_port_allocate(mach_task_self(), MACH_PORT_RIGHT_RECEIVE, &port);\n"
        "    return made && size == sizeof(void *) ? 0 : 1;\n"
        "}\n"
    )
    program = tmp_path / "prog"
    command = [*CC, "-I", INCLUDE, source, *LIBRARY, "-pthread", "-o", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert subprocess.run([program], check=False).returncode == 0


def test_the_headers_are_good_cxx20(tmp_path: Path) -> None:
    """All headers at once; structures to derive from, constants for constant expressions."""
    headers = sorted(str(path.relative_to(INCLUDE)) for path in INCLUDE.rglob("*.h"))
    source = tmp_path / "main.cc"
    source.write_text(
        "".join(f"#include <{header}>\n" for header in headers)
        + "struct A : mach_msg_base_t {};\n"
        + "struct B : mach_msg_header_t {};\n"
        + "struct C : mig_reply_error_t {};\n"
        + "struct D : mach_msg_empty_send_t {};\n"
        + "constexpr auto bits = MACH_MSGH_BITS(MACH_MSG_TYPE_COPY_SEND, 0);\n"
        + "constexpr auto trailer = MACH_RCV_TRAILER_ELEMENTS(MACH_RCV_TRAILER_AUDIT);\n"
        + "constexpr mach_port_t dead = MACH_PORT_DEAD;\n"
        + "static_assert(sizeof(C) == 36 && bits == 19 && trailer != 0 && dead == 0xffffffff);\n"
    )
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", INCLUDE]
    done = subprocess.run([*CXX, *flags, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(900)
def test_cxx_as_it_is_written_for_macos(
    builds: dict[str, Build], bootstrap_env: dict[str, str], tmp_path: Path
) -> None:
    """Programs in C++ compile as they are, find all names, and run."""
    program, object_ = tmp_path / "idioms", tmp_path / "idioms.o"
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-I", str(INCLUDE)]
    command = [*CXX, *flags, "-c", str(ROOT / "tests/programs/idioms.cc"), "-o", str(object_)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    library = [builds["plain"].objects[source].result() for source in LIBRARY]
    make(program, object_, *library, "-lstdc++")
    expect_success([program], {**bootstrap_env, "PATH": PATH}, tmp_path / "log")
