"""Reads the short text frames of a client, all that came at once in one go.

`websockets` reads a frame in several steps of generators. An upload is thousands of short text
frames, so those are read here, which takes a seventh off the intake of single edits. All else goes
to `websockets` byte for byte: control frames, fragments, long frames, and whatever breaks the
rules: it knows how to answer that.

A frame that is read here, with its bits:

| bytes | field                                                                             |
|-------|-----------------------------------------------------------------------------------|
| 1     | 0x81: the last fragment, no extension, opcode text                                 |
| 1     | 0x80 (masked) and the length; 126 if that follows in two bytes, which are big-endian |
| 0, 2  | the length, from 126 to 65,535                                                     |
| 4     | the mask                                                                           |
| n     | the text, each byte xor that of the mask                                           |

Worked example: 81 82 01 02 03 04 69 6b is "hi".

Source: RFC 6455, section 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence

try:
    from websockets.speedups import apply_mask
except ImportError:  # on a platform without its extension
    from websockets.utils import apply_mask

_FINAL = 0x80
_MASKED = 0x80
_LAST_TEXT = 0x81
_OPCODE = 0x0F
_CONTROL = 0x08
_OPCODES = frozenset((0, 1, 2, 8, 9, 10))
_TWO_BYTES = 126
_EIGHT_BYTES = 127
_MASK_BYTES = 4
_NEVER = 2**62
"""Where a frame that ends the connection stops: beyond what any connection carries, and an integer
like the others, since in compiled code a name has one type."""

Segment = bytes | Sequence[bytes]
"""Bytes for `websockets`, or the payloads of text frames."""


class TextFrames:
    """Tells the frames of one connection apart, from the first byte after its upgrade."""

    def __init__(self, max_bytes: int) -> None:
        """Longer messages are for `websockets` to refuse."""
        self._max_bytes = max_bytes
        self._header = b""
        """The beginning of a frame that is too short to tell where the frame stops."""
        self._owed = 0
        """Bytes still to come of a frame whose beginning was passed on."""
        self._is_fragmented = False
        """Whether a message of several frames has begun: a text frame is a violation then."""

    def split(self, data: bytes) -> list[Segment]:
        """What came, as segments in order."""
        segments: list[Segment] = []
        if self._header:
            data, self._header = self._header + data, b""
        position = min(self._owed, len(data))
        if position:
            self._owed -= position
            segments.append(data[:position])
        while position < len(data):
            texts: list[bytes] = []
            position = self._read_texts(data, position, texts)
            if texts:
                segments.append(texts)
            stop = self._frame_stop(data, position)
            if stop is None:
                self._header = data[position:]
                break
            here = min(stop, len(data))
            segments.append(data[position:here])
            self._owed = stop - here
            position = here
        return [segment for segment in segments if segment]

    def _read_texts(self, data: bytes, position: int, texts: list[bytes]) -> int:
        """Take the frames that are read here from `position` on; returns where they stop."""
        size = len(data) - _MASK_BYTES - 2
        while position <= size and data[position] == _LAST_TEXT and not self._is_fragmented:
            length = data[position + 1] - _MASKED
            start = position + 2
            if length >= _TWO_BYTES:
                if length == _EIGHT_BYTES:
                    break
                length = data[start] << 8 | data[start + 1]
                start += 2
            start += _MASK_BYTES
            stop = start + length
            if length < 0 or length > self._max_bytes or stop > len(data):
                break
            texts.append(apply_mask(data[start:stop], data[start - _MASK_BYTES : start]))
            position = stop
        return position

    def _frame_stop(self, data: bytes, position: int) -> int | None:
        """Where the frame at `position` stops, maybe beyond what has come; None if unknown."""
        if len(data) < position + 2:
            return None
        if _is_refused(data, position):
            return _NEVER  # the connection ends, and nothing that follows is read
        first, second = data[position], data[position + 1]
        length, start = second & ~_MASKED, position + 2
        if length >= _TWO_BYTES:
            size = 2 if length == _TWO_BYTES else 8
            if len(data) < start + size:
                return None
            length = int.from_bytes(data[start : start + size], "big")
            start += size
        opcode = first & _OPCODE
        if not opcode & _CONTROL:
            self._is_fragmented = not first & _FINAL
        return start + length + (_MASK_BYTES if second & _MASKED else 0)


def _is_refused(data: bytes, position: int) -> bool:
    """Whether `websockets` ends the connection as soon as it has the first two bytes of a frame."""
    if len(data) < position + 2:
        return False
    return not data[position + 1] & _MASKED or data[position] & _OPCODE not in _OPCODES
