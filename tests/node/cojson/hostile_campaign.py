"""A node among the hostile: `python -m tests.node.cojson.hostile_campaign --lines 1000000`.

Mutated messages (`tests/support/hostile_lines.py`) go through real WebSocket connections to a node
in this process, several lines a frame and a genuine one among them, while an honest client keeps
editing. The node must live, every genuine line must be answered, the honest client's edits must be
acknowledged and intact, and the memory must come back: as many objects as before, but for the
caches of ids; resident pages follow slowly, since what is cached lies among what was freed (110 MiB
more after 200,000 lines, of which the budget for verified state alone is 64).
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import random
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import trio

from bee.bee import Bee
from node.access.gate import Gate
from node.access.quotas import Quotas
from node.cojson.crypto import RunningHash
from node.cojson.messages import Known, Load, decode_frame, encode_message
from node.cojson.serve import MAX_BAD_LINES
from node.covalue.bee_store import BeeStore
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.session_log import feed
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog
from tests.support.hostile_lines import HostileLines
from tests.support.jazz_node import open_jazz_node
from tests.support.websocket_client import WebSocketClient, open_websocket

LINES_A_FRAME = 6
FRAMES_A_TURN = 10
ANSWER_SECONDS = 30.0
"""For all genuine lines of a turn; the machine may be busy."""

HONEST = Author("honest")
VALUE = map_header("honest work")
SESSION = HONEST.session_id(as_agent=True)
EDITS = edits(100_000)


@dataclass
class Report:
    """What happened; sizes are those of this process, the senders included."""

    seed: int
    lines: int = 0
    genuine: int = 0
    connections: int = 0
    refused: int = 0
    edits: int = 0
    slowest_ack_seconds: float = 0.0
    before_bytes: int = 0
    after_bytes: int = 0
    stored_bytes: int = 0
    before_objects: int = 0
    after_objects: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def kept_bytes(self) -> int:
        """Memory that did not come back, without what was stored in memory."""
        return self.after_bytes - self.before_bytes - self.stored_bytes


class HonestClient:
    """Edits one value and waits for each acknowledgement, until told to stop."""

    def __init__(self, client: WebSocketClient, report: Report) -> None:
        self._client = client
        self._report = report
        self._running = RunningHash()
        self.is_done = False

    async def run(self) -> None:
        while not self.is_done:
            count = self._report.edits
            started = time.monotonic()
            await self._client.send(encode_message(self._edit(count)))
            with trio.fail_after(ANSWER_SECONDS):
                while not await self._is_acknowledged(count + 1):
                    pass
            waited = time.monotonic() - started
            self._report.slowest_ack_seconds = max(self._report.slowest_ack_seconds, waited)
            self._report.edits += 1

    def _edit(self, count: int) -> Content:
        """One edit after so many."""
        edit = EDITS[count]
        feed(self._running, [edit])
        part = SessionContent(count, [edit], HONEST.sign_hash(self._running))
        return Content(VALUE.id, None if count else VALUE, {SESSION: part})

    async def _is_acknowledged(self, count: int) -> bool:
        text = await self._client.receive()
        if text is None:
            raise AssertionError(f"the honest client was sent away after {count - 1} edits")
        return any(
            isinstance(item, Known)
            and item.co_id == VALUE.id
            and item.known.sessions.get(SESSION, 0) >= count
            for item in decode_frame(text).messages
        )


async def run_campaign(lines: int, seed: int) -> Report:
    """Send so many hostile lines; the figures are for judging."""
    report = Report(seed)
    log = DataLog()
    gate = Gate(quotas=Quotas(account_bytes=2**24, account_values=10))
    hostile = HostileLines(seed, HONEST.content(VALUE, EDITS[:2], as_agent=True))
    with trio.fail_after(60 + lines / 20):
        async with (
            open_jazz_node(BeeStore(Bee(log), log), gate) as (_, port),
            open_websocket(port) as socket,
            trio.open_nursery() as nursery,
        ):
            honest = HonestClient(socket, report)
            nursery.start_soon(honest.run)
            # Caches and arenas fill first; what comes after that must come back.
            await _attack(hostile, port, max(lines // 10, 1000), report)
            report.before_bytes = _memory() - _stored(log)
            report.before_objects = sys.getallocatedblocks()
            await _attack(hostile, port, lines, report)
            honest.is_done = True
            nursery.cancel_scope.deadline = trio.current_time() + ANSWER_SECONDS
        async with (
            open_jazz_node(BeeStore(Bee(log), log)) as (_, port),
            open_websocket(port) as socket,
        ):
            await _check_value(socket, report)
    report.after_bytes, report.stored_bytes = _memory(), _stored(log)
    report.after_objects = sys.getallocatedblocks()
    report.refused = sum(gate.statistics().refused.values())
    return report


async def _attack(hostile: HostileLines, port: int, lines: int, report: Report) -> None:
    """Over one connection after the other, each with as many lines as may be bad."""
    sent = 0
    while sent < lines:
        async with open_websocket(port, f"/?key={sent}") as client:
            report.connections += 1
            budget = min(MAX_BAD_LINES - LINES_A_FRAME * FRAMES_A_TURN, lines - sent)
            while budget > 0:
                taken = await _turn(hostile, client, report)
                budget -= taken
                sent += taken


async def _turn(hostile: HostileLines, client: WebSocketClient, report: Report) -> int:
    """A few frames, and the answers to every genuine line in them."""
    owed = set()
    for _ in range(FRAMES_A_TURN):
        co_id = hostile.fresh_id()
        owed.add(co_id)
        lines = [*hostile.lines(LINES_A_FRAME), encode_message(Load(co_id, NOTHING))]
        await client.send("\n".join(hostile.shuffled(lines)))
    report.lines += FRAMES_A_TURN * LINES_A_FRAME
    report.genuine += len(owed)
    with trio.move_on_after(ANSWER_SECONDS):
        while owed:
            text = await client.receive()
            if text is None:
                report.faults.append(f"sent away with {len(owed)} genuine lines unanswered")
                return FRAMES_A_TURN * LINES_A_FRAME
            for item in decode_frame(text).messages:
                if isinstance(item, Known) and item.known == NOTHING:
                    owed.discard(item.co_id)
    if owed:
        report.faults.append(f"{len(owed)} genuine lines unanswered: {min(owed)}")
    return FRAMES_A_TURN * LINES_A_FRAME


async def _check_value(client: WebSocketClient, report: Report) -> None:
    """What the honest client wrote is there, and nothing else in its session."""
    await client.send(encode_message(Load(VALUE.id, NOTHING)))
    found: list[Transaction] = []
    while len(found) < report.edits:
        text = await client.receive()
        assert text is not None
        for item in decode_frame(text).messages:
            if isinstance(item, Content) and item.co_id == VALUE.id and SESSION in item.new:
                found += item.new[SESSION].transactions
    if found != EDITS[: len(found)]:
        report.faults.append("the honest client's content was changed")
    known = KnownState(True, {SESSION: len(found)})
    await client.send(encode_message(Load(VALUE.id, known)))


def _memory() -> int:
    """Resident now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _stored(log: DataLog) -> int:
    return sum(map(sys.getsizeof, log.blocks)) + sum(
        sys.getsizeof(key) + sys.getsizeof(value) for key, value in log.rows.items()
    )


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.node.cojson.hostile_campaign")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    started = time.monotonic()
    report = await run_campaign(options.lines, options.seed)
    summary = {
        "seed": report.seed,
        "lines": report.lines,
        "genuine": report.genuine,
        "connections": report.connections,
        "refused": report.refused,
        "edits": report.edits,
        "slowest_ack_seconds": round(report.slowest_ack_seconds, 3),
        "kept_objects": report.after_objects - report.before_objects,
        "kept_mib": round(report.kept_bytes / 2**20, 1),
        "seconds": round(time.monotonic() - started, 1),
        "faults": len(report.faults),
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    for fault in report.faults[:20]:
        sys.stdout.write(f"{fault}\n")
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    trio.run(main)
