"""What bringing over a value took, for people."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What bringing over one value took, its dependencies included.

    Bytes are those of blocks that were not here before. Round trips are those that had to be
    waited for one after another: what is read at the same time waits together.
    """

    member_id: bytes
    blocks: int
    bytes: int
    round_trips: int
    seconds: float

    def then(self, other: FetchReport) -> FetchReport:
        """Both, one after the other."""
        return replace(
            self,
            blocks=self.blocks + other.blocks,
            bytes=self.bytes + other.bytes,
            round_trips=self.round_trips + other.round_trips,
            seconds=self.seconds + other.seconds,
        )

    def beside(self, other: FetchReport) -> FetchReport:
        """Both, at the same time."""
        return replace(
            self,
            blocks=self.blocks + other.blocks,
            bytes=self.bytes + other.bytes,
            round_trips=max(self.round_trips, other.round_trips),
            seconds=max(self.seconds, other.seconds),
        )
