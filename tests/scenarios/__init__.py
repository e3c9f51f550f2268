"""The scenarios of the child port handshake, a class each: what is played, and by whom.

A scenario has a coroutine for each role, `server`, `client` and sometimes `attacker`; each runs in
a process of its own (see `programs/play.py`) on the `Stage` it is given, and asserts what its role
must see. Either the server's or the client's process is the parent of the others. `dies` names
the role whose process does not survive, and so cannot count what it holds.

Nobody sleeps: roles wait for one another with `Stage.tell` and `Stage.hear`, and where the order of
two events matters, the functions that they pass through are patched so that it is forced.
"""

from . import absent, attacks, cancel, death, lies, race, rights, room, tokens  # noqa: F401
from .stage import SCENARIOS, Stage

__all__ = ["SCENARIOS", "Stage"]
