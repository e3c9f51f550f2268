"""Memory for what is too large for a message's body: it travels by reference.

::

    memory = machio.Memory(width * height * 4)
    with memory.view as view:
        camera.readinto(view)
    await right.send(machio.Message(FRAME, header, memory=[memory]))  # empties `memory`

    with await port.receive() as message:
        frame = numpy.frombuffer(message.memory[0].view, numpy.uint8)

The receiver gets pages of its own, to read and to write: a page is copied when it is written to,
and nothing that the sender does later shows in them. How much is copied on the way is told in
docs/memory.md.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from typing import Any, Self

from . import _ffi
from ._closable import Closable
from .errors import MemoryClosedError, UsageError
from .messages import MEMORY_MAX, Payload


class _Fate:
    """What becomes of pages when nothing that can reach them is left: they go, or are given on."""

    __slots__ = ("_address", "_size", "kept")

    def __init__(self, address: int, size: int) -> None:
        self._address, self._size = address, size
        self.kept = False

    def __call__(self, _pages: object) -> None:
        if not self.kept:
            with contextlib.suppress(AttributeError, TypeError):  # the interpreter is going down
                _ffi.free_memory(self._address, self._size)


class Memory(Payload, Closable):
    """Pages that this process owns: `size` bytes, zeros at first, 0 to 4 GiB - 1.

    A message gives it away, which empties the object; `close`, a with statement and the message
    that brought it free it. A forgotten one warns. Views keep the pages: closed memory is freed
    when the last of them goes, and what has views cannot be given away. In a forked child the
    object has a view of its own: writing there changes nothing here.

    Raises UsageError for another size, KernError if there is no memory, or on Linux no file
    descriptor, of which it takes one. Mach: mach_vm_allocate.
    """

    # `_pages` is what every view holds on to. Who frees or gives away the memory lets go of it and
    # then looks whether that was the last hold: so no view can ever outlive its pages.
    __slots__ = ("__weakref__", "_address", "_fate", "_pages", "_size")

    def __init__(self, size: int) -> None:
        self._pages: Any = None
        if not 0 <= size <= MEMORY_MAX:
            raise UsageError(f"memory of {size} bytes; a message carries 0 to {MEMORY_MAX}")
        self._begin(_ffi.allocate_memory(size), size)

    @classmethod
    def adopt(cls, address: int, size: int) -> Self:
        """Take over pages, of received out-of-line memory say, which are the object's now.

        address: of the first page. size: in bytes. Mach: vm_deallocate frees them.
        """
        made = cls.__new__(cls)
        made._begin(address, size)  # noqa: SLF001 - it is of this class
        return made

    def _begin(self, address: int, size: int) -> None:
        self._size = size
        self._own(address)

    def _own(self, address: int) -> None:
        self._address = address
        self._fate = _Fate(address, self._size)
        self._pages = _ffi.pages(address, self._fate)

    @property
    def view(self) -> memoryview:
        """A new view of all bytes, writable. Raises MemoryClosedError.

        Also what `memoryview(memory)` gives from Python 3.12 on, and so NumPy's `frombuffer`.
        """
        return _ffi.view(self._held(), self._size)

    def __buffer__(self, flags: int, /) -> memoryview:
        return self.view

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def __len__(self) -> int:
        return self._size

    @property
    def closed(self) -> bool:
        """True once the memory was closed, given away or released."""
        return self._pages is None

    def _held(self) -> Any:
        pages = self._pages
        if pages is None:
            raise MemoryClosedError("this Memory holds no pages any more")
        return pages

    def release(self) -> int:
        """Empty the object and return the address of the pages, which now belong to the caller.

        Free them by vm_deallocate. Raises MemoryClosedError, and UsageError while a view exists:
        then nothing has changed.
        """
        hold = weakref.ref(self._held())
        self._fate.kept = True
        self._pages = None
        pages = hold()
        if pages is not None:
            self._fate.kept = False
            self._pages = pages
            raise UsageError(
                f"{self!r} has views, which would outlive it; release them (NumPy: del) first"
            )
        return self._address

    def restore(self, address: int) -> None:
        """Put pages back into an emptied object, which owns them again; inverse of `release`.

        Raises ValueError if it holds some already.
        """
        if not self.closed:
            raise ValueError(f"{self!r} holds pages already")
        self._own(address)

    def close(self) -> None:
        """Free the pages, or leave that to the last view of them. Idempotent."""
        self._pages = None

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, TypeError):  # the interpreter is going down
            if not self.closed:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=1, source=self)
                self.close()

    def __repr__(self) -> str:
        return f"<Memory {'closed' if self.closed else f'{self._size} bytes'}>"
