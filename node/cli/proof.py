"""`beemesh core proof` and `beemesh core verify-proof`: evidence that stands alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from node.cli.core import CoreRef
from node.cli.options import DEFAULT_COMMON, Common, Timeout, read_number
from node.cli.output import print_bytes, print_facts, print_json
from node.cli.perform import perform, seconds
from node.verbs import CoreProof, ExitCode, Result, VerbError, decode_bytes, encode_bytes

MAX_FILE_BYTES = 1 << 25
"""No proof is larger: a message between peers has at most 16 MiB."""


def proof(
    core: CoreRef,
    index: Annotated[
        int | None,
        Parameter(
            help="The block's number, from 0; without it the head is proven.",
            converter=read_number,
        ),
    ] = None,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(show_default=False, help="Write to this file, not to stdout.")
    ] = None,
    fork: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="What froze the core: its writer's two histories."
        ),
    ] = False,
    timeout: Timeout = "10",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Prove that a block belongs to a core, to somebody who knows no more than the core's key.

    The proof holds the block, the signed head, and how the one belongs to the other. `verify-proof`
    checks it, as does JavaScript's `fully-remote-proof`. It fails with 4 when there is no such
    block, and with 5 when no connected node has it.
    """
    if fork and index is not None:
        raise VerbError(ExitCode.USAGE, "a block's number and --fork exclude one another")
    if out is None and not common.json and sys.stdout.isatty():
        raise VerbError(ExitCode.USAGE, "a proof is no text for a terminal: say --out FILE")
    for result in perform(common, CoreProof(core, index, fork, seconds(timeout))):
        if out is not None:
            data = decode_bytes("proof", result)
            out.write_bytes(data)
            result = {"file": str(out), "bytes": len(data)}
        if common.json:
            print_json(result)
        elif out is None:
            print_bytes("proof", result)
        else:
            print(f"{out} holds the proof, {result['bytes']} bytes")
    return ExitCode.OK


def verify_proof(
    file: Annotated[Path, Parameter(help="The proof; - is stdin.", allow_leading_hyphen=True)],
    /,
    *,
    key: Annotated[
        str | None,
        Parameter(show_default=False, help="The core that it must be of (z-base-32 or hex)."),
    ] = None,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Check a proof of a block, of a head, or of a fork, with no node and no data directory.

    Without --key it says which core the proof is of: compare that with the key you trust. Exit
    codes: 0 it holds, 6 it does not, 1 the file cannot be read, 2 the key is malformed.
    """
    result = _verify(_read(file), _decode_key(key))
    if common.json:
        print_json(result)
    else:
        print_facts([(name.replace("_", " "), _text(value)) for name, value in result.items()])
    return ExitCode.OK


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(MAX_FILE_BYTES)
    with file.open("rb") as opened:
        return opened.read(MAX_FILE_BYTES)


def _decode_key(text: str | None) -> bytes | None:
    from hypercore.crypto import decode_id

    if text is None:
        return None
    try:
        return decode_id(text)
    except ValueError as error:
        raise VerbError(ExitCode.USAGE, f"--key {text}: {error}") from error


def _verify(data: bytes, key: bytes | None) -> Result:
    from hypercore.crypto import encode_id
    from hypercore.errors import InvalidProof
    from hypercore.fork_proof import MAGIC, verify_fork_proof
    from hypercore.inclusion_proof import verify_inclusion_proof

    try:
        if data.startswith(MAGIC):
            fork = verify_fork_proof(data, key)
            return {
                "proves": "fork",
                "key": encode_id(fork.key),
                "key_hex": fork.key.hex(),
                "fork": fork.fork,
                "lengths": list(fork.lengths),
                "tree_hashes": [tree_hash.hex() for tree_hash in fork.tree_hashes],
                "differs_below": fork.differs_below,
            }
        proven = verify_inclusion_proof(data, key)
    except InvalidProof as error:
        raise VerbError(ExitCode.CORRUPT, f"the proof does not hold: {error}") from error
    result: dict[str, object] = {
        "proves": "head" if proven.block is None else "block",
        "key": encode_id(proven.key),
        "key_hex": proven.key.hex(),
        "fork": proven.fork,
        "length": proven.length,
        "byte_length": proven.byte_length,
        "tree_hash": proven.tree_hash.hex(),
    }
    if proven.block is not None:
        result |= {"index": proven.index, **encode_bytes("block", proven.block)}
    return result
