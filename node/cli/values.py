"""`beemesh load` and `beemesh ls`: coValues."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common, Timeout
from node.cli.output import counted, print_facts, print_json, print_renderable, table
from node.cli.perform import ask_node, seconds
from node.verbs import ExitCode, ListForks, ListValues, Load, Result


def load(
    id: Annotated[str, Parameter(help="The coValue's id, co_z...")],
    /,
    *,
    timeout: Timeout = "10",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Load one coValue through the node: from its store, else from the mesh."""
    for result in ask_node(common, Load(id, seconds(timeout))):
        if common.json:
            print_json(result)
        else:
            print_facts(_load_rows(result))
    return ExitCode.OK


def ls(
    prefix: Annotated[str, Parameter(help="Only ids that begin with this.")] = "",
    /,
    *,
    long: Annotated[
        bool,
        Parameter(alias="-l", negative="", show_default=False, help="With type and counts."),
    ] = False,
    common: Common = DEFAULT_COMMON,
) -> int:
    """List the coValues that the node holds."""
    results = ask_node(common, ListValues(prefix, long))
    if common.json:
        for result in results:
            print_json(result)
        return ExitCode.OK
    if not long:
        for result in results:
            print(result["id"])
        return ExitCode.OK
    columns = ("id", "type", "sessions", "transactions")
    rows = [tuple(str(result[column]) for column in columns) for result in results]
    print_renderable(table(columns, rows, "No coValue is held."))
    return ExitCode.OK


def forks(*, common: Common = DEFAULT_COMMON) -> int:
    """List sessions and cores whose author signed two histories.

    Of a session, the history that came first is kept and served. Of a core, what was held is, and
    no more of it is asked for. With --json each line is the evidence: whoever has the session up to
    the fork can check both signatures, and a core's proof needs nothing else.
    """
    results = list(ask_node(common, ListForks()))
    if common.json:
        for result in results:
            print_json(result)
        return ExitCode.OK
    rows = []
    for result in results:
        if "core" in result:
            continue
        kept, refused = result["kept"], result["refused"]
        assert isinstance(kept, dict)
        assert isinstance(refused, dict)
        counts = [str(len(side["newTransactions"])) for side in (kept, refused)]
        rows.append((str(result["id"]), str(result["session"]), str(result["index"]), *counts))
    columns = ("id", "session", "forks at", "kept", "refused")
    print_renderable(table(columns, rows, "No session was forked."))
    cores = [(str(each["core"]), str(each["conflict"])) for each in results if "core" in each]
    print_renderable(table(("core", "its writer signed"), cores, "No core was forked."))
    return ExitCode.OK


def _load_rows(result: Result) -> list[tuple[str, str]]:
    header = result["header"]
    sessions = result["sessions"]
    assert isinstance(header, dict)
    assert isinstance(sessions, dict)
    ruleset = header.get("ruleset") or {}
    rows = [
        ("id", str(result["id"])),
        ("type", str(header.get("type"))),
        ("rules", " ".join(str(part) for part in ruleset.values())),
        ("created", str(header.get("createdAt") or "-")),
        ("transactions", str(result["transactions"])),
        *(("of session", f"{session}: {count}") for session, count in sessions.items()),
    ]
    if result["source"] == "store":
        return [*rows, ("from", "this node's store")]
    return [
        *rows,
        ("from", f"node {str(result['member'])[:12]}" if result["member"] else "the mesh"),
        (
            "fetched",
            f"{counted(result['blocks_fetched'], 'block')}, "
            f"{counted(result['bytes_fetched'], 'byte')}, in "
            f"{counted(result['round_trips'], 'round trip')}",
        ),
    ]
