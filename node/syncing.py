"""[trio] The verbs about sync, carried out by a running node: how far it is, and waiting for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import assert_never

import trio

from node.cojson.copies import CopyLedger, needed_copies
from node.cojson.host import SyncHost
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.errors import CorruptStore
from node.mesh.mesh import Mesh
from node.mesh.messages import MAX_QUERY_IDS
from node.mesh.sync_state import SyncState
from node.values import named_id
from node.verbs import ExitCode, Result, ShowSync, VerbError, WaitSync

MAX_WAITED = MAX_QUERY_IDS
"""Values that one `sync wait` may name: as many as one question to the members holds."""

PACE_SECONDS = 0.1
"""Progress is told once in this time at most."""

LOOK_SECONDS = 1.0
"""How often members are asked again, if nothing happens by itself."""


async def perform_on_sync(
    host: SyncHost, mesh: Mesh | None, verb: ShowSync | WaitSync
) -> AsyncGenerator[Result, None]:
    """Carry out one verb. Of a wait each result is how far it is; the last one `is_done`.

    Raises: VerbError.
    Cancel: nothing is changed.
    """
    match verb:
        case ShowSync():
            yield describe_state(_need_mesh(mesh).sync_state())
        case WaitSync() if verb.ids:
            async for progress in _wait_values(host, mesh, verb):
                yield asdict(progress) | {"is_done": progress.is_done}
        case WaitSync():
            async for result in _wait_all(_need_mesh(mesh), verb):
                yield result
        case _:
            assert_never(verb)


def describe_state(state: SyncState) -> Result:
    """As JSON has it."""
    members = [
        asdict(member) | {"left": member.left, "is_done": member.is_done, "state": member.state}
        for member in state.members
    ]
    return {
        "is_done": state.is_done,
        "wanted": state.wanted,
        "held": state.held,
        "missing": state.missing,
        "left": state.left,
        "min_copies": state.min_copies,
        "waiting": state.waiting,
        "unkept": state.unkept,
        "logs_kept": state.logs_kept,
        "why": state.why,
        "members": members,
    }


def _need_mesh(mesh: Mesh | None) -> Mesh:
    if mesh is None:
        raise VerbError(
            ExitCode.USAGE,
            "with --store sqlite there are no other nodes to be in step with: see `beemesh status`",
        )
    return mesh


async def _wait_all(mesh: Mesh, verb: WaitSync) -> AsyncGenerator[Result, None]:
    """Wait until the node is done with everybody, and enough are there to hold copies."""
    members = max(verb.min_copies, mesh.sync_state().min_copies, 2) - 1
    deadline = trio.current_time() + verb.timeout_seconds
    while True:
        state = mesh.sync_state()
        is_done = state.is_done and sum(member.is_done for member in state.members) >= members
        yield {**describe_state(state), "is_done": is_done}
        if is_done:
            return
        if trio.current_time() >= deadline:
            lacking = f"{len(state.members) + 1} of {members + 1} nodes are here"
            raise VerbError(
                ExitCode.TIMEOUT,
                f"not in step after {verb.timeout_seconds:g} s: {state.why or lacking} "
                f"(`beemesh sync status` shows more)",
            )
        await trio.sleep(PACE_SECONDS)
        with trio.move_on_at(min(deadline, trio.current_time() + LOOK_SECONDS)):
            await mesh.wait_sync_changed()


@dataclass(frozen=True, slots=True)
class ValuesProgress:
    """How far a wait for single values is: `held` of the `wanted` are here.

    `copied` of them are on `min_copies` nodes; `copies` is how many nodes hold the rarest.
    """

    wanted: int
    held: int
    copied: int
    copies: int
    min_copies: int
    nodes: int

    @property
    def is_done(self) -> bool:
        return self.held == self.copied == self.wanted

    @property
    def left(self) -> int:
        return 2 * self.wanted - self.held - self.copied


async def _wait_values(
    host: SyncHost, mesh: Mesh | None, verb: WaitSync
) -> AsyncGenerator[ValuesProgress, None]:
    ids = _named_ids(verb.ids)
    min_copies = verb.min_copies or host.copies.min_copies
    if mesh is None and min_copies > 1:
        _need_mesh(mesh)
    deadline = trio.current_time() + verb.timeout_seconds
    await _find(host, mesh, ids)
    with host.watching_copies(ids) as ledger:
        while True:
            if mesh is not None:
                await mesh.finder.ask_copies(ids)
            states = await _states(host, ids)
            progress = _progress(ledger, states, min_copies, mesh)
            yield progress
            if progress.is_done:
                return
            if trio.current_time() >= deadline:
                raise VerbError(
                    ExitCode.TIMEOUT,
                    f"not in step after {verb.timeout_seconds:g} s: {progress.held} of "
                    f"{progress.wanted} values are wholly here, {progress.copied} on "
                    f"{min_copies} nodes; {progress.nodes} nodes are connected, this one included",
                )
            await trio.sleep(PACE_SECONDS)
            if mesh is not None:
                with trio.move_on_at(min(deadline, trio.current_time() + LOOK_SECONDS)):
                    await mesh.wait_sync_changed()


def _named_ids(texts: Sequence[str]) -> list[RawCoId]:
    if len(texts) > MAX_WAITED:
        raise VerbError(ExitCode.USAGE, f"{len(texts)} ids, at most {MAX_WAITED} at a time")
    return list(dict.fromkeys(map(named_id, texts)))


async def _find(host: SyncHost, mesh: Mesh | None, ids: Sequence[RawCoId]) -> None:
    """Bring over what is not here at all. Raises: VerbError for what is nowhere else either."""
    states = await _states(host, ids)
    unknown = [co_id for co_id in ids if not states[co_id].header]
    if unknown and mesh is not None:
        await mesh.find(unknown, {})
        states = await _states(host, unknown)
        unknown = [co_id for co_id in unknown if not states[co_id].header]
    if unknown:
        members = 0 if mesh is None else len(mesh.members)
        raise VerbError(
            ExitCode.NOT_FOUND,
            f"{unknown[0]} is neither here nor at any of {members} connected nodes"
            + (f", nor are {len(unknown) - 1} others" if len(unknown) > 1 else ""),
        )


async def _states(host: SyncHost, ids: Sequence[RawCoId]) -> dict[RawCoId, KnownState]:
    states: dict[RawCoId, KnownState] = {}
    for co_id in ids:
        try:
            states[co_id] = await host.known_state(co_id)
        except CorruptStore as error:
            raise VerbError(ExitCode.CORRUPT, str(error)) from error
    return states


def _progress(
    ledger: CopyLedger,
    states: Mapping[RawCoId, KnownState],
    min_copies: int,
    mesh: Mesh | None,
) -> ValuesProgress:
    copies = [
        state.header + ledger.holders(co_id, needed_copies(state, state))
        for co_id, state in states.items()
    ]
    return ValuesProgress(
        wanted=len(states),
        held=sum(
            state.header and not ledger.is_ahead(co_id, state) for co_id, state in states.items()
        ),
        copied=sum(count >= min_copies for count in copies),
        copies=min(copies, default=0),
        min_copies=min_copies,
        nodes=1 if mesh is None else 1 + len(mesh.members),
    )
