"""[trio] The verbs about coValues, carried out by a running node."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import assert_never

import trio

from node.cojson.crypto import encode_signature
from node.cojson.host import SyncHost
from node.cojson.reports import LoadReport
from node.covalue.content import SessionContent, canonical_transaction
from node.covalue.ids import RawCoId, named_co_id
from node.covalue.session_fork import SessionFork
from node.covalue.store import CoValueStore
from node.errors import CorruptStore
from node.mesh.forked_cores import ForkedCore
from node.mesh.mesh import Mesh
from node.verbs import ExitCode, ListForks, ListValues, Load, Result, VerbError, encode_bytes


async def perform_on_values(
    host: SyncHost, mesh: Mesh | None, verb: Load | ListValues | ListForks
) -> AsyncGenerator[Result, None]:
    """Carry out one verb.

    Raises: VerbError.
    Cancel: what was fetched stays.
    """
    store = host.store
    match verb:
        case Load():
            try:
                yield await _load(host, mesh, verb)
            except CorruptStore as error:
                raise VerbError(ExitCode.CORRUPT, str(error)) from error
        case ListValues():
            async for co_id in store.ids(verb.prefix):
                yield await _describe_value(store, co_id) if verb.details else {"id": co_id}
        case ListForks():
            try:
                forks = await store.forks()
            except CorruptStore as error:
                raise VerbError(ExitCode.CORRUPT, str(error)) from error
            for fork in forks:
                yield _describe_fork(fork)
            for core in mesh.witness.forked_cores if mesh is not None else ():
                yield _describe_core(core)
        case _:
            assert_never(verb)


def named_id(text: str) -> RawCoId:
    """The id that a verb is about. Raises: VerbError."""
    try:
        return named_co_id(text)
    except ValueError as error:
        raise VerbError(ExitCode.USAGE, str(error)) from None


async def _load(host: SyncHost, mesh: Mesh | None, verb: Load) -> Result:
    co_id = named_id(verb.id)
    with trio.move_on_after(verb.timeout_seconds) as scope:
        report = await host.load(co_id)
        if report is not None:
            return _describe_load(report, mesh)
    if scope.cancelled_caught:
        raise VerbError(
            ExitCode.TIMEOUT,
            f"{co_id} did not come whole within {verb.timeout_seconds:g} s: try again, or "
            f"with a longer --timeout",
        )
    check_finds(mesh, co_id)
    match 0 if mesh is None else len(mesh.members):
        case 0 if mesh is None:
            others = "with --store sqlite there are no other nodes to ask"
        case 0:
            others = "no other node is connected"
        case 1:
            others = "the one connected node does not have it"
        case count:
            others = f"none of the {count} connected nodes has it"
    raise VerbError(ExitCode.NOT_FOUND, f"{co_id} is not here, and {others}: see `beemesh peers`")


def check_finds(mesh: Mesh | None, co_id: RawCoId) -> None:
    """Raises: VerbError, if this node cannot tell whether others have what is not here."""
    if mesh is not None and mesh.trust.is_blind:
        text = f"{co_id} is not here to read: this node is blind, and keeps logs; ask another node"
        raise VerbError(ExitCode.NOT_FOUND, text)


def _describe_load(report: LoadReport, mesh: Mesh | None) -> Result:
    is_fetched = report.source == "mesh"
    fetch = mesh.report(report.co_id) if mesh is not None and is_fetched else None
    return {
        "id": report.co_id,
        "header": report.header.fields,
        "sessions": dict(report.sessions),
        "transactions": sum(report.sessions.values()),
        "source": report.source,
        "member": fetch.member_id.hex() if fetch is not None else None,
        "blocks_fetched": fetch.blocks if fetch is not None else 0,
        "bytes_fetched": fetch.bytes if fetch is not None else 0,
        "round_trips": fetch.round_trips if fetch is not None else 0,
        "fetch_seconds": round(fetch.seconds, 6) if fetch is not None else 0,
    }


async def _describe_value(store: CoValueStore, co_id: RawCoId) -> Result:
    try:
        value = await store.load_value(co_id)
    except CorruptStore:
        return {"id": co_id, "type": "damaged", "sessions": 0, "transactions": 0}
    if value is None:  # gone since it was listed
        return {"id": co_id, "type": None, "sessions": 0, "transactions": 0}
    counts = [session.count for session in value.sessions.values()]
    kind = "deleted" if value.is_deleted else value.header.fields["type"]
    return {"id": co_id, "type": kind, "sessions": len(counts), "transactions": sum(counts)}


def _describe_fork(fork: SessionFork) -> Result:
    """All that is needed to check a fork offline, besides the session up to it."""
    return {
        "id": fork.co_id,
        "session": fork.session_id,
        "index": fork.index,
        "kept": _describe_part(fork.kept),
        "refused": _describe_part(fork.refused),
    }


def _describe_core(core: ForkedCore) -> Result:
    """`beemesh core verify-proof` checks the proof, offline."""
    return {"core": core.key.hex(), "conflict": core.conflict, **encode_bytes("proof", core.proof)}


def _describe_part(part: SessionContent) -> Result:
    """As in a content message."""
    return {
        "after": part.after,
        "newTransactions": [json.loads(canonical_transaction(item)) for item in part.transactions],
        "lastSignature": encode_signature(part.signature),
    }
