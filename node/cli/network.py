"""`beemesh dht ...` and `beemesh doctor ...`: the network that nodes are found through."""

from __future__ import annotations

import signal
from dataclasses import asdict
from typing import Annotated

import trio
from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common
from node.cli.output import print_facts, print_json
from node.errors import ConfigError
from node.notation import format_address
from node.verbs import ExitCode

BootstrapList = Annotated[
    list[str] | None,
    Parameter(
        help="HOST:PORT where the DHT begins. Default: that of the config, else public nodes.",
        show_default=False,
        negative="",
    ),
]


def bootstrap(
    address: Annotated[str, Parameter(help="HOST:PORT at which others reach this node, IPv4.")],
    /,
    *,
    bind: Annotated[
        str | None,
        Parameter(help="The IPv4 address to bind, if it is another one.", show_default=False),
    ] = None,
    others: Annotated[
        list[str] | None,
        Parameter(help="HOST:PORT of nodes already in it.", show_default=False, negative=""),
    ] = None,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Run the first node of a network of our own, in the foreground.

    Nodes that are started with --discovery dht --bootstrap HOST:PORT find one another through it,
    and no public node is asked anything. Ctrl-C or SIGTERM stops it.
    """
    from swarm.dht.bootstrap import is_ipv4, parse_bootstrap

    try:
        node = parse_bootstrap(address)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if node.address is None:
        raise ConfigError(f"{address!r}: others need an IPv4 address, not a name")
    if bind is not None and not is_ipv4(bind):
        raise ConfigError(f"--bind: {bind!r} is no IPv4 address; write it without a port")
    return trio.run(_run_bootstrap, node.address[0], node.port, bind, others or [], common.json)


async def _run_bootstrap(
    host: str, port: int, bind: str | None, others: list[str], as_json: bool
) -> int:
    from node.listening import cannot_listen
    from swarm.io.dht import open_bootstrap

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            opened = open_bootstrap(host, port, bind_host=bind, others=others)
            async with opened as dht:
                there = f"{host}:{dht.address[1]}"
                if as_json:
                    print_json({"bootstrap": there})
                else:
                    print_facts([("bootstrap", there)])
                async for _ in signals:
                    break
        except ValueError as error:
            raise ConfigError(str(error)) from None
        except OSError as error:
            where = format_address(bind or host, port)
            raise cannot_listen(where, error, "choose another address") from None
    return ExitCode.OK


def net(*, bootstrap: BootstrapList = None, common: Common = DEFAULT_COMMON) -> int:
    """Find out how other nodes can reach this machine; takes up to ten seconds.

    Writes to the bootstrap nodes of the DHT and a few others: without --bootstrap, and none in the
    config, these are public nodes on the internet.
    """
    from node.examination import examine_network
    from swarm.dht.bootstrap import PUBLIC_BOOTSTRAP

    config = common.load_config({"bootstrap": bootstrap})
    report = trio.run(examine_network, config.bootstrap or PUBLIC_BOOTSTRAP)
    if common.json:
        print_json({**asdict(report), "verdict": report.verdict.value, "meaning": report.meaning})
        return ExitCode.OK
    yes = {True: "yes", False: "no"}
    print_facts(
        [
            ("verdict", report.meaning),
            ("addresses here", ", ".join(report.addresses) or "none"),
            ("UDP passes", yes[report.udp_passes]),
            ("nodes of the DHT", str(report.table_nodes)),
            ("NAT", report.nat),
            ("seen as", ", ".join(report.seen_as) or "-"),
            ("strangers let in", yes[report.strangers_let_in]),
            ("mDNS heard", yes[report.multicast_heard] + _in_brackets(report.multicast_error)),
            ("neighbors", str(report.neighbors)),
            ("clock", "plausible" if report.clock_plausible else "WRONG: it is before 2025"),
        ]
    )
    return ExitCode.OK


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
