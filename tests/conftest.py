"""What every test has: loops to run on, a bootstrap server of its own, a check for leaked files.

- An ``async def test_...`` runs once on each of `LOOPS`. A test that starts other processes takes
  the fixture `loop_name` instead and passes the name on; `LOOPS` makes the loop there.
- The test process never meets the user's bootstrap server: `machio.testing` sees to that, and has
  the fixtures `bootstrap_dir` and `bootstrap_env` for a test that wants its own.
- A test that says something on one system only stands in `systems.toml`.
- A file that is open after a test and was not before fails it; so do rights, and memory.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import systems
from common import LOOPS, leaked_fds, mapped, open_fds, wait_in_vain

import machio
from machio import _ffi, _loop, _requests

pytest_plugins = ["machio.testing"]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict:
    return LOOPS


@pytest.fixture(params=LOOPS)
def loop_name(request: pytest.FixtureRequest) -> str:
    """The name of an event loop, for the processes that the test starts."""
    return request.param


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--round", type=int, default=0, help="which round of the handshake's table this is"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        if reason := systems.why_not(f"{path}::{item.nodeid.partition('::')[2]}"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish(session: pytest.Session) -> None:
    # What is there now stays; the collections around each test need not look at it again.
    gc.collect()
    gc.freeze()


@pytest.fixture
def port() -> Iterator[machio.ReceiveRight]:
    """A port whose queue has Mach's usual limit."""
    with machio.ReceiveRight.allocate() as port:
        yield port


@pytest.fixture
def send(port: machio.ReceiveRight) -> Iterator[machio.SendRight]:
    """A send right to it; nobody waits on that after the test."""
    with port.make_send() as send:
        yield send
    assert not _requests._slots


@pytest.fixture(scope="session")
def bootstrap_server() -> None:
    """A running bootstrap server that this process is attached to, as it then stays."""
    with pytest.raises(machio.UnknownServiceError):
        asyncio.run(machio.bootstrap.look_up("machio.tests.nobody"))


# --- examples in C -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def c_examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the programs that the Makefile of examples/c makes."""
    target = tmp_path_factory.mktemp("examples")
    source = Path(__file__).resolve().parent.parent / "examples/c"
    flags = ["CFLAGS=-Wall -Wextra -Werror", f"OUT={target}"]
    command = ["make", "--silent", "-C", str(source), f"-j{os.cpu_count()}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


# --- leaks ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _lasting_fds() -> None:
    """Open what stays open for the life of a process, so that no test is charged with it."""
    for new_loop in LOOPS.values():
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(wait_in_vain())


@pytest.fixture(autouse=True)
def _nothing_leaked(request: pytest.FixtureRequest, _lasting_fds: None) -> Iterator[None]:
    gc.collect()
    before, pages, names = open_fds(), mapped(), set(_ffi.names())
    yield
    if leaked := leaked_fds(before):
        pytest.fail("the test left files open:\n  " + "\n  ".join(leaked), pytrace=False)
    if left := Counter(mapped()) - Counter(pages):
        pytest.fail(f"the test left {left.total()} pieces of memory", pytrace=False)
    # A loop that is not closed yet has ports for answers and for notifications.
    kept = {right.name for right in _loop.kept_rights()}
    kept |= {one.mailbox.name for one in _loop._adapters.values() if one.mailbox is not None}
    if more := set(_ffi.names()) - names - kept:
        pytest.fail(f"the test left rights: {sorted(map(hex, more))}", pytrace=False)
