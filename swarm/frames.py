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
        # A frame that began in an earlier chunk, with its prefix. A bytearray, since a sender
        # of tiny segments would make a list of pieces cost many times their bytes.
        self._partial = bytearray()
        self._partial_size = -1  # of its payload; -1 while the prefix is not complete

    @property
    def buffered_bytes(self) -> int:
        return len(self._chunk) - self._offset + len(self._partial)

    def add(self, chunk: bytes) -> None:
        """Append what arrived. Requires that `take` returned None before."""
        self._chunk = chunk
        self._offset = 0

    def clear(self) -> None:
        """Forget what is buffered: nobody will take it."""
        self._chunk = b""
        self._offset = 0
        self._partial = bytearray()
        self._partial_size = -1

    def take(self) -> bytes | None:
        """The next whole frame, or None when more bytes are needed.

        Raises: MalformedPacket when a frame announces more than `limit_bytes`.
        """
        if self._partial:
            return self._take_partial()
        chunk = self._chunk
        start = self._offset + PREFIX_BYTES
        if start <= len(chunk):
            size = self._read_size(chunk, self._offset)
            stop = start + size
            if stop <= len(chunk):
                self._offset = stop
                return chunk[start:stop]
            self._partial_size = size
        self._partial += memoryview(chunk)[self._offset :]
        self._offset = len(chunk)
        return None

    def take_all(self) -> list[bytes]:
        """Every whole frame that is there. Raises: MalformedPacket."""
        frames: list[bytes] = []
        while (frame := self.take()) is not None:
            frames.append(frame)
        return frames

    def _take_partial(self) -> bytes | None:
        """The frame that began in an earlier chunk, if this one ends it."""
        partial = self._partial
        if self._partial_size < 0:
            if not self._fill(PREFIX_BYTES):
                return None
            self._partial_size = self._read_size(partial, 0)
        if not self._fill(PREFIX_BYTES + self._partial_size):
            return None
        self._partial = bytearray()
        self._partial_size = -1
        return bytes(memoryview(partial)[PREFIX_BYTES:])

    def _fill(self, size: int) -> bool:
        """Move bytes of the chunk to the partial frame; whether it has `size` now."""
        stop = self._offset + size - len(self._partial)
        self._partial += memoryview(self._chunk)[self._offset : stop]
        self._offset = min(stop, len(self._chunk))
        return len(self._partial) == size

    def _read_size(self, data: bytes | bytearray, offset: int) -> int:
        size = int.from_bytes(data[offset : offset + PREFIX_BYTES], "little")
        if size > self.limit_bytes:
            raise MalformedPacket(f"frame of {size} bytes, at most {self.limit_bytes}")
        return size
