"""Driving `signing_peer.cjs`: a JavaScript corestore that signs, appends and reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.peer_process import PeerProcess, open_peer_process

HERE = Path(__file__).parent


class SigningPeer(PeerProcess):
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
    command = ["node", "signing_peer.cjs", str(directory), *arguments]
    async with open_peer_process(SigningPeer, command, HERE) as peer:
        yield peer
    assert peer.exit_code == 0
