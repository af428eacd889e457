"""`beemesh up`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common
from node.config import read_secret_file
from node.errors import ConfigError


def _option(help_text: str) -> Parameter:
    return Parameter(help=help_text, show_default=False, negative="")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class UpOptions:
    """Each is also a key of config.toml and a BEEMESH_ variable."""

    name: Annotated[str | None, _option("What to call this node. Default: the host name.")] = None
    ws: Annotated[
        str | None,
        _option("HOST:PORT for Jazz clients. Default: 127.0.0.1:4200; port 0 picks one."),
    ] = None
    mesh: Annotated[str | None, _option("HOST:PORT for other nodes. Default: 0.0.0.0:49737.")] = (
        None
    )
    admin: Annotated[
        str | None, _option("HOST:PORT for status page and API. Default: 127.0.0.1:4280.")
    ] = None
    admin_hosts: Annotated[
        list[str] | None,
        _option(
            "NAME under which the status page is reached besides its own address, such as a"
            " proxy's. May be repeated."
        ),
    ] = None
    admin_token_file: Annotated[
        str | None,
        _option(
            "File with the token of status page, API and /metrics. Default: a new one at each"
            " start, in DATA/admin.json."
        ),
    ] = None
    join: Annotated[
        list[str] | None,
        _option(
            "A TICKET, or the HOST:PORT or ws:// URL of a node. May be repeated. Others on this"
            " machine can see it: better keep a ticket in a file."
        ),
    ] = None
    join_file: Annotated[
        str | None,
        Parameter(
            help="File with what --join takes, one a line; - is the standard input. In config.toml"
            " it is the list `join`.",
            show_default=False,
            allow_leading_hyphen=True,
        ),
    ] = None
    mesh_name: Annotated[
        str | None, _option("Join the open mesh of that name: anybody who knows it may.")
    ] = None
    mesh_encrypted: Annotated[
        bool | None,
        _option("Found an encrypted mesh: others may keep its data without being able to read it."),
    ] = None
    discovery: Annotated[
        str | None,
        _option(
            "lan, dht, both (lan,dht) or off. Default: lan. With dht, other nodes are found through"
            " HyperDHT: nodes on the internet are told this node's address and key."
        ),
    ] = None
    bootstrap: Annotated[
        list[str] | None,
        _option(
            "HOST:PORT where the DHT begins, such as one of `beemesh dht bootstrap`. May be"
            " repeated. Default: the public nodes of HyperDHT."
        ),
    ] = None
    mesh_url: Annotated[
        list[str] | None,
        _option(
            "ws:// or wss:// URL at which a web server hands WebSockets on to the port of --mesh:"
            " tickets name it. May be repeated."
        ),
    ] = None
    relay: Annotated[
        list[str] | None,
        _option(
            "KEY of a blind relay at which this node is met where NATs are in the way, until there"
            " is a better way. May be repeated."
        ),
    ] = None
    serve_relay: Annotated[
        str | None,
        _option("SIZE, such as 10GiB: be a blind relay for others, for so many bytes a day."),
    ] = None
    store: Annotated[
        str | None,
        _option("bee, sqlite (no other nodes) or hybrid: where coValues are kept. Default: bee."),
    ] = None
    sqlite: Annotated[
        str | None,
        _option("FILE of a cojson server, to be used in place. Default: DATA/covalues.sqlite."),
    ] = None
    durability: Annotated[
        str | None, _option("commit, group(MS) or os: what an ack waits for. Default: commit.")
    ] = None
    replicate: Annotated[
        str | None, _option("lazy (what clients ask for) or all. Default: lazy.")
    ] = None
    min_copies: Annotated[
        str | None,
        _option(
            "On how many nodes, this one included, something is durable before clients are told"
            " that it is synced. They wait while fewer nodes that keep it are connected: run the"
            " others with --replicate all. Default: 1."
        ),
    ] = None
    cache_bytes: Annotated[
        str | None, _option("SIZE for blocks of other nodes, except mirrors. Default: 1GiB.")
    ] = None
    max_disk_bytes: Annotated[
        str | None, _option("SIZE of the data directory above which nothing is taken in.")
    ] = None
    min_free_bytes: Annotated[
        str | None,
        _option("SIZE of free disk below which nothing is taken in. Default: 16MiB."),
    ] = None
    ws_tokens_file: Annotated[
        str | None,
        _option("File of tokens, one a line, NAME:TOKEN or TOKEN: clients need one, /?token=..."),
    ] = None
    ws_tokens: Annotated[
        list[str] | None, _option("A token. Others on this machine can see it: better use a file.")
    ] = None
    ws_trusted_proxies: Annotated[
        list[str] | None, _option("ADDRESS or NETWORK whose X-Forwarded-For is believed.")
    ] = None
    allow_accounts_file: Annotated[
        str | None, _option("File of account or agent ids, one a line: take no other's content.")
    ] = None
    allow_accounts: Annotated[list[str] | None, _option("An id to allow. May be repeated.")] = None
    deny_accounts_file: Annotated[
        str | None, _option("File of account or agent ids whose content is refused.")
    ] = None
    deny_accounts: Annotated[list[str] | None, _option("An id to deny. May be repeated.")] = None
    quota_account_bytes: Annotated[
        str | None, _option("SIZE that one account may have stored, such as 1GiB. Default: any.")
    ] = None
    quota_account_values: Annotated[
        str | None, _option("How many coValues one account may create. Default: any number.")
    ] = None
    rate_bytes: Annotated[
        str | None, _option("SIZE that one address may send in a minute. Default: any.")
    ] = None
    rate_messages: Annotated[
        str | None, _option("Messages that one address may send in a minute. Default: any number.")
    ] = None
    rate_values: Annotated[
        str | None, _option("New coValues from one address in a minute. Default: any number.")
    ] = None
    rate_loopback: Annotated[
        bool | None, _option("Apply rates to this machine's own address, too.")
    ] = None
    enforce_permissions: Annotated[
        bool | None, _option("Refuse what its author has no right to write, by its group's rules.")
    ] = None
    covalue_memory: Annotated[
        str | None, _option("SIZE for the state of coValues in use. Default: 64MiB.")
    ] = None
    erase_deleted: Annotated[
        str | None, _option("false: keep the content of deleted coValues on the disk.")
    ] = None
    compact_dead_share: Annotated[
        str | None,
        _option(
            "Compact the data bee when this share of it is dead, such as 50%, or off. Default: 50%."
        ),
    ] = None
    compact_min_bytes: Annotated[
        str | None, _option("SIZE that must be dead, too, before compacting. Default: 16MiB.")
    ] = None
    log_level: Annotated[str | None, _option("debug, info, warning, error. Default: info.")] = None
    log_format: Annotated[str | None, _option("auto, pretty or json. Default: auto.")] = None


DEFAULT_UP_OPTIONS = UpOptions()


def up(*, options: UpOptions = DEFAULT_UP_OPTIONS, common: Common = DEFAULT_COMMON) -> int:
    """Run the node in the foreground.

    The first start creates keys and the data directory, and prints how clients and other nodes
    can join. Ctrl-C or SIGTERM stops it: clients are told, the store is flushed. A second signal
    stops it at once.

    Each option is also a key of config.toml in the data directory and a variable: --min-copies 2,
    min_copies = 2, BEEMESH_MIN_COPIES=2. The command line wins, then the variable.
    """
    flags = asdict(options)
    if (file := flags.pop("join_file")) is not None:
        flags["join"] = [*(options.join or ()), *_read_joins(file)]
    config = common.load_config(flags)

    from node.cli.foreground import run_node

    return run_node(config, as_json=common.json)


def _read_joins(file: str) -> list[str]:
    """Raises: ConfigError."""
    text = sys.stdin.read() if file == "-" else read_secret_file(Path(file), "--join-file")
    joins = [join for line in text.split("\n") if (join := line.strip())]
    if not joins:
        raise ConfigError(f"--join-file: {file} is empty: put a ticket into it")
    return joins
