"""The bootstrap server, from outside: started by its clients, by hand, by systemd; killed; abused.

Tasks are processes that do what they are told, line by line (`Task`); the test's own process never
talks to a server.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from machio import bootstrapd
from machio._registry import Registry, RequestId
from machio._wire import NDR
from machio.bootstrapd import REQUEST, parse
from machio.codes import BootstrapCode, MigCode
from machio.messages import Disposition, Message
from machio.ports import ReceiveRight

UNKNOWN = str(int(BootstrapCode.UNKNOWN_SERVICE))
ACTIVE = str(int(BootstrapCode.SERVICE_ACTIVE))
NOT_PRIVILEGED = str(int(BootstrapCode.NOT_PRIVILEGED))

TASK = """
import os, sys
from machio import _ffi, bootstrap
from machio._ffi import ffi, lib
from machio.errors import MachError, ReceiveTimedOut
from machio.messages import Disposition, Message
from machio.ports import ReceiveRight, SendRight
ports, rights = {}, {}
def call(what, *arguments):
    _ffi._bootstrap(getattr(lib, "bootstrap_" + what)(lib.bootstrap_port, *arguments), what)
def do(command, name):
    if command == "in":
        ports[name] = bootstrap.check_in_blocking(name)
        return ports[name].status.make_send_count
    if command == "up":
        rights[name] = bootstrap.look_up_blocking(name)
        return "dead" if rights[name].is_dead else "found"
    if command == "register":
        ports[name] = ReceiveRight.allocate()
        with ports[name].make_send() as send:
            bootstrap.register_blocking(name, send)
    elif command == "create":
        port = ffi.new("mach_port_t *")
        call("create_service", name.encode(), port)
        rights[name] = SendRight(port[0])
    elif command == "status":
        status = ffi.new("int *")
        call("status", name.encode(), status)
        return status[0]
    elif command == "withdraw":
        call("register", ffi.new("char[]", name.encode()), 0)
    elif command == "same":
        return ports[name].name == rights[name].name
    elif command == "lie":  # to the server: any right instead of the task's own
        with bootstrap.port() as server, ReceiveRight.allocate() as port:
            body = bytes((0, 0, 0, 0, 1, 0, 0, 0)) + name.encode().ljust(128, bytes(1))
            with port.make_send() as right:
                server.send_blocking(Message(11005, body, [right], port), 10)
            with port.receive_blocking(10) as reply:
                return "believed" if reply.rights else "refused"
    elif command == "own":  # the server's port, under a name
        with bootstrap.port() as server:
            bootstrap.register_blocking(name, server)
    elif command == "return":  # a receive right that the server never gave away
        with ReceiveRight.allocate() as port, port.make_send() as right, bootstrap.port() as server:
            server.send_blocking(Message(69, b"", [port]), 10)
            call("status", b"known", ffi.new("int *"))
            return right.is_dead
    elif command == "send":
        rights[name].send_blocking(Message(int(os.environ.get("ID", 7))), 10)
    elif command == "receive":
        return ports[name].receive_blocking(20).id
    elif command == "wait":  # answers at once, and again when a message has come
        print("waiting", flush=True)
        return ports[name].receive_blocking(40).id
    elif command == "close":
        ports.pop(name).close()
    elif command == "dead":
        return rights[name].is_dead
    elif command == "count":
        return ports[name].status.make_send_count
    return "done"
for line in sys.stdin:
    try:
        answer = do(*line.split())
    except MachError as error:
        answer = error if line.startswith("!") else f"{error.number} {error.detail}".strip()
    print(answer, flush=True)
"""


class Task:
    """A process that checks in, looks up, sends and receives on command."""

    def __init__(self, environment: dict[str, str], *prefix: str) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-X", "dev", "-W", "error", "-c", TASK],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def tell(self, command: str, name: str = "service") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command} {name}\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def do(self, command: str, name: str = "service") -> str:
        self.tell(command, name)
        return self.answer()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def env(bootstrap_dir: Path, bootstrap_env: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of tasks; their server is killed afterwards."""
    here = str(Path(bootstrapd.__file__).parent.parent)
    yield {
        **bootstrap_env,
        "MACHIO_BOOTSTRAPD": f"{sys.executable} -m machio.bootstrapd",
        "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
    }
    with contextlib.suppress(ProcessLookupError):
        kill_server(bootstrap_dir)


@pytest.fixture
def task(env: dict[str, str]) -> Iterator[type[Task]]:
    """Makes tasks that are gone after the test."""
    made: list[Task] = []

    def make(environment: dict[str, str] = env, *prefix: str) -> Task:
        made.append(Task(environment, *prefix))
        return made[-1]

    yield make
    for one in made:
        one.close()


def server_pid(directory: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return int((directory / "lock").read_text() or 0)
    return 0


def wait_for(condition, patience: float = 20.0):
    """Return what `condition` gives once it is true."""
    deadline = time.monotonic() + patience
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return result


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # In a container nobody may reap those that are nobody's children. While another of its threads
    # is still ending, the process has its files.
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1


def kill_server(directory: Path) -> int:
    pid = server_pid(directory)
    try:
        # A server in another pid namespace wrote a pid that is somebody else's here.
        if not pid or b"machio.bootstrapd" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            raise ProcessLookupError
    except FileNotFoundError:
        raise ProcessLookupError from None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid))
    return pid


def run_server(env: dict[str, str], *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "machio.bootstrapd", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


def names_of(env: dict[str, str]) -> list[str]:
    done = run_server(env, "--list")
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split("'")[1] for line in done.stdout.splitlines()]


# --- what clients see ---


def test_check_in_and_look_up(task, env):
    owner, client = task(), task()
    assert owner.do("in") == "0"  # the make-send count
    assert client.do("up") == "found"
    assert client.do("send") == "done"
    assert owner.do("receive") == "7"
    assert owner.do("up") == "found"


def test_codes(task):
    owner, client = task(), task()
    assert client.do("up") == UNKNOWN
    assert owner.do("in") == "0"
    assert owner.do("in") == ACTIVE
    assert client.do("in") == NOT_PRIVILEGED
    assert owner.do("register", "other") == "done"
    assert owner.do("register", "other") == ACTIVE
    assert client.do("register", "other") == NOT_PRIVILEGED
    assert client.do("up", "other") == "found"


def test_the_servers_own_port_gets_no_name(task):
    """It would never end, and so neither would the server."""
    owner = task()
    assert owner.do("own") == str(int(MigCode.TYPE_ERROR))
    assert owner.do("up") == UNKNOWN


def test_names_have_at_most_127_bytes(task, env):
    owner = task()
    assert owner.do("in", "x" * 127) == "0"
    assert owner.do("up", "x" * 127) == "found"
    assert owner.do("up", "x" * 126) == UNKNOWN


def test_a_name_goes_with_its_port(task):
    owner, client = task(), task()
    for _ in range(5):
        assert owner.do("in") == "0"
        assert client.do("up") == "found"
        assert owner.do("close") == "done"
        assert client.do("dead") == "True"
        assert client.do("up") == UNKNOWN


def test_the_name_of_a_dead_owner_is_free_at_once(task):
    for _ in range(5):
        owner, heir = task(), task()
        assert heir.do("up", "no-such") == UNKNOWN  # it is running and attached
        assert owner.do("in") == "0"
        owner.kill()
        assert heir.do("in") == "0"
        heir.kill()


def test_a_registered_port_of_a_dead_task_is_unknown(task):
    owner, client = task(), task()
    assert owner.do("register") == "done"
    assert client.do("up") == "found"
    owner.kill()
    assert client.do("up") == UNKNOWN


def test_another_directory_is_another_server(task, env, tmp_path):
    here = task()
    there = task(
        {**env, "MACHIO_BOOTSTRAP": str(tmp_path / "there"), "MACHIO_BOOTSTRAPD_IDLE": "0"}
    )
    assert here.do("in") == "0"
    assert there.do("up") == UNKNOWN
    assert there.do("in") == "0"
    assert server_pid(tmp_path / "there") != server_pid(Path(env["MACHIO_BOOTSTRAP"]))
    there.kill()
    wait_for(lambda: not (tmp_path / "there/socket").exists())


def test_another_pid_namespace(task, env):
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        unshare.insert(1, "--map-root-user")
    try:
        subprocess.run([*unshare, sys.executable, "-c", ""], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no pid namespaces here")
    inside, outside = task(env, *unshare), task()
    assert inside.do("in", "inside") == "0"  # starts the server, which sees no pid of outside
    assert outside.do("in", "outside") == "0"
    assert outside.do("in", "outside") == NOT_PRIVILEGED  # pid 0 equals nobody
    assert outside.do("up", "inside") == "found"
    assert inside.do("up", "outside") == "found"
    assert inside.do("in", "inside") == ACTIVE


# --- starting ---


def test_many_at_once_get_one_server(task, env):
    tasks = [task() for _ in range(12)]
    for number, one in enumerate(tasks):
        one.tell("in", f"service-{number}")
    assert [one.answer() for one in tasks] == ["0"] * len(tasks)
    assert names_of(env) == sorted(f"service-{number}" for number in range(len(tasks)))


def test_the_started_server_is_nobodys_child(task, env, bootstrap_dir):
    owner = task()
    assert owner.do("in") == "0"
    stat = Path(f"/proc/{server_pid(bootstrap_dir)}/stat").read_text().rpartition(")")[2].split()
    _, parent, _, session, *_ = stat
    assert int(parent) != owner.pid
    assert int(session) != os.getsid(owner.pid)
    assert not Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text()


def refused(task, env, sentence: str) -> None:
    """No client connects there and no server runs there, each with this sentence."""
    client = task(env)
    assert sentence in client.do("in")
    assert sentence in client.do("up")
    done = run_server(env)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_a_directory_open_to_others_is_refused(task, env, bootstrap_dir):
    bootstrap_dir.chmod(0o755)
    refused(task, env, f"is open to others (mode 0755); run chmod 700 {bootstrap_dir}, or set")


def test_a_symbolic_link_is_refused(task, env, bootstrap_dir, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(bootstrap_dir)
    refused(task, {**env, "MACHIO_BOOTSTRAP": str(link)}, "is a symbolic link")


def test_the_directory_of_somebody_else_is_refused(task, env, bootstrap_dir):
    if os.geteuid() == 0:
        os.chown(bootstrap_dir, 65534, 65534)
        refused(task, env, "belongs to uid 65534, not to you (uid 0); have it removed, or set")
    else:
        refused(task, {**env, "MACHIO_BOOTSTRAP": "/"}, "belongs to uid 0, not to you")


def test_a_relative_path_is_refused(task, env):
    refused(task, {**env, "MACHIO_BOOTSTRAP": "here"}, "has to be the absolute path of a directory")


def test_a_server_that_cannot_run_is_a_clear_error(task, env):
    client = task({**env, "MACHIO_BOOTSTRAPD": f"{sys.executable} -m machio.no_such_module"})
    answer = client.do("in")
    assert "ended before it answered, saying:" in answer
    assert "No module named machio.no_such_module" in answer


# --- dying and coming back ---


def test_a_killed_server_comes_back_on_the_next_call(task, env, bootstrap_dir):
    owner, client = task(), task()
    assert owner.do("in") == "0"
    assert owner.do("register", "registered") == "done"
    assert client.do("up") == "found"
    for _ in range(3):
        killed = kill_server(bootstrap_dir)
        assert client.do("send") == "done"  # rights in hand go on working
        assert owner.do("receive") == "7"
        assert owner.do("up") == "found"  # the next call: checked in again before
        assert server_pid(bootstrap_dir) != killed
        assert client.do("up") == "found"
        assert client.do("up", "registered") == "found"
        assert owner.do("count") == "0"
        assert task().do("in") == NOT_PRIVILEGED
        assert names_of(env) == ["registered", "service"]


def test_a_waiting_task_checks_in_again_by_itself(task, bootstrap_dir):
    """The owner makes no call: it only waits for messages, as services do."""
    owner, client = task(), task()
    assert owner.do("in") == "0"
    for _ in range(3):
        assert owner.do("wait") == "waiting"
        kill_server(bootstrap_dir)
        assert client.do("up") == "found"
        assert client.do("send") == "done"
        assert owner.answer() == "7"


def test_names_that_are_gone_do_not_come_back(task, env, bootstrap_dir):
    owner = task()
    assert owner.do("in", "one") == "0"
    assert owner.do("in", "two") == "0"
    assert owner.do("close", "one") == "done"
    kill_server(bootstrap_dir)
    assert owner.do("up", "two") == "found"
    assert owner.do("up", "one") == UNKNOWN
    assert names_of(env) == ["two"]


def test_it_leaves_when_nobody_needs_it(task, env, bootstrap_dir):
    env = {**env, "MACHIO_BOOTSTRAPD_IDLE": "0.1"}
    owner, client = task(env), task(env)
    assert owner.do("in") == "0"
    pid = server_pid(bootstrap_dir)
    assert client.do("up") == "found"
    owner.kill()
    assert client.do("up") == UNKNOWN
    assert not is_gone(pid)  # the client is attached
    client.kill()
    wait_for(lambda: is_gone(pid))
    assert not (bootstrap_dir / "socket").exists()
    assert server_pid(bootstrap_dir) == 0  # it did not crash
    assert task(env).do("up") == UNKNOWN  # nor is the next one in recovery


def test_it_leaves_when_its_directory_is_removed(task, env, bootstrap_dir):
    env = {**env, "MACHIO_BOOTSTRAPD_IDLE": "0.1"}
    owner = task(env)
    assert owner.do("in") == "0"
    pid = server_pid(bootstrap_dir)
    shutil.rmtree(bootstrap_dir)
    assert owner.do("up") == "found"
    owner.kill()
    wait_for(lambda: is_gone(pid))


def test_clients_that_come_while_it_leaves_find_another(task, env, bootstrap_dir):
    env = {**env, "MACHIO_BOOTSTRAPD_IDLE": "0"}
    for _ in range(6):
        tasks = [task(env) for _ in range(3)]
        for number, one in enumerate(tasks):
            one.tell("in", f"service-{number}")
        assert [one.answer() for one in tasks] == ["0"] * len(tasks)
        for one in tasks:
            one.kill()


# --- by hand and by systemd ---


def test_in_the_foreground(task, env, bootstrap_dir):
    server = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "machio.bootstrapd"],
        env=env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stderr is not None
            assert f"pid {server.pid}, in {bootstrap_dir}; Ctrl-C" in server.stderr.readline()
            wait_for(lambda: server_pid(bootstrap_dir) == server.pid)
            done = run_server(env)
            assert done.returncode == 1
            assert "another bootstrap server runs already" in done.stderr
            owner = task()
            assert owner.do("in", "a'\x1b[2J") == "0"
            while "is attached" in (line := server.stderr.readline()):
                pass  # also the server that found this one running
            assert f"pid {owner.pid}: check_in " in line
            assert "\x1b" not in line
            owner.kill()
            assert "its port died" in server.stderr.readline()
            server.send_signal(signal.SIGINT)
            assert "leaving" in server.stderr.read()
            assert server.wait(20) == 0
        finally:
            server.kill()
    assert not (bootstrap_dir / "socket").exists()


def test_nothing_to_list(env):
    done = run_server(env, "--list")
    assert done.returncode == 1
    assert "no bootstrap server listens in" in done.stderr


SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="machio.socket")
os.execv(sys.executable, [sys.executable, "-m", "machio.bootstrapd", "--idle", "0.1"])
"""


def run_as_systemd(listener: socket.socket, env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SYSTEMD, str(listener.fileno())],
        env=env,
        pass_fds=[listener.fileno()],
        stderr=subprocess.PIPE,
    )


def test_a_socket_from_systemd(task, env, bootstrap_dir):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(bootstrap_dir / "socket"))
        listener.listen()
        for _ in range(2):  # it leaves the socket, and systemd starts it again
            owner = task({**env, "MACHIO_BOOTSTRAPD": "/bin/false"})
            owner.tell("in")
            assert select.select([listener], [], [], 20)[0]  # else the server may be gone before
            with run_as_systemd(listener, env) as server:
                assert owner.answer() == "0"
                assert server_pid(bootstrap_dir) == server.pid
                owner.kill()
                assert server.wait(20) == 0
                assert server.stderr.read() == b""
            assert (bootstrap_dir / "socket").exists()


def test_a_socket_of_the_wrong_kind(env):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with run_as_systemd(listener, env) as server:
            _, errors = server.communicate(timeout=20)
        assert server.returncode == 1
        assert b"ListenSequentialPacket=" in errors


# --- abuse ---

ABUSE = """
import os, random, struct, sys
from machio import bootstrap
from machio.errors import MachError, ReceiveTimedOut
from machio.messages import Disposition, Message
from machio.ports import ReceiveRight
chance = random.Random(4)
with bootstrap.port() as server, ReceiveRight.allocate() as port, port.make_send() as send:
    for turn in range(1000):
        body = chance.randbytes(chance.choice([0, 1, 4, 132, 135, 136, 137, 140, 4000, 20000]))
        if chance.random() < 0.3:
            body = bytes(8) + bytes(chance.choice([0, 65, 255]) for _ in range(128))
        rights = [
            (port, Disposition.MAKE_SEND_ONCE) if chance.random() < 0.3 else
            (send, Disposition.COPY_SEND)
            for _ in range(chance.choice([0, 0, 1, 1, 2, 20]))
        ]
        if chance.random() < 0.1:
            rights.append(ReceiveRight.allocate())
        id = chance.choice([*range(11000, 11008), 69, 70, 72, 0, -1])
        reply = chance.choice([None, (send, Disposition.COPY_SEND), port, port])
        server.send_blocking(Message(id, body, rights, reply), 20)
        try:  # what came back, so that 1024 files are enough for this process
            while True:
                port.receive_blocking(0).close()
        except ReceiveTimedOut:
            pass
"""


def open_ends(pid: int) -> list[str]:
    """List the sockets and pipes of a process: its rights, the listener, and little else."""
    listing = Path(f"/proc/{pid}/fd")
    found = []
    for number in os.listdir(listing):  # plain numbers are wanted
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(listing / number))  # noqa: PTH115
    return sorted(what for what in found if what.startswith(("socket:", "pipe:")))


def test_garbage_is_dropped(task, env, bootstrap_dir):
    owner = task()
    assert owner.do("in") == "0"
    pid = server_pid(bootstrap_dir)
    assert owner.do("up") == "found"  # what the server opens for its life is open now
    before = open_ends(pid)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ABUSE],
        env=env, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert owner.do("up") == "found"
    assert server_pid(bootstrap_dir) == pid
    assert owner.do("up", "nothing") == UNKNOWN
    wait_for(lambda: set(open_ends(pid)) <= set(before))
    assert names_of(env) == ["service"]


def test_a_crowd_at_the_door_is_no_load(task, env, bootstrap_dir):
    """Connections that never take their welcome cost the server nothing."""
    owner = task()
    assert owner.do("in") == "0"
    pid = server_pid(bootstrap_dir)
    assert owner.do("up") == "found"  # what the server opens for its life is open now
    before = open_ends(pid)
    crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(100)]
    for one in crowd:
        one.connect(str(bootstrap_dir / "socket"))
    client = task()
    assert client.do("up") == "found"
    for one in crowd:
        one.close()
    client.kill()
    wait_for(lambda: set(open_ends(pid)) <= set(before))


# --- the registry, by itself ---


def request(id: int, name: bytes, rights=(), size: int = 128) -> Message:
    return Message(id, NDR + name.ljust(size, b"\0"), rights)


def test_requests_are_taken_by_their_exact_shape():
    assert parse(request(11003, b"name")) == (RequestId.LOOK_UP, b"name")
    assert parse(request(11004, b"")) == (RequestId.LIST, b"")
    assert parse(Message(11003, REQUEST.pack(NDR, b"a\0rest"))) == (RequestId.LOOK_UP, b"a")
    assert parse(request(11001, b"name", [None])) == (RequestId.CHECK_IN, b"name")
    assert parse(request(11002, b"name")) == (RequestId.REGISTER, b"name")
    assert parse(request(11005, b"name", [None])) == (RequestId.CREATE_SERVICE, b"name")
    for wrong in (
        request(11003, b""),
        request(11003, b"x" * 128),
        request(11003, b"name", [None]),
        request(11001, b"name"),
        request(11002, b"name", [None, None]),
        request(11003, b"name", size=124),
        request(11003, b"name", size=132),
        request(11000, b"name"),
        request(11005, b"name"),
        request(11006, b"name", [None]),
        request(11007, b"name"),
    ):
        assert parse(wrong) is None


def test_the_registry_is_bounded():
    registry = Registry(most=3, most_of_one=2)
    with ReceiveRight.allocate() as port:

        def add(name: bytes, owner: int) -> int:
            right = port.make_send()
            code = registry.add(name, right, owner, RequestId.CHECK_IN)
            if code:
                right.close()
            return code

        assert [add(b"a", 1), add(b"b", 1)] == [0, 0]
        assert add(b"c", 1) == BootstrapCode.NO_MEMORY
        assert add(b"a", 1) == BootstrapCode.SERVICE_ACTIVE
        assert add(b"a", 2) == BootstrapCode.NOT_PRIVILEGED
        assert add(b"c", 2) == 0
        assert add(b"d", 2) == BootstrapCode.NO_MEMORY
        assert [name for name, _ in registry.after(b"a")] == [b"b", b"c"]
        assert registry.drop_port(port.name) == [b"a", b"b", b"c"]
        assert len(registry) == 0


def test_nobody_is_pid_0():
    registry = Registry()
    with ReceiveRight.allocate() as port:
        assert registry.add(b"a", port.make_send(), 0, RequestId.CHECK_IN) == 0
        with port.make_send() as right:
            code = registry.add(b"a", right, 0, RequestId.CHECK_IN)
        assert code == BootstrapCode.NOT_PRIVILEGED
        registry.close()


def test_ports_that_died_are_not_found():
    registry = Registry()
    port = ReceiveRight.allocate()
    assert registry.add(b"a", port.make_send(), 1, RequestId.REGISTER) == 0
    with port.make_send() as right:
        port.close()
        assert registry.look_up(b"a") is None
        assert registry.add(b"b", right, 1, RequestId.REGISTER) == BootstrapCode.NO_MEMORY


def test_names_are_shown_harmless():
    assert bootstrapd.shown(b"plain") == "'plain'"
    assert bootstrapd.shown(b"\x1b[2J\n") == "'\\x1b[2J\\n'"
    assert bootstrapd.shown(b"\xff") == "'\\\\xff'"
    assert Disposition.COPY_SEND == 19
