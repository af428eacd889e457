"""Why remotes lost their channel of a core, for the node that decides what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hypercore.errors import RemoteProtocolError

MAX_REFUSALS = 64
"""How many remotes that broke a rule are remembered for each core."""


class Refusals(Mapping[bytes, str]):
    """What each remote did wrong last, by public key; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._reasons: dict[bytes, str] = {}

    def note(self, public_key: bytes, error: RemoteProtocolError) -> None:
        self._reasons.pop(public_key, None)
        self._reasons[public_key] = str(error)
        if len(self._reasons) > MAX_REFUSALS:
            del self._reasons[next(iter(self._reasons))]

    def __getitem__(self, public_key: bytes) -> str:
        return self._reasons[public_key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._reasons)

    def __len__(self) -> int:
        return len(self._reasons)
