"""One log and its storage: what hypercore's test/core.js asks, of `StoredLog` and `Core`.

Without a counterpart: "header does not retain slabs" is about JavaScript's buffers. The tests of
`copyPrologue` ("clone", "clone verify", "partial clone", "copyPrologue ...") make static cores of
others, which is with the tests of manifests. "lastTruncation" is not kept: who watches a core
compares lengths and forks.
"""

from __future__ import annotations

import pytest

from hypercore.log import EMPTY_HEAD
from hypercore.proof import Proof, build_proof, verify_proof
from hypercore.proof_request import BlockRequest, ProofRequest, UpgradeRequest
from hypercore.replication.inflight import Inflight
from hypercore.storage.memory import MemoryStorage
from hypercore.stored_log import StoredLog
from hypercore.verifier import Verifier
from tests.support.storage_rows import verify_core
from tests.support.stored_logs import MANIFEST, open_log


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


def test_append(storage: MemoryStorage) -> None:
    """core - append."""
    log = open_log(storage)
    assert log.append([b"hello", b"world"]) == 0
    assert (log.head.length, log.head.byte_length) == (2, 10)
    assert [log.rows.read_block(index) for index in range(2)] == [b"hello", b"world"]
    assert log.append([b"hej"]) == 2
    assert (log.head.length, log.head.byte_length) == (3, 13)
    assert [block for _, block in log.rows.blocks(0, 3)] == [b"hello", b"world", b"hej"]


def test_append_and_truncate(storage: MemoryStorage) -> None:
    """core - append and truncate."""
    log = open_log(storage)
    log.append([b"hello", b"world", b"fo", b"ooo"])
    assert log.truncate(3, 1).truncated_to == 3
    assert (log.head.length, log.head.byte_length, log.head.fork) == (3, 12, 1)
    log.append([b"a", b"b", b"c", b"d"])
    log.truncate(3, 2)
    assert (log.head.length, log.head.byte_length, log.head.fork) == (3, 12, 2)
    for fork in range(3, 8):
        log.truncate(2, fork)
        assert (log.head.length, log.head.fork) == (2, fork)
        if fork < 7:
            log.append([b"a"])
    reopened = open_log(storage)
    assert reopened.head == log.head
    assert (reopened.head.length, reopened.head.byte_length, reopened.head.fork) == (2, 10, 7)
    assert verify_core(storage, log.discovery_key) == 2


def test_user_data(storage: MemoryStorage) -> None:
    """core - user data."""
    log = open_log(storage)
    log.set_user_data("hello", b"world")
    log.set_user_data("hej", b"verden")
    assert log.user_data("hello") == b"world"
    assert log.user_data("x") is None
    batch = storage.batch()
    log.stage_user_data(batch, {"hello": None, "hej": b"world"})
    storage.commit(batch)
    reopened = open_log(storage)
    assert reopened.user_data("hej") == b"world"
    assert reopened.user_data("hello") is None


def proof_of(log: StoredLog, request: ProofRequest) -> Proof:
    index = request.block.index if request.block else 0
    return build_proof(request, log.head, log.read_node, log.rows.read_block(index))


def reader_of(log: StoredLog) -> StoredLog:
    """A log of the same key with nothing in it, which is not ours to write."""
    assert log.manifest == MANIFEST
    return open_log(MemoryStorage(), is_ours=False)


VERIFIER = Verifier(MANIFEST.key, MANIFEST)


def take(reader: StoredLog, proof: Proof) -> None:
    """Verify a proof and store what it proves, as a peer's answer."""
    changes = verify_proof(proof, reader.head, reader.read_node, VERIFIER)
    changes.manifest = MANIFEST
    reader.commit([changes])


def test_verify(storage: MemoryStorage) -> None:
    """core - verify."""
    log = open_log(storage)
    log.append([b"a", b"b"])
    reader = reader_of(log)
    take(reader, proof_of(log, ProofRequest(0, upgrade=UpgradeRequest(0, 2))))
    assert reader.head == log.head
    assert reader.head.signature == log.head.signature
    levels, _ = Inflight().plan_path(1, reader.read_node)
    take(reader, proof_of(log, ProofRequest(0, block=BlockRequest(1, levels))))
    assert reader.rows.read_block(1) == b"b"
    assert open_log(reader.rows.storage).head == log.head


def test_upgrades_that_cross(storage: MemoryStorage) -> None:
    """core - verify parallel upgrades. The second was asked for before the first had come."""
    log = open_log(storage)
    log.append([b"a", b"b", b"c", b"d"])
    reader = reader_of(log)
    first = proof_of(log, ProofRequest(0, upgrade=UpgradeRequest(0, 2)))
    second = proof_of(log, ProofRequest(0, upgrade=UpgradeRequest(0, 3)))
    take(reader, first)
    # It leads from length 0, and is verified as such; what it proves is more than is known.
    changes = verify_proof(second, EMPTY_HEAD, reader.read_node, VERIFIER)
    assert changes.head is not None
    assert changes.head.length >= reader.head.length
    reader.commit([changes])
    assert reader.head.length == 4
    assert reader.head.signature == log.head.signature
