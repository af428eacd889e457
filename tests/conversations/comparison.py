"""What a conversation with our server has to have in common with one with cojson's."""

from __future__ import annotations

from collections.abc import Sequence

from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from tests.conversations.original import LOADER, OriginalProcess
from tests.conversations.party import MAX_TURNS, Cost, Held, Outcome, Server

_FACTOR = 1.3
_GRACE = 30
"""Of transactions, beyond the factor: a server that begins anew before it has acknowledged them,
which cojson's does at once, is sent them again."""


def differences(ours: Outcome, original: Outcome, *, compares_costs: bool) -> list[str]:
    """What clients have in the end must be equal, and what it costs about so.

    With a value that is deleted the original still sends the accounts of all who ever wrote to it.
    It judges a deletion once, and does not take one that comes before all of the owning group has.
    """
    found = [
        f"{client} does not have {co_id} as it has it of the original"
        for client, held in original.held.items()
        for co_id in sorted({*held, *ours.held[client]})
        if held.get(co_id) != ours.held[client].get(co_id)
        and co_id in ours.wanted[client]
        and not (_is_deleted(ours, co_id) and not _is_deleted(original, co_id))
    ]
    if not compares_costs:
        return found
    for what, cost, other in (
        ("said", ours.said, original.said),
        ("heard", ours.heard, original.heard),
    ):
        found += _excess(what, cost, other)
    return found


def _is_deleted(outcome: Outcome, co_id: RawCoId) -> bool:
    """Whether somebody has a deletion of this value: nobody writes one who may not."""
    held = [of_client[co_id] for of_client in outcome.held.values() if co_id in of_client]
    return any(is_delete_session(key) for known in held for key in known.sessions)


def _excess(what: str, cost: Cost, other: Cost) -> list[str]:
    if cost.transactions > _FACTOR * other.transactions + _GRACE:
        return [f"{cost.transactions} transactions were {what}, {other.transactions} originally"]
    return []


def loading_faults(server: Server, process: OriginalProcess, stored: Held) -> list[str]:
    """Whether a real client that comes now gets all that is stored."""
    held = _load(server, process, list(stored))
    return [
        f"a real client has {sorted(held[co_id].items()) if co_id in held else 'nothing'} of "
        f"{co_id}, stored {sorted(known.sessions.items())}"
        for co_id, known in stored.items()
        if held.get(co_id) != known.sessions
    ]


def _load(
    server: Server, process: OriginalProcess, co_ids: Sequence[RawCoId]
) -> dict[RawCoId, dict[CoSessionId, int]]:
    server.join(LOADER)
    process.load(co_ids)
    for _ in range(MAX_TURNS):
        said = process.take(LOADER)
        if said:
            server.say(LOADER, said)
        is_busy = server.rest()
        heard = server.take(LOADER)
        if heard:
            process.hear(heard)
        if not (said or heard or is_busy):
            break
    return process.held()
