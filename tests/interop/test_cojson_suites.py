"""cojson's own tests of its storages, run on ours.

The test files come with the npm package. They are copied into a temporary directory beside
stand-ins for their helpers (`cojson_suites/`), which put a storage in Python (`storage_rpc.py`)
where cojson's SQLite storages were: as "asynchronous" and as synchronous ones. What is to pass and
what cannot hold is written down here, test by test, and nothing else may happen.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from tests.support.storage_files import StoreKind

pytestmark = [pytest.mark.interop, pytest.mark.slow]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COJSON = HERE / "node_modules" / "cojson" / "src"
STAND_INS = HERE / "cojson_suites"
WORKERS = 2

LOOKS_INSIDE = "it spies on, or reaches into, the private SQLite client of cojson's storage"
OPENS_THE_FILE = "it opens the SQLite file beside the storage and writes rows of its own"
OTHER_PIECES = (
    "it counts on how cojson's storage cuts several sessions into pieces; ours does it as "
    "cojson's newContentSince"
)
NO_STORAGE = "it uses no storage"


@dataclass(frozen=True)
class Suite:
    """What is expected of one test file."""

    passes: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tests that cannot hold for our storages, and why."""
    only: Sequence[str] | None = None
    """The tests that use a storage, where most of the file does not."""
    attach: bool = False
    """Nodes get a storage of ours although the tests do not ask for one."""


_BESIDE = ("vitest.config.ts", "runner.ts", "no_libsql.ts")
"""Stand-ins that do not belong to the tests."""

_SYNC = "client syncs with a server with storage"
_LAZY = "lazy storage load optimization"
_CONCURRENT = "concurrent load"
_RECONCILING = "peer reconciliation with garbageCollected CoValues"

SUITES = {
    "StorageApiAsync.test.ts": Suite(
        32,
        {
            "StorageApiAsync > delete flow > load interrupts eraseAllDeletedCoValues mid-run "
            "(resolves early, leaves some queued)": LOOKS_INSIDE,
            "StorageApiAsync > loadKnownState > should deduplicate concurrent requests for the "
            "same ID": LOOKS_INSIDE,
            "StorageApiAsync > loadKnownState > should use cache and not query database when "
            "cache is populated": LOOKS_INSIDE,
        },
    ),
    "StorageApiSync.test.ts": Suite(32),
    "sync.storage.test.ts": Suite(17),
    "sync.storageAsync.test.ts": Suite(
        11,
        {
            f"{_SYNC} > streaming a large coValue with multiple sessions": OTHER_PIECES,
            f"{_SYNC} > TOCTOU: extra transaction at idx=lastIdx does not cause "
            "InvalidSignature": OPENS_THE_FILE,
            f"{_SYNC} > TOCTOU: concurrent write between getCoValueSessions and "
            "getNewTransactionInSession does not cause InvalidSignature": OPENS_THE_FILE,
        },
    ),
    "sync.storageReconciliation.test.ts": Suite(14),
    "sync.localStoreDurability.test.ts": Suite(
        12,
        {
            "LocalNode creation options > withNewlyCreatedAccount wires "
            "onLocalStoreDurabilityChange into the node's syncManager": NO_STORAGE,
            "LocalNode creation options > withLoadedAccount wires "
            "onLocalStoreDurabilityChange": NO_STORAGE,
        },
    ),
    "sync.tracking.test.ts": Suite(16, attach=True),
    "sync.deleted.test.ts": Suite(7, attach=True),
    "deleteCoValue.test.ts": Suite(15, attach=True),
    "GarbageCollector.test.ts": Suite(8),
    "sync.garbageCollection.test.ts": Suite(6),
    "sync.mesh.test.ts": Suite(9),
    "sync.concurrentLoad.test.ts": Suite(
        6,
        only=[
            f"{_CONCURRENT} > should consider garbageCollected load requests processed when "
            "server replies with KNOWN",
            f"{_CONCURRENT} > should load garbageCollected CoValues when receiving KNOWN from a "
            "peer",
            f"{_CONCURRENT} > should consider onlyKnownState load requests processed when server "
            "replies with KNOWN",
            f"{_CONCURRENT} > should keep onlyKnownState while peer load is pending and KNOWN "
            "replies arrive",
            f"{_CONCURRENT} > should process queued loads when KNOWN arrives while first CoValue "
            "is streaming from storage",
            f"{_CONCURRENT} > should process queued loads when CoValue instance changes while "
            "in-flight",
        ],
    ),
    "sync.load.test.ts": Suite(
        7,
        only=[
            f"{_LAZY} > handleNewContent loads large CoValue from storage when garbage-collected",
            f"{_LAZY} > handleLoad skips full load when peer already has all content",
            f"{_LAZY} > handleLoad does full load when peer needs content",
            f"{_LAZY} > handleNewContent loads from storage for garbage-collected CoValues",
            f"{_LAZY} > handleNewContent loads CoValue from storage when group is large and "
            "garbage-collected",
            f"{_LAZY} > handleNewContent loads CoValue from storage when parent group is large "
            "and garbage-collected",
            f"{_LAZY} > handles gracefully when CoValue is garbage collected mid-stream from "
            "storage",
        ],
    ),
    "sync.peerReconciliation.test.ts": Suite(
        2,
        only=[
            f"{_RECONCILING} > sends cached known state for garbageCollected CoValues during "
            "reconciliation",
            f"{_RECONCILING} > garbageCollected CoValues restore subscription with minimal data "
            "transfer",
        ],
    ),
    "SyncStateManager.test.ts": Suite(
        1,
        only=[
            "SyncStateManager > isSynced should stay true for garbageCollected CoValues with "
            "matching knownState"
        ],
    ),
    "account.test.ts": Suite(
        1, only=["wait for storage sync before resolving withNewlyCreatedAccount"]
    ),
    "coPlainText.test.ts": Suite(
        1,
        only=["chunks transactions when when the chars are longer than MAX_RECOMMENDED_TX_SIZE"],
    ),
}

NOT_RUN = {
    "SQLiteClientAsync.test.ts": "it tests the SQLite client itself",
    "SyncManager.processQueues.test.ts": "it fills cojson's own StorageStreamingQueue itself",
    "coValueCore.loadFromStorage.test.ts": "its storages are fakes that the tests write",
    "knownState.lazyLoading.test.ts": "its storages are fakes that the tests write",
}


@asynccontextmanager
async def _open_rpc(kind: StoreKind, directory: Path) -> AsyncIterator[None]:
    """The Python process of one worker."""
    command = [sys.executable, "-m", "tests.interop.storage_rpc", "--store", kind.value]
    process = await trio.lowlevel.open_process(
        [*command, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        assert await process.stdout.receive_some() == b"ready\n"
        yield
        await process.stdin.aclose()
        assert await process.wait() == 0


def _prepare(directory: Path) -> None:
    """A directory in which vitest finds cojson's tests and our stand-ins."""
    shutil.copytree(COJSON, directory / "src")
    (directory / "node_modules").symlink_to(HERE / "node_modules")
    (directory / "package.json").write_text('{"type":"module"}')
    for file in STAND_INS.glob("*.ts"):
        beside = file.name in _BESIDE
        shutil.copy(file, directory if beside else directory / "src" / "tests")
    plan = {
        name: {
            "only": suite.only,
            "leftOut": list(suite.left_out),
            "attach": suite.attach,
        }
        for name, suite in SUITES.items()
    }
    for number in range(1, WORKERS + 1):
        (directory / "rpc" / str(number)).mkdir(parents=True)
    (directory / "plan.json").write_text(json.dumps(plan))


@pytest.mark.parametrize("kind", StoreKind)
async def test_cojsons_own_tests_pass_on_our_stores(kind: StoreKind, tmp_path: Path) -> None:
    _prepare(tmp_path)
    async with AsyncExitStack() as stack:
        for number in range(1, WORKERS + 1):
            await stack.enter_async_context(_open_rpc(kind, tmp_path / "rpc" / str(number)))
        with trio.fail_after(300):
            result = await trio.run_process(
                [
                    *("node_modules/.bin/vitest", "run", *SUITES),
                    *("--reporter=dot", "--reporter=json", "--outputFile=report.json"),
                ],
                cwd=tmp_path,
                env={**os.environ, "STORAGE_RPC": str(tmp_path / "rpc"), "NO_COLOR": "1"},
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
    output = result.stdout.decode()
    assert result.returncode == 0, output
    report = json.loads((tmp_path / "report.json").read_text())
    outcomes = {Path(file["name"]).name: file["assertionResults"] for file in report["testResults"]}
    assert outcomes.keys() == SUITES.keys()
    for name, tests in outcomes.items():
        suite = SUITES[name]
        by_name = {" > ".join([*test["ancestorTitles"], test["title"]]): test for test in tests}
        passed = [key for key, test in by_name.items() if test["status"] == "passed"]
        assert len(passed) == suite.passes, f"{name}\n{output}"
        assert suite.left_out.keys() <= by_name.keys(), name
        expected = by_name.keys() - suite.left_out.keys()
        if suite.only is not None:
            assert expected >= set(suite.only), name
            expected = set(suite.only)
        assert set(passed) == expected, name
        unused = [key for key in passed if not by_name[key]["meta"].get("storages")]
        assert not unused, f"{name}: these use no storage of ours"


def test_every_test_file_that_uses_a_storage_is_looked_at() -> None:
    words = re.compile("addStorage|addAsyncStorage|create(Async|Sync)Storage|setStorage|storage: ")
    found = {
        file.name for file in (COJSON / "tests").glob("*.test.ts") if words.search(file.read_text())
    }
    attached = {name for name, suite in SUITES.items() if suite.attach}
    assert found | attached == SUITES.keys() | NOT_RUN.keys()
