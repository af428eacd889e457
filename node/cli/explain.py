"""`beemesh explain`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common, Timeout
from node.cli.output import counted, print_facts, print_json
from node.cli.perform import ask_node, seconds
from node.verbs import ExitCode, Explain, Result
from node.web.wording import format_age


def explain(
    id: Annotated[str, Parameter(help="The coValue's id, co_z...")],
    /,
    *,
    timeout: Timeout = "10",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Tell why a coValue is here or is not, since when and from whom, and who else has it.

    All connected nodes are asked once. Exit code 4 when it is nowhere.
    """
    code = ExitCode.OK
    for result in ask_node(common, Explain(id, seconds(timeout))):
        if not result["found"]:
            code = ExitCode.NOT_FOUND
        if common.json:
            print_json(result)
        else:
            print_facts(_rows(result))
    return code


def _rows(result: Result) -> list[tuple[str, str]]:
    rows = [("id", str(result["id"])), ("here", _here_text(result))]
    if result["is_here"]:
        rows.append(("type", f"{result['type']}, of {result['owner'] or 'nobody'}"))
        rows.append(("came", _when_text(result["came_from"], result["came_unix"])))
        rows.append(("last update", _when_text(result["updated_from"], result["updated_unix"])))
    sessions = result["sessions"]
    assert isinstance(sessions, dict)
    rows.extend(("of session", f"{name}: {count}") for name, count in sessions.items())
    rows.extend(_listed("why", result["why"]))
    rows.extend(_listed("why not" if not result["is_here"] else "but", result["why_not"]))
    holders = result["holders"]
    assert isinstance(holders, list)
    if not holders:
        asked = result["members_asked"]
        return [
            *rows,
            (
                "who else",
                f"nobody: {counted(asked, 'node')} asked" if asked else "no node is connected",
            ),
        ]
    rows.extend(_listed("who else", [_holder_text(holder) for holder in holders]))
    return rows


def _here_text(result: Result) -> str:
    if result["damage"]:
        return f"DAMAGED: {result['damage']}"
    if not result["is_here"]:
        return "no" if result["found"] else "no, nor at any connected node"
    sessions = result["sessions"]
    assert isinstance(sessions, dict)
    transactions = counted(result["transactions"], "transaction")
    text = f"{transactions} in {counted(len(sessions), 'session')}"
    if result["is_deleted"]:
        return f"yes, deleted: its tombstone with {text}"
    return f"yes: {text}" + ("" if result["wanted"] else ", not kept up to date")


def _holder_text(holder: dict[str, object]) -> str:
    transactions = counted(holder["transactions"], "transaction")
    text = f"{holder['name'] or '-'} ({str(holder['id'])[:12]}): {transactions}"
    if holder["ahead"]:
        text += f", {holder['ahead']} of which are not here"
    if holder["behind"]:
        text += f", lacks {holder['behind']} that are here"
    return text


def _when_text(source: object, bounds: object) -> str:
    assert isinstance(bounds, Sequence)
    after, before = bounds
    text = f"from {source or 'a client, an import, or a node that was not noted'}"
    now = time.time()
    if after is not None and after == before:
        return f"{text}, {format_age(now - after)} ago"
    if after is None and before is None:
        return f"{text}, less than a minute ago or before times were noted"
    if before is None:
        return f"{text}, in the last {format_age(now - after)}"
    if after is None:
        return f"{text}, more than {format_age(now - before)} ago"
    return f"{text}, {format_age(now - before)} to {format_age(now - after)} ago"


def _listed(title: str, texts: object) -> list[tuple[str, str]]:
    assert isinstance(texts, list)
    return [(title if number == 0 else "", str(text)) for number, text in enumerate(texts)]
