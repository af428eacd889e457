"""`beemesh sync status` and `beemesh sync wait`: how far the nodes of the mesh are in step."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common, read_number
from node.cli.output import counted, facts, print_json, table
from node.cli.perform import ask_node, need_node, seconds
from node.cli.watch import Watch, repeat, show
from node.errors import ConfigError
from node.verbs import ExitCode, Result, ShowSync, WaitSync
from node.web.wording import format_age, format_size

_HEADINGS = (
    "member", "state", "missing here", "its log here", "ours not yet there", "fetched",
)  # fmt: skip


class MemberLine(msgspec.Struct, frozen=True):
    """What is shown of a member; the node sends more."""

    id: str
    name: str
    state: str
    missing: int
    undelivered: int
    acknowledges: bool
    unacknowledged: int
    is_partial: bool
    declined: int
    length: int
    merged: int | None
    ours: int
    merged_there: int | None
    blocks_fetched: int
    bytes_fetched: int


class Overview(msgspec.Struct, frozen=True):
    """What is shown of the node."""

    is_done: bool
    wanted: int
    held: int
    missing: int
    left: int
    min_copies: int
    waiting: int
    logs_kept: int | None
    why: str
    members: tuple[MemberLine, ...]


def status(*, watch: Watch = False, common: Common = DEFAULT_COMMON) -> int:
    """Show how far this node and the members of its mesh are in step."""

    def ask() -> Result:
        return next(need_node(common).perform(ShowSync()))

    if common.json:
        return repeat(watch, lambda: print_json(ask()))

    def view() -> object:
        from rich.console import Group

        overview = msgspec.convert(ask(), Overview)
        members = table(_HEADINGS, map(_member_row, overview.members), "No member is connected.")
        return Group(facts(_overview_rows(overview)), members)

    return show(watch, view)  # type: ignore[arg-type]  # rich is imported when it is needed


def wait(
    *ids: Annotated[str, Parameter(help="coValues to wait for. Default: everything.")],
    min_copies: Annotated[
        int | None,
        Parameter(
            help="On how many nodes they must be, this one included. Default: as `beemesh up`.",
            show_default=False,
            converter=read_number,
        ),
    ] = None,
    timeout: Annotated[str, Parameter(help="How long to wait: 60, 500ms, 5m.")] = "60",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Wait until this node is in step with the members of its mesh, or until values are.

    Done: all that members are known to hold of what is wanted here is here, and all that was
    announced to them is durable there. Exit codes: 0 done, 4 no such value anywhere, 5 not in step
    in time.
    """
    if min_copies is not None and min_copies < 1:
        raise ConfigError(f"--min-copies: {min_copies} is no count of at least 1")
    results = ask_node(common, WaitSync(ids, min_copies or 0, seconds(timeout)))
    if common.json:
        for result in results:
            print_json(result)
        return ExitCode.OK
    started = time.monotonic()
    for _ in _shown(results) if sys.stderr.isatty() else results:
        pass
    print(f"in step after {format_age(time.monotonic() - started)}")
    return ExitCode.OK


def _shown(results: Iterable[Result]) -> Iterator[Result]:
    """The same results, drawn as a bar with the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    most = 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("comparing", total=None)
        for result in results:
            left = _left(result)
            most = max(most, left)
            progress.update(
                bar, total=most or None, completed=most - left, description=_description(result)
            )
            yield result


def _left(result: Result) -> int:
    if "copied" in result:
        numbers = msgspec.convert(result, ValuesLine)
        return 2 * numbers.wanted - numbers.held - numbers.copied
    left = result.get("left", 0)
    return left if isinstance(left, int) else 0


class ValuesLine(msgspec.Struct, frozen=True):
    """How far a wait for single values is."""

    wanted: int
    held: int
    copied: int
    copies: int
    min_copies: int
    nodes: int


def _description(result: Result) -> str:
    if "copied" in result:
        line = msgspec.convert(result, ValuesLine)
        return (
            f"{line.held:,} of {line.wanted:,} here, {line.copied:,} on {line.min_copies} nodes"
            f" ({line.nodes} connected)"
        )
    return str(result.get("why") or "in step")[:100]


def _overview_rows(overview: Overview) -> list[tuple[str, str]]:
    rows = [
        ("in step", "yes" if overview.is_done else f"no: {overview.why}"),
    ]
    if overview.logs_kept is None:
        rows += [
            ("coValues wanted", f"{overview.wanted:,}"),
            ("held", f"{overview.held:,}"),
            ("missing", f"{overview.missing:,}"),
        ]
    else:
        count = overview.logs_kept
        text = f"cannot read, but keeps the logs of {counted(count, 'writer')}"
        rows.append(("blind", text))
    if overview.min_copies > 1 or overview.waiting:
        text = f"{overview.waiting:,} until {overview.min_copies} nodes hold what they are about"
        rows.append(("acknowledgements held back", text))
    return rows


def _member_row(member: MemberLine) -> tuple[str, ...]:
    missing = f"{member.missing:,}"
    if member.undelivered:
        missing += f" ({member.undelivered:,} not delivered)"
    length = counted(member.length, "block")
    merged = "-" if member.merged is None else f"{member.merged:,} of {length}"
    return (
        member.name or member.id[:12],
        member.state,
        missing,
        merged,
        _unacknowledged(member),
        f"{counted(member.blocks_fetched, 'block')}, {format_size(member.bytes_fetched)}",
    )


def _unacknowledged(member: MemberLine) -> str:
    if not member.acknowledges:
        return "not told: an older node"
    parts = [f"{'at least ' if member.is_partial else ''}{counted(member.unacknowledged, 'value')}"]
    if member.merged_there is not None and member.merged_there < member.ours:
        parts.append(counted(member.ours - member.merged_there, "block"))
    if member.declined:
        parts.append(f"{member.declined:,} declined")
    return ", ".join(parts)
