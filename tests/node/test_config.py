from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import (
    Endpoint,
    format_address,
    load_config,
    parse_address,
    parse_duration,
    parse_size,
)
from node.errors import ConfigError


def test_later_sources_win(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('name = "file"\nws = "0.0.0.0:1"\nlog_level = "debug"\n')
    environment = {"BEEMESH_NAME": "environment", "BEEMESH_WS": "127.0.0.1:2"}
    config = load_config({"data": tmp_path, "name": "flag", "ws": None}, environment)
    assert (config.name, config.ws, config.log_level) == (
        "flag",
        Endpoint("127.0.0.1", 2),
        "debug",
    )
    assert config.admin == Endpoint("127.0.0.1", 4280, may_move=True)


def test_data_directory_may_come_from_the_environment_or_a_named_file(tmp_path: Path) -> None:
    assert load_config({}, {"BEEMESH_DATA": str(tmp_path)}).data == tmp_path
    file = tmp_path / "elsewhere.toml"
    file.write_text(f'data = "{tmp_path}/d"\nws_max_message_bytes = "1MiB"\njoin = ["a:1"]\n')
    config = load_config({}, {}, file)
    assert (config.data, config.ws_max_message_bytes) == (tmp_path / "d", 2**20)
    assert config.join == ("a:1",)
    assert config.corestore_path == tmp_path / "d" / "corestore"


def test_secrets_may_be_in_mounted_files(tmp_path: Path) -> None:
    (tmp_path / "ticket").write_text("beemesh1abc\n")
    config = load_config({"data": tmp_path}, {"BEEMESH_JOIN_FILE": str(tmp_path / "ticket")})
    assert config.join == ("beemesh1abc",)
    with pytest.raises(ConfigError, match="BEEMESH_JOIN_FILE"):
        load_config({"data": tmp_path}, {"BEEMESH_JOIN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("nmae = 'x'", "unknown key 'nmae'; did you mean name"),
        ("zzzzzzz = 1", "known: data, name"),
        ("= 1", "not valid TOML"),
        ("name = 3", "name: must be text"),
        ("ws = 'x'", "no HOST:PORT"),
        ("store = 'tape'", "none of bee, sqlite, hybrid"),
        ("discovery = ['dht']", "later version"),
        ("discovery = 'wan'", "neither lan nor off"),
        ("durability = 'sometimes'", "none of commit"),
        ("join = 3", "no list"),
        ("ws_deflate = 'perhaps'", "neither true nor false"),
        ("ws_max_connections = 0", "at least 1"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        load_config({"data": tmp_path}, {})


def test_missing_named_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config({}, {}, tmp_path / "none.toml")


def test_near_misses_in_the_environment_are_errors_and_strangers_are_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean BEEMESH_DURABILITY"):
        load_config({"data": tmp_path}, {"BEEMESH_DURABILTY": "os"})
    load_config({"data": tmp_path}, {"BEEMESH_SERVICE_HOST": "10.0.0.1", "PATH": "/bin"})


def test_lists_and_switches(tmp_path: Path) -> None:
    config = load_config(
        {"data": tmp_path, "discovery": "off", "join": ["a:1", "b:2"], "durability": "group(5)"},
        {"BEEMESH_WS_DEFLATE": "yes", "BEEMESH_SHUTDOWN_SECONDS": "1m30s"},
    )
    assert config.discovery == ()
    assert config.join == ("a:1", "b:2")
    assert config.ws_deflate
    assert config.shutdown_seconds == 90
    assert load_config({"data": tmp_path, "discovery": "lan"}, {}).discovery == ("lan",)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), (7, 7), ("32MiB", 2**25), ("1.5 kB", 1500), ("2gib", 2**31)]
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 XB", "0", True, None])
def test_bad_sizes(text: object) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), (2.5, 2.5), ("250ms", 0.25), ("1m30s", 90), ("1d", 86400)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1x", "1s extra", "1 s", True])
def test_bad_durations(text: object) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("node.example:65535", ("node.example", 65535)),
        (":4200", ("fallback", 4200)),
        ("0", ("fallback", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, "fallback") == address
    assert parse_address(format_address(*address)) == address


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_value_error(text: str) -> None:
    try:
        host, port = parse_address(text)
    except ValueError:
        return
    assert host
    assert 0 <= port <= 65535
