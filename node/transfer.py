"""[trio] Moving coValues between this node's store and a cojson SQLite file.

**Import** goes through the engine's own door: ids are checked against headers and every session
against its signature, dependencies first. What the node has already is passed over, so an import
that broke off goes on where it stopped, and a second one brings only what came since. The file is
not changed; a server may have it open.

**Export** writes what was verified when it came in. Into an existing file it writes what is missing
there.

Both tell how far they are about twice a second, name each value that cannot be moved, and go on:

    {"done": 120, "total": 5000}
    {"id": "co_z...", "refused": "..."}           or "damaged", or "waiting"
    {"moved": 4998, "skipped": 0, "refused": 1, "damaged": 1, "waiting": 0, "seconds": 2.1}
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, assert_never

import trio

from hypercore.errors import StorageFailed, StoreLocked
from hypercore.storage import Durability
from hypercore.storage.lock_holder import OURSELVES
from node.cojson.reports import Receipt
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.covalue.reconciling import copy_value
from node.covalue.sqlite_reader import SqliteReader, open_foreign
from node.covalue.sqlite_store import open_sqlite_store
from node.covalue.store import CoValueStore, StoredValue
from node.errors import ConfigError, CorruptStore
from node.verbs import ExitCode, ExportValues, ImportValues, Result, TransferVerb, VerbError

REPORT_SECONDS = 0.5
BATCH_BYTES = 1024 * 1024
"""Content handed to the engine at a time: it becomes durable together."""

BATCH_PIECES = 256
_PAGE_IDS = 512
_TURN = 16
"""Values after which other tasks run: a few milliseconds."""


class TransferDoor(Protocol):
    """The sync host, as far as transfers are concerned."""

    @property
    def store(self) -> CoValueStore: ...

    async def receive_content(self, source: str, contents: Sequence[Content]) -> Receipt: ...

    async def known_state(self, co_id: RawCoId) -> KnownState: ...


@dataclass(slots=True)
class Transferred:
    """Values by what became of them."""

    moved: int = 0
    skipped: int = 0
    """All of it was there already."""
    refused: int = 0
    damaged: int = 0
    waiting: int = 0
    """They depend on an account or a group that is neither in the file nor here."""

    @property
    def done(self) -> int:
        return self.moved + self.skipped + self.refused + self.damaged + self.waiting


async def perform_transfer(door: TransferDoor, verb: TransferVerb) -> AsyncGenerator[Result, None]:
    """Carry one out; the results are those above, the last one is the summary.

    Raises: VerbError.
    Cancel: what was moved stays.
    """
    started = trio.current_time()
    path = Path(verb.file)
    counts = Transferred()
    match verb:
        case ImportValues():
            results = _import(door, path, counts)
        case ExportValues():
            results = _export(door.store, path, counts)
        case _:
            assert_never(verb)
    try:
        reported = started
        steps = 0
        async for result in results:
            steps += 1
            if steps % _TURN == 0:
                await trio.lowlevel.checkpoint()  # what is there already is passed over in no time
            if "id" in result:
                yield result
            elif trio.current_time() >= reported + REPORT_SECONDS:
                reported = trio.current_time()
                yield result
    except StoreLocked as error:
        raise VerbError(ExitCode.FAILED, _who_has_it(error)) from error
    except ConfigError as error:
        raise VerbError(ExitCode.USAGE, str(error)) from error
    except StorageFailed as error:
        raise VerbError(ExitCode.FAILED, f"{error}: check the disk") from error
    finally:
        await results.aclose()
    yield {**asdict(counts), "seconds": round(trio.current_time() - started, 3)}


def _who_has_it(error: StoreLocked) -> str:
    if error.holder != OURSELVES:
        return str(error)
    return (
        f"{error.path} is in use by this node: another export is writing it, or it is where the "
        f"node keeps its own coValues; wait, or name another file"
    )


async def _export(
    store: CoValueStore, path: Path, counts: Transferred
) -> AsyncGenerator[Result, None]:
    total = store.count()
    # Everything is synced when the file is closed: until then there is nothing to lose.
    async with open_sqlite_store(path, Durability.OS) as target:
        async for co_id in store.ids():
            try:
                is_copied = await copy_value(co_id, store, target)
            except CorruptStore as error:
                counts.damaged += 1
                yield {"id": co_id, "damaged": error.reason}
            else:
                counts.moved += is_copied
                counts.skipped += not is_copied
            yield {"done": counts.done, "total": max(total, counts.done)}


async def _import(
    door: TransferDoor, path: Path, counts: Transferred
) -> AsyncGenerator[Result, None]:
    with closing(await trio.to_thread.run_sync(open_source, path)) as reader:
        totals = await trio.to_thread.run_sync(reader.totals)
        importer = _Importer(door, reader, counts)
        for co_id, found in _in_order(reader):
            await importer.add(co_id, found)
            for result in importer.take_results():
                yield result
            yield {"done": counts.done, "total": max(totals.values, counts.done)}
        await importer.flush()
        for result in importer.take_results():
            yield result


def open_source(path: Path) -> SqliteReader:
    """The file that is to be imported. Blocks on the disk. Raises: VerbError."""
    try:
        return open_foreign(path)
    except FileNotFoundError as error:
        raise VerbError(ExitCode.NOT_FOUND, f"{path} is no file") from error
    except ConfigError as error:
        raise VerbError(ExitCode.USAGE, str(error)) from error


class _Importer:
    """Hands values to the engine, many at a time, and counts what becomes of them."""

    def __init__(self, door: TransferDoor, reader: SqliteReader, counts: Transferred) -> None:
        self._door = door
        self._reader = reader
        self._counts = counts
        self._pieces: list[Content] = []
        self._size = 0
        self._batch: dict[RawCoId, bool] = {}
        """Values whose pieces wait to be handed in, and whether those are their last ones."""
        self._failed: set[RawCoId] = set()
        self._results: list[Result] = []

    def take_results(self) -> list[Result]:
        """What is to be told about single values since the last call."""
        results, self._results = self._results, []
        return results

    async def add(self, co_id: RawCoId, found: StoredValue | CorruptStore) -> None:
        """Hand in what this node lacks of a value."""
        try:
            if isinstance(found, CorruptStore):
                raise found
            known = await self._door.known_state(co_id)
            if known.covers(found.known_state):
                self._counts.skipped += 1
                return
            is_complete = False
            while not is_complete:
                loaded = self._reader.load(co_id, known, BATCH_BYTES)
                is_complete = loaded.is_complete
                for piece in loaded.pieces:
                    known = known.merged(piece.known_state)
                    await self._add_piece(piece)
                self._batch[co_id] = is_complete
        except CorruptStore as error:
            self._batch.pop(co_id, None)
            self._fail(co_id, "damaged", error.reason)

    async def _add_piece(self, piece: Content) -> None:
        self._pieces.append(piece)
        self._batch[piece.co_id] = False
        self._size += piece.size
        if self._size >= BATCH_BYTES or len(self._pieces) >= BATCH_PIECES:
            await self.flush()

    async def flush(self) -> None:
        """Hand in what waits, and note what became of it."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        batch, self._batch = self._batch, {}
        if not pieces:
            return
        receipt = await self._door.receive_content("import", pieces)
        for co_id, is_whole in batch.items():
            if co_id in receipt.refused:
                self._fail(co_id, "refused", receipt.refused[co_id])
            elif co_id in receipt.waiting:
                self._fail(co_id, "waiting", "it depends on a value that is not here")
            elif is_whole and co_id not in self._failed:
                self._counts.moved += 1

    def _fail(self, co_id: RawCoId, how: str, reason: str) -> None:
        if co_id in self._failed:
            return
        self._failed.add(co_id)
        match how:
            case "refused":
                self._counts.refused += 1
            case "waiting":
                self._counts.waiting += 1
            case _:
                self._counts.damaged += 1
        self._results.append({"id": co_id, how: reason})


def _in_order(reader: SqliteReader) -> Iterator[tuple[RawCoId, StoredValue | CorruptStore]]:
    """Every value of the file once, after those that it depends on."""
    early: set[RawCoId] = set()
    """Values that came before their turn, since others depend on them."""
    after = ""
    while page := reader.ids("", after, _PAGE_IDS):
        for co_id in page:
            after = co_id
            if co_id in early:
                early.discard(co_id)
            else:
                yield from _with_dependencies(reader, co_id, early)


def _with_dependencies(
    reader: SqliteReader, co_id: RawCoId, early: set[RawCoId]
) -> Iterator[tuple[RawCoId, StoredValue | CorruptStore]]:
    found = _look(reader, co_id)
    if found is None:
        return
    path = [(co_id, found, _dependencies(found))]
    while path:
        current, found, dependencies = path[-1]
        # What sorts before `co_id` had its turn.
        missing = next((d for d in dependencies if d > co_id and d not in early), None)
        if missing is None:
            path.pop()
            yield current, found
            if current != co_id:
                early.add(current)
        elif all(missing != waiting for waiting, _, _ in path):
            found = _look(reader, missing)
            if found is not None:
                path.append((missing, found, _dependencies(found)))


def _look(reader: SqliteReader, co_id: RawCoId) -> StoredValue | CorruptStore | None:
    try:
        return reader.load_value(co_id)
    except CorruptStore as error:
        return error


def _dependencies(found: StoredValue | CorruptStore) -> Iterator[RawCoId]:
    return iter(() if isinstance(found, CorruptStore) else sorted(found.dependencies))
