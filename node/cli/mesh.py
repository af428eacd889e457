"""`beemesh invite`, `members`, `revoke` and `mesh`: who belongs to the mesh."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import Annotated

from cyclopts import Parameter

from node.cli.options import DEFAULT_COMMON, Common, read_number
from node.cli.output import (
    counted,
    is_unicode,
    print_error,
    print_facts,
    print_json,
    print_renderable,
    table,
)
from node.cli.perform import at
from node.client import AdminClient
from node.errors import ConfigError
from node.notation import parse_period
from node.verbs import (
    MAX_EXPIRES_SECONDS,
    MAX_USES,
    ExitCode,
    MeshInfo,
    MeshInvite,
    MeshMembers,
    MeshRevoke,
    MeshVerb,
    Result,
    VerbError,
)
from node.web.wording import describe_role, format_moment


def invite(
    *,
    role: Annotated[
        str | None,
        Parameter(
            help="writer, reader, blind or admin. Default: writer; for a node that was let in as "
            "less, as what it was.",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        str | None,
        Parameter(
            help="How long it lets in, and its bearer stay: 7d, 12h. Default: for good.",
            show_default=False,
            allow_leading_hyphen=True,  # so that -1d is refused as a duration
        ),
    ] = None,
    member: Annotated[
        str | None,
        Parameter(
            name="--for",
            help="The only node that it lets in: its id, or what `members` calls it. A node that "
            "is a member already is granted this at once.",
            show_default=False,
        ),
    ] = None,
    uses: Annotated[
        int | None,
        Parameter(
            help="How many nodes it lets in; they must come to this one first. Default: any.",
            show_default=False,
            converter=read_number,
        ),
    ] = None,
    qr: Annotated[
        bool | None,
        Parameter(help="Draw it as a QR code. Default: on a terminal.", show_default=False),
    ] = None,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Print a ticket with which another machine joins: `beemesh up --join TICKET`.

    Whoever reads the ticket can use it. A node that is no admin passes on the ticket it came with.
    """
    seconds = None if expires is None else _duration(expires)
    if uses is not None and not 1 <= uses <= MAX_USES:
        raise ConfigError(f"--uses: {uses} is not between 1 and {MAX_USES}")
    for option, value in (("--for", member), ("--role", role)):
        if value == "":  # as of a variable that is not set: it would let in whoever bears it
            raise ConfigError(f"{option} says nothing: leave it out, or say whom or what")
    for result in _perform(common, MeshInvite(role or "", member or "", seconds, uses or 0)):
        if common.json:
            print_json(result)
        else:
            _print_ticket(result, sys.stdout.isatty(), qr)
            _tell_what_counts(result)
    return ExitCode.OK


def members(*, common: Common = DEFAULT_COMMON) -> int:
    """List who is in the mesh, who was shut out of it, and why."""
    results = list(_perform(common, MeshMembers()))
    if common.json:
        for result in results:
            print_json(result)
        return ExitCode.OK
    headings = ("name", "id", "role", "since", "last seen", "until", "now")
    print_renderable(table(headings, map(_member_row, results), "Nobody is known."))
    return ExitCode.OK


def revoke(
    subject: Annotated[
        str, Parameter(help="A member: its id, the beginning of it, or its name. Or a ticket.")
    ],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, for everybody to see.", show_default=False)] = "",
    cascade: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="If it is an admin: also shut out whom it let in, and let in whom it shut out.",
        ),
    ] = False,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Shut a member out, everywhere and at once.

    `beemesh invite --for ID` lets it in again. What it has fetched before, it keeps.
    """
    for result in _perform(common, MeshRevoke(subject, reason, cascade)):
        if common.json:
            print_json(result)
            continue
        shut_out = result["shut_out"]
        assert isinstance(shut_out, list)
        if result["member"] is None:
            print("The ticket lets nobody in any more.")
        else:
            also = ", and so is the ticket it came with" if result["ticket"] else ""
            print(f"{result['member']} is shut out{also}.")
            _warn_of_ticket(result)
        others = [id for id in shut_out if id != result["member"]]
        if others:
            print(f"So {'is' if len(others) == 1 else 'are'} {', '.join(others)}.")
    return ExitCode.OK


def _warn_of_ticket(result: Result) -> None:
    """It knows the ticket, and may come back with it under a new key."""
    kept_for = result["ticket_kept_for"]
    assert isinstance(kept_for, list)
    if kept_for:
        print_error(
            f"the ticket it came with still lets nodes in, since {', '.join(kept_for)} came with "
            f"it, too: `beemesh invite --for` each of these, then revoke once more"
        )


def mesh(
    *,
    secrets: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Also show the key of the encrypted data."),
    ] = False,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Show the mesh that this node is in, and what it may do there."""
    for result in _perform(common, MeshInfo(secrets)):
        if common.json:
            print_json(result)
        else:
            print_facts(_mesh_rows(result))
    return ExitCode.OK


def _perform(common: Common, verb: MeshVerb) -> Iterator[Result]:
    """Results from the running node, or from the directory when no node has it open.

    Raises: VerbError, ConfigError.
    """
    config = common.load_config()
    client = AdminClient.find(config.data)
    if client is not None:
        yield from client.perform(verb)
        return
    import trio

    from node.governing import perform_on_mesh
    from node.keeping import DirectorySeat
    from node.private_file import alone_in

    of_a_node = config.key_path, config.mesh_path, config.corestore_path
    if not any(path.exists() for path in of_a_node):
        raise VerbError(
            ExitCode.NOT_FOUND,
            f"{config.data} holds no data: start with `beemesh up{at(config.data)}`",
        )
    with alone_in(config.data):
        seat = DirectorySeat(config)

        async def run() -> list[Result]:
            async with aclosing(perform_on_mesh(seat, verb)) as results:
                return [result async for result in results]

        results = trio.run(run)
    yield from results
    if isinstance(verb, MeshInvite) and not common.json:
        addresses = results[0]["addresses"]
        assert isinstance(addresses, list)
        where = (
            f"the ticket says where this node listens if it starts as it is configured, "
            f"{', '.join(map(str, addresses))}"
            if addresses
            else "the ticket says no address, as this node is configured to listen on any free "
            "port: a node that joins looks for it (--discovery). Invite while it runs, or give it "
            "a port"
        )
        print_error(f"no node is running on {config.data}: {where}")


def _duration(text: str) -> float:
    try:
        seconds = parse_period(text)
    except ValueError as error:
        raise ConfigError(f"--expires: {error}") from error
    if seconds < 1:
        raise ConfigError(f"--expires: {text!r} is over at once")
    if seconds > MAX_EXPIRES_SECONDS:
        raise ConfigError(f"--expires: {text!r} is beyond all dates: leave it out for no end")
    return seconds


def _print_ticket(result: Result, is_terminal: bool, qr: bool | None) -> None:
    ticket = str(result["ticket"])
    # Elsewhere each block would be an escape of six characters.
    if (qr or (qr is None and is_terminal)) and is_unicode():
        from node.cli.qr import draw_qr

        print(draw_qr(ticket.upper(), colors=is_terminal))
    if is_terminal:
        addresses = result["addresses"]
        assert isinstance(addresses, list)
        member, uses = result["member"], result["uses"]
        everybody = "whoever has it"
        if uses is not None:
            everybody = f"{counted(uses, 'node')}, which must come here first"
        kind = ", encrypted" if result["is_encrypted"] else ""
        print_facts(
            [
                ("mesh", f"{result['mesh']}{kind}"),
                ("lets in", everybody if member is None else f"the node {member} only"),
                ("as", describe_role(str(result["role"]), result["expiry"])),
                ("dials", ", ".join(map(str, addresses)) or "no address"),
                ("use", "beemesh up --join TICKET"),
            ]
        )
        print()
    print(ticket)


def _tell_what_counts(result: Result) -> None:
    """Of several grants to one node the best counts: say so where this one changes nothing."""
    counts = (result["counts_as"], result["counts_until"])
    if result["member"] is None or counts == (result["role"], result["expiry"]):
        return
    if result["counts_as"] is None:
        print_error("that node stays shut out: an admin above this one shut it out")
        return
    print_error(
        f"that node stays {describe_role(str(counts[0]), counts[1])}, which it was granted before:"
        f" `beemesh revoke {str(result['member'])[:12]}` first, then invite it again"
    )


def _member_row(row: Result) -> tuple[str, ...]:
    banned = row["banned"]
    if isinstance(banned, dict):
        reason = banned["reason"] or "no reason given"
        now = f"shut out {format_moment(banned['unix_seconds'])}: {reason}"
    elif row["is_self"]:
        now = "this node"
    elif row["connected"]:
        now = f"at {row['address'] or '?'}, {row['reach'] or 'its call'}"
    else:
        now = "away"
    role = "founder" if row["is_founder"] else str(row["role"]) or "-"
    seen = "-" if row["is_self"] or row["connected"] else format_moment(row["seen"])
    return (
        str(row["name"]) or ("-" if row["is_known"] else "(a ticket, or never met)"),
        str(row["id"])[:12],
        role,
        format_moment(row["since"]),
        seen,
        format_moment(row["expiry"]),
        now,
    )


def _mesh_rows(result: Result) -> list[tuple[str, str]]:
    admins = result["admins"]
    assert isinstance(admins, list)
    kind = "open to everyone who knows the name" if result["is_open"] else "by ticket"
    rows = [
        ("mesh", f"{result['mesh']} ({kind})"),
        ("this node", str(result["id"])),
        ("role", describe_role(str(result["role"]), result["expiry"])),
    ]
    if result["trouble"]:
        rows.append(("TROUBLE", str(result["trouble"])))
    encryption = "no" if not result["is_encrypted"] else "yes"
    if result["is_encrypted"] and not result["reads"]:
        encryption = "yes, and this node lacks the key"
    rows += [
        ("encrypted", encryption),
        (
            "members",
            f"{result['members']}, {result['connected']} connected, {result['banned']} shut out",
        ),
        *(("admin", _admin_text(admin)) for admin in admins),
    ]
    if "data_key" in result:
        rows.append(("data key", str(result["data_key"] or "-")))
    return rows


def _admin_text(admin: dict[str, object]) -> str:
    what = ", founder" if admin["is_founder"] else ""
    return f"{admin['id']} ({admin['name'] or 'not met'}{what})"
