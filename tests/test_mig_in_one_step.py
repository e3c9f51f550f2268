"""Bodies that are written and read in one step: nothing is otherwise than one value by one."""

from __future__ import annotations

import array
import struct
from collections.abc import Sequence
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_mig import NDR, Inner, Sample, body

import machio
from machio import Message, MigCode, ReceiveRight, mig
from machio._miglayout import Layout
from machio._migtypes import Fault, kind_of

KINDS = {
    "text": Annotated[str, mig.CString(6)],
    "data": Annotated[bytes, mig.Bytes(5)],
    "words": Annotated[Sequence[int], mig.Array(mig.int16, 3)],
    "inner": Inner,
    "flag": mig.boolean,
    "number": mig.int8,
    "real": mig.float64,
}
ENDS = {  # what may vary in length where nothing follows, and a value of it
    "text to the end": (Annotated[str, mig.CString(max=6)], "abc"),
    "data to the end": (Annotated[bytes, mig.Bytes(max=5)], b"abc"),
    "words to the end": (Annotated[Sequence[int], mig.Array(mig.int16, max=3)], [1, 2]),
    "structs to the end": (Annotated[Sequence[Inner], mig.Array(Inner, max=2)], [Inner(3, 4)]),
}


@pytest.mark.parametrize("end", [None, *ENDS])
class TestAnyValues:
    """Of each kind of a fixed size, and of what varies in length at the end, if it is there."""

    def layout(self, end):
        kinds = KINDS | ({} if end is None else {end: ENDS[end][0]})
        return Layout(4000, [(name, kind_of(one)) for name, one in kinds.items()], is_reply=True)

    def values(self, end):
        values = ("a", bytes(5), [1, 2, 3], Inner(1, 2), 1, 2, 0.5)
        return values if end is None else (*values, ENDS[end][1])

    def outcomes(self, layout, values):
        """Return what becomes of values in one step, and one by one."""
        for write in (lambda: layout.write(values).body, lambda: layout.pack(values)[1]):
            try:
                yield write()
            except machio.UsageError as error:
                yield str(error)

    @given(
        st.tuples(
            st.text("aä", max_size=2),
            st.binary(min_size=5, max_size=5)
            | st.lists(st.integers(0, 255), min_size=5, max_size=5),
            st.lists(st.integers(-(2**15), 2**15 - 1), min_size=3, max_size=3),
            st.builds(Inner, st.integers(-128, 127), st.integers(0, 9)),
            st.booleans() | st.integers(0, 2),
            st.integers(-128, 127),
            st.floats(allow_nan=False),
        ),
        st.integers(0, 3),
    )
    def test_what_is_written(self, end, values, length):
        layout = self.layout(end)
        if end is not None:
            values = (*values, ENDS[end][1][:length])
        at_once, one_by_one = self.outcomes(layout, values)
        assert at_once == one_by_one
        message = layout.write(values)
        read = layout.read_flat(message)
        assert list(read) == layout.unpack((), message.body)
        assert (read[1], read[2], read[4]) == (bytes(values[1]), values[2], bool(values[4]))
        assert end is None or read[-1] == values[-1]

    @pytest.mark.parametrize(
        "wrong",
        [
            "123456",
            "a\0",
            b"1234",
            b"123456",
            [256] * 5,
            [1, 2],
            [2**15] * 3,
            None,
            128,
            5.5,
            [1] * 9,
        ],
    )
    def test_what_does_not_fit(self, end, wrong):
        refused = 0
        for place in range(len(self.values(end))):
            values = [*self.values(end)]
            values[place] = wrong
            at_once, one_by_one = self.outcomes(self.layout(end), values)
            assert at_once == one_by_one
            refused += isinstance(at_once, str)
        assert refused >= 4

    @given(st.data())
    def test_what_is_read(self, end, data):
        """Whatever comes is read in one step as in many, or left to those."""
        layout = self.layout(end)
        body = bytearray(layout.write(self.values(end)).body)
        whole = bytes(body)
        for _ in range(data.draw(st.integers(0, 2))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        del body[len(body) - 4 * data.draw(st.integers(0, 3)) :]
        body += bytes(4 * data.draw(st.integers(0, 1)))
        read = layout.read_flat(Message(4000, body))
        if read is not None:
            assert repr(list(read)) == repr(layout.unpack((), bytes(body)))
        assert read is not None or body != whole

    def test_what_has_no_nul_is_left_to_the_kinds(self, end):
        layout = self.layout(end)
        message = layout.write(self.values(end))
        message.body = message.body.replace(b"a\0\0\0\0\0", b"abcdef", 1)
        assert layout.read_flat(message) is None
        with pytest.raises(Fault):
            layout.unpack((), message.body)


class TestLies:
    """Values and messages that are made to be mistaken."""

    def test_elements_of_another_size(self):
        for kind in (mig.Bytes(5), mig.Bytes(max=5)):
            with pytest.raises(machio.UsageError, match="data: bytes are wanted here"):
                Layout(1, [("data", kind)]).write([array.array("H", range(5))])

    @pytest.mark.parametrize("count", [0, 4, 5, 6, 2**32 - 1])
    @pytest.mark.parametrize("rest", [b"", b"abc\0", b"abcd\0\0\0\0", bytes(12)])
    def test_what_varies_in_length_lies(self, count, rest):
        """A count is that of what follows, or nothing of it is read."""
        for kind in (mig.CString(max=5), mig.Bytes(max=5)):
            layout = Layout(1, [("end", kind)])
            before = bytes(4) if isinstance(kind, mig.CString) else b""
            message = Message(1, NDR + before + struct.pack("<I", count) + rest)
            try:
                expected = layout.unpack((), message.body)
            except Fault:
                expected = None
            read = layout.read_flat(message)
            assert (read and list(read)) == expected

    async def test_one_with_rights_is_another(self):
        """A right that comes along is refused, and closed by whoever received it."""
        with ReceiveRight.allocate() as port, port.make_send() as send:
            request = Message(3001, body("numbers", 1, 1, 1, 1.0, True), [send])
            reply = await Sample().answer(request)
            assert reply.body[8:] == struct.pack("<i", MigCode.BAD_ARGUMENTS)
            assert request.rights == (send,)
