"""The status page: one HTML document with its style inside.

No build step, no script, no other request. On a phone every row of a table becomes a card.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from node.web.status import AccessStatus, NodeStatus, PeerStatus
from node.web.summary import status_rows
from node.web.tables import (
    account_headings,
    account_row,
    core_headings,
    core_row,
    peer_headings,
    peer_row,
    token_headings,
    token_row,
)
from node.web.wording import format_age

REFRESH_SECONDS = 5


def render_status(status: NodeStatus, peers: Sequence[PeerStatus]) -> str:
    """The page. It asks the browser to load it again every few seconds."""
    blocks = status.blocks
    tiles = (
        (status.covalues, "coValues"),
        (status.peers, "peers"),
        (status.clients.connected, "clients"),
        (blocks.held, "blocks held"),
        (blocks.fetched, "blocks fetched"),
        (blocks.verified, "blocks verified"),
    )
    name = escape(status.name)
    return (
        f"{_head(f'{name} - beemesh')}<meta http-equiv=refresh content={REFRESH_SECONDS}>"
        f"</head><body><main><h1>{name}</h1><p>up for {format_age(status.uptime_seconds)}</p>"
        f"<ul>{''.join(_tile(count, label) for count, label in tiles)}</ul>"
        f"<h2>Peers</h2>{_table(peer_headings(), map(peer_row, peers), 'No node is connected.')}"
        f"<h2>Cores</h2>{_table(core_headings(), map(core_row, status.cores), 'None is open.')}"
        f"{_access(status.access)}"
        f"<h2>Node</h2><dl>{''.join(_fact(*row) for row in status_rows(status))}</dl>"
        f"<footer>beemesh {escape(status.version)}</footer></main></body></html>"
    )


def render_door(*, is_wrong: bool) -> str:
    """What a browser without the token sees: how to get in, and nothing about the node."""
    wrong = "<p>That is not the token of this node as it runs now.</p>" if is_wrong else ""
    return (
        f"{_head('beemesh')}</head><body><main><h1>beemesh node</h1>{wrong}"
        "<p>Its status is shown to whoever has its token: the text beside <code>token</code> in "
        "<code>admin.json</code> in its data directory, or what is in the file that "
        "<code>--admin-token-file</code> names.</p>"
        "<form><label>Token <input type=password name=token required autofocus></label> "
        "<button>Show</button></form></main></body></html>"
    )


def _head(title: str) -> str:
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{_STYLE}</style>"
    )


def _access(access: AccessStatus) -> str:
    """Tables of tokens and accounts, where there are any."""
    accounts = [account_row(account, access) for account in access.accounts]
    tables = (
        ("Tokens", token_headings(), list(map(token_row, access.tokens))),
        ("Accounts", account_headings(), accounts),
    )
    return "".join(
        f"<h2>{title}</h2>{_table(headings, rows, '')}" for title, headings, rows in tables if rows
    )


def _tile(count: int, label: str) -> str:
    return f"<li><b>{count:,}</b> {escape(label)}</li>"


def _fact(name: str, value: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], if_empty: str) -> str:
    body = "".join(f"<tr>{_cells(headings, row)}</tr>" for row in rows)
    if not body:
        return f"<p>{escape(if_empty)}</p>"
    head = "".join(f"<th scope=col>{escape(heading)}</th>" for heading in headings)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(headings: Sequence[str], row: Sequence[str]) -> str:
    # The label stands in for the heading where rows are cards.
    return "".join(
        f'<td data-label="{escape(heading)}">{escape(cell)}</td>'
        for heading, cell in zip(headings, row, strict=True)
    )


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--dim:#666;--tile:#8881}
@media(prefers-color-scheme:dark){:root{--dim:#aaa}}
body{font:16px/1.5 system-ui,sans-serif;margin:0;padding:1rem}
main{max-width:60rem;margin:auto}
h1{margin:0;font-size:1.6rem;overflow-wrap:anywhere}h2{margin:1.8rem 0 .5rem;font-size:1.1rem}
p,footer{color:var(--dim);margin:0}footer{margin-top:2rem}
ul{list-style:none;margin:1rem 0 0;padding:0;display:grid;gap:.5rem;
grid-template-columns:repeat(6,1fr)}
li{background:var(--tile);border-radius:.5rem;padding:.5rem .7rem;color:var(--dim)}
li b{display:block;font-size:1.4rem;line-height:1.3;color:CanvasText}
dl{margin:0}
dl div{display:flex;flex-wrap:wrap;gap:0 1rem;border-top:1px solid var(--line);padding:.3rem 0}
dt{flex:0 0 9rem;color:var(--dim)}dd{flex:1 1 14rem;margin:0;overflow-wrap:anywhere}
form{margin-top:1rem}input,button{font:inherit}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-top:1px solid var(--line)}
th{color:var(--dim);font-weight:normal;border:0}
@media(max-width:45rem){ul{grid-template-columns:repeat(3,1fr)}thead{display:none}table,tbody{display:block}
tr{display:block;background:var(--tile);border-radius:.5rem;padding:.5rem .7rem;margin:.5rem 0}
td{display:flex;gap:1rem;border:0;padding:.1rem 0;overflow-wrap:anywhere}
td:first-child{font-weight:bold}td:first-child:before{content:none}
td:before{content:attr(data-label);flex:0 0 6.5rem;color:var(--dim)}}
"""
