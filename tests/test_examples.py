"""Every example and the demo, as somebody would run them: new processes, and a server of their own.

Besides the status, the lines that matter are looked for, and no warning may appear; development
mode tells of everything left open.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PYTHON = [sys.executable, "-X", "dev", "-W", "error"]
PATIENCE = 50

# What asyncio says in development mode on a machine that is busy.
SLOW = re.compile(r"^Executing <.*> took [\d.]+ seconds\n?", re.MULTILINE)

ESSENTIAL = {
    "parent.py": [
        r"child \d+: received 'sent before the move' from pid (\d+)",
        r"child \d+: received 'sent after the move' from pid \1",
        r"child \d+: goodbye received",
        r"parent \d+: the child ended with status 0",
    ],
    "reverse_parent.py": [
        r"parent \d+: I hold a send right to the child's service",
        r"parent \d+: it answers 'HELLO, CHILD'",
        r"parent \d+: it answers 'MACH ON EVERY KERNEL'",
        r"parent \d+: the child ended with status 0",
    ],
    "once_parent.py": [
        r"child \d+: the answer is 'well done'",
        r"child \d+: the system tells me that the right was dropped",
    ],
    "task_parent.py": [
        r"parent \d+: I hold the task port of pid (\d+); the child that I started is \1",
        r"parent \d+: a dead-name notification",
        r"parent \d+: the child's status is -9",
    ],
    "failures.py": [
        r"parent \d+: NoCheckInError: ",
        r"child \d+: my message was destroyed, and the right in it",
        r"parent \d+: NoCheckInError: .*refused and destroyed: 1",
        r"parent \d+: WrongRightError: ",
        r"parent \d+: ServerGoneError: ",
        r"parent \d+: the receive right is still mine",
    ],
}
# Not among those that the demo shows.
OTHERS = {
    "supervisor.py": [
        r"job 0 was lost with worker \d+",
        r"12 jobs are done: \[0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121\]",
        r"the others ended with \{0\}",
    ],
    "worker_pool.py": [
        r"30 answers: \{'HELLO'\}",
        r"all from the workers: True",
        r"a worker ended with -9",
        r"another one answers HELLO: True",
        r"the others ended with \[-15, -15\]",
    ],
}
CHILDREN = ["child.py", "once_child.py", "reverse_child.py", "task_child.py"]
# Run by test_service_examples.py.
SERVICES = [
    "calculator.py",
    "camera.py",
    "camera_viewer.py",
    "echo_client.py",
    "echo_service.py",
    "handover.py",
]


@pytest.fixture
def env(bootstrap_env):
    """An environment without colours whose bootstrap server leaves at once."""
    return {**bootstrap_env, "NO_COLOR": "1", "MACHIO_BOOTSTRAPD_IDLE": "0.5"}


def run(path, env, *arguments):
    """Run a program to its end and return what it said. Raises AssertionError on any complaint."""
    process = subprocess.run(
        [*PYTHON, str(path), *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    complaints = SLOW.sub("", process.stderr).strip()
    assert (process.returncode, complaints) == (0, ""), process.stdout + process.stderr
    return process.stdout


def assert_in_order(patterns, text):
    assert re.search(".*".join(patterns), text, re.DOTALL), text


def test_each_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        *ESSENTIAL,
        *OTHERS,
        "crash_watcher.py",
        *CHILDREN,
        *SERVICES,
        "demo.py",
    }


def test_the_page_of_the_examples_shows_lines_of_them():
    page = (EXAMPLES / "README.md").read_text()
    blocks = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.count("```") // 2
    for name, block in blocks:
        program = (EXAMPLES / name).read_text()
        for piece in block.split("...\n"):
            assert f"\n{piece}" in program, f"{name}:\n{piece}"
    for path in (*EXAMPLES.rglob("*.py"), *EXAMPLES.rglob("*.c")):
        assert f"`{path.relative_to(EXAMPLES)}`" in page


@pytest.mark.parametrize("name", [*ESSENTIAL, *OTHERS])
def test_example(name, env):
    assert_in_order((ESSENTIAL | OTHERS)[name], run(EXAMPLES / name, env))


def test_the_crash_watcher_tells_how_each_ended(env):
    ends = re.findall(r"is gone, (.*)", run(EXAMPLES / "crash_watcher.py", env))
    assert sorted(ends) == [
        "asked to: killed by SIGTERM",
        "fine: exit status 0",
        "shot: killed by SIGKILL",
        "unhappy: exit status 3",
    ]


@pytest.mark.parametrize("name", CHILDREN)
def test_a_child_by_itself_says_what_to_run(name, env):
    process = subprocess.run(
        [*PYTHON, str(EXAMPLES / name)], env=env, capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert re.fullmatch(rf"{name} is started by \w+\.py: run that one\n", process.stderr)


@pytest.mark.parametrize("whom", ["parent", "both"])
@pytest.mark.parametrize("name", ["parent.py", "reverse_parent.py", "task_parent.py"])
def test_control_c(name, whom, env):
    """An interrupt, at the terminal or of the parent alone, ends both processes quietly."""
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("child"):  # now both are at work
            assert process.poll() is None
        if whom == "parent":
            process.send_signal(signal.SIGINT)
        else:
            os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        # The pipes have ended, so nobody is left. The interrupt may have come after the last line.
        assert process.returncode in (0, 130)
        assert "Traceback" not in errors


@pytest.mark.timeout(120)
@pytest.mark.parametrize("arguments", [(), ("--default",)], ids=["own server", "default server"])
def test_demo(arguments, env):
    said = run(EXAMPLES / "demo.py", env, *arguments)
    assert "\033" not in said
    # Every example in turn, each line with its time; what is long is broken into several.
    assert_in_order([rf"\n\d\. [^\n]*{name}\n.* ms  (?:parent|child)" for name in ESSENTIAL], said)
    assert_in_order(
        ["NoCheckInError", "WrongRightError", "ServerGoneError", "as they should"], said
    )


def test_the_demo_leaves_nothing(env):
    said = run(EXAMPLES / "demo.py", env)
    server = int(re.search(r"of the demo's own, pid (\d+)", said)[1])
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    assert not list(Path(env["MACHIO_BOOTSTRAP"]).iterdir())  # it was not used


def test_the_demo_tells_of_a_failure(env, tmp_path):
    for path in EXAMPLES.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "child.py").write_text("raise SystemExit('I will not')")
    process = subprocess.run(
        [sys.executable, str(tmp_path / "demo.py")],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert process.returncode == 1
    assert "The demo failed: parent.py ended with status 1" in process.stdout
    assert "I will not" in process.stdout
    assert "ServerGoneError" in process.stdout


def test_colours_are_for_terminals(env):
    del env["NO_COLOR"]
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "demo.py")],
            env={**env, "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
        )
        os.close(theirs)
        said = b""
        with process, contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and (part := os.read(ours, 4096)):
                said += part
        assert process.returncode == 0
    finally:
        os.close(ours)
    assert b"\033[36mparent" in said
