"""What a node was told: one frozen record from defaults, a TOML file, the environment and flags.

Later sources win: defaults < `config.toml` in the data directory (or the file named with
`--config`) < `BEEMESH_...` < flags. The same names everywhere: `mesh_name` in the file is
`BEEMESH_MESH_NAME` in the environment and `--mesh-name` on the command line. A variable
`BEEMESH_X_FILE` names a file whose text is the value of X, for secrets that containers mount;
where X_FILE is a setting of its own (lists and tokens), one item a line, read again on changes.

Sizes are numbers of bytes or text such as `32MiB`; times are seconds or text such as `1m30s`.
"""

from __future__ import annotations

import difflib
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import platformdirs

from node.errors import ConfigError, reason_of
from node.settings import PARSERS, Endpoint, SecretText

ENVIRONMENT_PREFIX = "BEEMESH_"
CONFIG_FILE = "config.toml"

_NOT_SETTINGS = frozenset({"CONFIG", "DEBUG", "KEY_PASSPHRASE", "KEY_PASSPHRASE_FILE"})


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, with its default."""

    data: Path
    name: str
    ws: Endpoint = Endpoint("127.0.0.1", 4200, may_move=True)
    mesh: Endpoint = Endpoint("0.0.0.0", 49737, may_move=True)
    admin: Endpoint = Endpoint("127.0.0.1", 4280, may_move=True)
    admin_hosts: tuple[str, ...] = ()
    """Names by which it is reached besides its own address, such as behind a reverse proxy."""
    admin_token_file: Path | None = None
    """The text of a token that lasts, for whoever scrapes metrics; else each start makes one."""
    join: tuple[str, ...] = ()
    mesh_name: str | None = None
    mesh_encrypted: bool = False
    """Whether the mesh that the first start founds is encrypted; see `node/mesh/membership.py`."""
    discovery: tuple[Literal["lan", "dht"], ...] = ("lan",)
    """How other nodes are found, besides by address; `dht` writes to nodes on the internet."""
    bootstrap: tuple[str, ...] = ()
    """Where to begin in the DHT; without any, at the public nodes of HyperDHT."""
    mesh_url: tuple[str, ...] = ()
    """Where a web server hands WebSockets on to `mesh`; other nodes are told in tickets."""
    relay: tuple[str, ...] = ()
    """Keys of blind relays, to be met at where NATs are in the way."""
    serve_relay: int | None = None
    """How many bytes this node passes on for others in a day, as a blind relay; None is not one."""
    store: Literal["bee", "sqlite", "hybrid"] = "bee"
    sqlite: Path | None = None
    """Where the SQLite file is, if not in the data directory: a server's file, used in place."""
    durability: str = "commit"
    replicate: Literal["lazy", "all"] = "lazy"
    min_copies: int = 1
    """On how many nodes something is durable when a client is told that it is synced."""
    cache_bytes: int = 2**30
    """For blocks of other nodes' cores that are not mirrored."""
    max_disk_bytes: int | None = None
    """What the data directory may take; beyond it nothing is taken in."""
    min_free_bytes: int = 16 * 2**20
    """Nothing is taken in while less is free on the disk."""
    covalue_memory: int = 64 * 2**20
    covalue_memory_seconds: float = 600.0
    signature_process: Literal["auto", "on", "off"] = "auto"
    """A second process checks the signatures of uploads; auto: on four processors or more."""
    ws_max_message_bytes: int = 32 * 2**20
    ws_max_connections: int = 4096
    ws_max_connections_per_address: int = 256
    ws_handshake_seconds: float = 10.0
    ws_deflate: bool = False
    ws_tokens: tuple[SecretText, ...] = ()
    """One of them must come with a client's URL, if any is set; see `node/access/tokens.py`."""
    ws_tokens_file: Path | None = None
    ws_trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose `X-Forwarded-For` is believed."""
    allow_accounts: tuple[str, ...] = ()
    """Account and agent ids whose content is taken, and no other; `node/access/policy.py`."""
    allow_accounts_file: Path | None = None
    deny_accounts: tuple[str, ...] = ()
    deny_accounts_file: Path | None = None
    enforce_permissions: bool = False
    """Whether transactions of people without write permission in the owning group are refused.

    The originals store and relay them, and clients ignore them.
    """
    erase_deleted: bool = True
    """Whether deleted values are removed from the disk; else they stay there, unserved."""
    compact_dead_share: float | None = 0.5
    """The data bee is compacted when this share, and so many bytes, of it are dead; None: never."""
    compact_min_bytes: int = 16 * 2**20
    quota_account_bytes: int | None = None
    """What one account may have stored, and how many values it may create; `quotas.py`."""
    quota_account_values: int | None = None
    rate_bytes: int | None = None
    """What one address may send in a minute: bytes, messages, new values."""
    rate_messages: int | None = None
    rate_values: int | None = None
    rate_loopback: bool = False
    """Whether rates hold for this machine's own address, too."""
    shutdown_seconds: float = 10.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "pretty", "json"] = "auto"

    @property
    def corestore_path(self) -> Path:
        """JavaScript's layout, and nothing else in it."""
        return self.data / "corestore"

    @property
    def key_path(self) -> Path:
        return self.data / "node.key"

    @property
    def first_start_path(self) -> Path:
        """There from the making of the keys until a node has been up with them."""
        return self.data / "first-start"

    @property
    def mesh_path(self) -> Path:
        return self.data / "mesh.toml"

    @property
    def policy_path(self) -> Path:
        """What is kept of other nodes, as it was decided while the node ran."""
        return self.data / "policy.toml"

    @property
    def members_path(self) -> Path:
        return self.data / "members.json"

    @property
    def mirrors_path(self) -> Path:
        return self.data / "mirrors.json"

    @property
    def table_path(self) -> Path:
        return self.data / "dht.json"

    @property
    def usage_path(self) -> Path:
        return self.data / "usage.json"

    @property
    def cut_streams_path(self) -> Path:
        return self.data / "cut_streams.json"

    @property
    def sqlite_path(self) -> Path:
        """Where coValues are, with --store sqlite and hybrid."""
        return self.sqlite or self.data / "covalues.sqlite"

    @property
    def has_mesh(self) -> bool:
        """Whether other nodes can read what this one holds: they read its bee."""
        return self.store != "sqlite"

    @property
    def admin_path(self) -> Path:
        return admin_path(self.data)


def admin_path(data: Path) -> Path:
    """The file through which the other verbs find the node that runs on this directory."""
    return data / "admin.json"


def default_data_path() -> Path | None:
    """None for users without a home directory, as users of containers may."""
    try:
        path = Path(platformdirs.user_data_dir("beemesh", appauthor=False))
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def load_config(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    config_path: Path | None = None,
) -> Config:
    """Put the sources together. `flags` that are None were not given.

    Raises: ConfigError, naming the source and the setting.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    from_environment = read_environment(os.environ if environment is None else environment)
    settings: dict[str, object] = {}
    if config_path is not None:
        settings |= _read_file(config_path)
    nearest = {**settings, **from_environment, **given}
    named = nearest["data"] if "data" in nearest else default_data_path()
    if named is None:
        raise ConfigError("--data DIRECTORY is needed: this user has no home directory")
    data = _parse("data", named, "the data directory")
    # Whatever has that name: for a missing file that is mounted, containers make a directory.
    if config_path is None and isinstance(data, Path) and os.path.lexists(data / CONFIG_FILE):
        settings |= _read_file(data / CONFIG_FILE)
    sources = (
        (settings, str(config_path or Path(str(data)) / CONFIG_FILE)),
        (from_environment, "the environment"),
        (given, "the command line"),
    )
    parsed: dict[str, object] = {"data": data, "name": socket.gethostname()}
    for values, source in sources:
        for name, value in values.items():
            parsed[name] = _parse(name, value, source)
    parsed["data"] = data  # decided before the file inside it could be read
    config = Config(**parsed)  # type: ignore[arg-type]  # each value came from its own parser
    _check_together(config)
    return config


def _check_together(config: Config) -> None:
    if config.sqlite is not None and config.store == "bee":
        raise ConfigError(
            "--sqlite names a file, which --store bee does not use: say sqlite or hybrid"
        )
    if "dht" not in config.discovery and (config.relay or config.serve_relay):
        option = "--relay" if config.relay else "--serve-relay"
        raise ConfigError(f"{option} goes through the DHT: say --discovery lan,dht, too")
    if not config.has_mesh and config.min_copies > 1:
        raise ConfigError(
            f"--min-copies {config.min_copies} needs other nodes, and with --store sqlite there "
            f"are none: use bee or hybrid"
        )
    wanted = {
        "--join": bool(config.join),
        "--mesh-name": config.mesh_name is not None,
        "--mesh-encrypted": config.mesh_encrypted,
    }
    if not config.has_mesh and any(wanted.values()):
        option = next(option for option, is_given in wanted.items() if is_given)
        raise ConfigError(
            f"{option} needs a store that other nodes can read, and --store sqlite has none: use "
            f"bee or hybrid"
        )


def read_environment(environment: Mapping[str, str]) -> dict[str, object]:
    """The settings among the variables.

    A near miss of a name is an error. Others are left alone: Kubernetes sets
    `BEEMESH_SERVICE_HOST` and the like for a service of that name.

    Raises: ConfigError.
    """
    settings: dict[str, object] = {}
    for variable, value in environment.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or name in _NOT_SETTINGS:
            continue
        field = name.lower()
        if field in PARSERS:
            settings[field] = value
        elif field.removesuffix("_file") in PARSERS and field.endswith("_file"):
            settings[field.removesuffix("_file")] = read_secret_file(Path(value), variable)
        elif close := difflib.get_close_matches(field, PARSERS, n=1, cutoff=0.8):
            raise ConfigError(
                f"{variable} is no setting: did you mean {ENVIRONMENT_PREFIX}{close[0].upper()}?"
            )
    return settings


def read_secret_file(path: Path, option: str) -> str:
    """The text of a mounted secret, without the line end that editors add.

    `option` is the flag or the variable that names the file.

    Raises: ConfigError.
    """
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {path} cannot be read: {reason_of(error)}") from error


def _read_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            settings: dict[str, object] = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:  # the last: a thousand lists in one another
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    for name in settings:
        if name not in PARSERS:
            close = difflib.get_close_matches(name, PARSERS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(PARSERS)}"
            raise ConfigError(f"{path}: unknown key {name!r}; {hint}")
    return settings


def _parse(name: str, value: object, source: str) -> object:
    try:
        return PARSERS[name](value)
    except (ValueError, TypeError, RuntimeError) as error:  # the last: `~` without a home
        raise ConfigError(f"{source}: {name.replace('_', '-')}: {error}") from error
