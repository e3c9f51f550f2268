"""Prints how many calls of functions an import adds to asyncio, for `test_costs.py`.

python start.py STATEMENT
"""

import asyncio  # noqa: F401 - what the program has
import sys

calls = 0


def profile(frame: object, event: str, argument: object) -> None:
    """Count the calls, those in C included."""
    global calls
    calls += event in ("call", "c_call")


code = compile(sys.argv[1], "statement", "exec")
sys.setprofile(profile)
exec(code)
sys.setprofile(None)
print(calls)
