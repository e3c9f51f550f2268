"""Notifications."""

from __future__ import annotations

import pytest
from kit import (
    COPY_SEND,
    DEAD,
    DEAD_NAME,
    DEAD_NAMED,
    DNREQUEST,
    MAKE_SEND,
    MAKE_SEND_ONCE,
    MOVE_SEND_ONCE,
    NO_SENDERS,
    NULL,
    PORT_DELETED,
    PORT_DESTROYED,
    SEND_ONCE_GONE,
    SEND_POSSIBLE,
    TYPE_DEAD_NAME,
    TYPE_SEND_ONCE,
    all_names,
    code,
    dead_name,
    deallocate,
    free_name,
    kill,
    lib,
    once,
    port_set,
    receive_right,
    refs,
    request,
    status,
    type_of,
    with_send,
)
from letters import Buffer, drain, fill, ids, send, take
from tasks import Line, Task


def notice(buffer: Buffer) -> tuple[int, int]:
    """Return the id and the name or count of a notification, after a look at its form."""
    header = buffer.header
    assert (header.msgh_bits, header.msgh_size) == (0x1200, 36)
    assert (header.msgh_remote_port, header.msgh_voucher_port) == (NULL, NULL)
    assert buffer.bytes[24:32] == bytes([0, 0, 0, 0, 1, 0, 0, 0])
    return header.msgh_id, buffer.word(32)


def notices(name: int) -> list[tuple[int, int]]:
    """Receive what is queued now: ids with names or counts, or with nothing for message 71."""
    return [
        (SEND_ONCE_GONE, 0) if buffer.header.msgh_id == SEND_ONCE_GONE else notice(buffer)
        for buffer in drain(name)
    ]


def test_S_170_no_senders_at_once() -> None:
    """Without senders the notification comes at once, and nothing stays registered."""
    port, notify = with_send(), receive_right()
    deallocate(port)
    request(port, NO_SENDERS, 0, notify)
    assert notices(notify) == [(NO_SENDERS, 1)]
    assert status(port).nsrequest == 0


def test_S_171_no_senders_later() -> None:
    """With a sync above mscount it waits for the next time that senders go."""
    port, notify = receive_right(), receive_right()
    request(port, NO_SENDERS, status(port).mscount + 1, notify)
    assert ids(notify) == []
    assert status(port).nsrequest == 1


def test_S_172_the_last_sender_goes() -> None:
    """Dropping the last send right fires the request, once, with the make-send count."""
    port, notify = with_send(), receive_right()
    request(port, NO_SENDERS, 0, notify)
    assert ids(notify) == []
    deallocate(port)
    assert notices(notify) == [(NO_SENDERS, 1)]
    assert send(port, MAKE_SEND) == "KERN_SUCCESS"
    take(port)
    assert ids(notify) == []


def test_S_173_a_uref_less_is_no_sender_less() -> None:
    """While a uref of the send right is left, senders are."""
    port, notify = with_send(urefs=2), receive_right()
    request(port, NO_SENDERS, 0, notify)
    deallocate(port)
    assert ids(notify) == []
    deallocate(port)
    assert ids(notify) == [NO_SENDERS]


def test_S_174_a_queued_message_is_a_sender() -> None:
    """A queued message counts as a sender until it is received."""
    port, notify = with_send(), receive_right()
    request(port, NO_SENDERS, 0, notify)
    assert send(port, COPY_SEND) == "KERN_SUCCESS"
    deallocate(port)
    assert ids(notify) == []
    take(port)
    assert ids(notify) == [NO_SENDERS]


def test_S_175_replace_and_cancel() -> None:
    """A new request returns the right of the old one, and one to NULL cancels."""
    port, first, second = with_send(), receive_right(), receive_right()
    assert request(port, NO_SENDERS, 0, first) == NULL
    previous = request(port, NO_SENDERS, 0, second)
    assert type_of(previous) == TYPE_SEND_ONCE
    assert send(previous, MOVE_SEND_ONCE, id=175) == "KERN_SUCCESS"
    assert ids(first) == [175]
    previous = request(port, NO_SENDERS, 0, NULL)
    assert type_of(previous) == TYPE_SEND_ONCE
    assert status(port).nsrequest == 0
    deallocate(port)
    assert ids(second) == []


def test_S_176_no_senders_of_what_receives_nothing() -> None:
    """The request needs a receive right."""
    notify = receive_right()

    def holder(line: Line):
        yield code(request, line.outbox, NO_SENDERS, 0, line.inbox)

    with Task(holder) as task:
        assert task.answer() == "KERN_INVALID_RIGHT"
    assert code(request, NULL, NO_SENDERS, 0, notify) == "KERN_INVALID_RIGHT"
    assert code(request, free_name(), NO_SENDERS, 0, notify) == "KERN_INVALID_NAME"


def test_S_177_the_port_dies_with_the_request() -> None:
    """A port that dies with a no-senders request sends message 71, not 70."""
    port, notify = with_send(), receive_right()
    request(port, NO_SENDERS, 0, notify)
    kill(port)
    assert ids(notify) == [SEND_ONCE_GONE]


def test_S_178_a_name_dies() -> None:
    """A dead-name request shows in the type; the notification comes with a uref more."""
    port, notify = with_send(), receive_right()
    assert request(port, DEAD_NAMED, 0, notify) == NULL
    assert type_of(port) & DNREQUEST
    kill(port)
    assert notices(notify) == [(DEAD_NAMED, port)]
    assert type_of(port) == TYPE_DEAD_NAME
    assert refs(port, DEAD_NAME) == 2


def test_S_179_a_name_goes_before_its_port() -> None:
    """If the name goes while the port lives, the dead-name request tells that it was deleted."""

    def holder(line: Line):
        name, notify = line.take(), receive_right()
        request(name, DEAD_NAMED, 0, notify)
        deallocate(name)
        yield notices(notify) == [(PORT_DELETED, name)]

    with Task(holder) as task:
        task.give(receive_right(), MAKE_SEND)
        assert task.answer()


def test_S_180_a_dead_name_dies_no_more() -> None:
    """A dead-name request on a dead name is refused, and its right ends as message 71."""
    notify, dead = receive_right(), dead_name()
    assert code(request, dead, DEAD_NAMED, 1, notify) == "KERN_INVALID_ARGUMENT"
    assert ids(notify) == [SEND_ONCE_GONE]
    assert refs(dead, DEAD_NAME) == 1


def test_S_181_send_possible_on_a_dead_name() -> None:
    """A send-possible request on a dead name tells at once that it is one, with a uref more."""
    notify, dead = receive_right(), dead_name()
    assert request(dead, SEND_POSSIBLE, 0, notify) == NULL
    assert notices(notify) == [(DEAD_NAMED, dead)]
    assert refs(dead, DEAD_NAME) == 2


def test_S_182_names_that_cannot_die() -> None:
    """Dead-name requests on NULL, on a set and on an unused name fail, each with its code."""
    notify = receive_right()
    assert code(request, NULL, DEAD_NAMED, 0, notify) == "KERN_INVALID_ARGUMENT"
    assert code(request, port_set(), DEAD_NAMED, 0, notify) == "KERN_INVALID_RIGHT"
    assert code(request, free_name(), DEAD_NAMED, 0, notify) == "KERN_INVALID_NAME"


def test_S_183_nothing_to_cancel() -> None:
    """Cancelling where nothing is registered succeeds, also on dead names and sets."""
    for name in (with_send(), dead_name(), port_set()):
        assert request(name, DEAD_NAMED, 0, NULL) == NULL


def test_S_184_a_send_is_possible_now() -> None:
    """With room in the queue and a sync, the notification comes at once."""
    port, notify = with_send(), receive_right()
    request(port, SEND_POSSIBLE, 1, notify)
    assert notices(notify) == [(SEND_POSSIBLE, port)]
    assert type_of(port) & DNREQUEST == 0


def test_S_185_a_send_is_possible_later() -> None:
    """With a full queue and a sync, the notification comes after the next receive."""
    port, notify = with_send(), receive_right()
    fill(port)
    request(port, SEND_POSSIBLE, 1, notify)
    assert ids(notify) == []
    take(port)
    assert notices(notify) == [(SEND_POSSIBLE, port)]


def test_S_186_send_possible_wants_a_try() -> None:
    """Without a sync a failed send with MACH_SEND_NOTIFY arms the request."""
    port, notify = with_send(), receive_right()
    fill(port)
    request(port, SEND_POSSIBLE, 0, notify)
    take(port)
    assert ids(notify) == []
    fill(port)
    assert send(port, options=lib.MACH_SEND_NOTIFY) == "MACH_SEND_TIMED_OUT"
    assert ids(notify) == []
    take(port)
    assert notices(notify) == [(SEND_POSSIBLE, port)]


def test_S_187_a_destroyed_port_lives_on() -> None:
    """A port-destroyed request gets the receive right itself, with its messages and senders."""
    port, notify = with_send(), receive_right()
    request(port, PORT_DESTROYED, 0, notify)
    assert send(port, id=187) == "KERN_SUCCESS"
    kill(port)
    buffer = take(notify)
    assert (buffer.header.msgh_bits, buffer.header.msgh_id) == (0x80001200, PORT_DESTROYED)
    (right,) = buffer.descriptors
    assert (right.name, right.disposition) == (port, 16)
    assert ids(port) == [187]
    assert send(port, id=188) == "KERN_SUCCESS"
    assert ids(port) == [188]


@pytest.mark.apart
def test_S_188_one_port_destroyed_request() -> None:
    """A port-destroyed request is made once, without a sync, on a receive right."""
    port, notify = receive_right(), receive_right()
    request(port, PORT_DESTROYED, 0, notify)
    assert code(request, port, PORT_DESTROYED, 0, notify) == "KERN_FAILURE"
    other = receive_right()
    assert code(request, other, PORT_DESTROYED, 1, notify) == "KERN_INVALID_VALUE"

    def holder(line: Line):
        yield code(request, line.outbox, PORT_DESTROYED, 0, line.inbox)

    with Task(holder) as task:
        assert task.answer() == "KERN_INVALID_RIGHT"


def test_S_189_nobody_takes_the_destroyed_port() -> None:
    """If the one to be told is dead, the port dies."""
    port, notify = with_send(), receive_right()
    request(port, PORT_DESTROYED, 0, notify)
    kill(notify)
    kill(port)
    assert type_of(port) == TYPE_DEAD_NAME


def test_S_190_no_such_notification() -> None:
    """An unknown id is no value; DEAD is nobody to notify."""
    port, notify = with_send(), receive_right()
    assert code(request, port, 99, 0, notify) == "KERN_INVALID_VALUE"
    asked = request, port, NO_SENDERS, 0, DEAD
    assert code(*asked, MAKE_SEND_ONCE) == "KERN_INVALID_CAPABILITY"


def test_S_191_a_refused_request_drops_its_right() -> None:
    """The send-once right made for a request that fails ends as message 71."""
    notify = receive_right()
    assert code(request, NULL, NO_SENDERS, 0, notify) == "KERN_INVALID_RIGHT"
    assert ids(notify) == [SEND_ONCE_GONE]


def test_S_192_order_at_a_death() -> None:
    """The reply rights in a dying queue end first, then the dead names are told."""
    port, watcher = with_send(), receive_right()
    for _ in range(3):
        assert send(port, COPY_SEND, watcher, MAKE_SEND_ONCE) == "KERN_SUCCESS"
    request(port, DEAD_NAMED, 0, watcher)
    kill(port)
    assert notices(watcher) == [(SEND_ONCE_GONE, 0)] * 3 + [(DEAD_NAMED, port)]


def test_S_193_a_task_dies() -> None:
    """With a task go its send rights, its send-once rights and its receive rights."""

    def holder(line: Line):
        line.take(), line.take()
        yield line.give(receive_right(), MAKE_SEND)

    sent, once_sent, notify = receive_right(), receive_right(), receive_right()
    with Task(holder) as task:
        task.give(sent, MAKE_SEND)
        task.give(once_sent, MAKE_SEND_ONCE)
        task.answer()
        theirs = task.take()
        request(sent, NO_SENDERS, 0, notify)
        request(theirs, DEAD_NAMED, 0, notify)
        task.kill()
    told = {notice(take(notify)) for _ in range(2)}
    assert told == {(NO_SENDERS, 1), (DEAD_NAMED, theirs)}
    assert take(once_sent).header.msgh_id == SEND_ONCE_GONE
    assert type_of(theirs) == TYPE_DEAD_NAME


def test_S_194_requests_belong_to_names() -> None:
    """Each name has a request of its own, and one request."""
    port, notify = with_send(), receive_right()
    right = once(port)
    request(port, DEAD_NAMED, 0, notify)
    assert request(right, DEAD_NAMED, 0, notify) == NULL
    replaced = request(port, DEAD_NAMED, 0, notify)
    assert type_of(replaced) == TYPE_SEND_ONCE
    deallocate(replaced)
    assert ids(notify) == [SEND_ONCE_GONE]
    kill(port)
    assert sorted(notices(notify)) == sorted([(DEAD_NAMED, port), (DEAD_NAMED, right)])


def test_S_195_where_send_possible_requests_show() -> None:
    """mach_port_names tells of a send-possible request, mach_port_type does not."""
    port, notify = with_send(), receive_right()
    fill(port)
    request(port, SEND_POSSIBLE, 1, notify)
    shown = lib.MACH_PORT_TYPE_SPREQUEST | lib.MACH_PORT_TYPE_SPREQUEST_DELAYED
    assert type_of(port) & shown == 0
    assert all_names()[port] & shown
