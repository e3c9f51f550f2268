"""The child port handshake's table of scenarios, in real processes.

Each scenario of `scenarios.py` runs on every loop, with the server and with the client as the
parent. Every process that survives counts its files and rights before and after. ``make stress``
plays the table a hundred times. What a third process can do to a handshake is in
`test_handshake_hostile.py`; few files, other users and pid namespaces are in `test_boundaries.py`.
"""

from __future__ import annotations

import pytest
from scenarios import SCENARIOS
from theatre import Theatre

PARENTS = ("server", "client")


@pytest.fixture(scope="module")
def theatre():
    with Theatre() as theatre:
        yield theatre


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_table(theatre, scenario, parent, loop_name):
    theatre.play(scenario, parent, loop_name)
