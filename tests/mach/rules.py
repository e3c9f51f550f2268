"""Random operations of several tasks, each a real process, against the model of `model.py`.

    python tests/mach/rules.py [--examples N] [--steps N] [--seed N]

Hypothesis chooses: ports and sets are allocated, rights made, copied, moved, dropped and sent
inside each other, notifications of each kind asked for, tasks fork and end. After each step every
name, reference count, member of a set and port status must be what the model says, and at the end
every queue must hold just what it says. A failure prints the shortest sequence found.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from members import Offspring, service_name
from model import QUEUE_LIMIT, Message, Name, Once, Port, Request, Right
from referee import NothingFitsError, Referee, need
from replay import NULL

MOST_TASKS = 5
MADE_OF = {"send": ("copy_send", "move_send"), "recv": ("move_recv", "make_send", "make_once")}
CHOICE = st.integers(0, 2**16)


def step(**choices: st.SearchStrategy) -> Callable:
    """Make a rule that does nothing where nothing fits; `hypothesis.assume` ends the sequence."""

    def decorate(function: Callable[..., None]) -> Callable:
        @functools.wraps(function)
        def attempt(self: Machine, **chosen: object) -> None:
            with contextlib.suppress(NothingFitsError):
                function(self, **chosen)

        return rule(**choices)(attempt)

    return decorate


class Machine(Referee):
    """What may be done."""

    # --- rules: names ---

    @step(choice=CHOICE)
    def allocate(self, choice: int) -> None:
        self._allocate(self.choose_task(choice))

    @step(choice=CHOICE)
    def make_send(self, choice: int) -> None:
        task, number, _ = self.choose(choice, lambda held: held.receive)
        assert self.do(task, "insert", number, number, "make_send") == ["OK"]
        task.give(task.take(number, "make_send"), number)

    @step(choice=CHOICE)
    def make_once(self, choice: int) -> None:
        task, number, _ = self.choose(choice, lambda held: held.receive)
        ok, (_, name), kind = self.do(task, "extract", number, "make_once")
        assert (ok, kind) == ("OK", "once")
        task.give(task.take(number, "make_once"), name)

    @step(choice=CHOICE, more=st.integers(1, 3))
    def add_references(self, choice: int, more: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.send)
        assert self.do(task, "modrefs", number, "send", str(more)) == ["OK"]
        held.send += more

    @step(choice=CHOICE)
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

    @step(choice=CHOICE)
    def destroy(self, choice: int) -> None:
        need(len(self._ports()) > len(self.world.tasks))
        self._destroy(*self.choose(choice, lambda held: held.receive))

    @step(choice=CHOICE)
    def destroy_one_with_a_backup(self, choice: int) -> None:
        self._destroy(*self.choose(choice, lambda held: held.receive and held.port.destroyed))

    def _destroy(self, task, number: int, held: Name) -> None:
        assert self.do(task, "modrefs", number, "recv", "-1") == ["OK"]
        task.lose_receive(number)
        self.world.kill([held.port])

    # --- rules: sets ---

    @step(choice=CHOICE)
    def allocate_set(self, choice: int) -> None:
        self._allocate_set(self.choose_task(choice))

    def _choose_member(self, choice: int, to: int) -> tuple:
        """Choose a receive right, and a set of the same task."""
        task, number, held = self.choose(choice, lambda held: held.receive)
        sets = [name for name, other in sorted(task.names.items()) if other.is_set]
        need(sets)
        return task, number, held.port, sets[to % len(sets)]

    @step(choice=CHOICE, to=CHOICE)
    def join(self, choice: int, to: int) -> None:
        task, number, port, its_set = self._choose_member(choice, to)
        answer = "KERN_ALREADY_IN_SET" if its_set in port.sets else "OK"
        assert self.do(task, "insmember", number, its_set) == [answer]
        port.sets.add(its_set)

    @step(choice=CHOICE, to=CHOICE)
    def leave(self, choice: int, to: int) -> None:
        task, number, port, its_set = self._choose_member(choice, to)
        answer = "OK" if its_set in port.sets else "KERN_NOT_IN_SET"
        assert self.do(task, "extmember", number, its_set) == [answer]
        port.sets.discard(its_set)

    @step(choice=CHOICE, to=CHOICE)
    def move_member(self, choice: int, to: int) -> None:
        task, number, port, its_set = self._choose_member(choice, to)
        assert self.do(task, "member", number, its_set) == ["OK"]
        port.sets = {its_set}

    @step(choice=CHOICE)
    def destroy_set(self, choice: int) -> None:
        task, number, _ = self.choose(choice, lambda held: held.is_set)
        assert self.do(task, "modrefs", number, "set", "-1") == ["OK"]
        for port in self._members(task, number).values():
            port.sets.discard(number)
        task.free(number)

    @step(choice=CHOICE)
    def receive_from_set(self, choice: int) -> None:
        task, number, _ = self.choose(choice, lambda held: held.is_set)
        members = self._members(task, number)
        need(not any(map(self._is_unsure, members.values())))
        self._receive(task, number, members)

    # --- rules: notifications ---

    @step(choice=CHOICE, to=CHOICE)
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

    @step(choice=CHOICE, to=CHOICE)
    def watch_death(self, choice: int, to: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.send)
        notify = self._own_port(task, to)
        answer = self.do(task, "notify", number, "dead_name", "0", notify, "make_once")
        once = task.take(notify, "make_once").once
        self._replace(task, held, Request(once), answer)

    @step(choice=CHOICE, to=CHOICE, at_once=st.booleans())
    def watch_room(self, choice: int, to: int, at_once: bool) -> None:
        self._watch_room(*self.choose(choice, lambda held: held.send), to, at_once)

    def _watch_room(self, task, number: int, held: Name, to: int, at_once: bool) -> None:
        notify = self._own_port(task, to)
        need(task.names[notify].port is not held.port)
        need(not at_once or held.port.is_full == self._is_surely_full(held.port))
        sync = str(int(at_once))
        answer = self.do(task, "notify", number, "send_possible", sync, notify, "make_once")
        once = task.take(notify, "make_once").once
        request = Request(once, send_possible=True, armed=at_once)
        if at_once and not held.port.is_full:
            once.use("SEND_POSSIBLE", number)
            request = None
        self._replace(task, held, request, answer)

    def _replace(self, task, held, request: Request | None, answer: list) -> None:
        before, held.request = held.request, request
        self._given_back(task, before and before.once, answer)

    def _is_surely_full(self, port: Port) -> bool:
        """Whether no send right finds room: see DIFFERENCES.md, "Queues"."""
        return sum(message.destination.kind == "send" for message in port.queue) >= QUEUE_LIMIT

    def _is_unsure(self, port: Port) -> bool:
        """Whether the next receive may make room, or not, for whoever waits for it."""
        return port.waiting > QUEUE_LIMIT and bool(self.world.armed(port))

    @step(choice=CHOICE, to=CHOICE)
    def watch_destroyed(self, choice: int, to: int) -> None:
        """Its backup stays where it is, and is no other's: so no circles, and no mistaking."""
        task, number, held = self.choose(choice, lambda held: held.receive)
        notify = self._own_port(task, to)
        port, backup = held.port, task.names[notify].port
        need(port is not backup and not self._is_backup(port))
        need(port not in self.backups and backup not in self.backups)
        need(not self._is_backup(backup))
        answer = self.do(task, "notify", number, "port_destroyed", "0", notify, "make_once")
        once = task.take(notify, "make_once").once
        assert answer == ["OK", ["prev=", NULL]]
        port.destroyed = once
        self.backups[port] = backup

    def _is_backup(self, port: Port) -> bool:
        return any(port is backup and not watched.dead for watched, backup in self.backups.items())

    def _own_port(self, task, choice: int) -> int:
        ports = [number for number, held in sorted(task.names.items()) if held.receive]
        need(ports)
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

    @step(
        choice=CHOICE,
        cargo=st.lists(st.tuples(CHOICE, CHOICE), max_size=3),
        reply=CHOICE,
        call=st.sampled_from(["send", "send_notify"]),
    )
    def send(self, choice: int, cargo: list[tuple[int, int]], reply: int, call: str) -> None:
        task, number, held = self.choose(
            choice, lambda held: held.once or (held.port and held.send)
        )
        self._send(task, number, held, cargo, reply, call)

    @step(choice=CHOICE, to=CHOICE)
    def fill(self, choice: int, to: int) -> None:
        """Ask to be told of room, and send until there is none."""
        task, number, held = self.choose(choice, lambda held: held.send)
        self._watch_room(task, number, held, to, at_once=False)
        while not held.port.is_full:
            self._send(task, number, held, [], 0, "send_notify")
        self._send(task, number, held, [], 0, "send_notify")

    def _send(self, task, number: int, held: Name, cargo, reply: int, call: str) -> None:
        if held.once:
            port, disposition = held.once.port, "move_once"
        else:
            port, disposition = held.port, "copy_send"
        full = disposition == "copy_send" and port.is_full
        if full:
            cargo, reply = [], 0
        loaded = self._load(task, number, held, cargo, port)
        need(not any(self._tells(task.names[name], port) for name, _ in loaded))
        answer = self._reply_of(task, number, reply)
        words = [word for name, how in loaded for word in (name, how)]
        got = self.do(task, call, number, disposition, *answer, str(self.next_id), *words)
        if full and (self._is_surely_full(port) or got[0] != "OK"):
            # The right comes back as one more reference.
            assert got[0] == "MACH_SEND_TIMED_OUT"
            assert self.do(task, "modrefs", number, "send", "-1") == ["OK"]
            if held.request and held.request.send_possible and call == "send_notify":
                held.request.armed = True
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
            names = sorted(n for n in set(task.names) - taken if not task.names[n].is_set)
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
                stays = entry.port is port or self._is_backup(entry.port)
                moves = port.receiver and not stays
                ways += MADE_OF["recv"] if moves else MADE_OF["recv"][1:]
            loaded.append((number, ways[how % len(ways)]))
            taken.add(number)
        return loaded

    def _tells(self, held, port: Port) -> bool:
        """Whether the port, which a message is for, may get a notification as this right leaves."""
        return held.request is not None and held.request.once.port is port

    def _reply_of(self, task, destination: int, choice: int) -> tuple[int, str]:
        names = [n for n, held in sorted(task.names.items()) if held.receive and n != destination]
        if not names or choice % 3 == 0:
            return NULL, "-"
        return names[choice % len(names)], ("make_send", "make_once")[choice % 2]

    @step(choice=CHOICE)
    def receive(self, choice: int) -> None:
        task, number, held = self.choose(choice, lambda held: held.receive)
        need(not self._is_unsure(held.port))
        self._receive(task, number, {number: held.port})

    # --- rules: processes ---

    @precondition(lambda self: len(self.world.tasks) < MOST_TASKS)
    @step(choice=CHOICE)
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

    @precondition(lambda self: len(self.world.tasks) > 2 and not self._leaves_requests())
    @step(choice=CHOICE)
    def exit(self, choice: int) -> None:
        task = self.choose_task(choice)
        parents = [p.parent for p in self.processes.values() if isinstance(p, Offspring)]
        need(self.processes[task] not in parents)
        self.processes.pop(task).end()
        self.world.exit(task)

    def _leaves_requests(self) -> bool:
        """A task's requests that notify a port elsewhere: see DIFFERENCES.md, "Processes"."""
        return any(
            held.request and held.request.once.port.receiver is not task
            for task in self.world.tasks
            for held in task.names.values()
        ) or any(
            watched.destroyed and watched.receiver is not backup.receiver
            for watched, backup in self.backups.items()
        )

    # What is done more often than other things.
    send_more = send_again = send
    receive_more = receive_again = receive


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
