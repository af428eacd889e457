"""What clients of a run do, and what came of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from node.covalue.header import CoValueHeader
from node.covalue.ids import RawCoId
from tests.simulation.clients import SimulatedClient
from tests.simulation.determinism import derive
from tests.simulation.nodes import SimulatedNode
from tests.simulation.script import QUOTA_BYTES, Deed, Step
from tests.simulation.truth import Truth
from tests.support.authors import edits, group_header, map_header, role


class Deeds:
    """Has clients do what a script says."""

    def __init__(
        self,
        seed: int,
        truth: Truth,
        clients: Sequence[SimulatedClient],
        nodes: Sequence[SimulatedNode],
    ) -> None:
        self._seed = seed
        self._truth = truth
        self._clients = clients
        self._nodes = nodes
        self._group: CoValueHeader | None = None
        self.made: dict[RawCoId, int] = {}
        """Values, and which client made them."""
        self.maps: set[RawCoId] = set()
        self.greedy: set[int] = set()
        """Clients that wrote more than they may."""
        self.blobs: dict[RawCoId, str] = {}
        """Large values, and what stands in them again and again."""

    def found_group(self) -> None:
        """Everybody has an account, and all are members of one group."""
        for client in self._clients:
            author = client.author
            first = [role(author.agent_id, "admin", made_at=1)]
            client.write(author.account_header, first, as_agent=True)
            self.made[author.account_id] = client.number
        founder = self._clients[0]
        self._group = group_header(founder.author.account_id)
        members = [role(client.author.account_id, "admin") for client in self._clients]
        founder.write(self._group, members)
        self.made[self._group.id] = founder.number

    def do(self, deed: Deed, step: Step) -> None:
        chance = derive(self._seed, "deed", step.draw)
        client = self._clients[step.actor]
        alive = [co_id for co_id in self.made if co_id not in self._truth.deleted]
        forked = {co_id for co_id, _ in self._truth.forked}
        maps = [co_id for co_id in alive if co_id in client.has_header and co_id in self.maps]
        maps = [co_id for co_id in maps if co_id not in forked]
        match deed:
            case Deed.CREATE:
                self._create(client, step, chance)
            case Deed.BLOB:
                self._replace_blob(client, step, chance)
            case Deed.LOAD:
                for co_id in chance.sample(alive, min(len(alive), 4)):
                    client.load(co_id)
            case Deed.MOVE:
                client.move(chance.randrange(len(self._nodes)))
            case Deed.RECONNECT:
                client.hang_up()
            case _ if maps:
                self._change(deed, client, maps, chance)
            case _:
                pass

    def _change(
        self, deed: Deed, client: SimulatedClient, maps: list[RawCoId], chance: random.Random
    ) -> None:
        """Do that with one of these."""
        match deed:
            case Deed.EDIT:
                header = self._truth.headers[chance.choice(maps)]
                client.write(header, edits(chance.randint(1, 4), size=chance.choice((5, 5, 200))))
            case Deed.DELETE:
                mine = [co_id for co_id in maps if self.made[co_id] == client.number]
                if mine:
                    client.delete(chance.choice(mine))
            case Deed.FORK:
                node = chance.choice(self._nodes)
                if node.is_up and node.takes_clients:
                    client.fork(self._truth.headers[chance.choice(maps)], node)
            case Deed.GORGE:
                self.greedy.add(client.number)
                header = self._truth.headers[chance.choice(maps)]
                client.write(header, edits(4, size=QUOTA_BYTES // 3))
            case _:
                raise AssertionError(deed)

    def _create(self, client: SimulatedClient, step: Step, chance: random.Random) -> None:
        assert self._group is not None
        header = map_header(f"{step.draw}", self._group.id)
        client.write(header, edits(chance.randint(1, 3)))
        self.made[header.id] = client.number
        self.maps.add(header.id)

    def _replace_blob(self, client: SimulatedClient, step: Step, chance: random.Random) -> None:
        assert self._group is not None
        header = map_header(f"blob {step.draw}", self._group.id)
        self.blobs[header.id] = mark = f"<{step.draw}>"
        client.replace_blob(header, mark * (chance.choice((300, 5000)) // len(mark)))
        self.made[header.id] = client.number
