"""An atom is whole or nothing: killed, after a power cut, and when the disk fails at the commit."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercore import Core, Corestore, Durability, open_corestore
from hypercore.crypto import KeyPair, discovery_key
from hypercore.draft import Draft
from hypercore.errors import StorageFailed
from hypercore.manifest import Manifest
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import AuthRecord
from hypercore.stored_log import StoredLog
from tests.support.atom_writer import check
from tests.support.crash_states import Disk, Survival
from tests.support.power_cut import Kind, build_shim, read_trace, shim_environment
from tests.support.storage_rows import all_rows, verify_core
from tests.support.stored_logs import FaultyStorage

_PROJECT = Path(__file__).parents[2]


def command(path: Path, durability: str, seed: int, changes: int) -> list[str]:
    program = [sys.executable, "-m", "tests.support.atom_writer"]
    return [*program, str(path), durability, str(seed), str(changes)]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(7)
    total = 0
    for _ in range(3):
        child = subprocess.Popen(
            command(tmp_path / "store", "commit", chance.randrange(2**32), 0),
            stdout=subprocess.PIPE,
            cwd=_PROJECT,
        )
        with child:
            assert child.stdout is not None
            said = child.stdout.readline()  # it takes longer to start than to write
            time.sleep(chance.uniform(0, 0.15))
            child.send_signal(signal.SIGKILL)
            said += child.stdout.read()
        acknowledged = int(said.rpartition(b"\n")[0].split()[-1])
        found = trio.run(check, tmp_path / "store")
        assert acknowledged <= found <= acknowledged + 1
        total = found
    assert total >= 3


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["os", "commit"])
def test_a_power_cut_at_any_moment(tmp_path: Path, durability: str) -> None:
    chance = random.Random(11)
    live, trace, state = (tmp_path / name for name in ("live", "trace", "state"))
    live.mkdir()
    subprocess.run(
        command(live / "store", durability, 5, 30),
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=_PROJECT,
        env=shim_environment(build_shim(tmp_path), live, trace),
    )
    records = list(read_trace(trace))
    disk = Disk(live)
    seen = set()
    said = [index for index, record in enumerate(records) if record.kind is Kind.OUTPUT]
    near = [chance.choice(said) + chance.randint(-5, 5) for _ in range(7)]
    for position in sorted(min(position, len(records)) for position in near):
        while disk.position < position:
            disk.apply(records[disk.position])
        disk.leave(state, chance.choice(list(Survival)), chance)
        found = trio.run(check, state / "store")
        seen.add(found)
        if durability == "commit":
            assert found >= int((disk.output or [b"0"])[-1])
        shutil.rmtree(state)
    assert max(seen) > 0


# --- a commit that fails -------------------------------------------------------------------------

PAIRS = [KeyPair.from_seed(bytes([number]) * 32) for number in (1, 2)]


def open_logs(storage: FaultyStorage) -> list[StoredLog]:
    catalog = Catalog(storage, bytes(32))
    logs = []
    for pair in PAIRS:
        manifest = Manifest.single_signer(pair.public_key)
        public = discovery_key(manifest.key)
        auth = AuthRecord(manifest.key, public, manifest, pair.public_key, pair.secret_key)
        record = catalog.find(public) or catalog.create(auth, None, {})
        logs.append(StoredLog(CoreStorage(storage, public, record)))
    return logs


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_failed_commit_poisons_all_of_them(is_stored: bool) -> None:
    storage = FaultyStorage()
    logs = open_logs(storage)
    for log in logs:
        log.append([b"before"] * 5)
    rows = all_rows(storage)
    drafts = [Draft(log, None, log.rows.read_block) for log in logs]
    drafts[0].truncate(2)
    drafts[1].append([b"x"])
    batch = storage.batch()
    for draft in drafts:
        draft.sign()
        draft.stage(batch)
    storage.fails_before, storage.fails_after = not is_stored, is_stored
    with pytest.raises(OSError, match=r"device|error") as caught:
        storage.commit(batch)
    for draft in drafts:
        draft.poison(caught.value)
    storage.fails_before = storage.fails_after = False
    for log in logs:
        with pytest.raises(StorageFailed):
            log.append([b"y"])
    if not is_stored:
        assert all_rows(storage) == rows
    lengths = [log.head.length for log in open_logs(storage)]
    assert lengths == ([2, 6] if is_stored else [5, 5])
    for log in logs:
        verify_core(storage, log.discovery_key)


# --- any atoms -----------------------------------------------------------------------------------

NAMES = "abc"
CHANGE = st.tuples(
    st.sampled_from(NAMES),
    st.tuples(st.just("append"), st.lists(st.binary(max_size=6), max_size=5))
    | st.tuples(st.just("truncate"), st.floats(0, 1))
    | st.tuples(st.just("clear"), st.tuples(st.floats(0, 1), st.floats(0, 1)))
    | st.tuples(
        st.just("local"),
        st.dictionaries(st.sampled_from([b"x", b"y"]), st.none() | st.binary(max_size=3)),
    )
    | st.tuples(st.just("user"), st.binary(max_size=3)),
)
ATOMS = st.lists(
    st.tuples(
        st.lists(CHANGE, max_size=8), st.sampled_from(["commit", "flush", "leave", "reopen"])
    ),
    max_size=8,
)


class Model:
    """What a core should hold; None is a block that was cleared."""

    def __init__(self) -> None:
        self.blocks: list[bytes | None] = []
        self.local: dict[bytes, bytes] = {}
        self.user: bytes | None = None
        self.fork = 0

    def copy(self) -> Model:
        other = Model()
        other.blocks, other.local = list(self.blocks), dict(self.local)
        other.user, other.fork = self.user, self.fork
        return other

    def apply(self, draft: Draft, kind: str, value: object) -> None:
        """To both."""
        match kind, value:
            case "append", list(blocks):
                assert draft.append(blocks) == len(self.blocks)
                self.blocks += blocks
            case "truncate", float(share):
                length = int(share * len(self.blocks))
                draft.truncate(length)
                del self.blocks[length:]
                self.fork += 1
            case "clear", (float(low), float(high)):
                start, stop = sorted((int(low * len(self.blocks)), int(high * len(self.blocks))))
                draft.clear(start, stop)
                self.blocks[start:stop] = [None] * (stop - start)
            case "local", dict(rows):
                draft.write_local(rows)
                for key, row in rows.items():
                    self.local.pop(key, None)
                    if row is not None:
                        self.local[key] = row
            case "user", bytes(data):
                draft.set_user_data("note", data)
                self.user = data

    def check_draft(self, draft: Draft) -> None:
        assert (draft.length, draft.fork) == (len(self.blocks), self.fork)
        assert [draft.get_local(index) for index in range(draft.length)] == self.blocks
        assert draft.get_user_data("note") == self.user
        for key in (b"x", b"y"):
            assert draft.get_local_value(key) == self.local.get(key)

    def check(self, store: Corestore, core: Core) -> None:
        assert (core.length, core.fork) == (len(self.blocks), self.fork)
        assert [core.get_local(index) for index in range(core.length)] == self.blocks
        assert dict(core.local_items(b"", b"\xff")) == self.local
        assert core.get_user_data("note") == self.user
        verify_core(store.storage, core.discovery_key, may_have_gaps=True)


class Left(Exception):
    """An atom that was left by an exception."""


async def run_atom(
    store: Corestore,
    models: dict[str, Model],
    changes: list[tuple[str, tuple[str, object]]],
    end: str,
) -> dict[str, Model]:
    """What the cores should hold afterwards."""
    cores = {name: await store.get(name=name) for name in NAMES}
    drafted = {name: model.copy() for name, model in models.items()}
    try:
        async with store.atom(*cores.values()) as atom:
            for number, (name, (kind, value)) in enumerate(changes):
                drafted[name].apply(atom[cores[name]], kind, value)
                drafted[name].check_draft(atom[cores[name]])
                if end == "flush" and number == len(changes) // 2:
                    await atom.flush()
                    models = {name: model.copy() for name, model in drafted.items()}
            for name, core in cores.items():
                models[name].check(store, core)
            if end == "leave":
                raise Left
    except Left:
        return models
    return drafted


async def run(
    path: Path | None, atoms: list[tuple[list[tuple[str, tuple[str, object]]], str]]
) -> None:
    models = {name: Model() for name in NAMES}
    left = list(atoms)
    while True:
        async with open_corestore(path, durability=Durability.OS) as store:
            while left:
                changes, end = left.pop(0)
                models = await run_atom(store, models, changes, end)
                if end == "reopen" and path is not None:
                    break
            for name in NAMES:
                models[name].check(store, await store.get(name=name))
            if not left:
                return


@settings(max_examples=40)
@given(atoms=ATOMS)
def test_any_atoms(atoms: list[tuple[list[tuple[str, tuple[str, object]]], str]]) -> None:
    trio.run(run, None, atoms)


@settings(max_examples=5)
@given(atoms=ATOMS)
def test_any_atoms_on_disk(
    atoms: list[tuple[list[tuple[str, tuple[str, object]]], str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    trio.run(run, tmp_path_factory.mktemp("atoms"), atoms)
