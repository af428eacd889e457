"""`beemesh pin`, `unpin`, `follow`, `unfollow`, `policy ...`: what is kept, and of whom."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from node.cli.options import DEFAULT_COMMON, Common
from node.cli.output import print_facts, print_json
from node.cli.perform import ask_node
from node.errors import ConfigError
from node.notation import parse_period, parse_size
from node.verbs import ChangePolicy, ExitCode, PeerChange, PolicyVerb, ShowPolicy
from node.web.wording import format_age, format_size

Ids = Annotated[list[str], Parameter(help="Ids of coValues, co_z...", negative="")]
Rules = Annotated[
    list[str],
    Parameter(help="prefix:co_z12, owner:ID, group:ID or account:ID.", negative=""),
]
IdsOrRules = Annotated[
    list[str],
    Parameter(help="Ids, or prefix:co_z12, owner:ID, group:ID, account:ID.", negative=""),
]


def pin(ids: Ids, /, *, common: Common = DEFAULT_COMMON) -> int:
    """Keep these coValues here and up to date, whether a client asks for them or not."""
    return _perform(common, ChangePolicy(pin=_some(ids)))


def unpin(ids: Ids, /, *, common: Common = DEFAULT_COMMON) -> int:
    """Stop keeping these up to date; what is here stays."""
    return _perform(common, ChangePolicy(unpin=_some(ids)))


def follow(rules: Rules, /, *, common: Common = DEFAULT_COMMON) -> int:
    """Keep all coValues whose id begins so, or that somebody owns, and those that will come.

    `owner:ID` means what names ID as its group or founder, `group:ID` also the group itself, and
    `account:ID` also what is ruled by the groups that the account founded.
    """
    return _perform(common, ChangePolicy(follow=_some(rules)))


def unfollow(rules: Rules, /, *, common: Common = DEFAULT_COMMON) -> int:
    """Stop following these; what is here stays, and is not updated any more."""
    return _perform(common, ChangePolicy(unfollow=_some(rules)))


def show(*, common: Common = DEFAULT_COMMON) -> int:
    """Show what the node keeps, and what it exchanges with whom."""
    return _perform(common, ShowPolicy())


def set_policy(
    replicate: Annotated[
        Literal["all", "lazy"] | None,
        Parameter(help="all: a full replica. lazy: what clients ask for.", show_default=False),
    ] = None,
    /,
    *,
    max_value_bytes: Annotated[
        str | None,
        Parameter(help="Follow no value that is larger. SIZE or none.", show_default=False),
    ] = None,
    max_age: Annotated[
        str | None,
        Parameter(help="Follow no value unchanged for longer: 30d, or none.", show_default=False),
    ] = None,
    common: Common = DEFAULT_COMMON,
) -> int:
    """Keep everything or what clients ask for, and bound what is followed.

    Bounds do not hold for what clients ask for and what is pinned.
    """
    if (replicate, max_value_bytes, max_age) == (None, None, None):
        raise ConfigError("nothing to set: say all, lazy, --max-value-bytes or --max-age")
    change = ChangePolicy(
        replicate=replicate,
        max_value_bytes=None
        if max_value_bytes is None
        else _size("--max-value-bytes", max_value_bytes),
        max_age_seconds=None if max_age is None else _seconds(max_age),
    )
    return _perform(common, change)


def deny(rules: IdsOrRules, /, *, common: Common = DEFAULT_COMMON) -> int:
    """Take nothing of these from other nodes, whoever asks; what is here stays."""
    return _perform(common, ChangePolicy(deny=_some(rules)))


def allow(rules: IdsOrRules, /, *, common: Common = DEFAULT_COMMON) -> int:
    """Take back a deny."""
    return _perform(common, ChangePolicy(allow=_some(rules)))


def peer(
    node: Annotated[
        str, Parameter(help="A node's id, its beginning, or its name; or lan, or wan.")
    ],
    direction: Annotated[
        Literal["both", "down", "up", "off"],
        Parameter(help="down: take, but give nothing. up: give, but take nothing."),
    ],
    /,
    *,
    day_bytes: Annotated[
        str, Parameter(help="SIZE that may be exchanged with it in a day of UTC, or none.")
    ] = "none",
    month_bytes: Annotated[str, Parameter(help="The same in a month.")] = "none",
    common: Common = DEFAULT_COMMON,
) -> int:
    """Say what is exchanged with a node, with all of private networks, or with all others.

    A used-up budget ends the exchange until the next day or month. `peer NODE both` removes a rule.

    Nodes choose their names: one that was met is remembered by its id, whatever it is called later,
    and a name that several have is refused.
    """
    day, month = _size("--day-bytes", day_bytes), _size("--month-bytes", month_bytes)
    rule = PeerChange(node, direction, day, month)
    return _perform(common, ChangePolicy(peers=(rule,)))


def _perform(common: Common, verb: PolicyVerb) -> int:
    for policy in ask_node(common, verb):
        if common.json:
            print_json(policy)
        else:
            print_facts(_rows(dict(policy)))
    return ExitCode.OK


def _rows(policy: dict[str, object]) -> list[tuple[str, str]]:
    kept = {"all": "everything (all)", "lazy": "what clients ask for (lazy)"}
    rows = [("keeps", kept[str(policy["replicate"])])]
    for title, key in (("pins", "pin"), ("follows", "follow"), ("denies", "deny")):
        items = policy[key]
        assert isinstance(items, list)
        rows.extend((title if number == 0 else "", str(item)) for number, item in enumerate(items))
    size, age = policy["max_value_bytes"], policy["max_age_seconds"]
    if isinstance(size, int):
        rows.append(("follows at most", f"{format_size(size)} a value"))
    if isinstance(age, int | float):
        rows.append(("follows changes of", f"the last {format_age(age)}"))
    peers = policy["peers"]
    assert isinstance(peers, dict)
    rows.extend((_peer_title(name, rule), _peer_text(rule)) for name, rule in peers.items())
    return rows


def _peer_title(key: str, rule: dict[str, object]) -> str:
    members = rule["members"]
    assert isinstance(members, list)
    named = [f"{str(member['id'])[:12]} ({member['name']})" for member in members]
    return f"with {', '.join(named) or key}"


def _peer_text(rule: dict[str, object]) -> str:
    words = {
        "both": "both ways",
        "down": "takes, gives nothing",
        "up": "gives, takes nothing",
        "off": "nothing",
    }
    parts = [words[str(rule["direction"])]]
    for key, period in (("day_bytes", "day"), ("month_bytes", "month")):
        size = rule[key]
        if isinstance(size, int):
            parts.append(f"at most {format_size(size)} a {period}")
    if not rule["is_known"]:
        parts.append("once it is met: no node of this name or id has been")
    elif isinstance(rule["members"], list) and len(rule["members"]) > 1:
        parts.append("each of several nodes of this name or id: say it anew, by one's whole id")
    return ", ".join(parts)


def _some(texts: list[str]) -> tuple[str, ...]:
    if not texts:
        raise ConfigError("which ones? (try --help)")
    return tuple(texts)


def _size(option: str, text: str) -> int:
    try:
        return 0 if text == "none" else parse_size(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error


def _seconds(text: str) -> float:
    try:
        return 0.0 if text == "none" else parse_period(text)
    except ValueError as error:
        raise ConfigError(f"--max-age: {error}") from error


policy = App(name="policy", help="What the node keeps, and of whom.", help_format="plaintext")
policy.default(show)
policy.command(
    set_policy, name="set", help="Keep all or what is asked for; bound what is followed."
)
policy.command(deny, help="Take nothing of some coValues from other nodes.")
policy.command(allow, help="Take back a deny.")
policy.command(peer, help="Bound what is exchanged with a node.")
