"""The process that checks signatures for a node: run as a file, it needs nothing of beemesh.

It says one byte when it is ready. Then it reads checks of 160 bytes from its input and answers
each with one byte, 1 if the signature is right, in their order:

    signature (64) | Ed25519 key (32) | what should have been signed, zeros to its right (64)

It holds nothing and knows nobody; it ends with its input.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

READY = b"."
CHECK_BYTES = 160

_SIGNATURE_BYTES = 64
_TEXT_AT = 96
_CHECKS_PER_ANSWER = 16
"""A millisecond's work: whoever waits for the first of them does not wait for a whole upload."""


def signature_check(signature: bytes, public_key: bytes, text: bytes) -> bytes:
    """One question; `text` of at most 64 bytes does not end with a zero."""
    return signature + public_key + text.ljust(CHECK_BYTES - _TEXT_AT, b"\0")


def _is_right(check: bytes) -> bool:
    text = check[_TEXT_AT:].rstrip(b"\0")
    try:
        crypto_sign_open(check[:_SIGNATURE_BYTES] + text, check[_SIGNATURE_BYTES:_TEXT_AT])
    except CryptoError:
        return False
    return True


def main() -> None:
    """Answer until the input ends."""
    # The node tells it to go by closing its input, and needs it until then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(BrokenPipeError):
        os.write(1, READY)
        unread = b""
        while data := os.read(0, _CHECKS_PER_ANSWER * CHECK_BYTES):
            unread += data
            whole = len(unread) - len(unread) % CHECK_BYTES
            checks = (unread[at : at + CHECK_BYTES] for at in range(0, whole, CHECK_BYTES))
            os.write(1, bytes(map(_is_right, checks)))
            unread = unread[whole:]


if __name__ == "__main__":
    main()
