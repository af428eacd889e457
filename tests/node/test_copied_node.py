"""A data directory that was copied, and the original that went on: started, it forks nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import trio

from bee.bee import Bee
from hypercore.corestore import open_corestore
from node.storing import open_data_core
from node.verbs import ExitCode, ListForks, ListValues, Load, WaitSync
from tests.node.mesh.authors import Author, Value
from tests.node.node_process import NodeProcess
from tests.node.test_sync import ask, upload_acknowledged
from tests.support.running_node import run_beemesh


def values() -> list[Value]:
    """Three of one author."""
    return [Author(1).value(name) for name in ("first", "second", "third")]


async def put(ready: dict[str, Any], value: Value) -> None:
    await upload_acknowledged(ready, value, value.edit("[]", with_header=True))


async def test_a_copy_gets_its_own_log_back_before_it_goes_on(tmp_path: Path) -> None:
    first, second, third = values()
    keeper, original, copy = (tmp_path / name for name in ("keeper", "original", "copy"))
    with trio.fail_after(240):
        async with NodeProcess(keeper, "--replicate", "all").running() as kept:
            join = ("--join", kept["ticket"])
            async with NodeProcess(original, *join).running() as ready:
                await put(ready, first)
                code, _ = await ask(keeper, Load(first.id))
                assert code == 0  # they have met
            shutil.copytree(original, copy)
            async with NodeProcess(original, *join).running() as ready:
                await put(ready, second)
                code, _ = await ask(original, WaitSync())
                assert code == 0
            # Said to be the only one left: nothing on this disk shows that it is not.
            (copy / "corestore" / "CORESTORE").unlink()
            async with NodeProcess(copy, *join).running() as again:
                assert again["key"] == ready["key"]
                await put(again, third)
                for value in (first, second, third):
                    code, found = await ask(copy, Load(value.id))
                    assert (code, found["source"]) == (0, "store")
                code, _ = await ask(copy, WaitSync())
                assert code == 0
                code, found = await ask(keeper, Load(third.id))
                assert (code, found["source"]) == (0, "store")
                for data in (keeper, copy):
                    assert await ask(data, ListForks()) == (0, {})
                _, last = await ask(copy, ListValues())
                assert last["id"] == max(value.id for value in (first, second, third))


async def test_a_hybrid_whose_core_is_older_than_its_file_does_not_fork_it(tmp_path: Path) -> None:
    """As a power cut may leave both: SQLite has what the log had, and members know that it had."""
    first, second, third = values()
    keeper, hybrid = tmp_path / "keeper", tmp_path / "hybrid"
    with trio.fail_after(240):
        async with NodeProcess(keeper, "--replicate", "all").running() as kept:
            options = ("--join", kept["ticket"], "--store", "hybrid")
            async with NodeProcess(hybrid, *options).running() as ready:
                await put(ready, first)
            shutil.copytree(hybrid / "corestore", tmp_path / "older")
            async with NodeProcess(hybrid, *options).running() as ready:
                await put(ready, second)
                for _ in range(3):  # each is a commit of its own; at the next start it would be one
                    await upload_acknowledged(ready, second, second.edit("[1]"))
                code, _ = await ask(hybrid, WaitSync())
                assert code == 0
            shutil.rmtree(hybrid / "corestore")
            shutil.copytree(tmp_path / "older", hybrid / "corestore")
            (hybrid / "corestore" / "CORESTORE").unlink()
            async with NodeProcess(hybrid, *options).running() as again:
                await put(again, third)
                code, _ = await ask(hybrid, WaitSync())
                assert code == 0
                for value in (first, second, third):
                    code, found = await ask(keeper, Load(value.id))
                    assert (code, found["source"]) == (0, "store")
                for data in (keeper, hybrid):
                    assert await ask(data, ListForks()) == (0, {})


async def test_nothing_is_imported_into_a_copy_that_does_not_run(tmp_path: Path) -> None:
    """It could not ask the members how long its log was."""
    first, second, _ = values()
    keeper, original, copy = (tmp_path / name for name in ("keeper", "original", "copy"))
    file = str(tmp_path / "exported.sqlite")
    with trio.fail_after(240):
        async with NodeProcess(keeper, "--replicate", "all").running() as kept:
            join = ("--join", kept["ticket"])
            async with NodeProcess(original, *join).running() as ready:
                await put(ready, first)
                code, _ = await ask(original, WaitSync())
                assert code == 0
            shutil.copytree(original, copy)
            async with NodeProcess(original, *join).running() as ready:
                await put(ready, second)
                await upload_acknowledged(ready, second, second.edit("[1]"))
                code, _ = await ask(original, WaitSync())
                assert code == 0
            exported = await run_beemesh("export", file, "--data", str(keeper))
            assert exported.code == 0
            (copy / "corestore" / "CORESTORE").unlink()
            refused = await run_beemesh("import", file, "--data", str(copy))
            assert (refused.code, "beemesh up" in refused.error) == (ExitCode.NO_NODE, True)
            async with NodeProcess(copy, *join).running():
                done = await run_beemesh("import", file, "--data", str(copy), "--json")
                assert (done.code, done.lines[-1]["skipped"]) == (0, 2)
                for data in (keeper, copy):
                    assert await ask(data, ListForks()) == (0, {})


async def test_nothing_is_appended_to_a_log_that_is_compacted_while_no_node_runs(
    tmp_path: Path,
) -> None:
    """It may be a copy, whose original went on: bringing nodes together would fork the log."""
    async with (
        open_corestore(tmp_path / "corestore", read_only=False) as store,
        open_data_core(store) as data,
    ):
        bee = Bee(data)
        keys = [b"%05d" % number for number in range(600)]
        for key in Random(1).sample(keys, 600):
            await bee.put(key, b"value")
        for key in Random(2).sample(keys, 600)[60:]:  # some nodes that stay are alone in theirs
            await bee.delete(key)
        assert (await bee.compact(dry_run=True)).rewritten
        left, length = sorted(Random(2).sample(keys, 600)[:60]), data.length
    done = await run_beemesh("compact", "--json", "--data", str(tmp_path))
    assert json.loads(done.out)["blocks_appended"] == 0
    assert json.loads(done.out)["blocks"] > 0
    async with open_corestore(tmp_path / "corestore") as store, open_data_core(store) as data:
        assert data.length == length
        assert [entry.key async for entry in Bee(data).range()] == left
