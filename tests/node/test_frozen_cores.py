"""A node that learns that a core's writer signed two histories says so."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing
from structlog.testing import capture_logs

from hypercore import verify_fork_proof
from node.config import load_config
from node.daemon import open_node
from node.verbs import CoreProof, decode_bytes
from node.web.tables import core_row
from tests.support.forked_logs import ONE, fork_proof
from tests.support.trees import KEY_PAIR, MANIFEST


async def test_it_is_logged_once_and_shown_as_long_as_the_core_is_open(tmp_path: Path) -> None:
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    config = load_config({"data": tmp_path, "discovery": "off", **quiet}, {})
    for start in ("frozen now", "frozen before"):
        with capture_logs() as logs:
            async with open_node(config) as node:
                core = await node.store.get(key_pair=KEY_PAIR)
                if start == "frozen now":
                    await core.append(ONE)
                    assert not any(status.is_frozen for status in node.status().cores)
                    await core.freeze(fork_proof())
                (status,) = [each for each in node.status().cores if each.is_frozen]
                assert status.key == MANIFEST.key.hex()
                assert not status.is_own
                assert core_row(status)[2] == "5 of 5, frozen"
                (answer,) = [each async for each in node.perform(CoreProof(status.key, fork=True))]
                evidence = decode_bytes("proof", answer)
                assert verify_fork_proof(evidence, MANIFEST.key).lengths == (5, 6)
                await core.freeze(fork_proof())
                await trio.testing.wait_all_tasks_blocked()
        (entry,) = [entry for entry in logs if "frozen" in entry["event"]]
        assert entry["log_level"] == "error"
        assert entry["core"] == MANIFEST.key.hex()
        assert "of 5 and 6 blocks" in entry["conflict"]
        assert entry["evidence"].startswith("beemesh core proof ")
