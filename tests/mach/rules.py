"""Random operations of several tasks, each a real process, against the model of `model.py`.

    python tests/mach/rules.py [--examples N] [--steps N] [--seed N]

Hypothesis chooses: ports are allocated, rights made, copied, moved, dropped and sent inside each
other, tasks fork and end. After each step every name, reference count and port status must be what
the model says, and at the end every queue must hold just what it says. A failure prints the
shortest sequence found.
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
from collections import Counter
from dataclasses import dataclass

import hypothesis
from child import Child
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import DEAD, QUEUE_LIMIT, Message, Name, Once, Port, Right, World
from replay import NULL, Process, Task, serve_task

from machio._mach import ffi, lib

TASKS, MOST_TASKS = 3, 5
MADE_OF = {"send": ("copy_send", "move_send"), "recv": ("move_recv", "make_send", "make_once")}
CHOICE = st.integers(0, 2**16)


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
        if bits & lib.MACH_PORT_TYPE_DEAD_NAME:
            return DEAD, int(self.refs(name, "deadname")[1])
        held = {"send": bits & lib.MACH_PORT_TYPE_SEND, "recv": bits & lib.MACH_PORT_TYPE_RECEIVE}
        kinds = "+".join(kind for kind, is_held in held.items() if is_held)
        return kinds, int(self.refs(name, "send")[1]) if held["send"] else 0

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


class Machine(RuleBasedStateMachine):
    """The processes, the model, and what may be done."""

    @initialize()
    def begin(self) -> None:
        self.world = World(TASKS)
        self.processes: dict = {
            task: Process(service_name(), kind=Member) for task in self.world.tasks
        }
        self.base: dict = {}
        self.next_id = 100
        for task, process in self.processes.items():
            assert process.do("open_box", process.service) == ["OK"]
            self._allocate(task)
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
        hypothesis.assume(found)
        return found[choice % len(found)]

    def do(self, task, *words: object) -> list:
        answer = self.processes[task].do(*words)
        if words[0] not in ("names", "status"):
            hypothesis.note(f"    {task.letter}: {' '.join(map(str, words))} -> {answer}")
        return answer

    def _allocate(self, task) -> int:
        ok, (_, number) = self.do(task, "alloc", "recv")
        assert ok == "OK"
        task.names[number] = Name(Port(task), receive=True)
        return number

    # --- rules: names ---

    @rule(choice=CHOICE)
    def allocate(self, choice: int) -> None:
        self._allocate(self.choose_task(choice))

    @rule(choice=CHOICE)
    def make_send(self, choice: int) -> None:
        task, number, _ = self.choose(choice, lambda held: held.receive)
        assert self.do(task, "insert", number, number, "make_send") == ["OK"]
        task.give(task.take(number, "make_send"), number)

    @rule(choice=CHOICE)
    def make_once(self, choice: int) -> None:
        task, number, _ = self.choose(choice, lambda held: held.receive)
        ok, (_, name), kind = self.do(task, "extract", number, "make_once")
        assert (ok, kind) == ("OK", "once")
        task.give(task.take(number, "make_once"), name)

    @rule(choice=CHOICE, more=st.integers(1, 3))
    def add_references(self, choice: int, more: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.send)
        assert self.do(task, "modrefs", number, "send", str(more)) == ["OK"]
        held.send += more

    @rule(choice=CHOICE)
    def drop(self, choice: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.send or held.once or held.dead)
        kind = "once" if held.once else "deadname" if held.dead else "send"
        assert self.do(task, "modrefs", number, kind, "-1") == ["OK"]
        if held.dead:
            task.drop_dead(number)
        elif held.once:
            self.world.drop(task.take(number, "move_once"))
        else:
            task.drop_send(number, 1)

    @rule(choice=CHOICE)
    def destroy(self, choice: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.receive)
        assert self.do(task, "modrefs", number, "recv", "-1") == ["OK"]
        port = held.port
        if not held.send:
            task.lose_receive(number)
        held.receive = False
        self.world.kill([port])

    # --- rules: notifications ---

    @rule(choice=CHOICE, to=CHOICE)
    def watch_no_senders(self, choice: int, to: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.receive)
        notify = self._own_port(task, to)
        answer = self.do(task, "notify", number, "no_senders", "0", notify, "make_once")
        port, once = held.port, task.take(notify, "make_once").once
        before, port.no_senders = port.no_senders, None
        if not port.senders:
            once.use("NO_SENDERS", port.make_sends)
        else:
            port.no_senders = once
        self._given_back(task, before, answer)

    @rule(choice=CHOICE, to=CHOICE)
    def watch_death(self, choice: int, to: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.send)
        notify = self._own_port(task, to)
        answer = self.do(task, "notify", number, "dead_name", "0", notify, "make_once")
        before, held.request = held.request, task.take(notify, "make_once").once
        self._given_back(task, before, answer)

    def _own_port(self, task, choice: int) -> int:
        ports = [number for number, held in sorted(task.names.items()) if held.receive]
        hypothesis.assume(ports)
        return ports[choice % len(ports)]

    def _given_back(self, task, once: Once | None, answer: list) -> None:
        """The request that was replaced comes back; a dead one is told as an error."""
        if once is not None and once.port.dead:
            assert answer == ["KERN_INVALID_CAPABILITY"]
            return
        ok, (_, number) = answer
        assert ok == "OK"
        if once is None:
            assert number == NULL
        else:
            task.give(Right("once", once=once), number)

    # --- rules: messages ---

    @rule(choice=CHOICE, cargo=st.lists(st.tuples(CHOICE, CHOICE), max_size=3), reply=CHOICE)
    def send(self, choice: int, cargo: list[tuple[int, int]], reply: int) -> None:
        task, number, held = self.choose(
            choice, lambda held: held.once or (held.port and held.send)
        )
        if held.once:
            port, disposition = held.once.port, "move_once"
        else:
            port, disposition = held.port, "copy_send"
        counted = sum(message.destination.kind == "send" for message in port.queue)
        full = disposition == "copy_send" and port.waiting >= QUEUE_LIMIT
        if full:
            cargo, reply = [], 0
        loaded = self._load(task, number, held, cargo, port)
        answer = self._reply_of(task, number, reply)
        words = [word for name, how in loaded for word in (name, how)]
        got = self.do(task, "send", number, disposition, *answer, str(self.next_id), *words)
        if full and (counted >= QUEUE_LIMIT or got[0] != "OK"):
            # The right comes back as one more reference.
            assert got[0] == "MACH_SEND_TIMED_OUT"
            assert self.do(task, "modrefs", number, "send", "-1") == ["OK"]
            return
        assert got == ["OK"]
        destination = task.take(number, disposition)
        reply_right = task.take(*answer) if answer[0] != NULL else None
        rights = [task.take(name, how) for name, how in loaded]
        port.queue.append(Message(self.next_id, task, destination, reply_right, rights))
        self.next_id += 1

    def _load(self, task, destination: int, held, cargo, port) -> list[tuple[int, str]]:
        """Choose what the message carries: nothing that it takes twice, and no circles."""
        loaded, taken = [], {destination}
        for choice, how in cargo:
            names = sorted(set(task.names) - taken)
            if not names:
                break
            number = names[choice % len(names)]
            entry = task.names[number]
            ways = []
            if entry.once:
                ways = ["move_once"]
            elif entry.dead or entry.send:
                ways = list(MADE_OF["send"])
            if entry.receive:
                moves = port.receiver and entry.port is not port
                ways += MADE_OF["recv"] if moves else MADE_OF["recv"][1:]
            loaded.append((number, ways[how % len(ways)]))
            taken.add(number)
        return loaded

    def _reply_of(self, task, destination: int, choice: int) -> tuple[int, str]:
        names = [n for n, held in sorted(task.names.items()) if held.receive and n != destination]
        if not names or choice % 3 == 0:
            return NULL, "-"
        return names[choice % len(names)], ("make_send", "make_once")[choice % 2]

    @rule(choice=CHOICE)
    def receive(self, choice: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.receive)
        self._receive(task, number, held.port)

    def _receive(self, task, number: int, port: Port) -> bool:
        """Receive one message; False if there was none, which must be right."""
        answer = self.do(task, "recv", number)
        if answer == ["MACH_RCV_TIMED_OUT"]:
            assert not port.queue, "a message is missing"
            assert not port.notes, f"notifications are missing: {port.notes}"
            return False
        assert answer[0] == "OK", answer
        what = answer[1].removeprefix("id=")
        if what.isdigit():
            self._received(task, number, port, int(what), answer)
        else:
            self._notified(port, what, answer)
        return True

    def _notified(self, port: Port, what: str, answer: list) -> None:
        note: tuple = (what,)
        if what == "NO_SENDERS":
            note += (int(answer[-1].strip("[]")),)
        elif what != "SEND_ONCE":
            note += (answer[-1][1],)
        assert port.notes[note], f"{note} was not expected: {port.notes}"
        port.notes -= Counter([note])

    def _received(self, task, number: int, port: Port, id_: int, answer: list) -> None:
        heads = {}
        for message in port.queue[: port.loose or 1]:
            heads.setdefault(message.sender, message)
        expected = {message.id: message for message in heads.values()}
        assert id_ in expected, f"{id_} came, {sorted(expected)} were expected"
        message = expected[id_]
        port.loose = max(0, port.loose - 1)
        port.queue.remove(message)
        dead = self._arrivals(message)
        (_, local, _), (_, remote, _) = answer[3], answer[4]
        assert local == number
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

    # --- rules: processes ---

    @precondition(lambda self: len(self.world.tasks) < MOST_TASKS)
    @rule(choice=CHOICE)
    def fork(self, choice: int) -> None:
        """The child has none of its parent's names; then each gets a right from the other."""
        parent = self.choose_task(choice)
        child = self.world.add_task()
        self.processes[child] = Offspring(self.processes[parent], service_name())
        assert self.do(child, "types", *parent.names) in ([], ["KERN_INVALID_NAME"])
        assert self.do(child, "open_box", self.processes[child].service) == ["OK"]
        self._allocate(child)
        self._give_root(child, parent)
        self._give_root(parent, child)

    @precondition(lambda self: len(self.world.tasks) > 1 and not self._leaves_requests())
    @rule(choice=CHOICE)
    def exit(self, choice: int) -> None:
        task = self.choose_task(choice)
        parents = [p.parent for p in self.processes.values() if isinstance(p, Offspring)]
        hypothesis.assume(self.processes[task] not in parents)
        self.processes.pop(task).end()
        self.world.exit(task)

    def _leaves_requests(self) -> bool:
        """A task's requests that notify a port elsewhere: see DIFFERENCES.md, "Processes"."""
        return any(
            held.request and held.request.port.receiver is not task
            for task in self.world.tasks
            for held in task.names.values()
        )

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
        """Receive all that is there; then there is no more."""
        for task in list(self.world.tasks):
            for number, held in list(task.names.items()):
                while held.receive and self._receive(task, number, held.port):
                    pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100, help="how many sequences")
    parser.add_argument("--steps", type=int, default=40, help="operations in each, at most")
    parser.add_argument("--seed", type=int, help="the same sequences each time")
    parser.add_argument("--first", action="store_true", help="do not look for a shorter failure")
    options = parser.parse_args()
    machine = Machine if options.seed is None else hypothesis.seed(options.seed)(Machine)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=options.examples,
            stateful_step_count=options.steps,
            deadline=None,
            phases=[Phase.generate] if options.first else list(Phase),
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{options.examples} sequences of up to {options.steps} operations agree with the model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
