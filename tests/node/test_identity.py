from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hypercore.crypto import sign, verify
from node.errors import ConfigError
from node.identity import load_or_create_identity, read_passphrase
from node.private_file import write_private


def test_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "node.key"
    made = load_or_create_identity(path)
    assert load_or_create_identity(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verify(b"x", sign(b"x", made.secret_key), made.public_key)
    assert [file.name for file in path.parent.iterdir()] == ["node.key"]


def test_a_passphrase_locks_it(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    made = load_or_create_identity(path, b"secret")
    assert load_or_create_identity(path, b"secret") == made
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        load_or_create_identity(path, b"other")
    with pytest.raises(ConfigError, match="set BEEMESH_KEY_PASSPHRASE"):
        load_or_create_identity(path)


def test_an_open_key_ignores_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    made = load_or_create_identity(path)
    assert load_or_create_identity(path, b"secret") == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_others_may_not_read_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    load_or_create_identity(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:03o}.*chmod 600"):
        load_or_create_identity(path)


def test_damage_is_said(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    write_private(path, b"not a key")
    with pytest.raises(ConfigError, match="not a PEM key"):
        load_or_create_identity(path)
    other = X25519PrivateKey.generate()
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(path, pem)
    with pytest.raises(ConfigError, match="not Ed25519"):
        load_or_create_identity(path)


def test_passphrase_sources(tmp_path: Path) -> None:
    file = tmp_path / "pass"
    file.write_text("from file\n")
    assert read_passphrase({}) is None
    assert read_passphrase({"BEEMESH_KEY_PASSPHRASE": "here"}) == b"here"
    (tmp_path / "empty").write_text("\n")
    for variable, value in (("", ""), ("_FILE", str(tmp_path / "empty"))):
        with pytest.raises(ConfigError, match="has no passphrase in it"):
            read_passphrase({f"BEEMESH_KEY_PASSPHRASE{variable}": value})
    both = {"BEEMESH_KEY_PASSPHRASE": "here", "BEEMESH_KEY_PASSPHRASE_FILE": str(file)}
    assert read_passphrase(both) == b"from file"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_passphrase({"BEEMESH_KEY_PASSPHRASE_FILE": str(tmp_path / "none")})


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    made = load_or_create_identity(tmp_path / "node.key")
    assert made.secret_key.hex()[:8] not in repr(made)
