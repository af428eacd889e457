"""One writer, some readers, and whatever may happen between them; all by chance, from a seed."""

from __future__ import annotations

import random
from itertools import combinations, count

from hypercore.replication.demand import Priority
from hypercore.replication.messages import MessageType, Range, Sync
from hypercore.replication.outputs import Output
from hypercore.replication.seeks import Seek
from hypercore.replication.settings import PushMode, ReplicationSettings
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import KEY_PAIR, reader
from tests.support.replicator_pair import Endpoint, Node
from tests.support.slow_links import Link, Network

PATIENCE = 400.0
"""For slow links; what honest peers have is here long before."""


class Wanted:
    """Blocks that a reader wants, until it had each of them once."""

    def __init__(self, node: Node, blocks: range | list[int], priority: Priority) -> None:
        self.node = node
        self.blocks = blocks
        self.priority = priority
        self.missing: set[int] = set()
        self.look(self.blocks)

    def look(self, indices: range | list[int]) -> None:
        held = self.node.log.bitfield.get
        self.missing |= {index for index in indices if not held(index)}

    def arrived(self) -> None:
        """A range is asked for again where it was cut, unless all of it was here."""
        held = self.node.log.bitfield.get
        self.missing = {index for index in self.missing if not held(index)}
        if isinstance(self.blocks, range) and self.missing:
            self.look(self.blocks)


class Scenario:
    """`act` does something; in the end `heal`, and `run_until_done`."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.network = Network()
        self._numbers = count()
        self._size = self.chance.choice([1, 20, 2000])
        self.writer = Node(MemoryLog(KEY_PAIR))
        self.readers = [Node(reader(), number) for number in range(self.chance.randrange(1, 4))]
        self.links: dict[tuple[int, int], Link] = {}
        self.wanted: list[Wanted] = []
        self.seeks: list[tuple[Node, Seek]] = []
        self.strangers: list[Endpoint] = []
        self._append(300)
        if self.chance.random() < 0.3:
            settings = ReplicationSettings(push=PushMode.ALLOWED, head_delay_seconds=0.5)
            for node in self.readers:
                self.network.carry_out(node, node.replicator.configure(settings, 0.0))
        for pair in self._pairs:
            if self.chance.random() < 0.8:
                self._join(*pair)

    @property
    def _nodes(self) -> list[Node]:
        return [self.writer, *self.readers]

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        return list(combinations(range(len(self._nodes)), 2))

    def act(self) -> None:
        """Do something, and let some time pass."""
        acts = {
            self._grow: 15,
            self._cut_log: 5,
            self._want: 25,
            self._unwant: 15,
            self._close: 10,
            self._silence: 8,
            self._rejoin: 10,
            self._push: 7,
            self._seek: 5,
            self._claim: 15,
            self._hope: 10,
        }
        (act,) = self.chance.choices(list(acts), list(acts.values()))
        act()
        self.pass_time(self.chance.choice([0.0, 0.01, 0.3, 3.0]))

    def pass_time(self, seconds: float) -> None:
        until = self.network.now + seconds
        self.network.at(until, lambda: None)
        self.network.run(lambda: self.network.now >= until)
        self._look()

    def heal(self) -> None:
        """From now on nobody is cut off for long."""
        for pair in list(self.links):
            self._close(pair)
        for one, other in self._pairs:
            if one == 0 or self.chance.random() < 0.7:
                self._join(one, other)

    @property
    def is_done(self) -> bool:
        """Whether all have the writer's head, and what they want of what there is."""
        self._look()
        head = self.writer.log.head
        return (
            all(node.log.head == head for node in self.readers)
            and all(min(wanted.missing, default=2**60) >= head.length for wanted in self.wanted)
            and all(
                seek.found is not None for _, seek in self.seeks if seek.offset < head.byte_length
            )
        )

    def run_until_done(self) -> None:
        until = self.network.now + PATIENCE
        self.network.at(until, lambda: None)
        self.network.run(lambda: self.is_done or self.network.now >= until)

    def end_wants(self) -> None:
        """Nobody wants anything any more, and who only claims is gone."""
        while self.wanted:
            self._unwant()
        for node, seek in self.seeks:
            self._carry_out(node, node.replicator.stop_seek(seek, self.network.now))
        for end in self.strangers:
            if not end.is_closed:
                end.close(self.network.now)
        for node in self.readers:
            self._carry_out(node, node.replicator.set_active(False, self.network.now))
        self.pass_time(60.0)

    # --- what may happen -------------------------------------------------------------------------

    def _carry_out(self, node: Node, outputs: list[Output]) -> None:
        self.network.carry_out(node, outputs)

    def _look(self) -> None:
        for wanted in self.wanted:
            wanted.arrived()

    def _append(self, most: int) -> None:
        blocks = [
            b"%d:" % next(self._numbers) + bytes(self.chance.randrange(self._size))
            for _ in range(self.chance.randrange(1, most))
        ]
        self.writer.log.append(blocks)

    def _grow(self) -> None:
        self._append(60)
        self._carry_out(self.writer, self.writer.replicator.log_changed(self.network.now))

    def _cut_log(self) -> None:
        self.writer.log.truncate(self.chance.randrange(self.writer.log.head.length))
        self._grow()

    def _want(self) -> None:
        chance, length = self.chance, self.writer.log.head.length
        node, priority = chance.choice(self.readers), Priority.LINEAR
        blocks: range | list[int]
        if chance.random() < 0.5:
            blocks = chance.sample(range(length + 20), min(length + 20, chance.randrange(1, 30)))
        else:
            start = chance.randrange(length + 10)
            blocks = range(start, start + chance.randrange(2, 200))
            priority = chance.choice(list(Priority))
        self.wanted.append(Wanted(node, blocks, priority))
        self._carry_out(node, node.replicator.want(blocks, self.network.now, priority))

    def _unwant(self) -> None:
        if self.wanted:
            wanted = self.wanted.pop(self.chance.randrange(len(self.wanted)))
            blocks, node = wanted.blocks, wanted.node
            missing = blocks if isinstance(blocks, range) else list(wanted.missing)
            self._carry_out(
                node, node.replicator.unwant(missing, self.network.now, wanted.priority)
            )

    def _join(self, one: int, other: int) -> None:
        self.links[one, other] = self.network.join(
            self._nodes[one],
            self._nodes[other],
            round_trip_seconds=self.chance.choice([0.001, 0.05, 0.5, 2.0]),
            bytes_per_second=self.chance.choice([2e4, 1e6, 1e8]),
        )

    def _close(self, pair: tuple[int, int] | None = None) -> None:
        if self.links:
            link = self.links.pop(pair or self.chance.choice(list(self.links)))
            link.cut()
            for end in link.ends:
                end.sent.clear()
                if not end.is_closed:
                    end.close(self.network.now)

    def _silence(self) -> None:
        if self.links:
            self.chance.choice(list(self.links.values())).cut()

    def _rejoin(self) -> None:
        pair = self.chance.choice(self._pairs)
        if pair in self.links:
            self._close(pair)
        self._join(*pair)

    def _push(self) -> None:
        """What an extension asks for, of which some is not announced."""
        if not self.links:
            return
        link = self.chance.choice(list(self.links.values()))
        direction = self.chance.choice(link.directions)
        holder, taker = direction.sender, direction.receiver
        length = self.writer.log.head.length
        indices = self.chance.sample(range(length), min(length, self.chance.randrange(1, 40)))
        taker.peer.expected.allow(len(indices))
        taker.peer.was_allowed_push = True
        queued, outputs = holder.node.replicator.push_asked(holder.peer, indices)
        self._carry_out(holder.node, outputs)
        named = [index for index in queued if self.chance.random() < 0.95]

        def announce() -> None:
            node, now = taker.node, self.network.now
            known = [index for index in named if index < node.log.head.length]
            expect = node.replicator.expect
            self._carry_out(node, expect(taker.peer, known, now, is_announced=True))

        self.network.at(self.network.now + direction.seconds, announce)

    def _hope(self) -> None:
        """For a block from a peer; or not any more."""
        node, now = self.chance.choice(self.readers), self.network.now
        if node.replicator.peers and node.log.head.length:
            peer = self.chance.choice(node.replicator.peers)
            hoped = [self.chance.randrange(node.log.head.length)]
            expected, instead_of = (hoped, []) if self.chance.random() < 0.7 else ([], hoped)
            self._carry_out(node, node.replicator.expect(peer, expected, now, instead_of))

    def _seek(self) -> None:
        node, now = self.chance.choice(self.readers), self.network.now
        if self.seeks and self.chance.random() < 0.5:
            node, seek = self.seeks.pop()
            self._carry_out(node, node.replicator.stop_seek(seek, now))
        elif node.log.head.byte_length:
            seek = Seek(self.chance.randrange(node.log.head.byte_length), 0)
            self.seeks.append((node, seek))
            self._carry_out(node, node.replicator.start_seek(seek, now))

    def _claim(self) -> None:
        """Somebody comes, claims what it does not show, and goes at some time."""
        chance, now = self.chance, self.network.now
        if self.strangers and chance.random() < 0.4:
            self.strangers.pop(chance.randrange(len(self.strangers))).close(now)
            return
        node = chance.choice(self.readers)
        head = node.log.head
        fork = chance.choice([head.fork, head.fork, head.fork + 1, 2**40])
        length = chance.choice([head.length, head.length + 50, 10])
        remote_length, can_upgrade = chance.choice([0, head.length]), chance.random() < 0.7
        sync = Sync(fork, length, remote_length, can_upgrade, True, True, True, False)
        has = Range(0, chance.randrange(length + 1))
        end = Endpoint(node)
        end.peer.inflight.round_trip_guess = chance.choice([0.0, 0.001, 1.0])
        said = [(MessageType.SYNC, sync.encode()), (MessageType.RANGE, has.encode())]
        end.receive([(int(kind), payload) for kind, payload in said], now)
        self.strangers.append(end)
