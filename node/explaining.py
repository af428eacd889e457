"""[trio] Why a value is here or is not: `beemesh explain`, carried out by a running node."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import trio

from bee.bee import Bee
from bee.errors import BeeError
from hypercore.core import Core
from hypercore.errors import HypercoreError
from node.cojson.host import SyncHost
from node.covalue.ids import RawCoId
from node.covalue.keys import header_key, value_range
from node.covalue.store import StoredValue
from node.errors import CorruptStore
from node.mesh.mesh import Mesh
from node.mesh.owners import owner_in
from node.mesh.replicas import Why
from node.values import check_finds, named_id
from node.verbs import Explain, Result

_WHY_TEXT = {
    Why.EVERYTHING: "this node is a full replica",
    Why.PINNED: "it is pinned",
    Why.PREFIX: "it is followed",
    Why.OWNER: "it is followed",
}


async def explain(
    host: SyncHost, mesh: Mesh | None, data: Core | None, verb: Explain
) -> AsyncGenerator[Result, None]:
    """Yields one result: all that this node knows of a value, and who else claims to hold it.

    `found` is false when it is neither here nor at any connected node.

    Raises: VerbError.
    Cancel: nothing is changed.
    """
    co_id = named_id(verb.id)
    try:
        value = await host.store.load_value(co_id)
        damage = None
    except CorruptStore as error:
        value, damage = None, str(error)
    if value is None and damage is None:
        check_finds(mesh, co_id)
    holders = [] if mesh is None else await _ask_holders(mesh, co_id, value, verb.timeout_seconds)
    owners: tuple[str, ...] = ()
    if mesh is not None and value is not None:
        await mesh.owners.resolve([co_id])
        owners = mesh.owners.of(co_id) or ()
    reasons = _reasons(host, mesh, co_id, owners)
    sessions = {} if value is None else {id: item.count for id, item in value.sessions.items()}
    yield {
        "id": co_id,
        "found": value is not None or bool(holders),
        "is_here": value is not None,
        "is_deleted": value is not None and value.is_deleted,
        "damage": damage,
        "type": None if value is None else value.header.fields["type"],
        "owner": None if value is None else owner_in(value.header) or None,
        "sessions": sessions,
        "transactions": sum(sessions.values()),
        "wanted": bool(reasons.wanted),
        "why": reasons.wanted,
        "why_not": reasons.against,
        "holders": holders,
        "members_asked": 0 if mesh is None else len(mesh.members),
        **await _since(mesh, data, co_id, value),
    }


@dataclass(frozen=True, slots=True)
class _Reasons:
    wanted: list[str]
    against: list[str]


def _reasons(
    host: SyncHost, mesh: Mesh | None, co_id: RawCoId, owners: tuple[str, ...]
) -> _Reasons:
    wanted: list[str] = []
    against: list[str] = []
    if host.is_subscribed(co_id):
        wanted.append("a client is subscribed to it")
    if mesh is None:
        return _Reasons(wanted, against)
    policy = mesh.policy
    denial = policy.denial(co_id, owners)
    if denial is not None:
        return _Reasons(
            [], [f"denied by {denial}: it comes from other nodes only with what needs it"]
        )
    kept = policy.reason(co_id, owners)
    if kept is not None:
        why, rule = kept
        is_named = why in (Why.PREFIX, Why.OWNER)
        wanted.append(_WHY_TEXT[why] + (f" ({rule})" if is_named else ""))
    not_taken = mesh.screening.not_taken(co_id)
    if not_taken is not None:
        against.append(
            f"offered by node {not_taken.member_id.hex()[:12]}, not taken: {not_taken.reason}"
        )
    if not wanted and not against:
        against.append("no client asks for it, and no rule pins or follows it")
    return _Reasons(wanted, against)


async def _ask_holders(
    mesh: Mesh, co_id: RawCoId, value: StoredValue | None, seconds: float
) -> list[Result]:
    ours = {} if value is None else {id: item.count for id, item in value.sessions.items()}
    held: list[Result] = []
    with trio.move_on_after(seconds):
        for member_id, sessions in sorted((await mesh.finder.ask_holders(co_id)).items()):
            member = mesh.members.get(member_id)
            name = member.welcome.name if member is not None and member.welcome is not None else ""
            more = sum(max(0, count - ours.get(id, 0)) for id, count in sessions.items())
            less = sum(max(0, count - sessions.get(id, 0)) for id, count in ours.items())
            held.append(
                {
                    "id": member_id.hex(),
                    "name": name,
                    "sessions": len(sessions),
                    "transactions": sum(sessions.values()),
                    "ahead": more,
                    "behind": less,
                }
            )
    return held


async def _since(
    mesh: Mesh | None, data: Core | None, co_id: RawCoId, value: StoredValue | None
) -> Result:
    """When it came and from whom; a time of which only bounds are known is (after, before)."""
    facts: dict[str, object] = {
        "came_from": None,
        "came_unix": (None, None),
        "updated_from": None,
        "updated_unix": (None, None),
    }
    if mesh is None or data is None or value is None:
        return facts
    versions = await _versions(data, co_id)
    if versions is not None:
        facts["came_unix"], facts["updated_unix"] = map(mesh.provenance.time_of, versions)
    arrival = mesh.provenance.arrival(co_id)
    if arrival is None:  # a client or an import brought it, or a note was lost, as in a crash
        return facts
    if versions is None or arrival.was_first(versions[0]):
        facts["came_from"] = f"node {arrival.first_member.hex()}"
        facts["came_unix"] = (arrival.first_unix, arrival.first_unix)
    if versions is None or arrival.was_last(versions[1]):
        facts["updated_from"] = f"node {arrival.last_member.hex()}"
        facts["updated_unix"] = (arrival.last_unix, arrival.last_unix)
    return facts


async def _versions(data: Core, co_id: RawCoId) -> tuple[int, int] | None:
    """The blocks of our core that have a value's header and its last row."""
    bee = Bee(data, extension=False)
    start, stop = value_range(co_id)
    try:
        header = await bee.get(header_key(co_id))
        last = -1
        async for entry in bee.range(gte=start, lt=stop):
            last = max(last, entry.seq)
    except (BeeError, HypercoreError):
        return None
    return None if header is None else (header.seq, last)
