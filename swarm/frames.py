"""Frames on a byte stream: a 24-bit little-endian length, then that many bytes.

Worked example: "hi" is `02 00 00 68 69`.

Source: @hyperswarm/secret-stream 6.9.2.
"""

from __future__ import annotations

from swarm.errors import MalformedPacket

PREFIX_BYTES = 3
MAX_FRAME_BYTES = 2**24 - 1


def encode_frame(payload: bytes) -> bytes:
    """Requires len(payload) <= MAX_FRAME_BYTES."""
    return len(payload).to_bytes(PREFIX_BYTES, "little") + payload


class FrameDecoder:
    """Cuts a byte stream into frames, however it was chopped up.

    `limit_bytes` is checked before anything is kept for a frame, and may be changed between
    two frames. At most one unfinished frame is buffered, besides the chunk added last.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._chunk = b""
        self._offset = 0
        # The beginning of a frame that the next chunk continues. A bytearray, since a sender
        # of tiny segments would make a list of pieces cost many times their bytes.
        self._partial = bytearray()

    @property
    def buffered_bytes(self) -> int:
        return len(self._chunk) - self._offset + len(self._partial)

    def add(self, chunk: bytes) -> None:
        """Append what arrived. Requires that `take` returned None before."""
        if self._partial:
            self._partial += chunk
            if len(self._partial) < self._wanted():
                return
            chunk = bytes(self._partial)
            self._partial.clear()
        self._chunk = chunk
        self._offset = 0

    def take(self) -> bytes | None:
        """The next whole frame, or None when more bytes are needed.

        Raises: MalformedPacket when a frame announces more than `limit_bytes`.
        """
        start = self._offset + PREFIX_BYTES
        chunk = self._chunk
        if start <= len(chunk):
            size = int.from_bytes(chunk[self._offset : start], "little")
            if size > self.limit_bytes:
                raise MalformedPacket(f"frame of {size} bytes, at most {self.limit_bytes}")
            stop = start + size
            if stop <= len(chunk):
                self._offset = stop
                return chunk[start:stop]
        if self._offset < len(chunk):
            self._partial += memoryview(chunk)[self._offset :]
        self._chunk = b""
        self._offset = 0
        return None

    def take_all(self) -> list[bytes]:
        """Every whole frame that is there. Raises: MalformedPacket."""
        frames: list[bytes] = []
        while (frame := self.take()) is not None:
            frames.append(frame)
        return frames

    def _wanted(self) -> int:
        """Bytes that make `take` worth calling: a prefix, or the frame it announces."""
        if len(self._partial) < PREFIX_BYTES:
            return PREFIX_BYTES
        size = int.from_bytes(self._partial[:PREFIX_BYTES], "little")
        if size > self.limit_bytes:
            return PREFIX_BYTES  # let `take` say so
        return PREFIX_BYTES + size
