from __future__ import annotations

import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli.perform import at
from node.config import load_config
from node.errors import ConfigError
from node.notation import format_address, parse_address, parse_duration, parse_size
from node.settings import PARSERS, Endpoint


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


def test_who_has_no_home_directory_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in use: in a container's user it was an internal error, whatever --data said."""

    def know_nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", know_nobody)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    with pytest.raises(ConfigError, match=r"^--data DIRECTORY is needed: this user has no home"):
        load_config({}, {})
    assert load_config({"data": tmp_path}, {}).data == tmp_path
    assert load_config({}, {"BEEMESH_DATA": str(tmp_path)}).data == tmp_path
    assert at(tmp_path) == f" --data {tmp_path}"
    with pytest.raises(ConfigError, match="sqlite: Could not determine home"):
        load_config({"data": tmp_path, "sqlite": "~/file"}, {})


def test_the_budget_for_values_is_a_size_and_an_age(tmp_path: Path) -> None:
    environment = {"BEEMESH_COVALUE_MEMORY": "128MiB", "BEEMESH_COVALUE_MEMORY_SECONDS": "1m30s"}
    config = load_config({"data": tmp_path}, environment)
    assert (config.covalue_memory, config.covalue_memory_seconds) == (128 * 2**20, 90)


def test_secrets_may_be_in_mounted_files(tmp_path: Path) -> None:
    (tmp_path / "ticket").write_text("10.0.0.1:49737\n")
    config = load_config({"data": tmp_path}, {"BEEMESH_JOIN_FILE": str(tmp_path / "ticket")})
    assert config.join == ("10.0.0.1:49737",)
    missing = tmp_path / "none"
    with pytest.raises(ConfigError) as caught:
        load_config({"data": tmp_path}, {"BEEMESH_JOIN_FILE": str(missing)})
    assert str(caught.value) == (
        f"BEEMESH_JOIN_FILE: {missing} cannot be read: No such file or directory"
    )
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read: it is no UTF-8 text"):
        load_config({"data": tmp_path}, {"BEEMESH_JOIN_FILE": str(tmp_path / "binary")})


def test_names_by_which_the_admin_server_is_reached(tmp_path: Path) -> None:
    hosts = ("status.example.org", "[fd00::1]", "10.0.0.1")
    assert load_config({"data": tmp_path, "admin_hosts": hosts}, {}).admin_hosts == hosts
    for wrong in ("a/b", "status.example.org:80", "https://x", "fd00::1", "a b"):
        with pytest.raises(ConfigError, match="is no host name"):
            load_config({"data": tmp_path}, {"BEEMESH_ADMIN_HOSTS": wrong})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("nmae = 'x'", "unknown key 'nmae'; did you mean name"),
        ("zzzzzzz = 1", "known: data, name"),
        ("= 1", "not valid TOML"),
        ("name = 1" + "0" * 5000, "not valid TOML"),
        ("name = " + "[" * 5000, "not valid TOML"),
        ("name = 3", "name: must be text"),
        ("ws = 'x'", "no HOST:PORT"),
        ("store = 'tape'", "none of bee, sqlite, hybrid"),
        ("covalue_memory = 'much'", "no size"),
        ("covalue_memory_seconds = 0.1", "less than a second"),
        ("discovery = ['dht', 'wan']", "neither lan, dht nor off"),
        ("discovery = ['lan', 'off']", "'off' excludes the others"),
        ("bootstrap = 'nowhere'", "a bootstrap node is HOST:PORT"),
        ("durability = 'sometimes'", "none of commit"),
        ("join = 3", "no list"),
        ("ws_deflate = 'perhaps'", "neither true nor false"),
        ("ws_max_connections = 0", "at least 1"),
        ("ws_trusted_proxies = ['nginx']", "no address and no network"),
        ("ws_tokens = 3", "no list of tokens"),
        ("rate_messages = '1MiB'", "no count"),
        ("quota_account_bytes = 0", "no size"),
        ("deny_accounts_file = ''", "names no file"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        load_config({"data": tmp_path}, {})


def test_missing_named_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config({}, {}, tmp_path / "none.toml")


def test_a_file_that_cannot_be_one_is_not_passed_over(tmp_path: Path) -> None:
    """Its tokens and lists would be missing without a word."""
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read: Is a directory"):
        load_config({"data": tmp_path}, {})
    (tmp_path / "config.toml").rmdir()
    (tmp_path / "config.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"config\.toml cannot be read: No such file"):
        load_config({"data": tmp_path}, {})


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


@pytest.mark.parametrize("name", [name for name in PARSERS if name.endswith("_file")] + ["sqlite"])
def test_a_file_without_a_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no file"):
        load_config({"data": tmp_path, name: ""}, {})


@pytest.mark.parametrize(
    "name",
    [
        *("join", "bootstrap", "relay", "mesh_url", "discovery", "admin_hosts"),
        *("ws_tokens", "ws_trusted_proxies", "allow_accounts", "deny_accounts"),
    ],
)
def test_a_list_that_a_script_left_empty_is_refused(name: str, tmp_path: Path) -> None:
    """Found in use: --ws-tokens "$X" without X let everybody in, and --join founded a mesh."""
    for flags, environment in (
        ({name: [""]}, {}),
        ({name: ["", " "]}, {}),
        ({}, {f"BEEMESH_{name.upper()}": ""}),
        ({}, {f"BEEMESH_{name.upper()}": " ,"}),
    ):
        with pytest.raises(ConfigError, match=f"{name.replace('_', '-')}: it is empty"):
            load_config({"data": tmp_path, **flags}, environment)


@pytest.mark.parametrize("name", ["ws_tokens", "allow_accounts"])
def test_an_empty_list_of_those_who_may_is_refused_and_not_taken_for_all(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(f"{name} = []\njoin = []\n")
    with pytest.raises(ConfigError, match="leave it out to let all in"):
        load_config({"data": tmp_path}, {})


def test_access(tmp_path: Path) -> None:
    plain = load_config({"data": tmp_path}, {})
    assert (plain.ws_tokens, plain.allow_accounts_file, plain.rate_loopback) == ((), None, False)
    assert (plain.quota_account_bytes, plain.rate_values) == (None, None)
    assert not plain.enforce_permissions
    (tmp_path / "config.toml").write_text(
        'ws_tokens = ["ci:abc"]\nallow_accounts_file = "~/allow"\nrate_messages = 600\n'
    )
    config = load_config(
        {"data": tmp_path, "deny_accounts": ["co_z1", "co_z2"], "rate_loopback": True},
        {
            "BEEMESH_QUOTA_ACCOUNT_BYTES": "1GiB",
            "BEEMESH_WS_TOKENS_FILE": "/run/secrets/tokens",
            "BEEMESH_WS_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "BEEMESH_ENFORCE_PERMISSIONS": "yes",
        },
    )
    assert config.ws_tokens == ("ci:abc",)
    assert "abc" not in repr(config)
    assert config.allow_accounts_file == Path("~/allow").expanduser()
    assert config.ws_tokens_file == Path("/run/secrets/tokens")
    assert config.ws_trusted_proxies == ("10.0.0.0/8", "::1")
    assert (config.quota_account_bytes, config.rate_messages) == (2**30, 600)
    assert config.deny_accounts == ("co_z1", "co_z2")
    assert config.rate_loopback
    assert config.enforce_permissions
    assert config.usage_path == tmp_path / "usage.json"
    assert config.cut_streams_path == tmp_path / "cut_streams.json"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), (7, 7), ("32MiB", 2**25), ("1.5 kB", 1500), ("2gib", 2**31), ("2TiB", 2**41)],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 XB", "0", True, None, "9" * 400])
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
