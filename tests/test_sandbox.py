"""What the kernel forbids is named in the exception, and no right is lost."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# A port's kernel objects are made when a right to it leaves, and some again when one does later.
GIVE = """
import ctypes, struct, sys
import machio
from machio import bootstrap

def forbid(number):
    \"\"\"Have a system call fail with EPERM from here on.\"\"\"
    program = struct.pack("HBBI", 0x20, 0, 0, 0)  # load the number of the call
    program += struct.pack("HBBI", 0x15, 0, 1, number)  # another one: skip the next
    program += struct.pack("HBBI", 0x06, 0, 0, 0x00050001)  # errno 1
    program += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)  # allow
    code = ctypes.create_string_buffer(program)
    filter = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, filter, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER

with bootstrap.port() as server, machio.ReceiveRight.allocate() as port:
    if number := int(sys.argv[1]):
        server.send_blocking(machio.Message(0), 10)  # now the server is connected to
        forbid(number)
    try:
        for _ in range(2):
            server.send_blocking(machio.Message(1, b"", [(port, machio.Disposition.MAKE_SEND)]), 10)
    except machio.SendError as error:
        print(error.code, "|", error)
        print("still here:", port.status.queue_limit)
"""

SOCKETPAIR, PIPE2, BIND = {
    "x86_64": (53, 293, 49),
    "aarch64": (199, 59, 200),
}.get(platform.machine(), (0, 0, 0))


def give(env, number, *prefix):
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", GIVE, str(number)],
        env=env, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def env(bootstrap_env):
    return {**bootstrap_env, "MACHIO_BOOTSTRAPD_IDLE": "1"}


@pytest.mark.parametrize(
    ("number", "what"),
    [(SOCKETPAIR, "socketpair"), (PIPE2, "pipe2"), (BIND, "bind of an abstract AF_UNIX name")],
)
def test_a_seccomp_filter(number, what, env):
    said = give(env, number)
    assert "MACH_SEND_NO_BUFFER" in said
    assert what in said
    assert "Operation not permitted" in said
    assert "seccomp" in said
    assert "still here: 5" in said


def test_without_proc(env):
    """/proc is needed from the second time on that a right to a port leaves."""
    assert give(env, 0) == ""
    unshare = ["unshare", "--mount", "sh", "-c", 'umount -l /proc && exec "$@"', "sh"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespaces here")
    said = give(env, 0, *unshare)
    assert "MACH_SEND_NO_BUFFER" in said
    assert "/proc/self/fd (No such file or directory)" in said
    assert "still here: 5" in said
