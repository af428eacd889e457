"""A data directory that was copied, and the original that went on: started, it forks nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import trio

from node.verbs import ListForks, ListValues, Load, WaitSync
from tests.node.mesh.authors import Author, Value
from tests.node.node_process import NodeProcess
from tests.node.test_sync import ask, upload_acknowledged

FIRST, SECOND, THIRD = (Author(1).value(name) for name in ("first", "second", "third"))


async def put(ready: dict[str, Any], value: Value) -> None:
    await upload_acknowledged(ready, value, value.edit("[]", with_header=True))


async def test_a_copy_gets_its_own_log_back_before_it_goes_on(tmp_path: Path) -> None:
    keeper, original, copy = (tmp_path / name for name in ("keeper", "original", "copy"))
    with trio.fail_after(240):
        async with NodeProcess(keeper, "--replicate", "all").running() as kept:
            join = ("--join", kept["ticket"])
            async with NodeProcess(original, *join).running() as ready:
                await put(ready, FIRST)
            shutil.copytree(original, copy)
            async with NodeProcess(original, *join).running() as ready:
                await put(ready, SECOND)
                code, _ = await ask(original, WaitSync())
                assert code == 0
            # Said to be the only one left: nothing on this disk shows that it is not.
            (copy / "corestore" / "CORESTORE").unlink()
            async with NodeProcess(copy, *join).running() as again:
                assert again["key"] == ready["key"]
                await put(again, THIRD)
                for value in (FIRST, SECOND, THIRD):
                    code, found = await ask(copy, Load(value.id))
                    assert (code, found["source"]) == (0, "store")
                code, _ = await ask(copy, WaitSync())
                assert code == 0
                code, found = await ask(keeper, Load(THIRD.id))
                assert (code, found["source"]) == (0, "store")
                for data in (keeper, copy):
                    assert await ask(data, ListForks()) == (0, {})
                _, last = await ask(copy, ListValues())
                assert last["id"] == max(value.id for value in (FIRST, SECOND, THIRD))
