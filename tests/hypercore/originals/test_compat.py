"""Follows hypercore 11.37.1 test/compat.js: cores that older versions made.

The original opens the files of three versions of Hypercore 10 and compares 1,000 blocks; it is
commented out in its own suite, since Hypercore 11 opens such files through its Corestore only.
Its fixtures are not in this repository (they read well here: all three, every block). The
same kinds of files are written by `support.version10_files`: header version 0 as
"v10.0.0-alpha.39" and "v10.4.1" have it, most of it flushed and the rest in the log; and
"v10.4.1-partial", where nothing was flushed yet. JavaScript reads what that writes, too:
`interop/originals/test_compat`.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercore import (
    Corestore,
    CorruptStorage,
    Durability,
    KeyPair,
    Manifest,
    Signer,
    UsageError,
    open_corestore,
)
from hypercore.proof import ProofRequest, UpgradeRequest, build_proof
from hypercore.replication.intake import Intake
from hypercore.storage.version10 import Version10Core, version10_directories
from tests.support.signing_party import replicating
from tests.support.storage_rows import verify_core
from tests.support.version10_files import Version10Writer, record

PAIR = KeyPair.from_seed(b"\x51" * 32)


def written(flushed: int, *, header_version: int = 0, is_compat: bool = True) -> Version10Writer:
    """1,000 blocks of one byte, as in the fixtures."""
    writer = Version10Writer(PAIR, is_compat=is_compat, header_version=header_version)
    for index in range(flushed):
        writer.append(bytes([index & 255]))
    if flushed:
        writer.flush()
    for index in range(flushed, 1000):
        writer.append(bytes([index & 255]))
    return writer


@pytest.mark.parametrize("flushed", [0, 993, 1000])
@pytest.mark.parametrize("kind", ["alpha.39", "10.4.1", "not compat"])
async def test_abi(tmp_path: Path, flushed: int, kind: str) -> None:
    writer = written(
        flushed,
        header_version=0 if kind == "alpha.39" else 1,
        is_compat=kind != "not compat",
    )
    writer.write(tmp_path / "old")
    async with open_corestore(tmp_path / "new", durability=Durability.OS) as store:
        core = await store.import_version10(tmp_path / "old")
        assert core.key == writer.key
        assert core.head == writer.head
        assert core.length == core.contiguous_length == 1000
        assert await core.get_many(range(1000)) == [bytes([index & 255]) for index in range(1000)]
        assert core.verifier is not None
        assert core.verifier.is_compat == (kind != "not compat")
        await core.append(b"and on")
        again = await store.get(key=writer.key)
        assert await again.get(1000) == b"and on"
        assert verify_core(store.storage, core.discovery_key) == 1001


async def test_a_compat_core_is_served_and_continued() -> None:
    async with (
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        core = await store.get(key=PAIR.public_key, key_pair=PAIR)
        assert len(core.propose(b"x").signable()) == 80
        await core.append([b"one", b"two"])
        assert len(core.head.signature) == 64
        copy = await other_store.get(key=PAIR.public_key)
        assert await copy.get(1) == b"two"
        assert copy.manifest == Manifest.single_signer(PAIR.public_key)
        await core.append(b"three")
        assert await copy.get(2) == b"three"


@pytest.mark.parametrize("version", [0, 1, 2, 3])
async def test_manifests_of_every_version(version: int) -> None:
    async with (
        open_corestore(None) as store,
        open_corestore(None) as other_store,
        replicating(store, other_store),
    ):
        manifest = Manifest.single_signer(PAIR.public_key, version)
        core = await store.get(manifest=manifest, key_pair=PAIR)
        await core.append([b"one", b"two"])
        assert len(core.head.signature) == (68 if version else 64)
        copy = await other_store.get(key=core.key)
        assert await copy.get(1) == b"two"
        assert copy.manifest == manifest


async def imported(store: Corestore, writer: Version10Writer, directory: Path) -> bool:
    writer.write(directory)
    try:
        await store.import_version10(directory)
    except CorruptStorage:
        return False
    return True


async def test_user_data_and_name_go_along(tmp_path: Path) -> None:
    user_data = {"note": b"old", "corestore/name": b"log", "corestore/namespace": bytes(32)}
    writer = Version10Writer(PAIR, user_data=user_data, header_version=1, is_compat=False)
    writer.append(b"one")
    writer.note("note", b"newer")
    writer.note("more", b"")
    async with open_corestore(None) as store:
        assert await imported(store, writer, tmp_path / "old")
        core = await store.get(name="log")
        assert (core.key, core.is_writable) == (writer.key, True)
        assert core.get_user_data("note") == b"newer"
        assert core.get_user_data("more") == b""
        assert core.get_user_data("corestore/name") is None
        assert store.names() == ["log"]


async def test_a_log_with_gaps_and_without_its_secret_key(tmp_path: Path) -> None:
    writer = Version10Writer(PAIR, has_secret_key=False)
    writer.append(*(b"block %d" % index for index in range(50)))
    gaps = [3, 4, 20, 49]
    writer.flush(without=gaps)
    writer.append(b"the last")
    async with open_corestore(None) as store:
        writer.write(tmp_path / "old", gaps)
        core = await store.import_version10(tmp_path / "old")
        assert not core.is_writable
        assert [index for index in range(51) if not core.has(index)] == gaps
        assert await core.get(48) == b"block 48"
        assert await core.get(50) == b"the last"
        assert core.contiguous_length == 3


async def test_a_log_that_was_truncated_since_its_last_header(tmp_path: Path) -> None:
    """JavaScript refuses these."""
    writer = Version10Writer(PAIR)
    writer.append(*(b"block %d" % index for index in range(20)))
    writer.flush()
    writer.truncate(7)
    async with open_corestore(None) as store:
        writer.write(tmp_path / "cut")
        core = await store.import_version10(tmp_path / "cut")
        assert (core.length, core.fork) == (7, 1)
        writer.append(b"new", b"newer")
        writer.write(tmp_path / "old")
        with pytest.raises(UsageError, match="has 7 blocks of this core at fork 1"):
            await store.import_version10(tmp_path / "old")
    async with open_corestore(None) as store:
        core = await store.import_version10(tmp_path / "old")
        assert await core.get_many([6, 7, 8]) == [b"block 6", b"new", b"newer"]
        again = await store.import_version10(tmp_path / "old")
        assert again.head == core.head
        assert verify_core(store.storage, core.discovery_key) == 9


def state_of(directory: Path) -> tuple[int, dict[str, bytes]]:
    with closing(Version10Core(directory)) as core:
        return core.head.length, core.user_data


async def test_what_was_never_acknowledged_is_left_out(tmp_path: Path) -> None:
    writer = written(990)
    whole = writer.oplog()
    last = len(writer.entries[-1])
    writer.write(tmp_path / "cut")
    for spoiled in (whole[:-1], whole[:-last] + b"\x00" * last, whole[:-1] + b"\xff"):
        (tmp_path / "cut" / "oplog").write_bytes(spoiled)
        assert state_of(tmp_path / "cut") == (999, {})
    # A change of several entries of which the last is missing.
    partial = record(b"\x01\x01k\x01v", 1, is_partial=True)
    (tmp_path / "cut" / "oplog").write_bytes(whole + partial + partial)
    assert state_of(tmp_path / "cut") == (1000, {})
    done = record(b"\x01\x01k\x01v", 1)
    (tmp_path / "cut" / "oplog").write_bytes(whole + partial + done)
    assert state_of(tmp_path / "cut") == (1000, {"k": b"v"})


async def test_damage_is_told_and_nothing_of_it_is_taken(tmp_path: Path) -> None:
    writer = Version10Writer(PAIR)
    writer.append(*(b"block %d" % index for index in range(20)))
    writer.flush()
    directory = tmp_path / "old"
    writer.write(directory)
    good = {name: (directory / name).read_bytes() for name in ("oplog", "tree", "data")}
    oplog = good["oplog"]
    damage = {
        "both headers are damaged": ("oplog", oplog[:4196] + b"\xff" + oplog[4197:]),
        "a root, is missing": ("tree", good["tree"][: 40 * 5]),
        "nobody signed": ("tree", good["tree"].replace(writer.nodes[15].hash, bytes(32))),
        "ends within block 19": ("data", good["data"][:-1]),
        "block 7: it does not hash": ("data", good["data"].replace(b"block 7", b"black 7")),
        "no tree node or data of block 6": (
            "tree",
            good["tree"]
            .replace(writer.nodes[12].hash, bytes(32))
            .replace(b"\x07" + bytes(39), bytes(40)),
        ),
    }
    for reason, (name, content) in damage.items():
        if name == "oplog":
            # Of the two headers the first one was spoiled before: see the writer.
            content = record(b"", 0)[:4] + content[4:]
        (directory / name).write_bytes(content)
        async with open_corestore(None) as store:
            with pytest.raises(CorruptStorage, match=reason):
                await store.import_version10(directory)
            if (core := await store.find(writer.verifier.key)) is not None:
                assert core.length == 0
        (directory / name).write_bytes(good[name])
    with pytest.raises(CorruptStorage, match="no oplog"):
        Version10Core(tmp_path)


@pytest.mark.parametrize("header_version", [0, 1])
async def test_a_header_that_is_too_large_for_its_place(
    tmp_path: Path, header_version: int
) -> None:
    writer = Version10Writer(
        PAIR,
        header_version=header_version,
        user_data={"large": bytes(5000)},
        is_header_external=True,
    )
    writer.append(b"one")
    writer.flush()
    writer.append(b"two")
    writer.write(tmp_path / "old")
    async with open_corestore(None) as store:
        core = await store.import_version10(tmp_path / "old")
        assert await core.get_many([0, 1]) == [b"one", b"two"]
        assert core.get_user_data("large") == bytes(5000)
    (tmp_path / "old" / "header").unlink()
    with pytest.raises(CorruptStorage):
        Version10Core(tmp_path / "old")


@settings(max_examples=60)
@given(st.data())
def test_any_records_are_a_core_or_damaged(data: st.DataObject) -> None:
    """Checksums are right here, whatever they are of."""
    writer = Version10Writer(PAIR, header_version=data.draw(st.integers(0, 1)))
    writer.append(b"one", b"two")
    writer.flush()
    header = bytearray(writer.flushed_header)
    for _ in range(data.draw(st.integers(0, 3))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    entries = data.draw(st.lists(st.binary(max_size=30), max_size=4))
    oplog = record(bytes(header), 0).ljust(8192, b"\x00")
    oplog += b"".join(record(entry, 0) for entry in entries)
    with TemporaryDirectory() as directory:
        writer.write(Path(directory) / "old")
        (Path(directory) / "old" / "oplog").write_bytes(oplog)
        try:
            core = Version10Core(Path(directory) / "old")
        except CorruptStorage:
            return
        with closing(core):
            assert core.head.length in (0, 2)
            assert core.bitfield.first_set(2, 2**20) is None


def test_finding_the_cores_of_a_store(tmp_path: Path) -> None:
    writers = [Version10Writer(KeyPair.from_seed(bytes([seed]) * 32)) for seed in range(3)]
    for writer in writers:
        writer.append(b"one")
        writer.write(writer.place_in(tmp_path))
    found = version10_directories(tmp_path)
    assert found == sorted(writer.place_in(tmp_path) for writer in writers)
    assert version10_directories(found[0]) == [found[0]]


async def test_a_peer_does_not_choose_the_manifest_of_a_compat_core() -> None:
    """Nothing hashes to a compat core's key: of its manifest only the signer is proven."""
    strange = Manifest.multi_signer(
        [Signer(b"\x01" * 32, PAIR.public_key)], user_data=bytes(100_000), allow_patch=True
    )
    async with open_corestore(None) as store, open_corestore(None) as other_store:
        core = await store.get(key=PAIR.public_key, key_pair=PAIR)
        await core.append([b"one", b"two"])
        copy = await other_store.get(key=PAIR.public_key)
        request = ProofRequest(0, upgrade=UpgradeRequest(0, 2))
        proof = build_proof(request, core.head, core.read_node)
        intake = Intake(copy)
        intake.accept_proof(replace(proof, manifest=strange))
        copy.commit(intake.changesets())
        assert copy.head == core.head
        assert copy.manifest == Manifest.single_signer(PAIR.public_key)
