"""`beemesh bee ...`: any hyperbee, by name or key."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators

from node.cli.core import CoreRef, print_info, read_stdin
from node.cli.options import DEFAULT_COMMON, Common, Timeout, read_number
from node.cli.output import counted, print_bytes, print_json, print_renderable, table
from node.cli.perform import perform, seconds
from node.verbs import BeeCompact, BeeGet, BeeInfo, BeeList, BeePut, ExitCode


def ls(
    core: CoreRef,
    /,
    *,
    prefix: Annotated[str, Parameter(help="Only keys that begin with this.")] = "",
    limit: Annotated[
        int,
        Parameter(
            help="At most this many; 0 means all.",
            converter=read_number,
            validator=validators.Number(gte=0),
        ),
    ] = 0,
    reverse: Annotated[
        bool, Parameter(negative="", show_default=False, help="From the last key backward.")
    ] = False,
    timeout: Timeout = "10",
    common: Common = DEFAULT_COMMON,
) -> int:
    """List entries in key order."""
    verb = BeeList(core, prefix.encode(), reverse, limit, seconds(timeout))
    results = perform(common, verb)
    if common.json:
        for result in results:
            print_json(result)
        return ExitCode.OK
    rows = [(str(entry["seq"]), str(entry["key"]), str(entry["value"])) for entry in results]
    print_renderable(table(("seq", "key", "value"), rows, "There are no such entries."))
    return ExitCode.OK


def compact(
    name: Annotated[str, Parameter(help="The bee's name here; without it, the node's own.")] = "",
    /,
    *,
    dry_run: Annotated[
        bool, Parameter(negative="", show_default=False, help="Only say what would go.")
    ] = False,
    prune: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Also give up proofs of what is gone; peers that are away now may have to fetch "
            "the bee anew.",
        ),
    ] = False,
    timeout: Annotated[str, Parameter(help="How long it may take: 30, 5m, 1h.")] = "1h",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Give up what was overwritten or deleted, and the room it takes."""
    for result in perform(common, BeeCompact(name, dry_run, prune, seconds(timeout))):
        if common.json:
            print_json(result)
            continue
        verb = "would go" if dry_run else "are gone"
        print(
            f"{result['name']}: {counted(result['blocks'], 'block')} of "
            f"{counted(result['bytes'], 'byte')} {verb}, "
            f"{result['blocks_kept']:,} stay"
        )
    return ExitCode.OK


def info(core: CoreRef, /, *, timeout: Timeout = "10", common: Common = DEFAULT_COMMON) -> int:
    """Show a bee's core and version."""
    for result in perform(common, BeeInfo(core, seconds(timeout))):
        print_info(common, result)
    return ExitCode.OK


def get(
    core: CoreRef,
    key: Annotated[str, Parameter(help="The key, as text.")],
    /,
    *,
    timeout: Timeout = "10",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Print one value, as it is."""
    for result in perform(common, BeeGet(core, key.encode(), seconds(timeout))):
        if common.json:
            print_json(result)
        else:
            print_bytes("value", result)
    return ExitCode.OK


def put(
    name: Annotated[str, Parameter(help="The bee's name here; made if it is new.")],
    key: Annotated[str, Parameter(help="The key, as text.")],
    value: Annotated[str | None, Parameter(help="The value; without it, stdin.")] = None,
    /,
    *,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Write one entry to a bee of ours."""
    data = read_stdin("value") if value is None else value.encode()
    for result in perform(common, BeePut(name, key.encode(), data)):
        if common.json:
            print_json(result)
        else:
            print(f"{name} is now at version {result['version']}")
    return ExitCode.OK
