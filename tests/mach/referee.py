"""The processes and the model side by side: what every machine of rules has.

What was told to a task is told to the model; here is what must then be the same in both.
"""

from __future__ import annotations

import itertools
from collections import Counter

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant
from members import Member, service_name
from model import Message, Name, Port, Right, World
from replay import NULL, Process

TASKS = 3


class NothingFitsError(Exception):
    """What a step would be done to is not there."""


def need(condition: object) -> None:
    if not condition:
        raise NothingFitsError


class Referee(RuleBasedStateMachine):
    """Knows both."""

    @initialize()
    def begin(self) -> None:
        self.world = World(TASKS)
        self.processes: dict = {
            task: Process(service_name(), kind=Member) for task in self.world.tasks
        }
        self.base: dict = {}
        self.backups: dict[Port, Port] = {}  # who gets a port's receive right back
        self.next_id = 100
        for task, process in self.processes.items():
            assert process.do("open_box", process.service) == ["OK"]
            self._allocate(task)
            self._allocate(task)
            self._allocate_set(task)
        for one, other in itertools.permutations(self.world.tasks, 2):
            self._give_root(one, other)

    def _give_root(self, giver, taker) -> None:
        """A send right to a port of the giver's, if it has one, goes where rules do not see it."""
        process, service = self.processes[giver], self.processes[taker].service
        roots = [number for number, held in sorted(giver.names.items()) if held.receive]
        if roots:
            assert process.do("give_to", roots[0], "make_send", service) == ["OK"]
            ok, (_, number) = self.do(taker, "take")
            assert ok == "OK"
            taker.give(giver.take(roots[0], "make_send"), number)
        for task in (giver, taker):
            listed = {name for name, *_ in self.do(task, "names")}
            self.base[task] = listed - set(task.names)

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        try:
            self.drain()
        finally:
            for process in reversed(self.processes.values()):  # children before who forked them
                process.end()

    # --- choosing ---

    def choose_task(self, choice: int):
        return self.world.tasks[choice % len(self.world.tasks)]

    def choose(self, choice: int, accept) -> tuple:
        """Choose a task's name that `accept` likes: the task, the number, what is there."""
        found = [
            (task, number, held)
            for task in self.world.tasks
            for number, held in sorted(task.names.items())
            if accept(held)
        ]
        need(found)
        return found[choice % len(found)]

    def do(self, task, *words: object) -> list:
        answer = self.processes[task].do(*words)
        if words[0] not in ("names", "status", "members"):
            hypothesis.note(f"    {task.letter}: {' '.join(map(str, words))} -> {answer}")
        return answer

    def _ports(self) -> list[Port]:
        """Return the ports whose receive right has a name."""
        tasks = self.world.tasks
        return [held.port for task in tasks for held in task.names.values() if held.receive]

    def _allocate(self, task) -> int:
        ok, (_, number) = self.do(task, "alloc", "recv")
        assert ok == "OK"
        task.names[number] = Name(Port(task), receive=True)
        return number

    def _allocate_set(self, task) -> None:
        ok, (_, number) = self.do(task, "alloc", "set")
        assert ok == "OK"
        task.names[number] = Name(is_set=True)

    def _members(self, task, its_set: int) -> dict[int, Port]:
        return {
            number: held.port
            for number, held in sorted(task.names.items())
            if held.receive and its_set in held.port.sets
        }

    # --- messages that arrive ---

    def _receive(self, task, number: int, ports: dict[int, Port]) -> bool:
        """Receive one message from one of the ports, by the name of its own or of a set that they
        are in; False if there was none, which must be right.
        """
        answer = self.do(task, "recv", number)
        if answer == ["MACH_RCV_TIMED_OUT"] and any(p.notes and p.moved for p in ports.values()):
            answer = self.do(task, "recv_soon", number)  # another task has yet to look
        if answer == ["MACH_RCV_TIMED_OUT"]:
            for port in ports.values():
                assert not port.queue, "a message is missing"
                assert not port.notes, f"notifications are missing: {port.notes}"
            return False
        assert answer[0] == "OK", answer
        what, (_, local, _) = answer[1].removeprefix("id="), answer[3]
        port = ports[local]
        if what.isdigit():
            self._received(task, port, int(what), answer)
        else:
            self._notified(task, port, what, answer)
        self.world.received(port)
        return True

    def _notified(self, task, port: Port, what: str, answer: list) -> None:
        note: tuple = (what,)
        if what == "NO_SENDERS":
            note += (int(answer[-1].strip("[]")),)
        elif what == "PORT_DESTROYED":
            note += tuple(watched for watched, backup in self.backups.items() if backup is port)
        elif what != "SEND_ONCE":
            note += (answer[-1][1],)
        waiting = port.notes if port.notes[note] else port.perhaps
        assert waiting[note], f"{note} was not expected: {port.notes}"
        waiting -= Counter([note])
        if what == "PORT_DESTROYED":
            del self.backups[note[1]]
            task.give(Right("recv", note[1]), answer[-1][1])

    def _received(self, task, port: Port, id_: int, answer: list) -> None:
        heads = {}
        for message in port.queue[: port.loose or 1]:
            heads.setdefault(message.sender, message)
        expected = {message.id: message for message in heads.values()}
        assert id_ in expected, f"{id_} came, {sorted(expected)} were expected"
        message = expected[id_]
        port.loose = max(0, port.loose - 1)
        port.queue.remove(message)
        dead = self._arrivals(message)
        _, remote, _ = answer[4]
        # As Mach does: the destination's right is used up before the others get their names.
        self._use_up(message, port)
        rights = [message.reply, *message.rights]
        names = [remote, *(part[1] for part in answer[6:])]
        assert len(rights) == len(names)
        for right, name, is_dead in zip(rights, names, dead, strict=True):
            if right is None:
                assert name == NULL
            elif is_dead:
                assert name == 0xFFFFFFFF
            else:
                task.give(right, name)

    def _arrivals(self, message: Message) -> list[bool]:
        rights = (message.reply, *message.rights)
        return [right is not None and right.arrives_dead() for right in rights]

    def _use_up(self, message: Message, port: Port) -> None:
        if message.destination.once:
            port.onces -= 1
        else:
            self.world.drop(message.destination)

    # --- what must hold ---

    @invariant()
    def names_agree(self) -> None:
        for task in self.world.tasks:
            listed = {
                name: tuple(rest)
                for name, *rest in self.do(task, "names")
                if name not in self.base[task]
            }
            assert listed == {number: held.summary() for number, held in task.names.items()}

    @invariant()
    def sets_agree(self) -> None:
        for task in self.world.tasks:
            for number, held in task.names.items():
                if held.is_set:
                    assert self.do(task, "members", number) == [*self._members(task, number)]

    @invariant()
    def ports_agree(self) -> None:
        for task in self.world.tasks:
            for number, held in task.names.items():
                if held.receive:
                    self._check_status(task, number, held.port)

    def _check_status(self, task, number: int, port: Port) -> None:
        ok, *pairs = self.do(task, "status", number)
        assert ok == "OK"
        status = {key: int(value) for key, value in (pair.split("=") for pair in pairs)}
        assert status["mscount"] == port.make_sends
        assert status["srights"] == bool(port.senders)
        # Notifications of what happened in other tasks come when somebody looks for them, and
        # messages over send-once rights are not counted once they have moved (DIFFERENCES.md).
        sure = [m for m in port.queue if not port.loose or m.destination.kind == "send"]
        assert len(sure) <= status["msgcount"] <= port.waiting

    def drain(self) -> None:
        """Receive all that is there, and what that brings about; then there is no more."""
        for task in [*self.world.tasks, *self.world.tasks]:
            for number, held in list(task.names.items()):
                while held.receive and self._receive(task, number, {number: held.port}):
                    pass
