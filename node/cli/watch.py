"""`beemesh status` and `beemesh peers`, once or every second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common
from node.cli.output import facts, fitting, print_json, print_renderable, table
from node.cli.perform import need_node
from node.client import AdminClient
from node.verbs import ExitCode, VerbError
from node.visible_text import visible
from node.web.status import NodeStatus, PeerStatus
from node.web.summary import status_rows
from node.web.tables import core_headings, core_row, peer_headings, peer_row

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_SECONDS = 1.0

Watch = Annotated[
    bool,
    Parameter(negative="", show_default=False, help="Show it again every second until Ctrl-C."),
]


def status(*, watch: Watch = False, common: Common = DEFAULT_COMMON) -> int:
    """Show what the node is and does."""
    if common.json:
        return repeat(watch, lambda: print_json(need_node(common).status()))
    return show(watch, lambda: _status_view(need_node(common)))


def peers(*, watch: Watch = False, common: Common = DEFAULT_COMMON) -> int:
    """Show the connected nodes."""

    def print_lines() -> None:
        for peer in need_node(common).peers():
            print_json(peer)

    if common.json:
        return repeat(watch, print_lines)
    return show(watch, lambda: _peers_view(need_node(common)))


def _status_view(client: AdminClient) -> RenderableType:
    from rich.console import Group

    status = msgspec.convert(client.status(), NodeStatus)
    cores = table(core_headings(), map(core_row, status.cores), "No cores are open.")
    return Group(facts(status_rows(status)), cores)


def _peers_view(client: AdminClient) -> RenderableType:
    rows = map(peer_row, msgspec.convert(client.peers(), list[PeerStatus]))
    return table(peer_headings(), rows, "No node is connected.")


def repeat(watch: bool, show: Callable[[], None]) -> int:
    """Show it once, or every second until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        show()
        while watch:
            time.sleep(REFRESH_SECONDS)
            show()
    return ExitCode.OK


def show(watch: bool, view: Callable[[], RenderableType]) -> int:
    """As `repeat`, on the whole terminal while watching; elsewhere one view after another.

    Whoever watches a terminal sees a node stop and come back; elsewhere it ends with the node.
    """
    if not watch:
        print_renderable(view())
        return ExitCode.OK
    if not sys.stdout.isatty():
        return repeat(watch, lambda: print_renderable(view()))
    from rich.live import Live

    with Live(fitting(view()), auto_refresh=False, screen=True) as live:
        return repeat(watch, lambda: live.update(fitting(_view_or_reason(view)), refresh=True))


def _view_or_reason(view: Callable[[], RenderableType]) -> RenderableType:
    """What is wrong, where no node answers."""
    from rich.text import Text

    try:
        return view()
    except VerbError as error:
        if error.code not in (ExitCode.NO_NODE, ExitCode.TIMEOUT):
            raise
        return Text(visible(error.text))
