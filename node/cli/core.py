"""`beemesh core ...`: any hypercore, by name or key."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common, Timeout, read_number
from node.cli.output import (
    counted,
    print_bytes,
    print_facts,
    print_json,
    print_renderable,
    table,
)
from node.cli.perform import perform, seconds
from node.verbs import (
    CoreAppend,
    CoreClear,
    CoreGet,
    CoreInfo,
    CoreList,
    CorePurge,
    CoreRecover,
    CoreTruncate,
    ExitCode,
    Result,
    VerbError,
)

CoreRef = Annotated[
    str,
    Parameter(
        help="Its name here, a mirror's name, or its key (z-base-32 or hex), or how that begins."
    ),
]


def ls(*, common: Common = DEFAULT_COMMON) -> int:
    """List the cores that this data directory names."""
    results = perform(common, CoreList())
    if common.json:
        for result in results:
            print_json(result)
        return ExitCode.OK
    columns = ("name", "key", "length", "byte_length", "blocks_held")
    rows = [[str(core[column]) for column in columns] for core in results]
    headings = ("name", "key", "length", "bytes", "held")
    print_renderable(table(headings, rows, "There are no named cores."))
    return ExitCode.OK


def info(core: CoreRef, /, *, timeout: Timeout = "10", common: Common = DEFAULT_COMMON) -> int:
    """Show a core's key, length and what is held of it."""
    for result in perform(common, CoreInfo(core, seconds(timeout))):
        print_info(common, result)
    return ExitCode.OK


def get(
    core: CoreRef,
    index: Annotated[int, Parameter(help="The block's number, from 0.", converter=read_number)],
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
        given = (read_stdin("block"),)
    for result in perform(common, CoreAppend(name, given)):
        if common.json:
            print_json(result)
        else:
            length = counted(result["length"], "block")
            print(f"{name} now has {length}; the first new one is {result['index']}")
    return ExitCode.OK


def read_stdin(what: str) -> bytes:
    """All of stdin. Raises: VerbError when it is empty, as of a program that failed."""
    data = sys.stdin.buffer.read()
    if not data:
        raise VerbError(ExitCode.USAGE, f'stdin is empty: for a {what} of no bytes say ""')
    return data


def truncate(
    core: CoreRef,
    length: Annotated[int, Parameter(help="How many blocks to keep.", converter=read_number)],
    /,
    *,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Cut a core of ours back, as a new fork; peers follow."""
    for result in perform(common, CoreTruncate(core, length)):
        _print_cut(common, result, "given up")
    return ExitCode.OK


def clear(
    core: CoreRef,
    start: Annotated[int, Parameter(help="The first block to give up.", converter=read_number)],
    stop: Annotated[int, Parameter(help="The block after the last one.", converter=read_number)],
    /,
    *,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Free the room of some blocks; the core keeps its length."""
    for result in perform(common, CoreClear(core, start, stop)):
        _print_cut(common, result, "freed")
    return ExitCode.OK


def recover(
    core: CoreRef,
    /,
    *,
    alone: Annotated[
        bool, Parameter(negative="", show_default=False, help="Nobody else has ever had it.")
    ] = False,
    timeout: Timeout = "60",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Let a core take more again after a repair that may have lost its newest blocks.

    Waits until some peer has been connected for 8 s, and no peer knew more.
    """
    for result in perform(common, CoreRecover(core, alone, seconds(timeout))):
        if common.json:
            print_json(result)
        else:
            length = counted(result["length"], "block")
            print(f"{core} takes more; it has {length}, fork {result['fork']}")
    return ExitCode.OK


def purge(
    core: CoreRef,
    /,
    *,
    yes: Annotated[
        bool, Parameter(negative="", show_default=False, help="Yes, remove it for good.")
    ] = False,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Remove a core with its keys, from the files as well.

    A core that is made under the same name later has the same key: whoever has blocks of this one
    would find two histories under that key. So choose another name.
    """
    if not yes:
        raise VerbError(
            ExitCode.USAGE, f"this removes {core} with its keys, for good: say --yes to do it"
        )
    for result in perform(common, CorePurge(core)):
        if common.json:
            print_json(result)
        else:
            print(f"{core} is gone, with {counted(result['blocks'], 'block')}")
    return ExitCode.OK


def _print_cut(common: Common, result: Result, what: str) -> None:
    if common.json:
        print_json(result)
    else:
        blocks, length = (counted(result[name], "block") for name in ("blocks", "length"))
        print(f"{blocks} {what}; the core has {length}, fork {result['fork']}")


def print_info(common: Common, result: Result) -> None:
    if common.json:
        print_json(result)
    else:
        print_facts([(name.replace("_", " "), _text(value)) for name, value in result.items()])


def _text(value: object) -> str:
    if value is None:
        return "-"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
