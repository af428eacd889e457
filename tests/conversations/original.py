"""cojson's sync server as a server of conversations, in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.cojson.messages import decode_line, encode_message
from node.covalue.ids import CoSessionId, RawCoId
from tests.conversations.client import Spoken

INTEROP = Path(__file__).parent.parent / "interop"
LOADER = "loader"
"""The name of the client that the process has of its own."""


class OriginalProcess:
    """`conversation_peer.mjs`, which serves one conversation after another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._said: defaultdict[str, list[Spoken]] = defaultdict(list)

    def do(self, command: str, **arguments: object) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        for peer, lines in answer["said"].items():
            for line in lines:
                message = decode_line(line)
                assert isinstance(message, Spoken)
                self._said[peer].append(message)
        return answer

    def open(self) -> None:
        """Begin anew, with an empty store."""
        self.do("open")
        self._said.clear()

    def take(self, peer: str) -> list[Spoken]:
        """What was said to this client, or by the one of its own, since it was last asked."""
        return self._said.pop(peer, [])

    # A real client, for whatever server.

    def load(self, co_ids: Sequence[RawCoId]) -> None:
        self.do("load", ids=co_ids)

    def hear(self, messages: Sequence[Spoken]) -> None:
        self.do("hear", lines=[encode_message(message) for message in messages])

    def held(self) -> dict[RawCoId, dict[CoSessionId, int]]:
        held: dict[RawCoId, dict[CoSessionId, int]] = self.do("held")["held"]
        return held


@contextmanager
def open_original() -> Iterator[OriginalProcess]:
    command = ["node", "conversation_peer.mjs"]
    with subprocess.Popen(
        command, cwd=INTEROP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield OriginalProcess(process)


class OriginalServer:
    """It stores as it goes, and loses nothing."""

    keeps_order = True

    def __init__(self, process: OriginalProcess) -> None:
        self.faults: list[str] = []
        self._process = process
        process.open()

    def join(self, peer: str) -> None:
        self._process.do("join", peer=peer)

    def leave(self, peer: str) -> None:
        self._process.do("leave", peer=peer)
        self._process.take(peer)

    def say(self, peer: str, messages: Sequence[Spoken]) -> None:
        self._process.do("say", peer=peer, lines=[encode_message(item) for item in messages])

    def take(self, peer: str) -> list[Spoken]:
        return self._process.take(peer)

    def restart(self) -> None:
        self._process.do("restart")

    def rest(self) -> bool:
        return False

    def work(self) -> None:
        """It has done its work."""

    remember = restore = lose = forget = lapse = work
