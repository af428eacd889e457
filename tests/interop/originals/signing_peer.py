"""Driving `signing_peer.cjs`: a JavaScript corestore that signs, appends and reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import trio

from tests.interop.replication_peer import JavaScriptPeer

HERE = Path(__file__).parent


class SigningPeer(JavaScriptPeer):
    """`await peer("open", id="a", manifest=...)` runs a command; `refuses` expects its error."""

    async def refuses(self, command: str, **arguments: Any) -> str:
        try:
            answer = await self(command, **arguments)
        except AssertionError as error:
            return str(error)
        raise AssertionError(f"{command} was not refused: {answer}")

    async def blocks(
        self, name: str, indices: Iterable[int], *, is_stored: bool = False
    ) -> list[bytes]:
        command = "getStored" if is_stored else "get"
        answer = await self(command, id=name, indices=list(indices))
        return [bytes.fromhex(block) for block in answer["blocks"]]


@asynccontextmanager
async def open_signing_peer(
    directory: Path, primary_key: bytes | None = None
) -> AsyncIterator[SigningPeer]:
    """A process with a store in `directory`, which is closed properly in the end."""
    arguments = [] if primary_key is None else [primary_key.hex()]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                ["node", "signing_peer.cjs", str(directory), *arguments],
                cwd=HERE,
                stdin=PIPE,
                stdout=PIPE,
                check=False,
            )
        )
        peer = SigningPeer(process)
        nursery.start_soon(peer.read)
        yield peer
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.fail_after(20):
            await process.wait()
        nursery.cancel_scope.cancel()
