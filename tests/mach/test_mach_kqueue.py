"""kqueue."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator

import pytest
from events import NOW, Event, Kqueue
from kit import (
    MOVE_RECEIVE,
    dead_name,
    destroy,
    ffi,
    free_name,
    kill,
    lib,
    port_set,
    receive_right,
    status,
    with_send,
)
from letters import Buffer, ids, port, send, take
from tasks import Line, Task

TOO_LARGE = 0x10004004
RECEIVE = lib.MACH_RCV_MSG


@pytest.fixture
def kq() -> Iterator[Kqueue]:
    with Kqueue() as kq:
        yield kq


def message_event(ident: int, flags: int, data: int) -> Event:
    return Event(ident, lib.EVFILT_MACHPORT, flags, 0, data, ident + 1, 0)


def test_S_210_a_port_and_its_set(kq: Kqueue) -> None:
    """A message makes an event for the port and one for a set with it; both tell the port."""
    name = with_send()
    pset = port_set(name)
    kq.add(name)
    kq.add(pset)
    assert send(name) == "KERN_SUCCESS"
    found = {event.ident: event.data for event in kq.events()}
    assert found == {name: name, pset: name}


def test_S_211_after_the_message(kq: Kqueue) -> None:
    """When the message was received there is no event."""
    name = with_send()
    kq.add(name)
    assert send(name) == "KERN_SUCCESS"
    assert len(kq.events()) == 1
    take(name)
    assert kq.events() == []


def test_S_212_level(kq: Kqueue) -> None:
    """Without EV_CLEAR the event comes as long as the message is queued."""
    name = with_send()
    kq.add(name)
    assert send(name) == "KERN_SUCCESS"
    expected = [message_event(name, lib.EV_ADD, name)]
    assert kq.events() == expected
    assert kq.events() == expected


def test_S_213_edge(kq: Kqueue) -> None:
    """With EV_CLEAR the event comes when an empty queue gets a message, and then no more."""
    name = with_send()
    kq.add(name, lib.EV_CLEAR)
    assert send(name) == "KERN_SUCCESS"
    assert len(kq.events()) == 1
    assert kq.events() == []
    assert send(name) == "KERN_SUCCESS"
    assert kq.events() == []
    assert ids(name) == [0, 0]
    assert send(name) == "KERN_SUCCESS"
    assert len(kq.events()) == 1


def test_S_214_once(kq: Kqueue) -> None:
    """With EV_ONESHOT there is one event, and then nothing to delete."""
    name = with_send()
    kq.add(name, lib.EV_ONESHOT)
    assert send(name) == "KERN_SUCCESS"
    assert len(kq.events()) == 1
    assert kq.events() == []
    assert kq.change(name, lib.EV_DELETE) == "ENOENT"


def test_S_215_dispatch(kq: Kqueue) -> None:
    """With EV_DISPATCH there is one event, and the next one when it is enabled again."""
    name = with_send()
    kq.add(name, lib.EV_DISPATCH)
    assert send(name) == "KERN_SUCCESS"
    assert len(kq.events()) == 1
    assert kq.events() == []
    assert kq.change(name, lib.EV_ENABLE) == "OK"
    assert len(kq.events()) == 1


def test_S_216_what_is_not_watched(kq: Kqueue) -> None:
    """Only receive rights and sets are watched: ENOTSUP for send rights, ENOENT for nothing."""

    def holder(line: Line):
        with Kqueue() as kq:
            yield kq.change(line.outbox)

    with Task(holder) as task:
        assert task.answer() == "ENOTSUP"
    assert kq.change(free_name()) == "ENOENT"
    assert kq.change(dead_name()) == "ENOENT"


def check_end(kq: Kqueue, name: int) -> None:
    (event,) = kq.events()
    assert (event.ident, event.data, event.fflags) == (name, 0, 0)
    assert event.flags & (lib.EV_EOF | lib.EV_ONESHOT) == lib.EV_EOF | lib.EV_ONESHOT
    assert kq.change(name, lib.EV_DELETE) == "ENOENT"


def test_S_217_the_end_of_a_port(kq: Kqueue) -> None:
    """When the port dies or is sent away there is a last event with EV_EOF."""
    name = receive_right()
    kq.add(name)
    kill(name)
    check_end(kq, name)
    name = receive_right()
    kq.add(name)
    assert send(with_send(), rights=[port(name, MOVE_RECEIVE)]) == "KERN_SUCCESS"
    check_end(kq, name)


def test_S_218_the_end_of_a_set(kq: Kqueue) -> None:
    """When a set is destroyed there is a last event with EV_EOF."""
    pset = port_set(receive_right())
    kq.add(pset)
    destroy(pset)
    check_end(kq, pset)


def test_S_219_receive_with_the_event(kq: Kqueue) -> None:
    """With MACH_RCV_MSG and a buffer the event brings the message."""
    name, buffer = with_send(), Buffer()
    kq.add(name, fflags=RECEIVE, buffer=buffer, size=512)
    assert send(name, id=219) == "KERN_SUCCESS"
    (event,) = kq.events()
    assert (event.fflags, event.size) == (0, 24 + 8)
    assert (buffer.header.msgh_id, buffer.header.msgh_local_port) == (219, name)
    assert status(name).msgcount == 0


def test_S_220_the_buffer_is_too_small(kq: Kqueue) -> None:
    """A message that is too large for the buffer stays queued, and the event tells its port."""
    name, buffer = with_send(), Buffer()
    options = RECEIVE | lib.MACH_RCV_LARGE | lib.MACH_RCV_LARGE_IDENTITY
    kq.add(name, fflags=options, buffer=buffer, size=31)
    assert send(name) == "KERN_SUCCESS"
    (event,) = kq.events()
    assert (event.fflags, event.data) == (TOO_LARGE, name)
    assert status(name).msgcount == 1


def test_S_221_no_room_in_a_plain_event(kq: Kqueue) -> None:
    """kevent has no buffer: with MACH_RCV_MSG the message is too large for it, and stays."""
    name = with_send()
    plain = ffi.new("struct kevent *")
    lib.EV_SET(plain, name, lib.EVFILT_MACHPORT, lib.EV_ADD, RECEIVE, 0, ffi.NULL)
    assert lib.kevent(kq.fd, plain, 1, ffi.NULL, 0, ffi.NULL) == 0
    assert send(name) == "KERN_SUCCESS"
    (event,) = kq.plain_events()
    assert (event.ident, event.fflags) == (name, TOO_LARGE)
    assert status(name).msgcount == 1


def test_S_222_receive_or_not(kq: Kqueue) -> None:
    """Whether an event receives cannot be changed later: EINVAL."""
    name = receive_right()
    kq.add(name)
    assert kq.change(name, fflags=RECEIVE) == "EINVAL"


def test_S_223_a_kqueue_is_a_file(kq: Kqueue) -> None:
    """A kqueue with an event is readable, for select, poll and another kqueue, which counts."""
    names = [with_send(), with_send()]
    with Kqueue() as outer:
        for name in names:
            kq.add(name)
        outer.add(kq.fd, filter=lib.EVFILT_READ)
        assert not kq.is_readable
        assert outer.events() == []
        for name in names:
            assert send(name) == "KERN_SUCCESS"
        poll = select.poll()
        poll.register(kq.fd, select.POLLIN)
        assert kq.is_readable
        assert poll.poll(0) == [(kq.fd, select.POLLIN)]
        (event,) = outer.events()
        assert (event.ident, event.filter, event.data) == (kq.fd, lib.EVFILT_READ, 2)


def test_S_224_readable_without_an_event(kq: Kqueue) -> None:
    """A level event leaves the kqueue readable until the next call finds nothing."""
    name = with_send()
    kq.add(name)
    assert send(name) == "KERN_SUCCESS"
    assert len(kq.events()) == 1
    take(name)
    assert kq.is_readable
    assert kq.events() == []
    assert not kq.is_readable


def test_S_225_what_a_kqueue_is_not(kq: Kqueue) -> None:
    """A kqueue is not written to, and does not watch itself: EINVAL."""
    with Kqueue() as outer:
        assert outer.change(kq.fd, filter=lib.EVFILT_WRITE) == "EINVAL"
        assert kq.change(kq.fd, filter=lib.EVFILT_READ) == "EINVAL"


def file_event(kq: Kqueue, fd: int, filter: int) -> Event:
    kq.add(fd, filter=filter)
    (event,) = kq.events()
    assert (event.ident, event.filter) == (fd, filter)
    assert kq.change(fd, lib.EV_DELETE, filter=filter) == "OK"
    return event


def test_S_226_the_end_of_a_pipe(kq: Kqueue) -> None:
    """A pipe without a writer is at its end, with what is left to read; without a reader too."""
    reader, writer = os.pipe()
    os.write(writer, b"four")
    os.close(writer)
    event = file_event(kq, reader, lib.EVFILT_READ)
    assert (event.flags & lib.EV_EOF, event.data) == (lib.EV_EOF, 4)
    os.close(reader)
    reader, writer = os.pipe()
    os.close(reader)
    assert file_event(kq, writer, lib.EVFILT_WRITE).flags & lib.EV_EOF
    os.close(writer)


def test_S_227_the_end_of_a_socket(kq: Kqueue) -> None:
    """A socket whose peer is closed is at its end, with what is left to read, both ways."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.send(b"four")
        theirs.close()
        event = file_event(kq, ours.fileno(), lib.EVFILT_READ)
        assert (event.flags & lib.EV_EOF, event.data) == (lib.EV_EOF, 4)
        assert file_event(kq, ours.fileno(), lib.EVFILT_WRITE).flags & lib.EV_EOF


def test_S_228_a_kqueue_is_not_inherited(kq: Kqueue) -> None:
    """In a forked child the parent's kqueue is no file: EBADF."""

    def child(line: Line, fd: int):
        event = ffi.new("struct kevent64_s *")
        failed = lib.kevent64(fd, ffi.NULL, 0, event, 1, 0, NOW)
        yield failed, errno.errorcode.get(ffi.errno)

    with Task(child, kq.fd) as task:
        assert task.answer() == (-1, "EBADF")
