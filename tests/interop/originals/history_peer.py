"""Driving `history_peer.cjs`, and what both sides say of a core."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from hypercore import Core
from tests.support.line_process import LineProcess, open_line_process

HERE = Path(__file__).parent
PRIMARY_KEY = bytes(range(32))
LIMIT_SECONDS = 180.0


class JavaScriptStore:
    """A process that opens a directory with JavaScript's corestore when it is told to."""

    def __init__(self, process: LineProcess) -> None:
        self._process = process

    async def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """Run a command; the answer may have an `error`."""
        await self._process.write(json.dumps({"command": command, **arguments}))
        return await self._process.read()

    async def __call__(self, command: str, **arguments: object) -> dict[str, Any]:
        answer = await self.ask(command, **arguments)
        assert "error" not in answer, (command, answer)
        return answer

    @asynccontextmanager
    async def opened(self, path: Path) -> AsyncIterator[None]:
        """It has the directory until the block ends."""
        await self("open", dir=str(path), primaryKey=PRIMARY_KEY.hex())
        yield
        await self("close")

    async def describe(self, name: str, *, may_drop: bool = False) -> dict[str, Any]:
        """What it says of a core; its audit must find nothing to put right.

        It would drop blocks (`may_drop`) whose leaves it deleted itself, with cleared neighbors.
        """
        seen = await self("describe", name=name)
        assert seen.pop("dropped") == 0 or may_drop
        assert not seen.pop("corrupt")
        assert seen.pop("isSigned")
        return seen


@asynccontextmanager
async def open_javascript_store() -> AsyncIterator[JavaScriptStore]:
    with trio.fail_after(LIMIT_SECONDS):
        async with open_line_process(["node", "history_peer.cjs"], HERE) as process:
            yield JavaScriptStore(process)


def describe(core: Core) -> dict[str, object]:
    """The same, said by us."""
    held = [index for index in range(core.length) if core.has(index)]
    hasher = hashlib.sha256()
    for index in held:
        hasher.update(core.get_local(index) or b"")
    user_data = {}
    for key in ("note", "beemesh/marked"):
        if (value := core.get_user_data(key)) is not None:
            user_data[key] = value.decode()
    return {
        "length": core.length,
        "byteLength": core.byte_length,
        "fork": core.fork,
        "contiguousLength": core.contiguous_length,
        "writable": core.is_writable,
        "treeHash": core.head.tree_hash.hex(),
        "digest": hasher.hexdigest(),
        "held": held,
        "userData": user_data,
    }
