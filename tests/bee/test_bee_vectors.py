"""Blocks and views, byte for byte those that the original wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bee import UTF8, Batch, Bee, Entry, Metadata
from bee.extension_messages import CacheHint, GetRequest, IteratorRequest, decode_extension
from hypercore.merkle import MerkleNode, append_root, leaf_node, tree_hash
from tests.support.bee_log import BeeLog

VECTORS = Path(__file__).parent.parent / "vectors" / "hypercore"
SEQUENCES = json.loads((VECTORS / "bee.json").read_text())
VIEWS = json.loads((VECTORS / "bee-views.json").read_text())


def unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


async def run_operation(target: Bee[bytes, bytes] | Batch[bytes, bytes], operation: Any) -> None:
    key = bytes.fromhex(operation[1])
    match operation[0]:
        case "put":
            await target.put(key, unhex(operation[2]))
        case "del":
            await target.delete(key)
        case "putcas":
            await target.put(key, unhex(operation[2]), cas=lambda _old, _new: operation[3])
        case "delcas":
            await target.delete(key, cas=lambda _old, _new: operation[2])
        case unknown:
            raise AssertionError(unknown)


def metadata_of(options: dict[str, Any]) -> Metadata | None:
    if "metadata" not in options:
        return None
    fields = options["metadata"]
    return Metadata(unhex(fields["contentFeed"]), unhex(fields["userData"]))


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: str(sequence["name"]))
@pytest.mark.parametrize("cache_bytes", [0, 32 << 20])
async def test_same_operations_give_the_same_blocks(
    sequence: dict[str, Any], cache_bytes: int
) -> None:
    log = BeeLog()
    options = sequence["opts"]
    bee = Bee(
        log,
        metadata=metadata_of(options),
        always_duplicate=options.get("alwaysDuplicate", True),
        cache_bytes=cache_bytes,
    )
    for operation in sequence["ops"]:
        if operation[0] == "batch":
            async with bee.batch() as batch:
                for inner in operation[1]:
                    await run_operation(batch, inner)
        else:
            await run_operation(bee, operation)
    assert [block.hex() for block in log.blocks] == sequence["blocks"]


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: str(sequence["name"]))
def test_tree_hash_of_these_blocks(sequence: dict[str, Any]) -> None:
    roots: list[MerkleNode] = []
    for index, block in enumerate(sequence["blocks"]):
        append_root(roots, leaf_node(index, bytes.fromhex(block)), [])
    assert tree_hash(roots).hex() == sequence["treeHash"]


def open_view(name: str) -> Bee[str, str]:
    log = BeeLog(bytes.fromhex(block) for block in VIEWS[name]["blocks"])
    return Bee(log, key_encoding=UTF8, value_encoding=UTF8)


@pytest.mark.parametrize("case", VIEWS["iter"]["ranges"], ids=lambda case: str(case["range"]))
async def test_range(case: dict[str, Any]) -> None:
    entries = open_view("iter").range(**case["range"])
    assert [[entry.seq, entry.key] async for entry in entries] == case["result"]


@pytest.mark.parametrize("case", VIEWS["iter"]["history"], ids=lambda case: str(case["opts"]))
async def test_history(case: dict[str, Any]) -> None:
    options = dict(case["opts"])
    if "since" in options:
        options["gte"] = options.pop("since")
    changes = open_view("iter").history(**options)
    seen = [["del" if c.is_deletion else "put", c.seq, c.key] async for c in changes]
    assert seen == case["result"]


@pytest.mark.parametrize("case", VIEWS["iter"]["diffs"], ids=str)
async def test_diff(case: dict[str, Any]) -> None:
    def short(entry: Entry[str, str] | None) -> list[object] | None:
        return None if entry is None else [entry.seq, entry.key]

    differences = open_view("iter").diff(case["version"], **case["opts"])
    assert [[short(d.left), short(d.right)] async for d in differences] == case["result"]


@pytest.mark.parametrize(
    "case", VIEWS["iter"]["checkouts"], ids=lambda case: f"version {case['version']}"
)
async def test_checkout(case: dict[str, Any]) -> None:
    snapshot = open_view("iter").checkout(case["version"])
    assert [[e.seq, e.key, e.value] async for e in snapshot.range()] == case["result"]
    found = await snapshot.get("010")
    assert (found and found._asdict()) == case["get010"]


@pytest.mark.parametrize("name", ["root", "a", "ab", "c"])
async def test_subs(name: str) -> None:
    bee = open_view("sub")
    match name:
        case "a":
            bee = bee.sub("a")
        case "ab":
            bee = bee.sub("a").sub("b")
        case "c":
            bee = bee.sub("c", separator=b"!")
    for view in (bee, bee.snapshot()):
        entries = [[entry.seq, entry.key, entry.value] async for entry in view.range()]
        assert entries == VIEWS["sub"]["ranges"][name]


async def test_subs_write_the_same_blocks() -> None:
    log = BeeLog()
    bee = Bee(log, key_encoding=UTF8, value_encoding=UTF8)
    sub_a = bee.sub("a")
    await bee.put("root", "1")
    await sub_a.put("x", "2")
    await sub_a.sub("b").put("y", "3")
    await bee.sub("c", separator=b"!").put("z", "4")
    await sub_a.put("", "empty")
    await sub_a.put("\0", "nul")
    await bee.put("a\x01", "after")
    assert [block.hex() for block in log.blocks] == VIEWS["sub"]["blocks"]
    # Keys that a sub's ranges leave out are there all the same.
    assert await sub_a.get("") == Entry(5, "", "empty")
    assert await sub_a.get("\0") == Entry(6, "\0", "nul")


@pytest.mark.parametrize("case", VIEWS["extension"], ids=lambda case: str(next(iter(case["msg"]))))
def test_extension_messages(case: dict[str, Any]) -> None:
    ((kind, fields),) = case["msg"].items()
    message: CacheHint | GetRequest | IteratorRequest
    match kind:
        case "cache":
            message = CacheHint(tuple(fields["blocks"]))
        case "get":
            message = GetRequest(fields["version"], bytes.fromhex(fields["key"]))
        case _:
            message = IteratorRequest(
                fields["version"],
                unhex(fields["gte"]),
                unhex(fields["gt"]),
                unhex(fields["lte"]),
                unhex(fields["lt"]),
                fields["limit"],
                fields["reverse"],
                tuple(fields["checkpoint"]),
            )
    assert message.encode().hex() == case["hex"]
    assert list(decode_extension(bytes.fromhex(case["hex"]))) == [message]
