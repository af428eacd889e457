"""What clients have of values and this node lacks, though none of them sends it.

A client takes what it once sent, and what it was served, for what this node holds. After a restore
from a backup that is more than is here, and a `known` that says so changes nothing: cojson merges
it into what it believes already. So a client that claims more than is here, and has nothing else to
say, is asked for the rest with a `load`: that counts as it stands, and also reaches what the client
has on its own disk only, for which a correction would be ignored.

What a client writes may be refused for a role that it knows and this node does not: it is asked at
once for what it claims of the group.

Each client is asked for each value once, and never for one of which content was refused: it would
send that again and again. Nobody is asked for what is on its way, or what another was just asked.
"""

from __future__ import annotations

from functools import partial
from itertools import islice

from node.cojson.engine_state import EngineState
from node.cojson.messages import Load
from node.cojson.outputs import Output, Send
from node.cojson.peer_view import PeerView, ValueView
from node.cojson.value_table import Phase, ValueEntry
from node.covalue.ids import RawCoId

MAX_CLAIMS = 50_000
"""Values that are remembered for one client; others are looked at when it connects again."""

MAX_ASKED_AT_ONCE = 256
"""Values for which one client is asked at a time."""

MAX_ASKED_OF_ALL = 4096
"""Values for which all clients together are asked at a time."""

MAX_COUNTERS_AT_ONCE = 4096
"""Session counters in what one client is asked at a time, about 400 KB; one value may have more."""


class Claims:
    """Told of each claim, and of each while in which a client was listened to."""

    def __init__(self, state: EngineState) -> None:
        self._state = state
        self._asked: dict[RawCoId, PeerView] = {}
        """The client just asked for each value, until it was listened to for a while more."""

    def note(self, peer: PeerView, entry: ValueEntry, view: ValueView) -> None:
        """The client has said what it holds. If the value is being read, note it again after."""
        if self._is_met(entry, view):
            if peer.claims:
                peer.claims.pop(entry.co_id, None)
        elif len(peer.claims) < MAX_CLAIMS:
            peer.claims.setdefault(entry.co_id, peer.whiles)

    def listened(self, peer: PeerView, is_quiet: bool, out: list[Output]) -> None:
        """A while is over. Ask a quiet client for what it claimed before that."""
        self.forget(peer)
        if is_quiet and not peer.unsettled_bytes:
            due = (co_id for co_id, noted in peer.claims.items() if noted < peer.whiles)
            for co_id in list(islice(due, MAX_ASKED_AT_ONCE)):
                self._state.when_read(co_id, partial(self._ask, peer, co_id), out)
        peer.whiles += 1

    def ask_at_once(self, peer: PeerView, co_ids: frozenset[RawCoId], out: list[Output]) -> None:
        """Something depends on what the client may have of these: do not wait till it is quiet."""
        for co_id in sorted(peer.claims.keys() & co_ids):
            self._state.when_read(co_id, partial(self._ask, peer, co_id), out)

    def forget(self, peer: PeerView) -> None:
        """The client had its time, or has gone: others may be asked."""
        for co_id in peer.just_asked:
            del self._asked[co_id]
        peer.just_asked.clear()

    def _ask(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        entry = self._state.values.peek(co_id)
        noted = peer.claims.pop(co_id, None)
        if entry is None or noted is None or peer.is_gone:
            return
        view = peer.values[co_id]
        if self._is_met(entry, view):
            return
        if self._is_on_its_way(peer, entry) or self._are_too_many(peer, entry):
            peer.claims[co_id] = noted  # after all others
            return
        view.may_be_asked = False
        peer.just_asked[co_id] = len(entry.durable.sessions)
        self._asked[co_id] = peer
        out.append(Send(peer.peer_id, Load(co_id, entry.durable)))

    @staticmethod
    def _is_met(entry: ValueEntry, view: ValueView) -> bool:
        """Whether what the client claims is here, or is not to be asked for."""
        return (
            entry.durable.covers(view.real)
            or not view.may_be_asked
            or entry.is_deleted
            or entry.phase is Phase.DAMAGED
        )

    def _is_on_its_way(self, peer: PeerView, entry: ValueEntry) -> bool:
        """Whether the mesh, another client, or what this one sent may bring it yet."""
        co_id = entry.co_id
        return (
            co_id in self._asked
            or co_id in peer.asked
            or co_id in self._state.searching
            or not entry.is_idle
            or self._state.room.awaited_by(co_id, peer) is not None
        )

    def _are_too_many(self, peer: PeerView, entry: ValueEntry) -> bool:
        counters = sum(peer.just_asked.values()) + len(entry.durable.sessions)
        return len(self._asked) >= MAX_ASKED_OF_ALL or (
            bool(peer.just_asked) and counters > MAX_COUNTERS_AT_ONCE
        )
