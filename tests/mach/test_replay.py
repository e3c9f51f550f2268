"""What Apple's kernel code answered is what this system answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def replay(env: dict[str, str], *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HERE / "replay.py", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("recording", ["single.txt", "multi.txt"])
def test_tasks_answer_as_recorded(bootstrap_env: dict[str, str], recording: str) -> None:
    done = replay(bootstrap_env, HERE / "data" / recording)
    assert (done.stdout, done.stderr) == ("200 scripts, 0 differ in 0 lines\n", "")
    assert done.returncode == 0


def test_a_wrong_answer_is_told(bootstrap_env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "wrong.txt"
    script.write_text("=== wrong\nalloc v1 recv -> OK\nrefs v1 recv -> OK 2\n")
    done = replay(bootstrap_env, script)
    assert done.stdout == (
        "wrong:2: refs v1 recv -> OK 2\n    here: OK 1\n1 scripts, 1 differ in 1 lines\n"
    )
    assert done.returncode == 1


def test_a_port_that_died_with_messages_in_it_does_not_spoil_others(
    bootstrap_env: dict[str, str], tmp_path: Path
) -> None:
    """The kernel tells once that the socket of a right in a message was closed with data in it."""
    script = tmp_path / "spoilt.txt"
    script.write_text(
        """=== spoilt
task A
alloc v1 recv -> OK
give v1 make_send C v3 -> OK
task C
alloc v2 recv -> OK
give v2 make_send A v4 -> OK
task A
send v4 copy_send null - 100 -> OK
task C
send v3 copy_send null - 101 v2 make_send -> OK
exit C
task A
recv v1 -> OK id=101 seq=0 local=v1:send remote=null:- complex [send dead]
"""
    )
    done = replay(bootstrap_env, script)
    assert (done.stdout, done.stderr) == ("1 scripts, 0 differ in 0 lines\n", "")


def test_no_senders_comes_of_what_was_before_it_was_asked_again(
    bootstrap_env: dict[str, str], tmp_path: Path
) -> None:
    """A last right dropped elsewhere fires the request that was armed then, with its count."""
    script = tmp_path / "again.txt"
    script.write_text(
        "".join(
            f"""=== {name}
task A
alloc v1 recv -> OK
give v1 make_send B v2 -> OK
notify v1 no_senders 0 v1 make_once -> OK prev=null
task B
dealloc v2 -> OK
task A
{then}
recv v1 -> OK id=NO_SENDERS seq=0 local=v1:once remote=null:- [1]
"""
            for name, then in (
                ("made", "insert v1 v1 make_send -> OK"),
                ("asked", "notify v1 no_senders 0 null make_once -> OK prev=null"),
            )
        )
    )
    done = replay(bootstrap_env, script)
    assert (done.stdout, done.stderr) == ("2 scripts, 0 differ in 0 lines\n", "")


def test_a_listed_difference_that_is_none_is_told(
    bootstrap_env: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "agrees.txt"
    script.write_text("=== multi-0002\n" + "alloc v1 recv -> OK\n" * 123)
    done = replay(bootstrap_env, script)
    assert "as recorded, but listed as different" in done.stdout
    assert done.returncode == 1
