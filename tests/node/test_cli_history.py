"""`beemesh core truncate`, `clear` and `purge`, on the data directory and through a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypercore import open_corestore
from hypercore.crypto import encode_id
from node.logs import perform_on_store
from node.verbs import (
    BeePut,
    CoreAppend,
    CoreClear,
    CorePurge,
    CoreTruncate,
    ExitCode,
    VerbError,
)
from tests.node.test_cli import Beemesh, beemesh

__all__ = ["beemesh"]  # the fixture


def blocks_of(beemesh: Beemesh, count: int) -> str:
    (appended,) = beemesh.json("core", "append", "log", *(f"block {i}" for i in range(count)))
    key: str = appended["key"]
    return key


def test_truncating(beemesh: Beemesh) -> None:
    blocks_of(beemesh, 10)
    assert beemesh.json("core", "truncate", "log", "4") == [{"length": 4, "fork": 1, "blocks": 6}]
    code, out, _ = beemesh("core", "truncate", "log", "3")
    assert (code, out) == (0, "1 block given up; the core has 3 blocks, fork 2\n")
    code, _, error = beemesh("core", "truncate", "log", "5")
    assert code == ExitCode.USAGE
    assert error == "beemesh: log has 3 blocks, and cannot be cut back to 5\n"
    assert beemesh("core", "truncate", "log", "3")[0] == 0  # to the length that it has


def test_clearing(beemesh: Beemesh) -> None:
    key = blocks_of(beemesh, 10)
    assert beemesh.json("core", "clear", key, "2", "5") == [{"length": 10, "fork": 0, "blocks": 3}]
    assert beemesh("core", "clear", "log", "0", "10")[1].startswith("7 blocks freed;")
    (core,) = beemesh.json("core", "ls")
    assert (core["length"], core["byte_length"], core["blocks_held"]) == (10, 70, 0)
    table = beemesh("core", "ls")[1]
    assert all(heading in table for heading in ("name", "key", "length", "bytes", "held"))
    for start, stop in (("5", "11"), ("5", "2"), ("11", "12")):
        code, _, error = beemesh("core", "clear", "log", start, stop)
        assert code == ExitCode.USAGE
        assert (
            error == f"beemesh: there are no blocks from {start} to {stop} to clear: log has 10\n"
        )


def test_purging(beemesh: Beemesh, tmp_path: Path) -> None:
    key = blocks_of(beemesh, 10)
    code, _, error = beemesh("core", "purge", "log")
    assert (code, "--yes" in error) == (ExitCode.USAGE, True)
    assert beemesh("core", "get", "log", "0")[0] == 0
    assert beemesh.json("core", "purge", "log", "--yes") == [{"key": key, "blocks": 10}]
    assert beemesh.json("core", "ls") == []
    for core in ("log", key):
        code, _, error = beemesh("core", "purge", core, "--yes")
        assert code == ExitCode.NOT_FOUND
    files = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(b"block 7" in content for content in files)


@pytest.mark.parametrize(
    "arguments", [("truncate", "0"), ("clear", "0", "1"), ("purge", "--yes")], ids=lambda it: it[0]
)
def test_the_data_of_the_node_is_not_for_that(beemesh: Beemesh, arguments: tuple[str, ...]) -> None:
    blocks_of(beemesh, 1)
    verb, *rest = arguments
    code, _, error = beemesh("core", verb, "beemesh/data", *rest)
    assert (code, "holds the coValues" in error) == (ExitCode.USAGE, True)


@pytest.mark.parametrize("is_open", [True, False])
async def test_nor_by_its_key(is_open: bool) -> None:
    """`beemesh status` shows it; cut back by it, the log of all coValues forked."""
    async with open_corestore(None) as store:
        data = await store.get(name="beemesh/data")
        await data.append(b"x")
        key = data.key.hex()
        if not is_open:
            await data.close()
        for verb in (
            CoreAppend(key, (b"y",)),
            BeePut(key, b"k", b"v"),
            CoreTruncate(key, 0),
            CoreClear(key, 0, 1),
            CorePurge(f"pear://{encode_id(data.key)}"),
            CoreTruncate(key[:12], 0),
            CorePurge(encode_id(data.key)[:12]),
        ):
            with pytest.raises(VerbError, match="holds the coValues"):
                _ = [result async for result in perform_on_store(store, verb, can_fetch=False)]
        core = await store.get(name="beemesh/data")
        assert (core.length, core.fork, await core.get(0)) == (1, 0, b"x")


@pytest.mark.parametrize(
    "command",
    [
        ("core", "truncate", "log", "1.5"),
        ("core", "clear", "log", "0", "1.5"),
        ("core", "get", "log", "0.5"),
        ("core", "proof", "log", "0.5"),
        ("bee", "ls", "log", "--limit", "1.5"),
        ("invite", "--uses", "1.5"),
        ("sync", "wait", "--min-copies", "x"),
    ],
    ids=" ".join,
)
def test_what_is_no_whole_number_is_not_rounded_to_one(
    beemesh: Beemesh, command: tuple[str, ...]
) -> None:
    """`core truncate log 1.5` kept two blocks, and began a new history."""
    beemesh("core", "append", "log", "one", "two", "three")
    code, out, error = beemesh(*command)
    assert (code, out) == (ExitCode.USAGE, "")
    assert f'unable to convert "{command[-1]}" into int' in error
    (info,) = beemesh.json("core", "info", "log")
    assert (info["length"], info["fork"]) == (3, 0)


async def test_a_core_in_use_is_not_purged() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append(b"x")

        async def purge() -> list[object]:
            verb = CorePurge("log")
            return [result async for result in perform_on_store(store, verb, can_fetch=True)]

        with pytest.raises(VerbError, match="is using log"):
            await purge()
        assert await core.get(0) == b"x"
        await core.close()
        assert len(await purge()) == 1
