"""Memory and arrays of rights as arguments of routines: the bytes, the checks, who has them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Annotated, Any

import pytest

import machio
from machio import (
    Disposition,
    Memory,
    Message,
    MigCode,
    ReceiveRight,
    RightArray,
    SendOnceRight,
    SendRight,
    mig,
)

NDR = bytes((0, 0, 0, 0, 1, 0, 0, 0))

Data = Annotated[Memory, mig.OutOfLine(max=1 << 20)]
Sends = Annotated[Sequence[Any], mig.Rights(mig.MakeSend, max=3)]


class Store(mig.Subsystem, base=4000):
    """What travels out of line, and what stands between."""

    @mig.routine
    async def put(
        self, before: mig.int32, data: Data, right: mig.MakeSend, rights: Sends, after: mig.int8
    ) -> tuple[Data, Annotated[Sequence[Any], mig.Rights(mig.MoveSend, max=4)], mig.uint32]:
        with data.view as view:
            view[0:1] = b"!"
        return data, [right, *rights], before + after

    @mig.routine
    async def size(self, data: Annotated[Memory, mig.OutOfLine()]) -> mig.uint32:
        with data:
            return len(data)

    @mig.routine
    async def fails(self, data: Data) -> Data:
        raise machio.RoutineError(5)

    @mig.routine
    async def onces(
        self, some: Annotated[Sequence[Any], mig.Rights(mig.MakeSendOnce | None, max=9)]
    ) -> mig.int32:
        for one in some:
            if one is not None:
                one.close()
        return sum(isinstance(one, SendOnceRight) for one in some)


def test_counts_stand_where_the_arguments_do():
    with ReceiveRight.allocate() as port:
        message = Store.routines["put"].request.write((-2, b"12345", port, [port, port], 7))
        data, right, rights = message.descriptors
        assert (len(data), right) == (5, (port, Disposition.MAKE_SEND))
        assert (rights.rights, rights.disposition) == ((port, port), Disposition.MAKE_SEND)
        assert message.body == NDR + struct.pack("<iIIb3x", -2, 5, 2, 7)
    request = Store.routines["put"].request
    assert (request.descriptors, request.size) == (3, 24 + 4 + 16 + 12 + 16 + 8 + 16)


def test_a_reply_has_no_code():
    with Memory(3) as memory:
        reply = Store.routines["put"].make_reply((memory, [], 9))
        assert reply.body == NDR + struct.pack("<III", 3, 0, 9)
        assert reply.descriptors[0] is memory
        assert reply.descriptors[1].disposition == Disposition.MOVE_SEND


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, "text", None, [], 1), "data: .*buffer"),
        ((1, RightArray([]), None, [], 1), "data: .*no memory"),
        ((1, bytes((1 << 20) + 1), None, [], 1), "data: up to 1048576 bytes"),
        ((1, b"", None, [], 1), "right: a right is wanted"),
    ],
)
def test_what_does_not_fit(arguments, text):
    with pytest.raises(machio.UsageError, match=text):
        Store.routines["put"].request.write(arguments)


def test_too_many_rights():
    with ReceiveRight.allocate() as port:
        with pytest.raises(machio.UsageError, match="rights: up to 3 rights"):
            Store.routines["put"].request.write((1, b"", port, [port] * 4, 1))
        with pytest.raises(machio.UsageError, match="rights: a right is wanted"):
            Store.routines["put"].request.write((1, b"", port, [None], 1))


def test_an_array_has_one_disposition():
    with pytest.raises(TypeError, match="Poly"):
        mig.Rights(mig.Poly, max=3)


def test_the_documentation_for_c():
    header = mig.c_header(Store)
    for line in (
        "mach_msg_ool_descriptor_t data;",
        "mach_msg_port_descriptor_t right;",
        "mach_msg_ool_ports_descriptor_t rights;",
        "mach_msg_type_number_t dataCnt;",
        "mach_msg_type_number_t rightsCnt;",
    ):
        assert f"    {line}" in header.splitlines(), header
    text = mig.defs(Store)
    for line in (
        "type ool_array_up_to_1048576_of_uint8_t_t = ^array[*:1048576] of uint8_t;",
        "type ool_array_of_uint8_t_t = ^array[] of uint8_t;",
    ):
        assert line in text.splitlines(), text
    assert "_send_t_t = ^array[*:3] of mach_port_make_send_t;" in text


class TestWhatArrives:
    """What a server answers to requests that no client of its class would send."""

    async def ask(self, descriptors, *counts, message_id=4000):
        counts = counts or (1, 1, 1, 1)
        body = NDR + struct.pack(f"<{len(counts)}I", *counts)
        request = Message(message_id, body, descriptors=descriptors)
        reply = await Store().answer(request)
        code = struct.unpack_from("<i", reply.body, 8)[0] if len(reply.body) == 12 else 0
        assert request.descriptors == tuple(descriptors), "the caller's to close"
        return code

    async def test_lies(self):
        with ReceiveRight.allocate() as port, port.make_send() as send, Memory(1) as memory:
            other = port.make_send()
            rights = RightArray([other], Disposition.MOVE_SEND)
            wrong_kind = RightArray([ReceiveRight.allocate()], Disposition.MOVE_RECEIVE)
            four = RightArray([other] * 4, Disposition.MOVE_SEND)
            null = RightArray([None], Disposition.MOVE_SEND)
            empty = RightArray([], Disposition.MOVE_RECEIVE)
            bad, odd = MigCode.BAD_ARGUMENTS, MigCode.TYPE_ERROR
            for descriptors, counts, code in [
                ((memory, send), (), bad),
                ((memory, send, rights, memory), (), bad),
                ((send, memory, rights), (), odd),
                ((memory, memory, rights), (), odd),
                ((memory, send, memory), (), odd),
                ((rights, send, rights), (), odd),
                ((None, send, rights), (), odd),
                ((memory, send, None), (), odd),
                ((memory, rights, rights), (), odd),
                ((memory, send, wrong_kind), (), odd),
                ((memory, send, null), (), odd),
                ((memory, send, empty), (1, 1, 0, 1), odd),
                ((memory, send, rights), (1, 0, 1, 1), odd),
                ((memory, send, rights), (1, 2, 1, 1), odd),
                ((memory, send, rights), (1, 0xFFFFFFFF, 1, 1), odd),
                ((memory, send, rights), (1, 1, 0, 1), odd),
                ((memory, send, rights), (1, 1, 2, 1), odd),
                ((memory, send, four), (1, 1, 4, 1), bad),
                ((memory, send, rights), (1, 1, 1), bad),
                ((memory, send, rights), (1, 1, 1, 1, 1), bad),
            ]:
                assert await self.ask(descriptors, *counts) == code, (descriptors, counts)
            assert not memory.closed
            other.close()
            wrong_kind.close()

    async def test_more_than_the_bound(self):
        with (
            Memory((1 << 20) + 1) as memory,
            ReceiveRight.allocate() as port,
            port.make_send() as send,
        ):
            empty = RightArray([], Disposition.MOVE_SEND)
            code = await self.ask((memory, send, empty), 1, len(memory), 0, 1)
            assert code == MigCode.BAD_ARGUMENTS

    def test_a_wrong_reply_is_closed(self):
        body = NDR + struct.pack("<III", 3, 0, 9)
        for memory, rights in [(Memory(4), RightArray([])), (Memory(3), Memory(3))]:
            with pytest.raises(machio.MigError, match="TYPE_ERROR"):
                Store.routines["put"].read_reply(Message(4100, body, descriptors=[memory, rights]))
            assert memory.closed


class TestOverTheWire:
    @pytest.fixture
    async def client(self):
        async with machio.Service(port := ReceiveRight.allocate()) as service:
            service.add(Store())
            serving = asyncio.ensure_future(service.serve())
            with port.make_send() as send:
                yield Store.client(send, timeout=10)
            service.stop()
            await serving

    async def test_there_and_back(self, client):
        memory = Memory(100_000)
        with ReceiveRight.allocate() as port:
            back, rights, number = await client.put(1, memory, port, [port, port], 2)
            assert memory.closed
            with back:
                assert bytes(back) == b"!" + bytes(99_999)
            assert number == 3
            assert [type(right) for right in rights] == [SendRight] * 3
            for right in rights:
                assert right.name == port.name
                right.close()
        assert await client.size(b"copied") == 6
        assert await client.size(b"") == 0

    async def test_nulls_where_they_are_welcome(self, client):
        with ReceiveRight.allocate() as port:
            assert await client.onces([port, None, port]) == 2
            assert await client.onces([]) == 0

    async def test_a_failed_routine_keeps_no_memory(self, client):
        with pytest.raises(machio.RoutineError):
            await client.fails(Memory(10))

    async def test_memory_that_nobody_waits_for_any_more_is_freed(self):
        asked, gone = asyncio.Event(), asyncio.Event()
        made = []

        class Slow(Store):
            async def fails(self, data):
                data.close()
                asked.set()
                await gone.wait()
                made.append(Memory(10))
                return made[0]

        async with machio.Service(port := ReceiveRight.allocate()) as service:
            service.add(Slow())
            serving = asyncio.ensure_future(service.serve())
            with port.make_send() as send:
                calling = asyncio.ensure_future(Slow.client(send).fails(b""))
                await asked.wait()
                calling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await calling
                gone.set()
            service.stop()
            await serving
        assert made[0].closed
