"""The tasks that `rules.py` plays with: real processes, which do what they are told."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from child import Child
from model import DEAD
from replay import Process, Task, serve_task

from machio._mach import ffi, lib


class Member(Task):
    """A task that can also list its names, and fork."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Child] = []

    def names(self) -> list:
        names, types = ffi.new("mach_port_name_array_t *"), ffi.new("mach_port_type_array_t *")
        counts = ffi.new("mach_msg_type_number_t[2]")
        if kr := lib.mach_port_names(self.me, names, counts, types, counts + 1):
            return [self.code(kr)]
        found = [
            [name, *self._summary(name, kind)]
            for name, kind in zip(names[0][0 : counts[0]], types[0][0 : counts[1]], strict=True)
        ]
        for array, count in ((names[0], counts[0]), (types[0], counts[1])):
            lib.vm_deallocate(self.me, int(ffi.cast("uintptr_t", array)), count * 4)
        return found

    def _summary(self, name: int, bits: int) -> tuple[str, int]:
        if bits & lib.MACH_PORT_TYPE_SEND_ONCE:
            return "once", 1
        if bits & lib.MACH_PORT_TYPE_PORT_SET:
            return "set", 0
        if bits & lib.MACH_PORT_TYPE_DEAD_NAME:
            return DEAD, int(self.refs(name, "deadname")[1])
        held = {"send": bits & lib.MACH_PORT_TYPE_SEND, "recv": bits & lib.MACH_PORT_TYPE_RECEIVE}
        kinds = "+".join(kind for kind, is_held in held.items() if is_held)
        return kinds, int(self.refs(name, "send")[1]) if held["send"] else 0

    def members(self, name: int) -> list:
        found, count = ffi.new("mach_port_name_array_t *"), ffi.new("mach_msg_type_number_t *")
        if kr := lib.mach_port_get_set_status(self.me, name, found, count):
            return [self.code(kr)]
        members = list(found[0][0 : count[0]])
        lib.vm_deallocate(self.me, int(ffi.cast("uintptr_t", found[0])), count[0] * 4)
        return members

    def recv_soon(self, name: int) -> list:
        return self.recv(name, 5000)

    def send_notify(self, *words: object) -> list:
        """Send as `send`, with MACH_SEND_NOTIFY."""
        self.options |= lib.MACH_SEND_NOTIFY
        try:
            return self.send(*words)
        finally:
            self.options &= ~lib.MACH_SEND_NOTIFY

    def fork(self) -> list:
        """Fork a task that lives on; what it is to do comes through this one."""
        self.children.append(Child(serve_task, Member))
        return ["OK", len(self.children) - 1]

    def relay(self, child: int, *words: object) -> list:
        return self.children[child].ask(words)

    def end_child(self, child: int) -> list:
        return ["OK", self.children[child].end()]

    def types(self, *names: int) -> list:
        return sorted({self.type(name)[0] for name in names})


@dataclass(eq=False)
class Offspring:
    """A task that another one has forked."""

    parent: Process | Offspring
    service: str

    def __post_init__(self) -> None:
        ok, self.number = self.parent.do("fork")
        assert ok == "OK"

    def do(self, *words: object) -> list:
        return self.parent.do("relay", self.number, *words)

    def end(self) -> None:
        assert self.parent.do("end_child", self.number) == ["OK", 0]


def service_name() -> str:
    return f"rules.{secrets.token_hex(8)}"
