"""Comparing what a client has stored with what is stored here, a batch of ids at a time.

A value that is equal costs nothing, any other is asked for with `load`; when every value asked for
got a `known` or its content, the batch is acknowledged. Reconciled values are not subscribed to.
Only a part of a large batch is asked for at a time: each question names all sessions of a value.

Source: cojson 0.20.19 sync.ts handleReconcile, OngoingStorageReconciliationTracker.ts.
"""

from __future__ import annotations

from node.cojson.messages import Load, ReconcileAck
from node.cojson.outputs import EndPeer, Output, Send
from node.cojson.peer_view import PeerView, ReconcileBatch
from node.cojson.value_table import ValueEntry
from node.covalue.ids import RawCoId

MAX_BATCHES = 16
"""Batches a client may have open; JavaScript waits for each before the next."""

MAX_COUNTERS_AT_ONCE = 4096
"""Session counters in what is asked of a batch at a time, about 400 KB; one value may have more."""


def open_batch(peer: PeerView, batch_id: str, values: int, out: list[Output]) -> None:
    """Expect `compare_value` for so many values; an empty batch is settled at once."""
    if len(peer.batches) >= MAX_BATCHES:
        out.append(EndPeer(peer.peer_id, f"more than {MAX_BATCHES} reconcile batches open"))
        return
    peer.batches[batch_id] = ReconcileBatch(values)
    _finish(peer, batch_id, out)


def compare_value(
    peer: PeerView,
    batch_id: str,
    entry: ValueEntry,
    their_hash: str,
    out: list[Output],
) -> None:
    """One value of the batch: ask for it unless it is equal."""
    batch = peer.batches.get(batch_id)
    if batch is None:
        return
    batch.unread -= 1
    if not entry.durable.header or entry.durable_hash != their_hash:
        batch.later.append((entry.co_id, entry.durable))
        _ask(peer, batch, out)
    _finish(peer, batch_id, out)


def tick_batches(peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
    """The client has answered about this value."""
    for batch_id, batch in list(peer.batches.items()):
        if co_id in batch.awaited:
            batch.counters -= batch.awaited.pop(co_id)
            _ask(peer, batch, out)
            _finish(peer, batch_id, out)


def _ask(peer: PeerView, batch: ReconcileBatch, out: list[Output]) -> None:
    while batch.later:
        co_id, durable = batch.later[0]
        counters = len(durable.sessions)
        if batch.awaited and batch.counters + counters > MAX_COUNTERS_AT_ONCE:
            return
        batch.later.popleft()
        is_asked = any(co_id in other.awaited for other in peer.batches.values())
        batch.counters += counters - batch.awaited.get(co_id, 0)
        batch.awaited[co_id] = counters
        if not is_asked:  # its answer is one to all batches: it names what it has by then
            out.append(Send(peer.peer_id, Load(co_id, durable)))


def _finish(peer: PeerView, batch_id: str, out: list[Output]) -> None:
    batch = peer.batches[batch_id]
    if batch.unread == 0 and not batch.awaited:
        del peer.batches[batch_id]
        out.append(Send(peer.peer_id, ReconcileAck(batch_id)))
