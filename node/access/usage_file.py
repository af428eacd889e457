"""[disk] What accounts have stored, kept in `usage.json` beside the store.

The file is replaced as a whole every few seconds while something is stored, and at the end. After
a crash it lacks what was stored since it was written last: at most SAVE_SECONDS' worth (or fifty
times what a save takes, should there be so many accounts), which then counts for nobody. Without
the file, or when it cannot be read, everything stored is looked through before the node serves:
that is how quotas begin on a store that is there already, and how to count anew after erasing.
"""

from __future__ import annotations

import time
from pathlib import Path

import structlog
import trio

from hypercore.encoding import DecodeError
from node.access.usage import Charge, Usage
from node.covalue.content import Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState, merge_counts
from node.covalue.store import CoValueStore
from node.errors import CorruptStore
from node.private_file import remove_scratch, write_private

SAVE_SECONDS = 5.0
_SAVE_SHARE = 50
_READ_BYTES = 2**20
_PROGRESS_VALUES = 50_000

_log = structlog.get_logger(__name__)


async def load_usage(path: Path, store: CoValueStore) -> Usage:
    """From the file, else from all that is stored.

    Cancel: nothing is changed.
    """
    try:
        return Usage.decode(await trio.to_thread.run_sync(_read, path))
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError, DecodeError) as error:
        _log.warning("usage unreadable", path=str(path), error=str(error))
    return await count_usage(store)


async def count_usage(store: CoValueStore) -> Usage:
    """Look through everything stored; values that are damaged count for nobody.

    About a thousand values a second on a busy core.

    Cancel: nothing is changed.
    """
    usage = Usage()
    done = 0
    async for co_id in store.ids():
        try:
            await _count_value(store, co_id, usage)
        except CorruptStore as error:
            _log.warning("usage not counted", error=str(error))
        done += 1
        if done % _PROGRESS_VALUES == 0:
            _log.info("counting usage", values=done)
        await trio.lowlevel.checkpoint()
    _log.info("usage counted", values=done, accounts=len(usage))
    return usage


async def _count_value(store: CoValueStore, co_id: RawCoId, usage: Usage) -> None:
    header: CoValueHeader | None = None
    oldest: dict[CoSessionId, list[Transaction]] = {}
    known = NOTHING
    is_complete = False
    while not is_complete:
        loaded = await store.load(co_id, known, _READ_BYTES)
        counts = dict(known.sessions)
        for piece in loaded.pieces:
            header = piece.header or header
            usage.add(Charge.of(None, {key: part.transactions for key, part in piece.new.items()}))
            for session_id, part in piece.new.items():
                seen = [*oldest.get(session_id, ()), *part.transactions]
                oldest[session_id] = [min(seen, key=lambda item: item.made_at)] if seen else []
            merge_counts(counts, piece.known_state.sessions)
        known = KnownState(True, counts)
        is_complete = loaded.is_complete or not loaded.pieces
    if header is not None:
        usage.add(Charge(creator=Charge.of(header, oldest).creator))


async def save_forever(path: Path, usage: Usage) -> None:
    """Keep the file up to date.

    Cancel: the file is the old or the new one.
    """
    pause = SAVE_SECONDS
    while True:
        await trio.sleep(pause)
        if usage.unsaved_bytes:
            started = time.perf_counter()
            await save_usage(path, usage)
            pause = max(SAVE_SECONDS, _SAVE_SHARE * (time.perf_counter() - started))


async def save_usage(path: Path, usage: Usage) -> None:
    """Replace the file, all or nothing; what cannot be written is tried again with the next.

    Cancel: the file is the old or the new one.
    """
    unsaved = usage.unsaved_bytes
    text = usage.encode()
    try:
        await trio.to_thread.run_sync(write_private, path, text.encode())
    except OSError as error:
        usage.unsaved_bytes += unsaved
        _log.error("usage not saved", path=str(path), error=str(error))


def remove_usage(path: Path) -> None:
    """Remove the file, and what a crash left of writing it. Blocks on the disk."""
    remove_scratch(path)
    path.unlink(missing_ok=True)


def _read(path: Path) -> str:
    remove_scratch(path)
    return path.read_text("utf-8")
