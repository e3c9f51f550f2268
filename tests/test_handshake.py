"""The child port handshake's table of scenarios, in real processes.

Each scenario of `scenarios` runs on every loop, with the server and with the
client as the parent. In the other places of `places.py` a scenario is played once in a round, with
another loop and parent in each ``--round``: after six rounds it was played in all ways. ``make
stress`` plays a hundred, each seventh in Python's development mode, as ``make test`` does. Every
process that survives counts its files and rights before and after.
"""

from __future__ import annotations

import contextlib
import itertools

import pytest
from common import LOOPS
from places import PLACES
from scenarios import SCENARIOS
from theatre import Theatre

WAYS = list(itertools.product(("server", "client"), LOOPS))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    plays = []
    for name, place in PLACES.items():
        marks = pytest.mark.skipif(bool(place.impossible), reason=place.impossible)
        for number, scenario in enumerate(SCENARIOS):
            turn = (number + metafunc.config.getoption("round")) % len(WAYS)
            for parent, loop in WAYS if name == "plain" else [WAYS[turn]]:
                label = f"{name}-{loop}-{scenario}-{parent}"
                plays.append(pytest.param(name, scenario, parent, loop, id=label, marks=marks))
    metafunc.parametrize(("place", "scenario", "parent", "loop"), plays)


@pytest.fixture(scope="module")
def theatres(request):
    """The theatres of the places that are played in; as a parameter each would be built anew."""
    dev = request.config.getoption("round") % 7 == 0  # a number that goes with all WAYS
    plays = [
        item.callspec.params for item in request.session.items if item.module is request.module
    ]
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(Theatre(PLACES[name], dev))
            for name in {play["place"] for play in plays}
            if not PLACES[name].impossible
        }


def test_table(theatres, place, scenario, parent, loop):
    theatres[place].play(scenario, parent, loop)
