"""What a stream asks of its shell, in the order in which it is to be carried out."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from swarm.udx.path import Path


class CloseReason(enum.Enum):
    """Why a stream is over."""

    ENDED = enum.auto()
    """Both ends said all they had to say, and each knows that the other has it."""
    DESTROYED = enum.auto()
    """By us."""
    RESET = enum.auto()
    """The remote destroyed it."""
    TIMED_OUT = enum.auto()
    """The remote answered nothing any more."""


@dataclass(frozen=True, slots=True)
class Transmit:
    """Datagrams for the wire. Neighbors of one size may leave with one system call."""

    path: Path
    datagrams: list[bytes]


@dataclass(frozen=True, slots=True)
class Readable:
    """`read` has bytes, or the remote has ended."""


@dataclass(frozen=True, slots=True)
class Writable:
    """`send` has room again."""


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message of its own: unordered, perhaps twice, perhaps never."""

    data: bytes


@dataclass(frozen=True, slots=True)
class RemoteChanged:
    """Everything that was sent the old way has arrived; that way may be given up."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more can be sent. What has arrived can still be read if the end has arrived, too."""

    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Gone:
    """The remote will not ask again: the stream's id is free, and packets for it are noise."""


Output = Transmit | Readable | Writable | MessageReceived | RemoteChanged | Closed | Gone
