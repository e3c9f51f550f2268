"""Typed routines in MIG's wire format: one class is the client, the server and the documentation.

::

    Name = Annotated[str, mig.CString(max=128)]

    class Greeter(mig.Subsystem, base=6000):
        @mig.routine
        def greet(self, name: Name) -> Name:
            "Return a greeting."
            return f"Hello, {name}!"

    # server                                            # client
    async with machio.Service("org.example") as service:  greeter = Greeter.client(right)
        service.add(Greeter())                          print(await greeter.greet("Ada"))
        await service.serve()

The other side may as well be C made by Apple's MIG: `defs` prints the .defs file of a subsystem,
`c_header` the structures of its messages.

Types: `int8` to `uint64`, `float32`, `float64`, `boolean`; `Annotated[..., mig.CString(128)]`, and
in the same way `CString(max=128)`, `Array(mig.int32, 4)`, `Array(mig.int32, max=4)`, `Bytes(16)`,
`Bytes(max=4096)`; a class derived from `Struct`; and for rights `MoveSend`, `CopySend`, `MakeSend`,
`MoveSendOnce`, `MakeSendOnce`, `MoveReceive`, `Poly`, with `| None` where a null or dead right is
welcome, and `Rights(mig.CopySend, 2)`. What is large goes out of line: `OutOfLine()` brings a
`Memory`, `Rights(mig.CopySend, max=1000)` a list. Several results are a `tuple[...]`.

A routine that awaits nothing is a plain ``def``, which a server runs right where the request
arrives; any other is an ``async def``. To the client both are coroutines.

Who owns a right or memory: the client gives it as the type says once the request is sent. On the
server the routine owns what arrives if it returns, and what it returns goes to the client; if it
raises, all is closed.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from ._migdescriptors import OutOfLine, Port, Rights
from ._migdocs import c_header, defs
from ._migtypes import Array, Boolean, Bytes, CString, Kind, Number, Struct
from ._subsystem import Subsystem, routine, simpleroutine
from .errors import RoutineError
from .messages import Disposition
from .ports import ReceiveRight, SendOnceRight, SendRight

int8 = Annotated[int, Number("int8_t", "b")]
int16 = Annotated[int, Number("int16_t", "h")]
int32 = Annotated[int, Number("int32_t", "i")]
int64 = Annotated[int, Number("int64_t", "q")]
uint8 = Annotated[int, Number("uint8_t", "B")]
uint16 = Annotated[int, Number("uint16_t", "H")]
uint32 = Annotated[int, Number("uint32_t", "I")]
uint64 = Annotated[int, Number("uint64_t", "Q")]
float32 = Annotated[float, Number("float", "f")]
float64 = Annotated[float, Number("double", "d")]
boolean = Annotated[bool, Boolean()]

MoveSend = Annotated[SendRight, Port(Disposition.MOVE_SEND)]
CopySend = Annotated[SendRight, Port(Disposition.COPY_SEND)]
MoveSendOnce = Annotated[SendOnceRight, Port(Disposition.MOVE_SEND_ONCE)]
MoveReceive = Annotated[ReceiveRight, Port(Disposition.MOVE_RECEIVE)]
# A receive right is given, and a right made from it arrives: no one class is both.
MakeSend: TypeAlias = Annotated[Any, Port(Disposition.MAKE_SEND)]
MakeSendOnce: TypeAlias = Annotated[Any, Port(Disposition.MAKE_SEND_ONCE)]
# A pair of right and disposition is given, and any right arrives.
Poly: TypeAlias = Annotated[Any, Port(None)]

__all__ = [
    "Array",
    "Bytes",
    "CString",
    "CopySend",
    "Kind",
    "MakeSend",
    "MakeSendOnce",
    "MoveReceive",
    "MoveSend",
    "MoveSendOnce",
    "OutOfLine",
    "Poly",
    "Rights",
    "RoutineError",
    "Struct",
    "Subsystem",
    "boolean",
    "c_header",
    "defs",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "routine",
    "simpleroutine",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]
