"""Typed routines: the bytes are MIG's, what arrives is checked, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import machio
from machio import Disposition, KernCode, Message, MigCode, PortRightType, ReceiveRight, mig

NDR = bytes((0, 0, 0, 0, 1, 0, 0, 0))
OK = NDR + bytes(4)


class Inner(mig.Struct):
    flag: mig.int8
    wide: mig.int64


class Outer(mig.Struct):
    letter: mig.uint8
    inner: Inner
    name: Annotated[str, mig.CString(5)]


Words = Annotated[Sequence[int], mig.Array(mig.uint16, max=5)]
Text = Annotated[str, mig.CString(max=10)]


class Sample(mig.Subsystem, base=3000):
    """Everything that can travel inline, and rights."""

    @mig.routine
    async def nothing(self) -> None:
        """Take and return nothing."""

    @mig.routine
    async def numbers(
        self, a: mig.int8, b: mig.uint16, c: mig.int64, d: mig.float32, e: mig.boolean
    ) -> mig.uint8:
        return 7

    @mig.routine
    async def texts(
        self, fixed: Annotated[str, mig.CString(6)], open: Text, last: mig.int8
    ) -> Text:
        return open

    @mig.routine
    async def arrays(
        self,
        fixed: Annotated[Sequence[int], mig.Array(mig.int16, 3)],
        open: Words,
        data: Annotated[bytes, mig.Bytes(max=9)],
    ) -> tuple[Words, Annotated[bytes, mig.Bytes(3)]]:
        return open, data[:3]

    @mig.routine
    async def structs(self, outer: Outer) -> Inner:
        return outer.inner

    @mig.routine(number=10)
    async def ports(self, one: mig.MoveSend, other: mig.CopySend | None) -> mig.MoveSend:
        if other is not None:
            other.close()
        return one

    @mig.routine
    async def pair(
        self, rights: Annotated[Sequence[Any], mig.Rights(mig.MakeSend, 2)], n: mig.int32
    ) -> mig.int32:
        for right in rights:
            right.close()
        return n

    @mig.routine
    async def fails(self, right: mig.MakeSend) -> None:
        raise machio.RoutineError(KernCode.NO_SPACE)

    @mig.routine
    async def breaks(self, right: mig.MakeSend) -> None:
        raise ZeroDivisionError

    @mig.routine
    async def missing(self) -> mig.int32:
        raise NotImplementedError

    @mig.simpleroutine
    async def tell(self, number: mig.int32) -> None:
        """No answer."""

    @mig.routine
    async def kinds(
        self, once: mig.MakeSendOnce, receive: mig.MoveReceive, any: mig.Poly
    ) -> tuple[mig.MoveSendOnce, mig.MoveReceive, mig.Poly]:
        return once, receive, (any, Disposition.MOVE_SEND)


def body(name, *arguments):
    return Sample.routines[name].request.write(arguments).body


def test_ids_follow_each_other():
    ids = {name: one.id for name, one in Sample.routines.items()}
    assert list(ids.values()) == [*range(3000, 3005), *range(3010, 3017)]
    assert (ids["nothing"], ids["structs"], ids["ports"]) == (3000, 3004, 3010)


class TestBytes:
    def test_no_arguments_is_a_bare_header(self):
        assert body("nothing") == b""
        assert Sample.routines["nothing"].make_reply(None).body == OK

    def test_numbers_are_padded_to_four_and_aligned_to_four(self):
        expected = NDR + struct.pack("<b3xH2xqfi", -2, 65535, -(2**40), 0.5, 1)
        assert body("numbers", -2, 65535, -(2**40), 0.5, True) == expected
        assert Sample.routines["numbers"].make_reply(9).body == OK + b"\x09\0\0\0"

    def test_strings(self):
        assert body("texts", "ab", "cde", 5) == (
            NDR + b"ab\0\0\0\0\0\0" + struct.pack("<II", 0, 4) + b"cde\0" + b"\5\0\0\0"
        )
        assert Sample.routines["texts"].make_reply("abcd").body == (
            OK + struct.pack("<II", 0, 5) + b"abcd\0\0\0\0"
        )

    def test_arrays_have_their_count_before_them(self):
        assert body("arrays", [1, -1, 2], [3], b"12345") == (
            NDR + struct.pack("<hhhxx", 1, -1, 2) + struct.pack("<IHxx", 1, 3)
            + struct.pack("<I", 5) + b"12345\0\0\0"
        )  # fmt: skip

    def test_structs_have_the_layout_of_c(self):
        value = Outer(1, Inner(-1, 2), "abcd")
        natural = struct.pack("@B7xb7xq5s3x", 1, -1, 2, b"abcd\0")
        assert body("structs", value) == NDR + natural
        assert Outer.wire_kind().size == len(natural)

    def test_rights_alone_need_no_ndr(self):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            request = Sample.routines["ports"].request.write((send, None))
            assert request.body == b""
            assert request.rights == ((send, Disposition.MOVE_SEND), (None, Disposition.COPY_SEND))
            reply = Sample.routines["ports"].make_reply(send)
            assert (reply.id, reply.body) == (3110, b"")

    def test_rights_and_data(self):
        with ReceiveRight.allocate() as port:
            request = Sample.routines["pair"].request.write(([port, port], 5))
        assert request.body == NDR + b"\5\0\0\0"
        assert len(request.rights) == 2

    def test_an_error_is_a_mig_reply_error(self):
        error = machio._miglayout.make_error(3000, -303)
        assert (error.id, error.body) == (3100, NDR + struct.pack("<i", -303))

    @given(st.lists(st.integers(0, 0xFFFF), max_size=5), st.binary(max_size=9))
    def test_what_is_written_is_read(self, words, data):
        layout = Sample.routines["arrays"].request
        rights, written = layout.pack(([1, 2, 3], words, data))
        assert layout.unpack(rights, written) == [[1, 2, 3], words, data]


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("numbers", (128, 0, 0, 0.0, True), "a: 128 is no int8_t"),
        ("numbers", (0, -1, 0, 0.0, True), "b: -1 is no uint16_t"),
        ("numbers", ("x", 0, 0, 0.0, True), "a: 'x' is no int8_t"),
        ("texts", ("123456", "", 0), "fixed: a string of up to 5 bytes"),
        ("texts", ("", "0123456789", 0), "open: a string of up to 9 bytes"),
        ("texts", ("a\0b", "", 0), "NUL"),
        ("arrays", ([1, 2], [], b""), "fixed: 3 elements are wanted here, not 2"),
        ("arrays", ([1, 2, 3], [0] * 6, b""), "open: up to 5 elements"),
        ("structs", (None,), "outer: None is no Outer"),
        ("ports", (None, None), "one: a right is wanted here"),
        ("pair", ([], 0), "rights: 2 rights are wanted"),
    ],
)
async def test_unfit_arguments_are_the_callers_mistake(name, arguments, text):
    client = Sample.client(None)
    with pytest.raises(machio.UsageError, match=text):
        await getattr(client, name)(*arguments)


class TestChecks:
    """What a server makes of requests that its own stubs would not send."""

    async def ask(self, message_id, body=b"", rights=()):
        reply = await Sample().answer(Message(message_id, body, rights))
        assert reply.id == message_id + 100
        return struct.unpack_from("<i", reply.body, 8)[0]

    async def test_unknown_ids(self):
        for message_id in (0, 2999, 3005, 3017, 2**31 - 1):
            assert await self.ask(message_id) == MigCode.BAD_ID

    @pytest.mark.parametrize("size", [*range(0, 60, 4)])
    async def test_sizes(self, size):
        full = body("numbers", 1, 1, 1, 1.0, True)
        wrong = (full + bytes(60))[:size]
        assert await self.ask(3001, wrong) == (0 if size == len(full) else MigCode.BAD_ARGUMENTS)

    @pytest.mark.parametrize(
        ("message_id", "wrong"),
        [
            (3001, bytes(8) + bytes(24)),  # another machine's integers
            (3002, NDR + b"abcdef\0\0" + struct.pack("<II4si", 0, 4, b"abc\0", 0)),  # no NUL
            (3002, NDR + b"ab\0\0\0\0\0\0" + struct.pack("<II4si", 0, 4, b"abcd", 0)),
            (3002, NDR + b"ab\0\0\0\0\0\0" + struct.pack("<II4si", 0, 0, b"", 0)),
            (3002, NDR + b"ab\0\0\0\0\0\0" + struct.pack("<II4si", 0, 5, b"abc\0", 0)),
            (3002, NDR + b"ab\0\0\0\0\0\0" + struct.pack("<II4si", 0, 2**32 - 1, b"abc\0", 0)),
            (3002, NDR + b"\xff\0\0\0\0\0\0\0" + struct.pack("<II4si", 0, 4, b"abc\0", 0)),
            (3003, NDR + bytes(8) + struct.pack("<III", 6, 0, 0) + bytes(12)),
            (3003, NDR + bytes(8) + struct.pack("<II", 2**31, 0)),
        ],
    )
    async def test_bytes(self, message_id, wrong):
        assert await self.ask(message_id, wrong) == MigCode.BAD_ARGUMENTS

    async def test_rights(self):
        with ReceiveRight.allocate() as port, port.make_send() as send:
            for rights, code in [
                ((), MigCode.BAD_ARGUMENTS),
                ((send,), MigCode.BAD_ARGUMENTS),
                ((send, None, None), MigCode.BAD_ARGUMENTS),
                ((port, None), MigCode.TYPE_ERROR),
                ((None, None), MigCode.TYPE_ERROR),
                ((send, port), MigCode.TYPE_ERROR),
            ]:
                assert await self.ask(3010, b"", rights) == code
                assert not send.closed, "the caller's to close"

    async def test_what_is_not_there(self):
        assert await self.ask(3014) == MigCode.BAD_ID

    @given(st.binary(max_size=64), st.integers(3000, 3016))
    def test_any_bytes_are_answered(self, data, message_id):
        if message_id in (3012, 3013):
            return
        data += bytes(-len(data) % 4)
        with pytest.raises(StopIteration) as done:  # nothing in it waits
            Sample().answer(Message(message_id, data)).send(None)
        assert (done.value.value is None) == (message_id == 3015)


class TestReplies:
    """What a client makes of replies that no such server would send."""

    def read(self, name, message):
        return Sample.routines[name].read_reply(message)

    @pytest.mark.parametrize(
        ("message", "code"),
        [
            (Message(3101 + 1, OK + bytes(4)), MigCode.REPLY_MISMATCH),
            (Message(3101, OK), MigCode.TYPE_ERROR),
            (Message(3101, b""), MigCode.TYPE_ERROR),
            (Message(3101, OK + bytes(8)), MigCode.TYPE_ERROR),
            (Message(3101, NDR + struct.pack("<i", 5) + bytes(4)), MigCode.TYPE_ERROR),
            (Message(3101, NDR + struct.pack("<i", 5)), KernCode.FAILURE),
            (Message(3101, NDR + struct.pack("<i", 12345)), 12345),
        ],
    )
    def test_simple(self, message, code):
        with pytest.raises(machio.MigError) as caught:
            self.read("numbers", message)
        assert caught.value.code == code

    def test_rights_of_a_wrong_reply_are_closed(self):
        with ReceiveRight.allocate() as port:
            for message in (
                Message(3110, b"", [port.make_send(), port.make_send()]),
                Message(3110, OK, [port.make_send()]),
                Message(3110, b"", [ReceiveRight.allocate()]),
                Message(3111, b"", [port.make_send()]),
                Message(3110, OK),
            ):
                with pytest.raises(machio.MigError):
                    self.read("ports", message)
                assert all(right.closed for right in message.rights)
            with pytest.raises(machio.RoutineError, match="KERN_FAILURE"):
                self.read("ports", Message(3110, NDR + struct.pack("<i", 5)))

    def test_a_reply_right_in_a_reply_is_closed(self):
        with ReceiveRight.allocate() as port:
            message = Message(3101, OK + b"\7\0\0\0", reply=port.make_send_once())
            assert self.read("numbers", message) == 7
            assert message.reply.closed


class TestDeclaring:
    @pytest.mark.parametrize(
        ("annotation", "text"),
        [(int, "no type of machio.mig"), (list[mig.int32], "no type"), (Text | None, "no type")],
    )
    def test_what_cannot_travel(self, annotation, text):
        async def wrong(self, argument):
            pass

        wrong.__annotations__ = {"argument": annotation, "return": None}
        with pytest.raises(TypeError, match=f"wrong: .*{text}"):
            type("Wrong", (mig.Subsystem,), {"wrong": mig.routine(wrong)}, base=1)

    def test_mistakes(self):
        async def plain(self) -> mig.int32:
            raise NotImplementedError

        with pytest.raises(TypeError, match="returns nothing"):
            type("Wrong", (mig.Subsystem,), {"plain": mig.simpleroutine(plain)}, base=1)
        with pytest.raises(TypeError, match="base="):
            type("Wrong", (mig.Subsystem,), {"plain": mig.routine(plain)})
        for make in (lambda: mig.CString(), lambda: mig.Array(mig.int32, 1, max=2)):
            with pytest.raises(TypeError, match="positive"):
                make()
        with pytest.raises(TypeError, match="no fixed size"):
            mig.Array(Text, 3)
        with pytest.raises(TypeError, match="not a kind of right"):
            mig.Rights(mig.int32, 3)

    def test_a_client_looks_like_its_declaration(self):
        client = Sample.client(None)
        assert isinstance(client, Sample)
        assert client.tell.__doc__ == "No answer."

    def test_definitions_for_mig(self):
        text = mig.defs(Sample)
        for line in (
            "subsystem sample 3000;",
            "type c_string_up_to_10_t = c_string[*:10];",
            "type array_up_to_5_of_uint16_t_t = array[*:5] of uint16_t;",
            "type Outer = struct[32] of char;",
            "type Inner = struct[16] of char;",
            "    one : mach_port_move_send_t;",
            "    out result : uint8_t);",
            "simpleroutine tell(",
            "/* No answer. */",
        ):
            assert line in text.splitlines(), text
        assert text.count("skip;") == 5


class TestOverTheWire:
    """Rights of every kind, there and back."""

    @pytest.fixture
    async def client(self):
        async with machio.Service(port := ReceiveRight.allocate()) as service:
            service.add(Sample())
            serving = asyncio.ensure_future(service.serve())
            with port.make_send() as send:
                yield Sample.client(send, timeout=10)
            service.stop()
            await serving

    async def test_inline(self, client):
        assert await client.nothing() is None
        assert await client.numbers(1, 2, c=3, d=4.0, e=False) == 7
        assert await client.texts("", "öäü", 1) == "öäü"
        assert await client.arrays([1, 2, 3], range(5), b"abc") == ([0, 1, 2, 3, 4], b"abc")
        assert await client.structs(Outer(1, Inner(2, 3), "x")) == Inner(2, 3)
        await client.tell(5)

    async def test_moved_and_copied(self, client):
        with ReceiveRight.allocate() as port, port.make_send() as kept:
            given = port.make_send()
            with await client.ports(given, kept) as back:
                assert given.closed
                assert not kept.closed
                assert back.name == port.name
            assert await client.pair([port, port], -4) == -4
            assert port.status.make_send_count == 4

    async def test_every_kind(self, client):
        with ReceiveRight.allocate() as port, ReceiveRight.allocate() as moved:
            once, receive, poly = await client.kinds(port, moved, (port, Disposition.MAKE_SEND))
            assert moved.closed
            kinds = [right.kind for right in (once, receive, poly)]
            assert kinds == [PortRightType.SEND_ONCE, PortRightType.RECEIVE, PortRightType.SEND]
            for right in (once, receive, poly):
                right.close()

    @pytest.mark.parametrize(
        ("name", "code"), [("fails", KernCode.NO_SPACE), ("breaks", MigCode.EXCEPTION)]
    )
    async def test_a_failed_routine_keeps_no_right(self, client, name, code):
        with ReceiveRight.allocate() as port:
            with pytest.raises(machio.RoutineError) as caught:
                await getattr(client, name)(port)
            assert caught.value.code == code
            assert await port.no_senders(10) == 1
