"""Write inputs from which fuzzing starts: well-formed messages of every shape.

    python tests/fuzz/seeds.py FOLDER

The format is in decode.c, that of a frame in docs/linux-wire.md.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from pathlib import Path

MAGIC, VERSION, NONE = 0x6863616D, 4, 0xFFFF
RX, TX, CR, CW, RX2, TX2, CR2, CW2, OWN_TX, OWN_CR, ONCE, HOME, ONCE2, HOME2, SEALED = range(15)
BUNDLE, REST, HEAP, HEAP2, FILE, EMPTY_FILE, OPEN_FILE, BODY = range(17, 25)
COMPLEX, NO_CREDIT, VIA_ONCE, MEMFD, RELAYED, BUNDLES, HEAPED = 1, 2, 4, 8, 16, 32, 64
AS_TASK = 20


def right(kind: int, *fds: int, disposition: int = 0, extra: int = 0) -> bytes:
    fds = (*fds, NONE, NONE, NONE)[:3]
    return struct.pack("=BB3HHH", kind, disposition, *fds, extra, 0)


def receive(
    homes: tuple[int, int] = (0, 0), no_senders: int = NONE, destroyed: int = NONE
) -> bytes:
    flags = 1 | 2 * (no_senders != NONE) | 4 * (destroyed != NONE)
    return struct.pack("=IIIHHHHI", 5, 5, 0, *homes, no_senders, destroyed, flags)


def memory(size: int, copy: int = 1) -> bytes:
    """Return a descriptor of out-of-line memory."""
    return struct.pack("=QBBBBI", 0, 0, copy, 0, 1, size)


def array(count: int, disposition: int) -> bytes:
    """Return a descriptor of an array of ports."""
    return struct.pack("=QBBBBI", 0, 0, 1, disposition, 2, count)


def message(
    kinds: tuple[int, ...] = (),
    rights: tuple[bytes, ...] = (),
    receives: tuple[bytes, ...] = (),
    reply: bytes = right(0),
    flags: int = 0,
    data: bytes = b"12345678",
    fds: int | None = None,
    descriptors: tuple[bytes, ...] | None = None,
) -> bytes:
    """Return an input; each right has a port descriptor unless there are others."""
    body = data
    if descriptors is None:
        descriptors = (bytes(12),) * len(rights)
    if descriptors:
        flags |= COMPLEX
        body = struct.pack("=I", len(descriptors)) + b"".join(descriptors) + data
    frame = struct.pack(
        "=IHBBIiIHHHH",
        MAGIC,
        VERSION,
        1,
        flags,
        24 + len(body),
        77,
        0,
        1 + len(rights),
        len(receives),
        len(kinds) if fds is None else fds,
        0,
    )
    frame += reply + b"".join(rights) + b"".join(receives) + (b"" if flags & MEMFD else body)
    return bytes((len(kinds), *kinds)) + frame


def seeds() -> list[bytes]:
    send, once = right(2, 0, 1), right(3, 0)
    found = [
        message(),
        message(data=b""),
        message(flags=NO_CREDIT | VIA_ONCE),
        message(flags=RELAYED),
        message(data=bytes(3600)),
        message((SEALED,), flags=MEMFD),
        message((TX, CR), (send,)),
        message((TX, CR), (send, send, send)),
        message((TX, CR), reply=send),
        message((TX, CR, TX2, CR2), (send, right(2, 2, 3))),
        message((TX, CR2), (send,)),
        message((OWN_TX, OWN_CR), (send,)),
        message((ONCE,), (once,)),
        message((ONCE,), reply=once),
        message((ONCE, ONCE2), (once, right(3, 1))),
        message((RX, TX, CW), (right(4, 0, 1, 2),), (receive(),)),
        message((RX, TX, CW, HOME), (right(4, 0, 1, 2),), (receive(homes=(3, 1)),)),
        message((RX, TX, CW, ONCE), (right(4, 0, 1, 2),), (receive(no_senders=3),)),
        message((RX, TX, CW, ONCE), (right(4, 0, 1, 2),), (receive(destroyed=3),)),
        message((RX, TX, CW, CR), (right(4, 0, 1, 2), right(2, 1, 3)), (receive(),)),
        message(
            (RX, TX, CW, RX2, TX2, CW2),
            (right(4, 0, 1, 2), right(4, 3, 4, 5, extra=1)),
            (receive(), receive()),
        ),
        message((), (right(1, disposition=17), right(0, disposition=18))),
        message(
            (BUNDLE, REST),
            tuple(right(2, 2 * place, 2 * place + 1) for place in range(127)),
            flags=BUNDLES,
            fds=254,
        ),
    ]
    file = right(5, 0)
    found += [
        message((FILE,), (file,)),
        message((FILE,), (file, file)),
        message((EMPTY_FILE,), (file,)),
        message((OPEN_FILE,), (file,)),
        message((FILE,), reply=file),
        message((FILE, TX, CR), (file, right(2, 1, 2)), descriptors=(array(2, 17),)),
        message((HEAP,), flags=HEAPED, descriptors=(memory(100),)),
        message((HEAP2,), flags=HEAPED, descriptors=(memory(8192, copy=0),)),
        message((HEAP2,), flags=HEAPED, descriptors=(memory(1), memory(0), memory(4096))),
        message((FILE, HEAP), (file,), flags=HEAPED, descriptors=(bytes(12), memory(4096))),
        message((HEAP,), flags=HEAPED, descriptors=(memory(8192),)),
        message((BODY,), flags=MEMFD),
        message((BODY,), flags=MEMFD | COMPLEX),
        message((BODY,), flags=MEMFD, data=bytes(9000)),
        message((SEALED, HEAP), flags=MEMFD | HEAPED, descriptors=(memory(7),)),
        message((ONCE, ONCE2), (once, right(3, 1)), descriptors=(array(2, 18),)),
        message((RX, TX, CW), (right(4, 0, 1, 2),), (receive(),), descriptors=(array(1, 16),)),
        message((), (), descriptors=(array(0, 17),)),
    ]
    found += [bytes((seed[0] + AS_TASK,)) + seed[1:] for seed in found]
    signals = [struct.pack("=IHBBIiIHHHH", MAGIC, VERSION, kind, *[0] * 8) for kind in (2, 3, 4, 5)]
    return found + [b"\0" + signal for signal in signals] + cut(found[6])


def cut(seed: bytes) -> list[bytes]:
    """Return some beginnings of an input."""
    return [seed[:length] for length in range(1, len(seed), 17)]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (folder / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    main()
