"""[disk] The streams that clients had only a part of when a node stopped: `cut_streams.json`.

A node that is stopped cuts all of them, and most clients come back to it. The file is written at
each orderly stop, with what was remembered of earlier ones; where no stream was ever cut there is
none. After a crash it is that of the stop before, and the journal beside it (`stream_journal.py`)
has what was begun since.

File format: {"version": 1, "values": {"co_z...": {"<session>": count, ...}, ...}}, oldest first; at
most MAX_COUNTERS counters, about 5 MB.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import trio

from hypercore.encoding import DecodeError
from node.cojson.cut_streams import CutStreams
from node.cojson.stream_journal import StreamJournal, session_counts
from node.covalue.ids import RawCoId
from node.covalue.known_state import SessionCounts
from node.private_file import remove_scratch, write_private

_VERSION = 1
_log = structlog.get_logger(__name__)


@asynccontextmanager
async def keep_cut_streams(path: Path, streams: CutStreams) -> AsyncIterator[None]:
    """Remember what was cut by earlier stops and crashes, and what is until the block ends.

    What cannot be read, or written, is not remembered, and that is all.

    Cancel: the file is written, as at the end of the block.
    """
    journal = StreamJournal(path.with_suffix(".log"))
    try:
        cut = await trio.to_thread.run_sync(_read, path)
    except FileNotFoundError:
        cut = {}
    except (OSError, DecodeError, UnicodeDecodeError) as error:
        _log.warning("cut streams unreadable", path=str(path), error=str(error))
        cut = {}
    begun = await trio.to_thread.run_sync(list, journal.read())
    for co_id, announced in (*cut.items(), *begun):
        streams.note(co_id, announced)
    streams.journal = journal
    try:
        yield
    finally:
        streams.journal = None
        with trio.CancelScope(shield=True):
            await _save(path, streams, journal)


async def _save(path: Path, streams: CutStreams, journal: StreamJournal) -> None:
    values = {co_id: dict(announced) for co_id, announced in streams.announced.items()}
    try:
        await trio.to_thread.run_sync(_write, path, values)
        await trio.to_thread.run_sync(journal.remove)
    except OSError as error:
        _log.warning("cut streams not saved", path=str(path), error=str(error))


def _write(path: Path, values: Mapping[RawCoId, SessionCounts]) -> None:
    """Replace the file, all or nothing. Raises: OSError."""
    if values:
        text = json.dumps({"version": _VERSION, "values": values}, separators=(",", ":"))
        write_private(path, text.encode())
    else:
        path.unlink(missing_ok=True)


def _read(path: Path) -> Mapping[RawCoId, SessionCounts]:
    """Raises: OSError, UnicodeDecodeError, DecodeError."""
    remove_scratch(path)
    try:
        match json.loads(path.read_text("utf-8")):
            case {"version": int(version), "values": dict(values)} if version == _VERSION:
                return {RawCoId(co_id): session_counts(counts) for co_id, counts in values.items()}
    except (ValueError, RecursionError):
        pass
    raise DecodeError("not cut streams", 0)
