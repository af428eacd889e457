"""`beemesh mirror`, `mirrors` and `unmirror`: cores of others that this node keeps and serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common
from node.cli.output import print_json, print_renderable, table
from node.cli.perform import ask_node, need_node
from node.cli.watch import Watch, repeat, show
from node.client import AdminClient
from node.errors import ConfigError
from node.verbs import AddMirror, ExitCode, ListMirrors, MirrorVerb, RemoveMirror, Result
from node.web.status import MirrorStatus
from node.web.tables import mirror_headings, mirror_row

if TYPE_CHECKING:
    from rich.console import RenderableType


def _flag(help_text: str) -> Parameter:
    return Parameter(help=help_text, show_default=False, negative="")


def mirror(
    key: Annotated[str, Parameter(help="The key of a hypercore, hyperbee or node's data core.")],
    /,
    *,
    range: Annotated[
        str, Parameter(help="Only blocks a:b; without b, all that follow.", show_default=False)
    ] = "",
    bee: Annotated[bool, _flag("Refuse it if it is no bee.")] = False,
    core: Annotated[bool, _flag("Do not look whether it is a bee.")] = False,
    name: Annotated[str, Parameter(help="What to call it.", show_default=False)] = "",
    peer: Annotated[
        list[str] | None,
        Parameter(
            help="HOST:PORT of a node that has it. May be repeated.",
            show_default=False,
            negative="",
        ),
    ] = None,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Keep a core of somebody else's, and serve it while its owner is away.

    It is looked for and announced by its discovery key wherever this node looks for others
    (--discovery), and kept up to date, also after a restart. Its blocks do not count as cache.
    Mirrored again, it gets the new range, name and peers.
    """
    if bee and core:
        raise ConfigError("--bee and --core exclude one another")
    kind = "bee" if bee else "core" if core else ""
    verb = AddMirror(key, name, kind, range, tuple(peer or ()))  # type: ignore[arg-type]  # of three
    return _perform(common, verb)


def unmirror(
    mirror: Annotated[str, Parameter(help="Its key or name.")],
    /,
    *,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Stop keeping a core up to date and announcing it; its blocks stay until room is needed."""
    return _perform(
        common,
        RemoveMirror(mirror),
        "This core is not kept any more; its blocks stay until room is needed.",
    )


def mirrors(*, watch: Watch = False, common: Common = DEFAULT_COMMON) -> int:
    """Show what is mirrored, and how far each mirror is."""

    def print_lines() -> None:
        for result in need_node(common).perform(ListMirrors()):
            print_json(result)

    if common.json:
        return repeat(watch, print_lines)
    return show(watch, lambda: _view(need_node(common)))


def _perform(common: Common, verb: MirrorVerb, sentence: str = "") -> int:
    results = list(ask_node(common, verb))
    if common.json:
        for result in results:
            print_json(result)
    else:
        if sentence:
            print(sentence)
        print_renderable(_table(results))
    return ExitCode.OK


def _view(client: AdminClient) -> RenderableType:
    return _table(list(client.perform(ListMirrors())))


def _table(results: list[Result]) -> RenderableType:
    rows = map(mirror_row, msgspec.convert(results, list[MirrorStatus]))
    return table(mirror_headings(), rows, "Nothing is mirrored.")
