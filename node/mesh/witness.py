"""[trio] Evidence that somebody signed two histories: judged, kept, and passed on to all members.

Two kinds: of a core, whose proof needs nothing beside it (`hypercore.fork_proof`), and of a session
of a coValue (`node.cojson.fork_evidence`). Whatever comes is judged here before anything is
believed, one piece at a time. What is proven is kept, once for each core and session, told in the
log, and sent on; a member that joins is sent all there is. Of cores that nobody here has to do with
none is kept, and of the others `ForkedCores` says which if there are too many.

A core that is proven to be forked is frozen: what is held of it is served, and no more of it is
asked for. If it is a member's data core, the member may go on reading ours.

False evidence costs its sender the connection. What cannot be judged here (a session whose
beginning is not here) costs nothing at first: up to `MAX_UNPROVEN` times, it may be honest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Container,
    Iterable,
    Mapping,
    Sequence,
    Set,
)
from typing import Protocol

import structlog
import trio

from hypercore.core import Core
from hypercore.crypto import discovery_key
from hypercore.encoding import DecodeError
from hypercore.errors import InvalidProof, StorageError, StorageFailed, UsageError
from hypercore.fork_proof import ForkProof, verify_fork_proof
from node.cojson.fork_evidence import EvidenceVerdict, as_kept_here, judge_fork
from node.cojson.fork_watch import MAX_FORKS, ForkWatch
from node.covalue.ids import RawCoId, parse_co_id, parse_session_id
from node.covalue.records import decode_part, encode_part
from node.covalue.session_fork import SessionFork
from node.covalue.store import CoValueStore
from node.errors import CorruptStore
from node.mesh.forked_cores import ForkedCore, ForkedCores
from node.mesh.member import Member
from node.mesh.messages import Evidence, EvidenceKind
from swarm.io.tasks import Wakeup

MAX_WAITING = 64
MAX_WAITING_BYTES = 16 << 20
"""Evidence of one member that waits to be judged. More is dropped: each that joins is sent all of
it again, and what one node does not take another does."""

LATER_SECONDS = 1.0
"""Once in this time at most, evidence that could not be judged before is looked at again."""

MAX_UNPROVEN = MAX_FORKS
"""Pieces of evidence from one member that cannot be judged here; one more, and it is expelled.
Anybody can fork sessions of their own, and nodes tell all members of the forks that they keep, also
those that hold nothing of the value, or a third continuation."""

MAX_PIECES = 2048
"""Pieces from one member on one connection: all that a node keeps, and some that is new."""

_ROW_PREFIX = b"evidence:"
_log = structlog.get_logger(__name__)


class WitnessRows(Protocol):
    """The local key-value space of our data core."""

    def local_items(self, start: bytes, stop: bytes, /) -> Iterable[tuple[bytes, bytes]]: ...
    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None: ...


class WitnessedCores(Protocol):
    """What is needed of the corestore."""

    def open_cores(self) -> Sequence[Core]: ...
    async def find(self, discovery_key: bytes, /) -> Core | None: ...
    def frozen_cores(self) -> AsyncIterator[Core]: ...


class WitnessHost(Protocol):
    """What is needed of the sync host."""

    @property
    def store(self) -> CoValueStore: ...
    @property
    def forks(self) -> ForkWatch: ...


class Witness:
    """Open evidence, and what is kept; `members` are those admitted, by id.

    `known_cores` are the data cores of members: evidence about them has its place first.
    """

    def __init__(
        self,
        host: WitnessHost,
        rows: WitnessRows,
        members: Mapping[bytes, Member],
        cores: WitnessedCores | None,
        known_cores: Callable[[], Set[bytes]] = frozenset,
    ) -> None:
        self._host = host
        self._rows = rows
        self._members = members
        self._cores = cores
        self._kept: dict[str, Evidence] = {}
        """What is passed on, by subject."""
        self._known_cores = known_cores
        self.mirrored: Container[bytes] = ()
        """Keys of the cores that are mirrored here; they matter as much."""
        self._forked = ForkedCores()
        self._keeping = trio.Lock()
        self._frozen_by_word: set[bytes] = set()
        """Cores frozen just now because a member told of them: not found here."""
        self._waiting: deque[tuple[Member, Evidence]] = deque()
        self._wake = Wakeup()
        self._undecided: dict[str, tuple[Member, Evidence]] = {}
        """Evidence that can be judged once the beginning of its session is here, by subject."""
        self._to_look_at: set[str] = set()
        """Subjects of these that may have become decidable."""
        self._unkept: dict[str, tuple[Member, Evidence]] = {}
        """Evidence for which there was no room on our disk, by subject."""
        self._has_undecided = Wakeup()
        self.received = 0
        self.refused = 0
        """Pieces that were false."""

    @property
    def forked_cores(self) -> Sequence[ForkedCore]:
        """Cores of which evidence is kept, that of earlier runs included."""
        return self._forked.cores

    def is_forked(self, key: bytes) -> bool:
        return key in self._forked

    def greet(self, member: Member) -> None:
        """A member was admitted: tell it all there is."""
        member.outbox.queue_evidence(list(self._kept.values()))
        is_frozen = member.core is not None and member.core.is_frozen  # evidence may be given up
        if is_frozen or (member.welcome is not None and self.is_forked(member.welcome.data_key)):
            member.freeze()

    def receive(self, member: Member, evidence: Evidence) -> None:
        """A member says that somebody forked: to be judged, unless it is known."""
        self.received += 1
        member.conduct.evidence_received += 1
        if member.conduct.evidence_received > MAX_PIECES:
            self._end(member, f"more than {MAX_PIECES} pieces of evidence")
        if evidence.subject in self._kept:
            return
        if _has_room(item for sender, item in self._waiting if sender is member):
            self._waiting.append((member, evidence))
            self._wake.set()

    def note_moved(self, moved: Collection[RawCoId]) -> None:
        """There is more of these values here than before."""
        for subject in self._undecided:
            if subject.partition(":")[0] in moved:
                self._to_look_at.add(subject)
                self._has_undecided.set()

    async def run(self, wait_settled: Callable[[], Awaitable[None]]) -> None:
        """Judge what comes, and look for forks that are found here, until cancelled.

        Nothing is judged until `wait_settled` returns: what is here may not be whole until then.
        Cancel: what was not judged is forgotten.
        """
        self._load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._judge_all, wait_settled)
            nursery.start_soon(self._judge_later)
            nursery.start_soon(self._watch_sessions)
            if self._cores is not None:
                nursery.start_soon(self._watch_cores, self._cores)

    def _load(self) -> None:
        for row, proof in self._rows.local_items(_ROW_PREFIX, _ROW_PREFIX[:-1] + b";"):
            try:
                key = bytes.fromhex(row.removeprefix(_ROW_PREFIX).decode())
                self._note_core(key, proof, None)
            except (ValueError, InvalidProof) as error:
                _log.error("kept evidence is damaged", core=row.decode(), error=str(error))

    async def _judge_all(self, wait_settled: Callable[[], Awaitable[None]]) -> None:
        await wait_settled()
        while True:
            await self._wake.wait()
            while self._waiting:
                member, evidence = self._waiting.popleft()
                if member.close_reason is None and evidence.subject not in self._kept:
                    await self._judge(member, evidence)
                await trio.lowlevel.checkpoint()

    async def _judge_later(self) -> None:
        """Look again at what could not be judged, or not be kept, once that may be possible."""
        while True:
            await self._has_undecided.wait()
            while self._to_look_at or self._unkept:
                await trio.sleep(LATER_SECONDS)
                self._judge_unkept()
                subjects, self._to_look_at = self._to_look_at, set()
                for subject in subjects & self._undecided.keys():
                    member, evidence = self._undecided[subject]
                    if await self._has_beginning(decode_session_evidence(evidence)):
                        self._undecided.pop(subject, None)
                        self._waiting.append((member, evidence))
                        self._wake.set()

    def _judge_unkept(self) -> None:
        for subject, (member, evidence) in list(self._unkept.items()):
            if member.close_reason is not None or subject in self._kept:
                del self._unkept[subject]  # the member says it again when it joins
            else:
                self._waiting.append((member, evidence))
                self._wake.set()

    async def _has_beginning(self, fork: SessionFork) -> bool:
        try:
            value = await self._host.store.load_value(fork.co_id)
        except CorruptStore:
            return False
        stored = None if value is None else value.sessions.get(fork.session_id)
        return stored is not None and stored.count >= fork.index

    async def _judge(self, member: Member, evidence: Evidence) -> None:
        try:
            if evidence.kind is EvidenceKind.CORE:
                await self._judge_core(member, evidence)
            else:
                await self._judge_session(member, evidence)
        except (DecodeError, InvalidProof, ValueError) as error:
            self._refuse(member, evidence, str(error))
        except StorageFailed as error:
            self._put_off(member, evidence, str(error))
        except (CorruptStore, StorageError) as error:
            _log.error("cannot judge evidence", subject=evidence.subject[:80], error=str(error))
        else:
            self._unkept.pop(evidence.subject, None)

    def _put_off(self, member: Member, evidence: Evidence, why: str) -> None:
        """Keep it in mind until there is room on our disk."""
        if evidence.subject in self._unkept:
            return
        _log.error("cannot keep evidence yet", subject=evidence.subject[:80], error=why)
        if _has_room(item for _, item in self._unkept.values()):
            self._unkept[evidence.subject] = (member, evidence)
            self._has_undecided.set()

    async def _judge_core(self, member: Member, evidence: Evidence) -> None:
        key = bytes.fromhex(evidence.subject)
        verify_fork_proof(evidence.first, key)
        core = None if self._cores is None else await self._cores.find(discovery_key(key))
        if core is None:
            return  # true, but nobody here has to do with that core
        try:
            if not core.is_frozen:
                self._frozen_by_word.add(key)
                await core.freeze(ForkProof.decode(evidence.first))
        except UsageError:
            pass  # about a history that the core has left since: kept all the same
        finally:
            if not core.is_frozen:
                self._frozen_by_word.discard(key)
            core.release()
        await self._keep_core(key, evidence.first, source=member)

    async def _judge_session(self, member: Member, evidence: Evidence) -> None:
        fork = decode_session_evidence(evidence)
        store, forks = self._host.store, self._host.forks
        if forks.is_known(fork.co_id, fork.session_id):
            return
        started = member.stopwatch()
        match await judge_fork(store, fork):
            case EvidenceVerdict.PROVEN:
                # `_watch_sessions` passes it on.
                await forks.keep(await as_kept_here(store, fork))
            case EvidenceVerdict.FALSE:
                self._refuse(member, evidence, "its author did not sign both")
            case EvidenceVerdict.UNKNOWN:
                member.conduct.evidence_unproven += 1
                member.conduct.effort.spend(member.stopwatch() - started, trio.current_time())
                if member.conduct.evidence_unproven > MAX_UNPROVEN:
                    self._refuse(member, evidence, "like much else it sent, it cannot be proven")
                elif not await self._has_beginning(fork):
                    self._decide_later(member, evidence)

    def _decide_later(self, member: Member, evidence: Evidence) -> None:
        """Keep it in mind, unless there is too much of that from members that are here."""
        for subject, (sender, _) in list(self._undecided.items()):
            if sender.close_reason is not None:
                del self._undecided[subject]  # the member says it again when it joins
        if _has_room(item for _, item in self._undecided.values()):
            self._undecided[evidence.subject] = (member, evidence)
            self._to_look_at.add(evidence.subject)  # the value may have moved before this
            self._has_undecided.set()

    def _refuse(self, member: Member, evidence: Evidence, why: str) -> None:
        self.refused += 1
        kind = evidence.kind.name.lower()
        self._end(member, f"false evidence about {kind} {evidence.subject[:80]}: {why}")

    def _end(self, member: Member, reason: str) -> None:
        member.expel(reason)

    async def _keep_core(self, key: bytes, proof: bytes, source: Member | None = None) -> None:
        told_by = None if source is None else source.id
        async with self._keeping:
            if self.is_forked(key):
                return
            rows: dict[bytes, bytes | None] = {_row(key): proof}
            given_up = None
            if self._forked.is_full:
                given_up = self._forked.giving_way(key, told_by, self._of_concern(key))
                if given_up is None:
                    _log.error("evidence not kept: there is too much", core=key.hex())
                    return
                rows[_row(given_up)] = None
            await self._rows.write_local(rows)
            if given_up is not None:
                self._forked.remove(given_up)
                del self._kept[given_up.hex()]
            self._note_core(key, proof, told_by)
        where = "found here" if source is None else source.id.hex()[:12]
        _log.warning("evidence of a fork kept", core=key.hex()[:12], told_by=where)
        self._pass_on(self._kept[key.hex()], source)
        for member in list(self._members.values()):
            if member.welcome is not None and member.welcome.data_key == key:
                member.freeze()

    def _of_concern(self, key: bytes) -> Set[bytes]:
        """Those of the cores kept, and of this one, that matter here."""
        known = self._known_cores()
        keys = {key, *(core.key for core in self._forked.cores)}
        return {key for key in keys if key in known or key in self.mirrored}

    def _note_core(self, key: bytes, proof: bytes, told_by: bytes | None) -> None:
        """Raises: InvalidProof."""
        self._forked.add(ForkedCore(key, str(verify_fork_proof(proof, key)), proof), told_by)
        self._kept[key.hex()] = Evidence(EvidenceKind.CORE, key.hex(), proof, b"")

    def _pass_on(self, evidence: Evidence, source: Member | None = None) -> None:
        for member in list(self._members.values()):
            if member is not source:
                member.outbox.queue_evidence([evidence])

    async def _watch_cores(self, cores: WitnessedCores) -> None:
        async for core in cores.frozen_cores():
            proof = core.fork_proof
            if core.key in self._frozen_by_word:
                self._frozen_by_word.remove(core.key)
            elif proof is not None:
                try:
                    await self._keep_core(core.key, proof.encode())
                except StorageError as error:
                    # It stays with the core, and is kept at a later start.
                    _log.error("evidence not kept", core=core.key.hex(), error=str(error))

    async def _watch_sessions(self) -> None:
        """Pass on evidence kept of sessions, as far as others can judge it, too."""
        seen = 0
        store, forks = self._host.store, self._host.forks
        while True:
            await forks.wait_kept(seen)
            seen = forks.forks_found
            try:
                for fork in await store.forks():
                    await self._pass_on_session(store, fork)
            except CorruptStore as error:
                _log.error("cannot read forks", error=str(error))

    async def _pass_on_session(self, store: CoValueStore, fork: SessionFork) -> None:
        evidence = encode_session_evidence(fork)
        # Only the beginning of a very long half is kept, and its signature does not cover that.
        if (
            evidence.subject not in self._kept
            and await judge_fork(store, fork) is EvidenceVerdict.PROVEN
        ):
            self._kept[evidence.subject] = evidence
            self._pass_on(evidence)


def _row(key: bytes) -> bytes:
    return _ROW_PREFIX + key.hex().encode()


def _has_room(waiting: Iterable[Evidence]) -> bool:
    """Whether one more piece may wait beside these."""
    sizes = [len(item.first) + len(item.second) for item in waiting]
    return len(sizes) < MAX_WAITING and sum(sizes) < MAX_WAITING_BYTES


def encode_session_evidence(fork: SessionFork) -> Evidence:
    """Halves are sorted, so that all nodes make the same evidence of one fork."""
    first, second = sorted((encode_part(fork.kept), encode_part(fork.refused)))
    return Evidence(EvidenceKind.SESSION, f"{fork.co_id}:{fork.session_id}", first, second)


def decode_session_evidence(evidence: Evidence) -> SessionFork:
    """Raises: DecodeError for anything else than `encode_session_evidence` makes."""
    co_id, _, session_id = evidence.subject.partition(":")
    return SessionFork(
        parse_co_id(co_id),
        parse_session_id(session_id),
        decode_part(evidence.first),
        decode_part(evidence.second),
    )
