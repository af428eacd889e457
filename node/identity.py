"""The node's key pair on disk: `node.key`, PKCS#8 PEM, readable by its owner alone.

The Ed25519 key is the node's identity: its id, and its static key in every handshake. A
passphrase, when there is one, comes from `BEEMESH_KEY_PASSPHRASE` or from the file that
`BEEMESH_KEY_PASSPHRASE_FILE` names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hypercore.crypto import KeyPair
from node.config import read_secret_file
from node.errors import ConfigError
from node.private_file import write_private

PASSPHRASE_VARIABLE = "BEEMESH_KEY_PASSPHRASE"
_ENCRYPTED = b"BEGIN ENCRYPTED PRIVATE KEY"
_MAX_FILE_BYTES = 16 * 1024  # a key file has 119 bytes, an encrypted one 300


def read_passphrase(environment: Mapping[str, str] | None = None) -> bytes | None:
    """The passphrase that the environment gives, if any.

    Raises: ConfigError.
    """
    variables = os.environ if environment is None else environment
    if (path := variables.get(PASSPHRASE_VARIABLE + "_FILE")) is not None:
        source = PASSPHRASE_VARIABLE + "_FILE"
        passphrase = read_secret_file(Path(path), source)
    elif PASSPHRASE_VARIABLE in variables:
        source, passphrase = PASSPHRASE_VARIABLE, variables[PASSPHRASE_VARIABLE]
    else:
        return None
    if not passphrase:
        raise ConfigError(f"{source} has no passphrase in it: leave it out for an open key")
    return passphrase.encode()


def load_or_create_identity(path: Path, passphrase: bytes | None = None) -> KeyPair:
    """The key pair in the file, made on the first start. Blocks on the disk.

    Raises: ConfigError when the file is readable by others, damaged, or the passphrase is wrong.
    """
    try:
        return _load(path, passphrase)
    except FileNotFoundError:
        return _create(path, passphrase)


def is_encrypted(path: Path) -> bool:
    """Whether it takes a passphrase to read the key in this file. Blocks on the disk."""
    return _ENCRYPTED in path.read_bytes()


def load_member_identity(path: Path, passphrase: bytes | None = None) -> KeyPair:
    """The key pair by which a mesh knows this node: none is made. Blocks on the disk.

    Raises: ConfigError, also when there is no file.
    """
    try:
        return _load(path, passphrase)
    except FileNotFoundError:
        # With a new one it would be a stranger that nobody lets in, and no founder any more.
        raise ConfigError(
            f"{path} is gone, and this node's mesh knows it by that key: put it back from a "
            f"backup, and mesh.toml, if that is gone, too. Without one this node is lost to its "
            f"mesh: join with a ticket from an empty --data directory; `beemesh export` still "
            f"reads what is in {path.parent}"
        ) from None


def _create(path: Path, passphrase: bytes | None) -> KeyPair:
    key = Ed25519PrivateKey.generate()
    encryption: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    )
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return KeyPair.from_seed(key.private_bytes_raw())


def _load(path: Path, passphrase: bytes | None) -> KeyPair:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read(_MAX_FILE_BYTES + 1)
    if mode & 0o077:
        raise ConfigError(
            f"{path} can be read by others (mode {mode:03o}): it is this node's identity; "
            f"run `chmod 600 {path}`, and make a new one if it has leaked"
        )
    if passphrase is None and _ENCRYPTED in content:
        raise ConfigError(f"{path} is encrypted: set {PASSPHRASE_VARIABLE} (or ..._FILE)")
    try:
        encrypted = _ENCRYPTED in content
        key = load_pem_private_key(content, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "the passphrase is wrong or the file damaged" if passphrase else "not a PEM key"
        raise ConfigError(f"{path}: {reason}; restore it from a backup") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds a key that is not Ed25519; restore it from a backup")
    return KeyPair.from_seed(key.private_bytes_raw())
