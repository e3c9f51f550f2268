"""The names that a bootstrap server keeps, and what stands behind them. No loop, no messages.

A name is checked in or registered by the process that receives: then the registry has a send right,
and the name ends with the port. Or it is declared (bootstrap_create_service): then the registry
keeps the receive right too, messages queue, and whoever checks in next is given it. When that port
dies or the right comes back, a declared name goes on: it ends with the task that declared it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from .codes import BootstrapCode
from .errors import MachError
from .ports import ReceiveRight, SendRight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How much of the limit on names one takes, by the descriptors that it may cost: two for a send
# right; four for a port whose receive right is here and two for the task that declared it.
PLAIN, DECLARED = 1, 3
MOST = 8192
MOST_OF_ONE = 1024


class RequestId(IntEnum):
    """What a client can ask for; the reply's id is REPLY more."""

    CHECK_IN = 11001
    REGISTER = 11002
    LOOK_UP = 11003
    LIST = 11004
    CREATE_SERVICE = 11005
    STATUS = 11006


@dataclass(frozen=True, slots=True)
class Declaration:
    """Which task declared a name: a send right to its task port, and its pid."""

    task: SendRight
    pid: int


@dataclass(slots=True)
class Service:
    """A name's port, and who gave it the name."""

    right: SendRight
    owner: int  # pid, attested by the kernel; 0 for a process of another pid namespace
    made_by: RequestId
    declaration: Declaration | None = None
    kept: ReceiveRight | None = None  # declared, and not checked in

    def close_port(self) -> None:
        """Give up what there is of the port; the declaration stays."""
        self.right.close()
        if self.kept is not None:
            self.kept.close()
            self.kept = None

    def close(self) -> None:
        """Give all rights up."""
        self.close_port()
        if self.declaration is not None:
            self.declaration.task.close()

    @property
    def weight(self) -> int:
        """What it takes of the limit on names."""
        return PLAIN if self.declaration is None else DECLARED


class Registry:
    """Names and their rights, which it owns.

    watch: called with the name of each right whose death has to be told, by `drop_port`. Raises
    MachError if it is dead by now.
    """

    def __init__(
        self,
        most: int = MOST,
        most_of_one: int = MOST_OF_ONE,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        self._services: dict[bytes, Service] = {}
        self._most = most
        self._most_of_one = most_of_one
        self._watcher = watch

    def __len__(self) -> int:
        return len(self._services)

    def add(self, name: bytes, right: SendRight, owner: int, made_by: RequestId) -> int:
        """Give a name to a port. Returns 0, or a code of 1100..1105.

        A name that is declared and not checked in gets this port instead of the one kept for it.
        Ownership: the right is consumed on success and stays the caller's otherwise.
        """
        known = self._get(name)
        if known is None:
            service = Service(right, owner, made_by)
            if code := self._refusal(service):
                return code
        elif known.kept is None:
            return self._taken(known, owner)
        else:
            service = Service(right, owner, made_by, known.declaration)
        try:
            self._watch(right.name)
        except MachError:
            return BootstrapCode.NO_MEMORY
        if known is not None:
            known.close_port()
        self._services[name] = service
        return 0

    def declare(self, name: bytes, task: SendRight, owner: int) -> int:
        """Make a port for a name that ends with `task`. Returns 0, or a code of 1100..1105.

        Ownership: the right is consumed on success and stays the caller's otherwise.
        """
        known = self._get(name)
        if known is not None:
            return self._taken(known, owner)
        try:
            service = self._new_service(Declaration(task, owner))
        except MachError:
            return BootstrapCode.NO_MEMORY
        code = self._refusal(service)
        try:
            if not code:
                self._watch(task.name)
        except MachError:
            code = BootstrapCode.NO_MEMORY
        if code:
            service.close_port()
        else:
            self._services[name] = service
        return code

    def withdraw(self, name: bytes, owner: int) -> None:
        """Forget a name that this process declared and nobody has checked in."""
        known = self._get(name)
        if known is not None and known.kept is not None and self._is_mine(known, owner):
            self._services.pop(name).close()

    def look_up(self, name: bytes) -> SendRight | None:
        """Return the right of a name, which stays the registry's, or None."""
        known = self._get(name)
        return None if known is None else known.right

    def kept(self, name: bytes) -> ReceiveRight | None:
        """Return the receive right that waits for a check-in of this name, or None.

        It stays the registry's; who has moved it away calls `was_checked_in`.
        """
        known = self._get(name)
        return None if known is None else known.kept

    def was_checked_in(self, name: bytes, owner: int) -> None:
        """Take note that the kept receive right has gone to a process."""
        known = self._services[name]
        known.kept, known.owner, known.made_by = None, owner, RequestId.CHECK_IN

    def take_back(self, port: ReceiveRight) -> bool:
        """Keep a receive right that comes back, with its queue, for the next check-in.

        Ownership: consumed if True; of any other port it stays the caller's.
        """
        for known in self._services.values():
            if known.right.name == port.name and known.declaration is not None:
                known.kept = port
                known.owner, known.made_by = known.declaration.pid, RequestId.CREATE_SERVICE
                return True
        return False

    def drop_port(self, port: int) -> list[bytes]:
        """Take note that a port or a task has died, and return the names that ended with it."""
        services = list(self._services.items())
        gone = [name for name, known in services if self._ends(name, known, port)]
        for name in gone:
            self._services.pop(name).close()
        return gone

    def after(self, name: bytes) -> Iterator[tuple[bytes, Service]]:
        """Go through the names that sort after this one, in order."""
        for known in sorted(other for other in self._services if other > name):
            yield known, self._services[known]

    def close(self) -> None:
        """Give all rights up."""
        while self._services:
            self._services.popitem()[1].close()

    def _get(self, name: bytes) -> Service | None:
        # The news of a death may still stand in the queue behind this request: ask the kernel.
        known = self._services.get(name)
        if known is not None and known.declaration is not None and known.declaration.task.is_dead:
            self.drop_port(known.declaration.task.name)
            known = self._services.get(name)
        if known is not None and known.right.is_dead:
            self.drop_port(known.right.name)
            known = self._services.get(name)
        return known

    def _watch(self, name: int) -> None:
        if self._watcher is not None:
            self._watcher(name)

    def _refusal(self, service: Service) -> int:
        """Return 0 if there is room for one more."""
        all_others = of_one = service.weight
        for other in self._services.values():
            weight = other.weight
            all_others += weight
            if other.owner == service.owner:
                of_one += weight
        if all_others > self._most or of_one > self._most_of_one or service.right.is_dead:
            return BootstrapCode.NO_MEMORY
        return 0

    def _new_service(self, declaration: Declaration) -> Service:
        """Make a port for a declared name. Raises MachError."""
        port = ReceiveRight.allocate()
        try:
            right = port.make_send()
            try:
                self._watch(right.name)
            except MachError:
                right.close()
                raise
        except MachError:
            port.close()
            raise
        made_by = RequestId.CREATE_SERVICE
        return Service(right, declaration.pid, made_by, declaration, port)

    def _ends(self, name: bytes, known: Service, died: int) -> bool:
        """Return whether a name ends by the death of this port or task."""
        if known.declaration is not None and known.declaration.task.name == died:
            known.declaration.task.close()
            known.declaration = None
            if known.kept is not None:
                return True
        if known.right.name != died:
            return False
        return known.declaration is None or not self._renew(name, known, known.declaration)

    def _renew(self, name: bytes, known: Service, declaration: Declaration) -> bool:
        """Give a declared name whose port has died a new one."""
        try:
            self._services[name] = self._new_service(declaration)
        except MachError:
            return False
        known.close_port()
        return True

    @staticmethod
    def _is_mine(known: Service, owner: int) -> bool:
        # Who is pid 0 cannot be told from another pid 0.
        return owner != 0 and known.owner == owner

    def _taken(self, known: Service, owner: int) -> int:
        mine = self._is_mine(known, owner)
        return BootstrapCode.SERVICE_ACTIVE if mine else BootstrapCode.NOT_PRIVILEGED
