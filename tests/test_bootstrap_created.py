"""Services that are created before anybody receives: the server keeps the receive right."""

from __future__ import annotations

from test_bootstrapd import (
    ACTIVE,
    NOT_PRIVILEGED,
    UNKNOWN,
    env,
    kill_server,
    names_of,
    open_ends,
    server_pid,
    task,
    wait_for,
)

from machio._registry import DECLARED, Registry, RequestId
from machio.codes import BootstrapCode
from machio.ports import ReceiveRight

__all__ = ["env", "task"]  # the fixtures

ON_DEMAND, IS_ACTIVE = "2", "1"


def test_messages_wait_for_the_check_in(task):
    creator, client, owner = task(), task(), task()
    assert client.do("status") == UNKNOWN
    assert creator.do("create") == "done"
    assert client.do("status") == ON_DEMAND
    assert client.do("up") == "found"
    for one in (client, creator):
        assert one.do("send") == "done"
    assert owner.do("in") == "0"  # a receive right that moves begins anew
    assert client.do("status") == IS_ACTIVE
    assert [owner.do("receive"), owner.do("receive")] == ["7", "7"]
    assert client.do("send") == "done"
    assert owner.do("receive") == "7"
    assert owner.do("in") == ACTIVE
    assert creator.do("in") == NOT_PRIVILEGED


def test_a_name_is_created_once(task):
    creator, other = task(), task()
    assert creator.do("create") == "done"
    assert creator.do("create") == ACTIVE
    assert other.do("create") == NOT_PRIVILEGED
    assert other.do("in", "other") == "0"
    assert other.do("create", "other") == ACTIVE
    assert creator.do("create", "other") == NOT_PRIVILEGED


def test_the_creator_checks_in(task):
    """Its send right and its receive right have one name."""
    creator = task()
    assert creator.do("create") == "done"
    assert creator.do("send") == "done"
    assert creator.do("in") == "0"
    assert creator.do("same") == "True"
    assert creator.do("receive") == "7"


def test_a_right_that_is_not_wanted_comes_back_with_its_queue(task):
    creator, client, owner, heir = task(), task(), task(), task()
    assert creator.do("create") == "done"
    assert client.do("up") == "found"
    for one in (owner, heir):
        assert client.do("send") == "done"
        assert one.do("in") == "0"
        assert client.do("status") == IS_ACTIVE
        assert one.do("close") == "done"
        wait_for(lambda: client.do("status") == ON_DEMAND)
    assert client.do("dead") == "False"
    assert owner.do("in") == "0"
    assert [owner.do("receive"), owner.do("receive")] == ["7", "7"]


def test_a_killed_owner_leaves_the_name(task):
    """What was queued is lost with it, and the rights of its clients are dead names."""
    creator, client, owner, heir = task(), task(), task(), task()
    assert creator.do("create") == "done"
    assert client.do("up") == "found"
    assert owner.do("in") == "0"
    owner.kill()
    assert client.do("status") == ON_DEMAND
    assert client.do("dead") == "True"
    assert client.do("up") == "found"
    assert client.do("send") == "done"
    assert heir.do("in") == "0"
    assert heir.do("receive") == "7"


def test_the_name_of_a_dead_creator_is_free_at_once(task):
    client = task()
    for _ in range(3):
        creator = task()
        assert creator.do("create") == "done"
        assert client.do("up") == "found"
        creator.kill()
        assert client.do("status") == UNKNOWN
        assert client.do("dead") == "True"
        heir = task()
        assert heir.do("in") == "0"
        heir.kill()


def test_an_owner_survives_the_creator(task):
    creator, client, owner = task(), task(), task()
    assert creator.do("create") == "done"
    assert client.do("up") == "found"
    assert owner.do("in") == "0"
    creator.kill()
    assert client.do("status") == IS_ACTIVE
    assert client.do("send") == "done"
    assert owner.do("receive") == "7"
    assert owner.do("close") == "done"  # it goes back to the server, who has no use for it now
    wait_for(lambda: client.do("dead") == "True")
    assert client.do("status") == UNKNOWN


def test_registering_no_port_takes_back_what_was_created(task):
    creator, other = task(), task()
    assert creator.do("create") == "done"
    assert other.do("withdraw") == "done"
    assert other.do("status") == ON_DEMAND
    assert creator.do("withdraw") == "done"
    assert other.do("status") == UNKNOWN
    assert creator.do("dead") == "True"
    assert creator.do("create") == "done"
    assert other.do("in") == "0"
    assert creator.do("withdraw") == "done"
    assert creator.do("status") == IS_ACTIVE
    assert creator.do("withdraw", "unknown") == "done"


def test_a_port_can_be_registered_for_what_was_created(task):
    creator, owner, client = task(), task(), task()
    assert creator.do("create") == "done"
    assert owner.do("register") == "done"
    assert creator.do("dead") == "True"  # the port that had been made for the name
    assert client.do("status") == IS_ACTIVE
    assert client.do("up") == "found"
    assert client.do("send") == "done"
    assert owner.do("receive") == "7"
    owner.kill()
    assert client.do("status") == ON_DEMAND


def test_another_server_is_told(task, bootstrap_dir):
    creator, owner, client = task(), task(), task()
    for name in ("waiting", "served"):
        assert creator.do("create", name) == "done"
    assert owner.do("in", "served") == "0"
    kill_server(bootstrap_dir)
    assert creator.do("dead", "waiting") == "True"
    assert creator.do("dead", "served") == "False"
    assert creator.do("status", "waiting") == ON_DEMAND  # the call tells the new server first
    assert creator.do("status", "served") == ON_DEMAND
    assert owner.do("status", "served") == IS_ACTIVE
    assert client.do("up", "waiting") == "found"
    assert client.do("up", "served") == "found"
    assert client.do("send", "served") == "done"
    assert owner.do("receive", "served") == "7"


def test_the_server_keeps_nothing(task, env, bootstrap_dir):
    client = task()
    assert client.do("in", "other") == "0"
    assert client.do("up", "other") == "found"
    pid = server_pid(bootstrap_dir)
    before = open_ends(pid)
    for end in ("kill", "close", "withdraw"):
        creator, owner = task(), task()
        assert creator.do("create") == "done"
        if end != "withdraw":
            assert owner.do("in") == "0"
        if end == "close":
            assert owner.do("close") == "done"
        if end == "withdraw":
            assert creator.do("withdraw") == "done"
        owner.kill()
        creator.kill()
        assert client.do("status") == UNKNOWN
    wait_for(lambda: set(open_ends(pid)) <= set(before))
    assert names_of(env) == ["other"]


def test_a_name_is_created_with_ones_own_task_port_only(task):
    """Another right would keep the name from ending; and only a known receive right comes back."""
    liar, client = task(), task()
    assert liar.do("create", "known") == "done"
    assert liar.do("lie") == "refused"
    assert client.do("status") == UNKNOWN
    assert liar.do("return") == "True"
    assert client.do("status", "known") == ON_DEMAND


def test_created_names_count_more():
    registry = Registry(most=2 * DECLARED + 1, most_of_one=DECLARED + 1)
    tasks = [ReceiveRight.allocate() for _ in range(3)]

    def declare(name: bytes, number: int) -> int:
        right = tasks[number].make_send()
        code = registry.declare(name, right, number + 1)
        if code:
            right.close()
        return code

    assert [declare(b"a", 0), declare(b"b", 1)] == [0, 0]
    assert declare(b"c", 0) == BootstrapCode.NO_MEMORY  # too many of one
    assert declare(b"c", 2) == BootstrapCode.NO_MEMORY  # too many in all
    with tasks[2].make_send() as right:
        assert registry.add(b"c", right.copy(), 3, RequestId.REGISTER) == 0
        assert registry.add(b"d", right, 3, RequestId.REGISTER) == BootstrapCode.NO_MEMORY
    for port in tasks:
        port.close()
    assert registry.look_up(b"a") is None  # whoever declared it is dead
    registry.close()
