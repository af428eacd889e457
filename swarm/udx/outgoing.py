"""What waits to be sent: bytes in, payloads of any size out."""

from __future__ import annotations

from collections import deque

Payload = bytes | memoryview


class OutgoingBytes:
    """A queue of chunks, cut without copying where a payload lies within one of them."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes that wait."""
        self._chunks: deque[memoryview] = deque()

    def add(self, data: Payload) -> None:
        """Append bytes, which must not change any more."""
        if data:
            self._chunks.append(memoryview(data))
            self.size += len(data)

    def cut(self, max_bytes: int) -> Payload:
        """Take up to `max_bytes`; fewer only when there are no more."""
        chunks = self._chunks
        if not chunks:
            return b""
        first = chunks[0]
        if len(first) > max_bytes:
            chunks[0] = first[max_bytes:]
            self.size -= max_bytes
            return first[:max_bytes]
        pieces: list[memoryview] = []
        left = max_bytes
        while chunks and left:
            piece = chunks[0]
            if len(piece) > left:
                chunks[0] = piece[left:]
                piece = piece[:left]
            else:
                chunks.popleft()
            left -= len(piece)
            pieces.append(piece)
        self.size -= max_bytes - left
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def clear(self) -> None:
        self._chunks.clear()
        self.size = 0
