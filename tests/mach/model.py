"""What Mach says becomes of rights: a model small enough to be read, for `rules.py`.

The world has tasks; a task has names; a name holds a send right with its references, a receive
right, both, a send-once right, a dead name, or a set. Ports have queues. All that the model leaves
open is the order in which notifications arrive among messages, which member of a set is received
from, and the numbers of names, which it is told.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field

QUEUE_LIMIT = 5
DEAD = "dead"


@dataclass(eq=False)
class Port:
    """A port. `receiver` is the task that holds its receive right, None while that travels."""

    receiver: Task | None
    dead: bool = False
    queue: list[Message] = field(default_factory=list)
    notes: Counter[tuple] = field(default_factory=Counter)  # notifications that wait, unordered
    perhaps: Counter[tuple] = field(default_factory=Counter)  # and such as may be there by now
    make_sends: int = 0
    senders: int = 0  # holders of send rights: names, rights in messages, messages on their way
    onces: int = 0
    no_senders: Once | None = None
    late: Once | None = None  # a no-senders request that came due while the receive right travels
    destroyed: Once | None = None
    sets: set[int] = field(default_factory=set)  # of its receiver's, that it is in
    moved: bool = False
    loose: int = 0  # messages that were there at a move: ordered for each sender only

    @property
    def waiting(self) -> int:
        return len(self.queue) + self.notes.total() + self.perhaps.total()

    @property
    def is_full(self) -> bool:
        return self.waiting >= QUEUE_LIMIT

    def notify(self, *note: object) -> None:
        if not self.dead:
            self.notes[note] += 1

    def now_sure(self, *note: object) -> None:
        """What may have been there is there, unless it was received."""
        if self.perhaps[note]:
            self.perhaps[note] -= 1
            self.notes[note] += 1

    def leave(self) -> None:
        """Be in nobody's hands: what a move resets."""
        self.receiver, self.make_sends, self.loose = None, 0, len(self.queue)
        self.sets.clear()
        self.moved = True


@dataclass(eq=False)
class Once:
    """A send-once right of a port."""

    port: Port

    def use(self, *note: object) -> None:
        """Be a notification."""
        self.port.onces -= 1
        self.port.notify(*note)


@dataclass(eq=False)
class Request:
    """A dead-name request, or a send-possible one, which also tells when there is room."""

    once: Once
    send_possible: bool = False
    armed: bool = False


@dataclass(frozen=True)
class Right:
    """A right that travels: "send" or "recv" of a port, "once", or "dead"."""

    kind: str
    port: Port | None = None
    once: Once | None = None

    def arrives_dead(self) -> bool:
        target = self.once.port if self.once else self.port
        return self.kind == DEAD or (target is not None and target.dead)


@dataclass(eq=False)
class Message:
    id: int
    sender: Task
    destination: Right
    reply: Right | None
    rights: list[Right]


@dataclass(eq=False)
class Name:
    """What a task has under one name."""

    port: Port | None = None
    receive: bool = False
    send: int = 0
    once: Once | None = None
    dead: int = 0
    request: Request | None = None
    is_set: bool = False

    def summary(self) -> tuple[str, int]:
        """Return the kinds of right and the references, as `Task.names` of the processes does."""
        if self.once:
            return "once", 1
        if self.is_set:
            return "set", 0
        if self.dead:
            return DEAD, self.dead
        kinds = "+".join(k for k, held in (("send", self.send), ("recv", self.receive)) if held)
        return kinds, self.send


class Task:
    """A name space."""

    def __init__(self, world: World, letter: str) -> None:
        self.world = world
        self.letter = letter
        self.names: dict[int, Name] = {}

    def find(self, port: Port) -> int | None:
        return next((n for n, held in self.names.items() if held.port is port), None)

    def free(self, number: int) -> None:
        held = self.names.pop(number)
        if held.request:
            held.request.once.use("PORT_DELETED", number)

    # --- rights out of names ---

    def take(self, number: int, disposition: str) -> Right:
        """Take a right as a message does."""
        held = self.names[number]
        if held.dead:
            if disposition.startswith("move"):
                self.drop_dead(number)
            return Right(DEAD)
        if disposition == "move_once":
            once = held.once
            self.free(number)
            return Right("once", once=once)
        port = held.port
        assert port is not None
        if disposition == "make_once":
            port.onces += 1
            return Right("once", once=Once(port))
        if disposition == "move_recv":
            self.lose_receive(number)
            return Right("recv", port)
        port.senders += 1
        if disposition == "make_send":
            port.make_sends += 1
        if disposition == "move_send":
            self.drop_send(number, 1)
        return Right("send", port)

    def lose_receive(self, number: int) -> None:
        held = self.names[number]
        held.receive = False
        assert held.port is not None
        held.port.leave()
        if not held.send:
            self.free(number)

    def drop_send(self, number: int, references: int) -> None:
        held = self.names[number]
        held.send -= references
        if held.send:
            return
        port = held.port
        assert port is not None
        if not held.receive:
            self.free(number)
        self.world.drop(Right("send", port))

    def drop_dead(self, number: int) -> None:
        held = self.names[number]
        held.dead -= 1
        if not held.dead:
            self.free(number)

    # --- rights into names ---

    def give(self, right: Right, number: int) -> None:
        """Put a living right under the name that it was seen to get."""
        if right.once:
            assert number not in self.names, "a send-once right gets a name of its own"
            self.names[number] = Name(once=right.once)
            return
        port = right.port
        assert port is not None
        known = self.find(port)
        if known is None:
            assert number not in self.names, "the name is in use"
            known = number
            self.names[number] = Name(port)
        assert known == number, "one port, one name"
        held = self.names[number]
        if right.kind == "recv":
            held.receive = True
            port.receiver = self
            if port.late:
                port.late.port.now_sure("NO_SENDERS", 0)
                port.late = None
        else:
            if held.send:
                port.senders -= 1  # the name is one holder, however many references
            held.send += 1


class World:
    """All tasks and what happens between them."""

    def __init__(self, tasks: int) -> None:
        self.tasks: list[Task] = []
        self.letters = itertools.count(ord("A"))
        for _ in range(tasks):
            self.add_task()

    def add_task(self) -> Task:
        task = Task(self, chr(next(self.letters)))
        self.tasks.append(task)
        return task

    def drop(self, right: Right) -> None:
        """Destroy a right that no name holds."""
        if right.kind == "once":
            assert right.once is not None
            right.once.use("SEND_ONCE")
        elif right.kind == "recv":
            assert right.port is not None
            self.kill([right.port])
        elif right.kind == "send":
            port = right.port
            assert port is not None
            port.senders -= 1
            if not port.senders and port.no_senders and not port.dead:
                port.no_senders, request = None, port.no_senders
                if port.receiver:
                    request.use("NO_SENDERS", port.make_sends)
                else:  # who has the message that it is in may not look: see DIFFERENCES.md
                    request.port.perhaps["NO_SENDERS", 0] += 1
                    port.late = request

    def destroy(self, message: Message, killed: list[Port]) -> None:
        for right in (message.destination, message.reply, *message.rights):
            if right is None:
                continue
            if right.kind == "recv":
                assert right.port is not None
                killed.append(right.port)
            elif right is not message.destination or right.kind == "send":
                self.drop(right)

    def kill(self, killed: list[Port]) -> None:
        """Ports die: what they had queued is destroyed, whoever waited for it is told."""
        while killed:
            port = killed.pop(0)
            backup, port.destroyed = port.destroyed, None
            port.leave()
            if backup and not backup.port.dead:
                backup.use("PORT_DESTROYED", port)
                continue
            port.dead = True
            killed += [note[1] for note in port.notes if note[0] == "PORT_DESTROYED"]
            port.notes.clear()
            port.perhaps.clear()
            if port.late:
                port.late.port.perhaps["SEND_ONCE",] += 1
            queue, port.queue = port.queue, []
            for message in queue:
                self.destroy(message, killed)
            if port.no_senders:
                port.no_senders.use("SEND_ONCE")
                port.no_senders = None
            for task in self.tasks:
                for number, held in list(task.names.items()):
                    if held.port is port or (held.once and held.once.port is port):
                        self.bury(number, held)

    def bury(self, number: int, held: Name) -> None:
        """A name's port died."""
        held.dead = 1 if held.once else held.send
        held.send, held.port, held.once = 0, None, None
        if held.request:
            held.dead += 1
            held.request.once.use("DEAD_NAME", number)
            held.request = None

    def armed(self, port: Port) -> list[tuple[Task, int, Name]]:
        """Who is to be told when the port has room."""
        return [
            (task, number, held)
            for task in self.tasks
            for number, held in task.names.items()
            if held.port is port and held.request and held.request.armed
        ]

    def received(self, port: Port) -> None:
        """A message was taken off the port's queue."""
        if port.is_full:
            return
        for _, number, held in self.armed(port):
            request, held.request = held.request, None
            assert request is not None
            request.once.use("SEND_POSSIBLE", number)

    def exit(self, task: Task) -> None:
        """A task ends with everything it holds."""
        self.tasks.remove(task)
        names, task.names = task.names, {}
        for held in names.values():
            if held.receive:
                assert held.port is not None
                self.kill([held.port])
        for held in names.values():
            if held.request:
                held.request.once.port.onces -= 1
            if held.send:
                assert held.port is not None
                self.drop(Right("send", held.port))
            if held.once:
                held.once.use("SEND_ONCE")
