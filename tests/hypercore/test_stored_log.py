"""One log on its storage: commits, damage found on opening, and failed writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypercore.bitfield import Bitfield
from hypercore.crypto import KeyPair, discovery_key
from hypercore.errors import (
    CoreRecovering,
    CorruptStorage,
    NotWritable,
    StorageError,
    StorageFailed,
    UsageError,
)
from hypercore.flat_tree import TreeIndex, full_roots, parent
from hypercore.log import EMPTY_HEAD, Changeset, append
from hypercore.manifest import Manifest
from hypercore.merkle import encode_node
from hypercore.storage import Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import AuthRecord, DataKeys, HeadRecord, Hints, auth_key
from hypercore.storage.memory import MemoryStorage
from hypercore.stored_log import StoredLog
from hypercore.verifier import Verifier
from tests.support.storage_rows import all_rows, verify_core
from tests.support.stored_logs import KEY_PAIR, MANIFEST, FaultyStorage, open_log

KEYS = DataKeys(0)
BLOCKS = [b"block %d" % index for index in range(20)]


def write(storage: Storage, key: bytes, value: bytes | None) -> None:
    batch = storage.batch()
    if value is None:
        batch.delete(key)
    else:
        batch.put(key, value)
    storage.commit(batch)


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    open_log(storage).append(BLOCKS)
    return storage


def test_what_was_appended_is_there_after_opening_again(storage: MemoryStorage) -> None:
    log = open_log(storage)
    assert log.head.length == log.contiguous_length == log.durable_length == 20
    assert log.rows.read_blocks(range(20)) == BLOCKS
    assert verify_core(storage, log.discovery_key) == 20
    assert log.append([b"more"]) == 20
    assert open_log(storage).head == log.head


def test_a_commit_is_one_batch() -> None:
    class CountingStorage(MemoryStorage):
        commits = 0

        def commit(self, batch: object) -> int:
            self.commits += 1
            return super().commit(batch)  # type: ignore[arg-type]  # only counted here

    storage = CountingStorage()
    log = open_log(storage)
    before = storage.commits
    log.append(BLOCKS, {b"row": b"value"})
    log.commit([Changeset(blocks=[(index, block)]) for index, block in enumerate(BLOCKS)])
    assert storage.commits == before + 2


@given(
    st.lists(
        st.lists(st.integers(0, len(BLOCKS) - 1), max_size=6, unique=False), min_size=1, max_size=4
    )
)
@example([[3, 7, 5]])
@example([[4, 6, 6]])
def test_blocks_count_as_here_in_whatever_order_they_come(commits: list[list[int]]) -> None:
    """Answers of a sparse reader are committed together as they arrive."""
    storage = MemoryStorage()
    log = open_log(storage, is_ours=False)
    author = open_log(MemoryStorage())
    author.append(BLOCKS)
    roots = list(author.head.roots)
    log.commit([Changeset(head=author.head, nodes=roots, manifest=MANIFEST)])
    for indices in commits:
        log.commit([Changeset(blocks=[(index, BLOCKS[index]) for index in indices])])
    here = {index for indices in commits for index in indices}
    for opened in (log, open_log(storage, is_ours=False)):
        assert {index for index in range(len(BLOCKS)) if opened.bitfield.get(index)} == here
        assert [opened.rows.read_block(index) is not None for index in range(len(BLOCKS))] == [
            index in here for index in range(len(BLOCKS))
        ]


def test_local_rows_go_with_the_blocks(storage: MemoryStorage) -> None:
    log = open_log(storage)
    log.append([b"x"], {b"a": b"1", b"ab": b"2", b"b": b"3"})
    log.commit((), {b"ab": None})
    log = open_log(storage)
    assert log.local_value(b"a") == b"1"
    assert log.local_value(b"ab") is None
    assert list(log.local_items(b"a", b"c")) == [(b"a", b"1"), (b"b", b"3")]
    with pytest.raises(UsageError, match="2049 bytes"):
        log.append([b"not appended"], {b"k" * 2049: b""})
    assert log.append([b"y"]) == 21


def test_truncating_removes_blocks_nodes_and_bits(storage: MemoryStorage) -> None:
    log = open_log(storage)
    assert log.read_node(15) is not None
    log.truncate(7)
    assert (log.head.length, log.head.fork, log.contiguous_length) == (7, 1, 7)
    assert log.read_node(15) is None
    assert verify_core(storage, log.discovery_key) == 7
    log.append([b"other"] * 9)
    assert verify_core(storage, log.discovery_key) == 16
    log.truncate(0, fork=9)
    assert verify_core(storage, log.discovery_key) == 0
    assert open_log(storage).head.fork == 9


def set_head(storage: Storage, **changes: object) -> None:
    head = HeadRecord.decode(storage.get(KEYS.head) or b"")
    write(storage, KEYS.head, replace(head, **changes).encode())  # type: ignore[arg-type]  # tests


def set_auth(storage: Storage, **changes: object) -> None:
    auth = AuthRecord.decode(storage.get(auth_key(0)) or b"")
    write(storage, auth_key(0), replace(auth, **changes).encode())  # type: ignore[arg-type]  # tests


def lose_with_all_above(storage: Storage, block: int) -> None:
    write(storage, KEYS.block(block), None)
    index = TreeIndex(2 * block)
    while index < 31:
        write(storage, KEYS.node(index), None)
        index = parent(index)


OTHER = KeyPair.from_seed(b"\x09" * 32)
DAMAGE: dict[str, Callable[[Storage], None]] = {
    "keys are missing": lambda storage: write(storage, auth_key(0), None),
    "keys are another core's": lambda storage: set_auth(storage, key=b"\x01" * 32),
    "the manifest hashes to": lambda storage: set_auth(
        storage, manifest=Manifest.single_signer(OTHER.public_key)
    ),
    "head is missing": lambda storage: write(storage, KEYS.head, None),
    "tree node 15, a root, is missing": lambda storage: lose_with_all_above(storage, 4),
    "says that it is 3": lambda storage: write(storage, KEYS.node(15), storage.get(KEYS.node(3))),
    "do not belong together": lambda storage: set_head(storage, tree_hash=bytes(32)),
    "nobody signed": lambda storage: set_head(storage, signature=bytes(68)),
    "cut off": lambda storage: write(storage, KEYS.head, b"\x01"),
    "32 bytes wanted": lambda storage: write(storage, KEYS.node(15), b"\x0f\x01\x00"),
}


@pytest.mark.parametrize("reason", list(DAMAGE))
def test_damage_keeps_a_log_from_opening(storage: MemoryStorage, reason: str) -> None:
    DAMAGE[reason](storage)
    with pytest.raises(CorruptStorage, match=reason):
        open_log(storage)


def test_an_older_head_with_a_stale_signature_is_damage(storage: MemoryStorage) -> None:
    """JavaScript would go on from there, on the same fork, and sign another history."""
    other = MemoryStorage()
    older = open_log(other)
    older.append(BLOCKS[:16])
    set_head(storage, length=16, tree_hash=older.head.tree_hash)
    with pytest.raises(CorruptStorage, match="nobody signed its head of length 16"):
        open_log(storage)


def test_an_older_head_is_damage_though_it_was_signed(storage: MemoryStorage) -> None:
    """A writer that went on from it would sign two histories; a reader gets the rest again."""
    older = storage.get(KEYS.head)
    open_log(storage).append([b"x"] * 3)
    write(storage, KEYS.head, older)
    with pytest.raises(CorruptStorage, match="of length 20, is older than its tree"):
        open_log(storage)
    auth = AuthRecord.decode(storage.get(auth_key(0)) or b"")
    write(storage, auth_key(0), replace(auth, secret_key=None).encode())
    log = open_log(storage)
    assert (log.head.length, log.is_writable, log.contiguous_length) == (20, False, 20)


def test_a_log_without_its_secret_key_is_for_reading(storage: MemoryStorage) -> None:
    set_auth(storage, public_key=None, secret_key=None)
    log = open_log(storage)
    assert log.read_node(15) is not None
    with pytest.raises(NotWritable, match="secret key is not here"):
        log.append([b"x"])


def test_a_log_made_of_sessions_is_refused(storage: MemoryStorage) -> None:
    write(storage, KEYS.dependency, b"\x01\x05")
    with pytest.raises(StorageError, match="sessions"):
        open_log(storage)


@pytest.mark.parametrize("lost", [(15,), (35,), (15, 7, 3, 1, 0), tuple(range(40))])
def test_roots_are_hashed_anew_from_what_is_below(
    storage: MemoryStorage, lost: Sequence[int]
) -> None:
    """JavaScript opens such a log, and appends nothing until a peer has sent the root."""
    for index in lost:
        write(storage, KEYS.node(index), None)
    log = open_log(storage)
    log.append([b"more"])
    for index in full_roots(20):
        assert storage.get(KEYS.node(index)) is not None
    assert open_log(storage).head == log.head


def test_a_root_hashed_from_a_wrong_block_is_damage(storage: MemoryStorage) -> None:
    for index in range(40):
        write(storage, KEYS.node(index), None)
    write(storage, KEYS.block(3), b"another")
    with pytest.raises(CorruptStorage, match="do not belong together"):
        open_log(storage)


@pytest.mark.parametrize("index", [20, 31, 40_000])
def test_bits_beyond_the_end_are_cleared(storage: MemoryStorage, index: int) -> None:
    """They would say of blocks appended elsewhere, and not fetched, that they are here."""
    bits = Bitfield()
    bits.set_range(0, 20)
    bits.set_range(index, index + 1)
    for page in bits.pages():
        write(storage, KEYS.page(page), bits.page_bytes(page))
    log = open_log(storage)
    assert log.bitfield.count(0, 2**17) == 20
    assert open_log(storage).bitfield.count(0, 2**17) == 20
    assert log.contiguous_length == 20


@pytest.mark.parametrize("hinted", [0, 5, 21, 10**6])
def test_a_wrong_hint_is_put_right(storage: MemoryStorage, hinted: int) -> None:
    write(storage, KEYS.hints, Hints(hinted, 3).encode())
    assert open_log(storage).contiguous_length == 20
    assert storage.get(KEYS.hints) == Hints(20, 3).encode()


@pytest.mark.parametrize("rest", [b"", b"\xff" + b"\xff" * 8, b"\xfd\x01"])
@pytest.mark.parametrize("flags", range(1, 8))
def test_hints_that_cannot_be_read_are_found_anew(
    storage: MemoryStorage, flags: int, rest: bytes
) -> None:
    """But whether the store is being repaired is no hint: the mark stays."""
    write(storage, KEYS.hints, bytes([flags]) + rest)
    log = open_log(storage)
    assert (log.contiguous_length, log.remote_contiguous_length) == (20, 0)
    assert storage.get(KEYS.hints) == Hints(20, 0, flags >> 2).encode()
    if flags & 4:
        with pytest.raises(CoreRecovering):
            log.append([b"x"])


@pytest.mark.parametrize("record", [b"", b"\xfd", b"\xff" * 9])
def test_hints_without_flags_may_have_had_the_mark(storage: MemoryStorage, record: bytes) -> None:
    write(storage, KEYS.hints, record)
    with pytest.raises(CoreRecovering):
        open_log(storage).append([b"x"])


def test_lost_hints_of_a_core_without_blocks_are_written_too(storage: MemoryStorage) -> None:
    """JavaScript would not open it."""
    open_log(storage).clear([(0, 20)])
    write(storage, KEYS.hints, b"\x01")
    assert open_log(storage).contiguous_length == 0
    assert storage.get(KEYS.hints) == Hints().encode()


def test_a_missing_page_lowers_the_hint(storage: MemoryStorage) -> None:
    write(storage, KEYS.page(0), None)
    assert open_log(storage).contiguous_length == 0


@pytest.mark.parametrize("size", [0, 3, 5000])
def test_pages_of_other_sizes_are_read(storage: MemoryStorage, size: int) -> None:
    page = storage.get(KEYS.page(0)) or b""
    write(storage, KEYS.page(0), page.ljust(size, b"\x00")[:size])
    assert open_log(storage).contiguous_length == (20 if size >= 3 else 0)


def test_nothing_is_appended_while_the_store_recovers(storage: MemoryStorage) -> None:
    write(storage, KEYS.hints, Hints(20, 0, 1_700_000_000_000).encode())
    with pytest.raises(CoreRecovering):
        open_log(storage).append([b"x"])


def test_only_the_signer_appends() -> None:
    log = open_log(MemoryStorage(), is_ours=False)
    assert not log.is_writable
    assert log.verifier is None
    with pytest.raises(NotWritable):
        log.append([b"x"])


def test_a_manifest_is_learned_with_the_first_upgrade() -> None:
    ours = open_log(MemoryStorage())
    ours.append(BLOCKS)
    storage = MemoryStorage()
    theirs = open_log(storage, is_ours=False)
    nodes = [ours.read_node(root.index) for root in ours.head.roots]
    changes = Changeset(ours.head, [node for node in nodes if node], [], MANIFEST)
    theirs.commit([changes])
    assert theirs.manifest == MANIFEST
    again = open_log(storage)
    assert again.manifest == MANIFEST
    assert again.head == ours.head
    assert again.contiguous_length == 0
    again.commit([Changeset(blocks=[(0, BLOCKS[0]), (1, BLOCKS[1]), (9, BLOCKS[9])])])
    assert again.contiguous_length == 2
    assert again.bitfield.get(9)
    assert open_log(storage).contiguous_length == 2


def test_a_compat_core_needs_no_manifest() -> None:
    """Its key is the signer's public key, and nobody sends a manifest for it."""
    key = KEY_PAIR.public_key
    verifier = Verifier(key, Manifest.single_signer(key, version=0))
    changes = append(EMPTY_HEAD, BLOCKS, lambda head: verifier.sign(head, KEY_PAIR))
    storage = MemoryStorage()
    record = Catalog(storage).create(AuthRecord(key, discovery_key(key)), None, {})
    rows = CoreStorage(storage, discovery_key(key), record)
    StoredLog(rows).commit([changes])
    log = StoredLog(rows)
    assert log.head == changes.head
    assert log.manifest is None
    assert log.verifier is not None
    assert log.verifier.is_compat


@pytest.mark.parametrize("is_stored", [False, True], ids=["not stored", "stored"])
def test_a_failed_write_poisons_the_log(is_stored: bool) -> None:
    storage = FaultyStorage()
    log = open_log(storage)
    log.append(BLOCKS)
    storage.fails_before, storage.fails_after = not is_stored, is_stored
    with pytest.raises(OSError, match=r"device|error"):
        log.append([b"lost?"])
    storage.fails_before = storage.fails_after = False
    for _ in range(2):
        with pytest.raises(StorageFailed, match=r"device|error"):
            log.append([b"x"])
    again = open_log(storage)
    assert again.head.length == verify_core(storage, again.discovery_key) == 20 + is_stored


def test_a_failed_write_stores_all_or_nothing() -> None:
    storage = FaultyStorage()
    log = open_log(storage)
    before = all_rows(storage)
    storage.fails_before = True
    with pytest.raises(OSError, match="device"):
        log.append(BLOCKS, {b"row": b"value"})
    assert all_rows(storage) == before


def test_tree_nodes_are_stored_as_on_the_wire(storage: MemoryStorage) -> None:
    log = open_log(storage)
    for root in log.head.roots:
        assert storage.get(KEYS.node(root.index)) == encode_node(root)


def test_the_leaf_that_javascript_deletes_with_its_neighbor_is_made_again(
    storage: MemoryStorage,
) -> None:
    log = open_log(storage)
    log.clear([(5, 6)])
    leaf = log.read_node(8)
    for index in (4, 5):
        write(storage, KEYS.node(2 * index), None)
    log = open_log(storage)
    assert log.read_node(8) == leaf
    assert log.read_node(10) is None


def test_a_failed_clearing_poisons_the_log() -> None:
    storage = FaultyStorage()
    log = open_log(storage)
    log.append(BLOCKS)
    storage.fails_before = True
    with pytest.raises(OSError, match="device"):
        log.clear([(0, 3)])
    with pytest.raises(StorageFailed):
        log.clear([(0, 3)])
    assert open_log(storage).contiguous_length == 20


def stored_hints(storage: Storage) -> Hints:
    data = storage.get(KEYS.hints)
    assert data is not None
    return Hints.decode(data)


def test_what_a_peer_has_is_kept_once_it_is_all(storage: MemoryStorage) -> None:
    log = open_log(storage)
    log.note_remote_contiguous(5)
    assert log.remote_contiguous_length == 5
    assert stored_hints(storage).remote_contiguous_length == 0
    log.note_remote_contiguous(20)
    assert stored_hints(storage).remote_contiguous_length == 20
    log.note_remote_contiguous(7)
    assert open_log(storage).remote_contiguous_length == 20


def test_a_peer_that_says_more_and_more_costs_one_write(storage: MemoryStorage) -> None:
    log = open_log(storage)
    log.note_remote_contiguous(20)
    before = stored_hints(storage)
    for length in range(21, 100):
        log.note_remote_contiguous(length)
    assert stored_hints(storage) == before
    assert log.remote_contiguous_length == 20
    log.append([b"more"])
    assert stored_hints(storage).remote_contiguous_length == 99
    assert log.remote_contiguous_length == 21


@pytest.mark.parametrize("remote", [3, 15, 20])
def test_truncating_shortens_what_peers_have_of_it(storage: MemoryStorage, remote: int) -> None:
    log = open_log(storage)
    log.clear([(0, 1)])
    log.note_remote_contiguous(remote)
    log.truncate(10, None)
    assert log.remote_contiguous_length == min(remote, 10)
    log.append([b"other"])
    assert log.remote_contiguous_length == min(remote, 10)
