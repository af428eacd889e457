"""[trio] Run a node until a signal: what it prints, and how it stops."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from importlib.metadata import version

import structlog
import trio

from node import open_files
from node.cli.output import give_up_stdout, print_error, print_facts, print_json
from node.cli.perform import at
from node.collector import tame_collector
from node.config import Config, admin_path
from node.daemon import open_node
from node.journal import configure_journal
from node.running import Node
from node.service_manager import ServiceManager
from node.verbs import ExitCode
from node.web.wording import describe_role

_ECHO_SECONDS = 0.2
"""One wish to stop may come twice: `timeout` signals its child and its group, and a wrapper passes
on the Ctrl-C that the terminal has sent to both. Nobody presses a key again so soon."""

_log = structlog.get_logger(__name__)


def run_node(config: Config, *, as_json: bool) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code.

    When the terminal in which the node was started closes, the node stops as well, unless it was
    told not to (`nohup`). Without a terminal SIGHUP does nothing: service managers send it for
    "reload", and lists and tokens are read again by themselves.

    Raises: what `open_node` raises.
    """
    configure_journal(config.log_level, config.log_format)
    tame_collector()
    open_files.raise_limit()
    wanted = config.ws_max_connections
    if (room := open_files.room_for_clients(wanted)) < wanted:
        _log.warning("fewer clients are let in", clients=room, open_files=open_files.limit())
    return trio.run(_run, config, as_json)


async def _run(config: Config, as_json: bool) -> int:
    manager = ServiceManager.of(os.environ, os.getpid())
    has_terminal = sys.stdin.isatty()  # one that has closed is none any more
    with trio.open_signal_receiver(*_signals()) as signals:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as serving:
                stops = _StopSignals(signals, has_terminal)
                nursery.start_soon(_stop_on_signal, stops, serving, config, manager)
                await _serve(config, manager, as_json=as_json)
            nursery.cancel_scope.cancel()
    _log.info("stopped")
    return ExitCode.OK


def _signals() -> list[signal.Signals]:
    """Signals that mean something here; one that was ignored from outside stays so."""
    wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    return [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]


async def _serve(config: Config, manager: ServiceManager, *, as_json: bool) -> None:
    async with open_node(config) as node:
        try:
            if as_json:
                print_json(_facts_for_programs(node))
            else:
                _print_for_people(node)
        except OSError as error:  # a full disk is no reason not to serve, nor is a reader that left
            give_up_stdout()
            _log.warning("nothing printed", reason=error.strerror)
        if as_json or not sys.stdout.isatty():
            _log.info(
                "started",
                name=config.name,
                version=version("beemesh"),
                id=node.id.hex(),
                store=config.store,
                data=str(config.data),
                **asdict(node.addresses),
            )
        await manager.tell_ready()
        await manager.keep_told(node.brief)
        await trio.sleep_forever()


async def _stop_on_signal(
    stops: AsyncIterator[int],
    serving: trio.CancelScope,
    config: Config,
    manager: ServiceManager,
) -> None:
    """The first signal stops in order, within `shutdown_seconds`; the second at once."""
    name = signal.Signals(await anext(stops)).name
    _log.info("stopping", signal=name)
    manager.tell("STOPPING=1")
    serving.cancel()
    with trio.move_on_after(_ECHO_SECONDS):
        while True:
            await anext(stops)
    with trio.move_on_after(config.shutdown_seconds):
        await anext(stops)
    print_error("stopped before everything was closed; what was acknowledged is safe")
    os._exit(ExitCode.FAILED)


@dataclass(slots=True)
class _StopSignals:
    """The signals that mean to stop: SIGHUP does only where a terminal has closed."""

    signals: AsyncIterator[int]
    has_terminal: bool

    def __aiter__(self) -> _StopSignals:
        return self

    async def __anext__(self) -> int:
        while True:
            number = await anext(self.signals)
            if number != signal.SIGHUP or self.has_terminal:
                return number
            _log.info(
                "not reloaded", reason="lists and tokens are, when they change; restart for more"
            )


def _facts_for_programs(node: Node) -> dict[str, object]:
    addresses = node.addresses
    return {
        "ready": True,
        "ws": addresses.ws,
        "mesh": addresses.mesh,
        "admin": addresses.admin,
        "key": None if node.key is None else node.key.hex(),
        "id": node.id.hex(),
        "ticket": node.ticket(),
        "data": str(node.config.data),
    }


def _print_for_people(node: Node) -> None:
    config, addresses = node.config, node.addresses
    page = f"{addresses.admin}/?token={node.admin_token}"
    if not sys.stdout.isatty():  # into a journal that more people read
        page = f"{addresses.admin} (its token is in {admin_path(config.data)})"
    rows = [
        ("Jazz clients", addresses.ws),
        ("status page", page),
        ("node id", node.id.hex()),
        ("data", str(config.data)),
        *_mesh_facts(node),
    ]
    if config.store != "bee":
        rows.append(("SQLite file", str(config.sqlite_path)))
    print(f"beemesh node {config.name!r} is up" + (", with new keys" if node.has_new_keys else ""))
    print()
    print_facts(rows)
    where = at(config.data)
    print()
    if node.mesh is not None:
        membership = node.mesh.membership
        join = f"--mesh-name {membership.name!r}" if membership.is_open else "--join TICKET"
        print("Next, from another machine or with another --data directory:")
        print(f"  beemesh up {join}")
        print("and to look inside:")
    else:
        print("To look inside:")
    print(f"  beemesh status{where}")
    print(f"  beemesh ls{where}" if node.mesh is None else f"  beemesh peers --watch{where}")
    print("Ctrl-C stops the node.", flush=True)


def _mesh_facts(node: Node) -> list[tuple[str, str]]:
    mesh, key = node.mesh, node.key
    if mesh is None or key is None:
        return [("mesh", "none: other nodes cannot read --store sqlite")]
    status = node.status()
    ticket = node.ticket() or "none: an admin of the mesh has to invite"
    if node.ticket() and not sys.stdout.isatty():
        ticket = f"`beemesh invite{at(node.config.data)}` prints one"
    kind = "open to all who know its name" if mesh.membership.is_open else "by ticket only"
    if mesh.membership.is_encrypted:
        kind += ", encrypted"
    return [
        ("other nodes", node.addresses.mesh or ""),
        ("mesh", f"{mesh.membership.name} ({kind})"),
        ("role", describe_role(status.mesh_role, status.mesh_role_expiry)),
        ("data core", key.hex()),
        ("ticket", ticket),
    ]
