"""What the conformance tests have: gates from gates.toml, and nothing left in the name space.

A test of a statement has the statement's id in its name. It is expected to pass, unless gates.toml
says why it cannot on this system; then it must fail. A function marked ``apart`` runs in a task of
its own, since macOS may kill a task for the errors that it makes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import matrix
import pytest
from kit import all_names, call, code, context, refs, unguard
from tasks import run_apart


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "apart: runs in a task of its own")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gates = matrix.gates_here()
    for item in items:
        if gate := gates.get(matrix.statement_of(item.name)):
            item.add_marker(pytest.mark.xfail(strict=True, reason=gate.reason))


def holdings() -> dict[int, tuple[int, int]]:
    """Map each name to its type and its urefs."""
    return {name: (kind, refs(name) + refs(name, 4)) for name, kind in all_names().items()}


def nothing_left(before: dict[int, tuple[int, int]]) -> None:
    """Destroy what was not there before, and assert that this is all."""
    for name in all_names().keys() - before.keys():
        if code(context, name) == "KERN_SUCCESS":
            code(unguard, name, context(name))
        code(call, "mach_port_destroy", name)
    assert holdings() == before


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, bootstrap_server: None) -> Iterator[None]:
    before = holdings()
    yield
    nothing_left(before)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    if pyfuncitem.get_closest_marker("apart"):
        body = pyfuncitem.obj

        @functools.wraps(body)
        def apart(**fixtures: object) -> None:
            def and_clean() -> None:
                before = holdings()
                body(**fixtures)
                nothing_left(before)

            run_apart(and_clean)

        pyfuncitem.obj = apart
    return (yield)
