"""Rights as owned objects: who owns what after each success and each failure."""

import contextlib
import os
import signal
import threading

import pytest
from common import fill

import machio
from machio import (
    Disposition,
    Message,
    NotificationId,
    PortRightType,
    PortSet,
    ReceiveRight,
    SendOnceRight,
    SendRight,
    _ffi,
)
from machio.codes import KernCode, ReceiveCode, SendCode

SEND, RECEIVE = PortRightType.SEND, PortRightType.RECEIVE


@pytest.fixture
def full(port, send):
    """A port whose queue is full, and a send right to it."""
    fill(send, port)
    return send


def urefs(right):
    return _ffi.get_refs(right.name, SEND)


def exists(name):
    try:
        return bool(_ffi.port_type(name))
    except machio.KernError:
        return False


class TestOwning:
    @pytest.mark.parametrize("make", [ReceiveRight.allocate, PortSet.allocate])
    def test_closing_frees_the_name_once_or_more(self, make):
        right = make()
        name = right.name
        assert exists(name)
        assert not right.closed
        right.close()
        right.close()
        assert right.closed
        assert not exists(name)

    def test_a_closed_right_says_so(self, port):
        port.close()
        for use in (lambda: port.name, port.release, port.make_send, port.receive_nowait):
            with pytest.raises(machio.RightClosedError, match="ReceiveRight holds no right"):
                use()
        assert repr(port) == "<ReceiveRight closed>"

    def test_a_forgotten_right_warns_and_is_closed(self):
        right = ReceiveRight.allocate()
        name = right.name
        rights = [right]
        del right
        with pytest.warns(ResourceWarning, match=f"unclosed <ReceiveRight {name:#x}>"):
            rights.clear()
        assert not exists(name)

    def test_release_and_from_name_cross_to_raw_names(self, port):
        send = port.make_send()
        name = send.release()
        assert send.closed
        assert name == port.name
        with SendRight.from_name(name) as again:
            assert urefs(again) == 1
        assert _ffi.get_refs(name, SEND) == 0

    def test_from_name_refuses_other_kinds_and_takes_nothing(self, port):
        with pytest.raises(machio.KernError) as caught:
            SendRight.from_name(port.name)
        assert caught.value.code is KernCode.INVALID_RIGHT
        with pytest.raises(machio.KernError):
            PortSet.from_name(port.name)
        with pytest.raises(machio.KernError):
            ReceiveRight.from_name(0x7F)
        for name in (0, 0xFFFFFFFF):
            with pytest.raises(ValueError, match="not the name"):
                ReceiveRight(name)

    def test_a_dead_send_right_can_be_taken_over(self, send, port):
        name = send.release()
        port.close()
        with SendRight.from_name(name) as dead:
            assert dead.is_dead

    def test_two_objects_may_share_a_name(self, port, send):
        with send.copy() as other:
            assert other.name == send.name
            assert other == send
            assert hash(other) == hash(send)
            assert urefs(send) == 2
        assert other != send
        assert urefs(send) == 1
        assert send != port

    def test_copying_a_dead_right_fails(self, port, send):
        port.close()
        with pytest.raises(machio.KernError):
            send.copy()

    def test_a_forked_child_owns_nothing_of_its_parents(self, port, send):
        pid = os.fork()
        if pid == 0:
            status = 1
            with contextlib.suppress(BaseException):
                assert port.closed
                assert send.closed
                with ReceiveRight.allocate() as own:  # perhaps under the same name
                    port.close()
                    send.close()
                    assert own.status.queued == 0
                with pytest.raises(machio.RightClosedError):
                    send.send_nowait(Message(1))
                with pytest.raises(machio.RightClosedError):
                    send.release()
                status = 0
            os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        send.send_nowait(Message(1))
        assert port.receive_nowait().id == 1


class TestPorts:
    def test_a_new_port(self, port):
        assert port.queue_limit == 5
        assert port.status == machio.PortStatus(0, 0, 0, 5, 0, 0, 0, 0, 0, 0)
        assert _ffi.get_refs(port.name, RECEIVE) == 1

    def test_the_queue_limit(self):
        with ReceiveRight.allocate(queue_limit=16) as port:
            assert port.queue_limit == 16
            port.queue_limit = 1
            assert port.queue_limit == 1
            with pytest.raises(machio.KernError) as caught:
                port.queue_limit = 1025
            assert caught.value.code is KernCode.INVALID_VALUE
        with pytest.raises(machio.KernError):
            ReceiveRight.allocate(queue_limit=5000)

    def test_the_death_of_a_port(self, port, send):
        assert not send.is_dead
        port.close()
        assert send.is_dead
        with pytest.raises(machio.DeadDestinationError):
            send.send_nowait(Message(1))

    def test_make_send_counts(self, port):
        with port.make_send() as first, port.make_send() as second:
            assert first == second
            assert port.status.make_send_count == 2
            assert port.status.has_send_rights


class TestSendingAndReceiving:
    def test_there_and_back(self, port, send):
        send.send_nowait(Message(-7, b"ping"))
        message = port.receive_nowait()
        assert (message.id, message.body, message.rights, message.reply) == (-7, b"ping", (), None)
        assert message.seqno == 0
        assert message.port == port.name
        assert message.sender.pid == os.getpid()
        assert (message.sender.uid, message.sender.gid) == (os.geteuid(), os.getegid())

    def test_nothing_there(self, port):
        with pytest.raises(machio.ReceiveTimedOut):
            port.receive_nowait()
        with pytest.raises(TimeoutError):
            port.receive_blocking(timeout=0.01)

    @pytest.mark.parametrize("size", [0, 1, 4, 16 * 1024, 1024 * 1024])
    def test_bodies_of_all_sizes(self, port, send, size):
        body = os.urandom(size)
        send.send_nowait(Message(1, body))
        assert port.receive_nowait().body == body + bytes(-size % 4)

    def test_blocking_receive_lets_other_threads_run(self, port, send):
        thread = threading.Thread(target=send.send_blocking, args=(Message(4),))
        thread.start()
        assert port.receive_blocking(timeout=10).id == 4
        thread.join()

    def test_blocking_send_waits_for_room(self, port, full):
        thread = threading.Thread(target=full.send_blocking, args=(Message(99), 10))
        thread.start()
        ids = [port.receive_blocking(timeout=10).id for _ in range(6)]
        thread.join()
        assert ids == [0, 1, 2, 3, 4, 99]
        assert urefs(full) == 1

    def test_a_signal_reaches_a_blocked_receive(self, port):
        class Interruption(Exception):  # noqa: N818
            pass

        def interrupt(*_):
            raise Interruption

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interruption):
                port.receive_blocking()
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_a_closed_port_ends_a_blocked_receive(self, port):
        errors = []

        def receive():
            try:
                port.receive_blocking()
            except machio.MachioError as error:
                errors.append(error)

        thread = threading.Thread(target=receive)
        thread.start()
        while thread.is_alive() and not port.closed:
            port.close()
        thread.join()
        assert len(errors) == 1

    def test_send_once_sends_once(self, port):
        once = port.make_send_once()
        once.send(Message(3))
        assert once.closed
        assert port.receive_nowait().id == 3

    def test_a_dropped_send_once_right_tells_its_port(self, port):
        port.make_send_once().close()
        message = port.receive_nowait()
        assert message.id == NotificationId.SEND_ONCE
        assert message.is_notification

    def test_a_send_once_right_passes_the_queue_limit(self, port, full):
        port.make_send_once().send(Message(6))
        assert port.status.queued == 6

    def test_a_send_once_right_is_not_spent_on_what_is_no_message(self, port):
        with port.make_send_once() as once:
            with pytest.raises(OverflowError):
                once.send(Message(1 << 32))
            once.send(Message(2))
        assert port.receive_nowait().id == 2

    def test_a_failed_send_once_stays_the_callers(self, port):
        with port.make_send_once() as once:
            with pytest.raises(machio.UsageError):
                once.send(Message(1, rights=[once]))
            once.send(Message(2))
        assert port.receive_nowait().id == 2

    def test_a_reply_right(self, port, send):
        with ReceiveRight.allocate() as reply_port:
            send.send_nowait(Message(1, reply=reply_port))
            message = port.receive_nowait()
            assert isinstance(message.reply, SendOnceRight)
            message.reply.send(Message(101))
            assert reply_port.receive_nowait().id == 101


class TestCarrying:
    def test_rights_move_by_default(self, port, send):
        carried = ReceiveRight.allocate()
        to_carried = carried.make_send()
        once = carried.make_send_once()
        to_carried.send_nowait(Message(5, b"kept"))
        send.send_nowait(Message(1, rights=[carried, to_carried, once]))
        assert carried.closed
        assert to_carried.closed
        assert once.closed
        with port.receive_nowait() as message:
            received, received_send, received_once = message.rights
            assert isinstance(received, ReceiveRight)
            assert isinstance(received_send, SendRight)
            assert isinstance(received_once, SendOnceRight)
            assert received.name == received_send.name
            assert received.receive_nowait().body == b"kept"

    def test_other_dispositions_leave_the_right(self, port, send):
        with ReceiveRight.allocate() as own, own.make_send() as to_own:
            send.send_nowait(
                Message(
                    1,
                    rights=[
                        (own, Disposition.MAKE_SEND),
                        (to_own, Disposition.COPY_SEND),
                        (own, Disposition.MAKE_SEND_ONCE),
                        None,
                    ],
                )
            )
            with port.receive_nowait() as message:
                assert message.rights[0] == message.rights[1] == to_own
                assert isinstance(message.rights[2], SendOnceRight)
                assert message.rights[3] is None
                assert urefs(to_own) == 3
            assert urefs(to_own) == 1

    def test_a_right_that_died_on_the_way_is_none(self, port, send):
        with ReceiveRight.allocate() as own:
            send.send_nowait(Message(1, rights=[own.make_send()]))
        assert port.receive_nowait().rights == (None,)

    @pytest.mark.parametrize(
        "carried",
        [
            lambda port, send: (send, Disposition.MAKE_SEND),
            lambda port, send: (port, Disposition.COPY_SEND),
            lambda port, send: "no right",
            lambda port, send: PortSet,
        ],
    )
    def test_what_cannot_be_carried_is_refused(self, port, send, carried):
        with ReceiveRight.allocate() as other, pytest.raises(machio.UsageError):
            send.send_nowait(Message(1, rights=[other, carried(port, send)]))
        assert urefs(send) == 1

    def test_a_right_cannot_be_moved_twice_in_a_message(self, port, send):
        with ReceiveRight.allocate() as other:
            name = other.name
            with pytest.raises(machio.RightClosedError):
                send.send_nowait(Message(1, rights=[other, other]))
            assert other.name == name

    def test_a_receive_right_is_no_reply_right(self, port, send):
        with pytest.raises(machio.UsageError):
            send.send_nowait(Message(1, reply=(port, Disposition.MOVE_RECEIVE)))

    def test_messages_that_are_destroyed_release_their_rights(self, port, send):
        other = ReceiveRight.allocate()
        to_other = other.make_send()
        send.send_nowait(Message(1, rights=[other]))
        port.close()
        assert to_other.is_dead
        to_other.close()


class TestFailedSends:
    """Ownership after a send that failed: exactly as before."""

    @pytest.fixture
    def carried(self):
        with ReceiveRight.allocate() as own, own.make_send() as to_own:
            yield own, to_own

    def rights(self, carried):
        own, to_own = carried
        return [
            own,
            (to_own, Disposition.COPY_SEND),
            to_own.copy(),
            own.make_send_once(),
        ]

    def test_a_full_queue(self, port, full, carried):
        own, to_own = carried
        to_own.send_nowait(Message(8))
        rights = self.rights(carried)
        before = urefs(to_own)
        for timeout in (0, 0.01):
            with pytest.raises(machio.SendTimedOut):
                full.send_blocking(Message(1, rights=rights, reply=port), timeout)
            assert not any(right.closed for right in (own, to_own, *rights[2:]))
            assert urefs(to_own) == before
            assert urefs(full) == 1
        assert own.receive_nowait().id == 8
        rights[3].send(Message(9))
        assert own.receive_nowait().id == 9
        rights[2].close()
        # The two reply rights that were made came to nothing, as Mach tells the port.
        ids = [port.receive_nowait().id for _ in range(7)]
        assert ids == [0, 1, 2, 3, 4, NotificationId.SEND_ONCE, NotificationId.SEND_ONCE]

    def test_a_made_right_is_dropped_again(self, port, full, carried):
        own, to_own = carried
        to_own.close()
        with pytest.raises(machio.SendTimedOut):
            full.send_nowait(Message(1, rights=[(own, Disposition.MAKE_SEND)]))
        assert not own.status.has_send_rights

    def test_a_dead_destination(self, port, send, carried):
        own, to_own = carried
        rights = self.rights(carried)
        before = urefs(to_own)
        port.close()
        with pytest.raises(machio.DeadDestinationError):
            send.send_nowait(Message(1, rights=rights))
        assert not any(right.closed for right in (own, to_own, *rights[2:]))
        assert urefs(to_own) == before
        rights[2].close()
        rights[3].close()

    def test_a_bad_right_destroys_the_message_up_to_it(self, port, send, carried):
        own, to_own = carried
        first = ReceiveRight.allocate()
        to_first = first.make_send()
        # Two owners of one uref: the second is not there when the kernel comes to it.
        twins = [to_own, SendRight(to_own.name)]
        with pytest.raises(machio.SendError) as caught:
            send.send_nowait(Message(1, rights=[first, *twins, own], reply=port))
        assert caught.value.code is SendCode.INVALID_RIGHT
        assert all(right.closed for right in (first, *twins))
        assert to_first.is_dead
        assert not own.closed, "the kernel had not come to it"
        assert port.receive_nowait().id == NotificationId.SEND_ONCE
        to_first.close()


class TestPortSets:
    def test_members(self, port, send):
        with PortSet.allocate() as ports, ReceiveRight.allocate() as other:
            ports.add(port)
            ports.add(other)
            assert port.status.in_set
            with other.make_send() as to_other:
                to_other.send_nowait(Message(2))
            member, message = ports.receive_nowait()
            assert member is other
            assert message.id == 2
            send.send_nowait(Message(1))
            member, message = ports.receive_blocking(timeout=10)
            assert member is port
            ports.remove(port)
            with pytest.raises(machio.KernError) as caught:
                ports.remove(port)
            assert caught.value.code is KernCode.NOT_IN_SET
            with pytest.raises(machio.ReceiveTimedOut):
                ports.receive_nowait()

    def test_a_closed_member_leaves(self, port):
        with PortSet.allocate() as ports:
            ports.add(port)
            port.close()
            with pytest.raises(machio.ReceiveTimedOut):
                ports.receive_nowait()

    def test_the_set_closes_and_the_members_stay(self, port, send):
        with PortSet.allocate() as ports:
            ports.add(port)
        send.send_nowait(Message(1))
        assert port.receive_nowait().id == 1
        with pytest.raises(machio.RightClosedError):
            ports.receive_nowait()


def test_receiving_on_a_stolen_name_is_a_mach_error(port):
    _ffi.mod_refs(port.name, RECEIVE, -1)
    with pytest.raises(machio.ReceiveError) as caught:
        port.receive_nowait()
    assert caught.value.code is ReceiveCode.INVALID_NAME
    port.release()
