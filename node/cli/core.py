"""`beemesh core ...`: any hypercore, by name or key."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common, Timeout
from node.cli.output import print_bytes, print_facts, print_json, print_renderable, table
from node.cli.perform import perform, seconds
from node.verbs import CoreAppend, CoreGet, CoreInfo, CoreList, ExitCode, Result

CoreRef = Annotated[str, Parameter(help="Its name here, or its key (z-base-32 or hex).")]


def ls(*, common: Common = DEFAULT_COMMON) -> int:
    """List the cores that this data directory names."""
    results = perform(common, CoreList())
    if common.json:
        for result in results:
            print_json(result)
        return ExitCode.OK
    rows = [(str(core["name"]), str(core["key"]), str(core["length"])) for core in results]
    print_renderable(table(("name", "key", "length"), rows, "There are no named cores."))
    return ExitCode.OK


def info(core: CoreRef, /, *, timeout: Timeout = "10", common: Common = DEFAULT_COMMON) -> int:
    """Show a core's key, length and what is held of it."""
    for result in perform(common, CoreInfo(core, seconds(timeout))):
        print_info(common, result)
    return ExitCode.OK


def get(
    core: CoreRef,
    index: Annotated[int, Parameter(help="The block's number, from 0.")],
    /,
    *,
    timeout: Timeout = "10",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Print one block, as it is."""
    for result in perform(common, CoreGet(core, index, seconds(timeout))):
        if common.json:
            print_json(result)
        else:
            print_bytes("value", result)
    return ExitCode.OK


def append(
    name: Annotated[str, Parameter(help="The core's name here; made if it is new.")],
    /,
    *blocks: Annotated[str, Parameter(help="Blocks, as text. Without any, stdin is one block.")],
    lines: Annotated[
        bool, Parameter(negative="", show_default=False, help="Each line of stdin is a block.")
    ] = False,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Append blocks to a core of ours."""
    if blocks:
        given = tuple(block.encode() for block in blocks)
    elif lines:
        given = tuple(line.removesuffix(b"\n") for line in sys.stdin.buffer)
    else:
        given = (sys.stdin.buffer.read(),)
    for result in perform(common, CoreAppend(name, given)):
        if common.json:
            print_json(result)
        else:
            print(
                f"{name} now has {result['length']} blocks; the first new one is {result['index']}"
            )
    return ExitCode.OK


def print_info(common: Common, result: Result) -> None:
    if common.json:
        print_json(result)
    else:
        print_facts([(name.replace("_", " "), _text(value)) for name, value in result.items()])


def _text(value: object) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
