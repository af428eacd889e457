"""Carries a script out with a server, lets everybody come to rest, and judges what they have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from node.cojson.messages import Known, Reconcile, ReconcileAck, encode_message
from node.covalue.content import Content, Transaction
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from tests.conversations.client import ModelClient, Spoken
from tests.conversations.ledger import Ledger
from tests.conversations.script import PEOPLE, Deed, Made, Script, Step
from tests.support.authors import role

MAX_TURNS = 2000
"""In which all must be said; a conversation of hundreds of steps takes some dozens."""

LAPSES = 40
"""Whiles in which all that was put off must have been asked for again."""


class Server(Protocol):
    """A sync server, and what may befall it. `restart` and `restore` send all clients away."""

    faults: list[str]

    @property
    def keeps_order(self) -> bool:
        """Whether it never sends anything before what that depends on."""

    def join(self, peer: str) -> None: ...
    def leave(self, peer: str) -> None: ...
    def say(self, peer: str, messages: Sequence[Spoken]) -> None: ...
    def take(self, peer: str) -> list[Spoken]: ...
    def work(self) -> None: ...
    def rest(self) -> bool:
        """Do all there is to do; whether there was any."""

    def restart(self) -> None: ...
    def remember(self) -> None: ...
    def restore(self) -> None: ...
    def lose(self) -> None: ...
    def forget(self) -> None: ...
    def lapse(self) -> None: ...


@dataclass
class Cost:
    """What went one way."""

    messages: int = 0
    transactions: int = 0
    letters: int = 0

    def count(self, message: Spoken) -> None:
        self.messages += 1
        self.letters += len(encode_message(message))
        if isinstance(message, Content):
            self.transactions += sum(len(part.transactions) for part in message.new.values())

    def add(self, other: Cost) -> None:
        self.messages += other.messages
        self.transactions += other.transactions
        self.letters += other.letters


Held = dict[RawCoId, KnownState]


@dataclass
class Outcome:
    """What every client had in the end, what it took, and what was wrong."""

    seed: int
    faults: list[str] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)
    wanted: dict[str, frozenset[RawCoId]] = field(default_factory=dict)
    said: Cost = field(default_factory=Cost)
    heard: Cost = field(default_factory=Cost)
    written: int = 0
    """Transactions of all clients."""
    early: int = 0
    """Contents that came before what they depend on."""
    trace: list[str] = field(default_factory=list)


class Guest:
    """A client, its connection, and what its user means to do when something is there."""

    def __init__(self, client: ModelClient, server: Server, outcome: Outcome) -> None:
        self.client = client
        self.peer: str | None = None
        self._server = server
        self._outcome = outcome
        self._connections = 0
        self._inbox: deque[Spoken] = deque()
        self._plans: dict[RawCoId, list[Callable[[], None]]] = {}

    def when_held(self, co_id: RawCoId, plan: Callable[[], None]) -> None:
        """Do it now, or when the value has come: it is wanted then."""
        if co_id in self.client.held:
            plan()
        else:
            self._plans.setdefault(co_id, []).append(plan)
            self.client.want(co_id)

    def come(self, *, is_restarted: bool) -> None:
        if self.peer is None:
            self._connections += 1
            self.peer = f"{self.client.name} {self._connections}"
            self._server.join(self.peer)
            self._note("comes, started anew" if is_restarted else "comes")
            self.client.connect(is_restarted=is_restarted)

    def go(self) -> None:
        if self.peer is not None:
            self._server.leave(self.peer)
            self.was_sent_away()

    def was_sent_away(self) -> None:
        self.peer = None
        self._note("goes")
        self._inbox.clear()
        self.client.disconnect()

    def say(self, count: int) -> bool:
        """Send so many messages; whether there was one."""
        if self.peer is None or not self.client.unsent:
            return False
        messages = [
            self.client.unsent.popleft() for _ in range(min(count, len(self.client.unsent)))
        ]
        for message in messages:
            self._note(f"> {describe(message)}")
            self._outcome.said.count(message)
        self._server.say(self.peer, messages)
        return True

    def hear(self, count: int) -> bool:
        """Take in so many messages; whether there was one."""
        if self.peer is None:
            return False
        self._inbox.extend(self._server.take(self.peer))
        if not self._inbox:
            return False
        for _ in range(min(count, len(self._inbox))):
            message = self._inbox.popleft()
            self._note(f"< {describe(message)}")
            self._outcome.heard.count(message)
            self.client.receive(message)
            for co_id in [key for key in self._plans if key in self.client.held]:
                for plan in self._plans.pop(co_id):
                    plan()
        return True

    def _note(self, what: str) -> None:
        self._outcome.trace.append(f"{self.client.name} {what}")


class Party:
    """Everybody who takes part in one conversation."""

    def __init__(self, script: Script, server: Server) -> None:
        self.outcome = Outcome(script.seed)
        self._script = script
        self._server = server
        self._ledger = Ledger()
        self._guests = [self._invite(f"c{number}", number) for number in range(len(PEOPLE))]
        for guest in self._guests:
            client = guest.client
            client.create(client.author.account_header)
            client.edit(
                client.author.account_id, [role(client.author.agent_id, "admin", made_at=1)]
            )

    def hold(self) -> Outcome:
        """The whole conversation."""
        for step in self._script.steps:
            self._carry_out(step)
        self._settle()
        self._judge()
        return self.outcome

    def _invite(self, name: str, number: int) -> Guest:
        return Guest(ModelClient(name, PEOPLE[number], self._ledger), self._server, self.outcome)

    def _carry_out(self, step: Step) -> None:
        guest = self._guests[step.client]
        match step.deed:
            case Deed.SAY:
                guest.say(step.other)
            case Deed.HEAR:
                guest.hear(step.other)
            case Deed.COME_OR_GO:
                guest.come(is_restarted=bool(step.other)) if guest.peer is None else guest.go()
            case Deed.RECONCILE:
                self._note(step, guest.client.name)
                guest.client.reconcile()
            case Deed.REPLACE:
                self._note(step, guest.client.name)
                self._replace(step.client)
            case Deed.MAKE | Deed.EDIT | Deed.HIRE | Deed.WANT | Deed.DELETE:
                self._note(step, f"{guest.client.name} {self._script.values[step.value].header.id}")
                self._do(step, guest)
            case _:
                self._note(step, "")
                self._befall(step.deed)

    def _replace(self, number: int) -> None:
        """Everything of the old device is stored, and in the backup."""
        self._settle()
        self._server.remember()
        old = self._guests[number]
        old.go()
        self._report(old.client, [])
        new = self._guests[number] = self._invite(f"{old.client.name}'", number)
        for co_id in (*old.client.held, *old.client.wanted):
            new.client.want(co_id)

    def _do(self, step: Step, guest: Guest) -> None:
        """What a person does."""
        made = self._script.values[step.value]
        co_id = made.header.id
        match step.deed:
            case Deed.MAKE:
                self._plan_making(step, guest, made)
            case Deed.EDIT:
                guest.when_held(co_id, partial(self._edit, guest.client, made, step))
            case Deed.HIRE:
                hired = PEOPLE[step.other].account_id
                hire = partial(self._hire, guest.client, made, hired)
                guest.when_held(co_id, partial(guest.when_held, hired, hire))
            case Deed.DELETE:
                guest.when_held(co_id, partial(guest.client.delete, co_id))
            case Deed.WANT:
                guest.client.want(co_id)
            case _:
                raise ValueError(step)

    def _plan_making(self, step: Step, guest: Guest, made: Made) -> None:
        """When all is here that it depends on."""
        make = partial(self._make, guest.client, made, step)
        make = partial(guest.when_held, guest.client.author.account_id, make)
        if made.header.source is not None:
            make = partial(guest.when_held, RawCoId(made.header.source), make)
        if made.group is not None:
            make = partial(guest.when_held, self._script.values[made.group].header.id, make)
        make()

    def _make(self, client: ModelClient, made: Made, step: Step) -> None:
        header = made.header
        client.create(header)
        if not header.is_group:
            self._edit(client, made, step)
            return
        members = [role(client.author.account_id, "admin", made_at=1), role("everyone", "writer")]
        if made.group is not None:
            parent = self._script.values[made.group].header.id
            members.append(role(f"parent_{parent}", "extend", made_at=2))
        client.edit(header.id, members)

    @staticmethod
    def _edit(client: ModelClient, made: Made, step: Step) -> None:
        """The next transactions of this client: the same whenever it comes to that."""
        start = client.count(made.header.id)
        if step.other:
            client.edit(
                made.header.id,
                [
                    Transaction(2000 + start + index, f'["{start + index}{"x" * step.size}"]')
                    for index in range(step.other)
                ],
            )

    @staticmethod
    def _hire(client: ModelClient, made: Made, hired: RawCoId) -> None:
        client.edit(made.header.id, [role(hired, "writer", made_at=1500)])

    def _befall(self, deed: Deed) -> None:
        """What happens to the server."""
        match deed:
            case Deed.WORK:
                self._server.work()
            case Deed.RESTART | Deed.RESTORE:
                self._server.restart() if deed is Deed.RESTART else self._server.restore()
                for guest in self._guests:
                    if guest.peer is not None:
                        guest.was_sent_away()
            case Deed.REMEMBER:
                self._server.remember()
            case Deed.LOSE:
                self._server.lose()
            case Deed.FORGET:
                self._server.forget()
            case Deed.LAPSE:
                self._server.lapse()
            case _:
                raise ValueError(deed)

    def _note(self, step: Step, what: str) -> None:
        self.outcome.trace.append(f"{step.deed.name} {what}")

    # The end of it.

    def _settle(self) -> None:
        """Everybody comes, and all is said."""
        self.outcome.trace.append("SETTLE")
        for guest in self._guests:
            guest.come(is_restarted=False)
        self._say_all()
        for _ in range(LAPSES):
            self._server.lapse()
            self._say_all()

    def _say_all(self) -> None:
        for _ in range(MAX_TURNS):
            is_busy = False
            for guest in self._guests:
                is_busy |= guest.say(1 << 30)
            is_busy |= self._server.rest()
            for guest in self._guests:
                is_busy |= guest.hear(1 << 30)
            if not is_busy:
                return
        self.outcome.faults.append("it never comes to rest")

    def _judge(self) -> None:
        """Nobody is left waiting, and all have what is stored: what a newcomer gets."""
        clients = [guest.client for guest in self._guests]
        reader = self._invite("reader", 0)
        for co_id in self._ledger.headers:
            reader.client.want(co_id)
        self._guests.append(reader)
        said, heard = self.outcome.said, self.outcome.heard
        self.outcome.said, self.outcome.heard = Cost(), Cost()
        self._settle()
        self.outcome.said, self.outcome.heard = said, heard
        for client in [*clients, reader.client]:
            self._judge_client(client, reader.client)
        self.outcome.faults += self._server.faults
        self.outcome.written = self._ledger.count

    def _judge_client(self, client: ModelClient, reader: ModelClient) -> None:
        faults = [f"never answered about {co_id}" for co_id in client.unanswered]
        faults += [f"never told that {batch_id} is settled" for batch_id in client.unsettled]
        faults += [f"still waits for {co_id}" for co_id in client.waits_for]
        self.outcome.wanted[client.name] = frozenset(client.wanted)
        held = self.outcome.held[client.name] = {}
        for co_id in client.held:
            known = held[co_id] = client.known(co_id)
            if known != reader.known(co_id):
                stored = sorted(reader.known(co_id).sessions.items())
                faults.append(f"has {sorted(known.sessions.items())} of {co_id}, stored {stored}")
        faults += [
            f"never got {co_id}"
            for co_id in client.wanted
            if co_id in self._ledger.headers and co_id not in client.held
        ]
        self._report(client, faults)

    def _report(self, client: ModelClient, faults: list[str]) -> None:
        """And what it noticed itself."""
        found = client.faults + faults
        self.outcome.early += len(client.early)
        if self._server.keeps_order:
            found += client.early
        self.outcome.faults += [f"{client.name} {fault}" for fault in dict.fromkeys(found)]


def describe(message: Spoken) -> str:
    """A message in one line; of ids and sessions the last letters."""
    if isinstance(message, Content):
        parts = [f"{key[-6:]} {part.after}-{part.stop}" for key, part in message.new.items()]
        header = "" if message.header is None else " with header"
        return f"content {message.co_id[-6:]}{header} {', '.join(parts)}"
    name = type(message).__name__.lower()
    if isinstance(message, Reconcile | ReconcileAck):
        return f"{name} {message.batch_id}"
    if isinstance(message, Known) and message.is_correction:
        name = "correction"
    counts = ", ".join(f"{key[-6:]} {count}" for key, count in message.known.sessions.items())
    return f"{name} {message.co_id[-6:]} {message.known.header} {counts}"
