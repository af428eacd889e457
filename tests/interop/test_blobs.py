"""Hyperblobs and ours, taking turns on one directory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bee import BlobId, Blobs
from hypercore import open_corestore

pytestmark = pytest.mark.interop

PEER = Path(__file__).parent / "blob_peer.cjs"
SIZES = (0, 1, 65_536, 65_537, 200_000)


def run_js(directory: Path, steps: list[dict[str, Any]]) -> list[Any]:
    task = json.dumps({"dir": str(directory), "steps": steps})
    answer = subprocess.run(
        ["node", str(PEER)], input=task, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    results: list[Any] = json.loads(answer.stdout)
    return results


async def test_both_read_what_the_other_put(tmp_path: Path) -> None:
    source = Random(5)
    datas = [source.randbytes(size) for size in SIZES]
    async with open_corestore(tmp_path) as store:
        blobs = Blobs(await store.get(name="blobs"))
        ours = [await blobs.put(data) for data in datas]
    reads = [{"get": blob.to_json()} for blob in ours]
    part = {"get": ours[-1].to_json(), "start": 70_000, "length": 100_000}
    puts: list[dict[str, Any]] = [{"put": data.hex()} for data in datas]
    puts.append({"put": datas[-1].hex(), "blockSize": 5_000})
    results = run_js(tmp_path, [*reads, part, *puts])
    assert results[1 : len(reads)] == [data.hex() for data in datas[1:]]
    assert results[len(reads)] == datas[-1][70_000:170_000].hex()
    theirs = [BlobId.from_json(fields) for fields in results[len(reads) + 1 :]]
    async with open_corestore(tmp_path) as store:
        blobs = Blobs(await store.get(name="blobs"))
        for blob, data in zip(theirs, [*datas, datas[-1]], strict=True):
            assert await blobs.get(blob) == data
            start, stop = sorted((source.randint(0, len(data)), source.randint(0, len(data))))
            assert await blobs.get(blob, start, stop) == data[start:stop]


async def test_the_same_ids_for_the_same_blobs(tmp_path: Path) -> None:
    datas = [bytes(size) for size in SIZES]
    async with open_corestore(tmp_path / "ours") as store:
        blobs = Blobs(await store.get(name="blobs"))
        ours = [(await blobs.put(data)).to_json() for data in datas]
    assert run_js(tmp_path / "theirs", [{"put": data.hex()} for data in datas]) == ours
