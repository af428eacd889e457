"""Which mesh a start means: what `mesh.toml` says, and what `--join` and `--mesh-name` ask for.

Pure. The first start with nothing said founds a mesh; later ones stay in it. A node is in one
mesh: leaving is done by hand, so that no mistyped option can do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hypercore.crypto import encode_id
from node.errors import ConfigError
from node.mesh.ledger import ForgedRecord
from node.mesh.membership import Membership
from node.mesh.ticket import BadTicket, Grant, Ticket, is_ticket
from node.notation import parse_address


@dataclass(frozen=True, slots=True)
class StaticPeer:
    """A node to dial; `public_key` None accepts whoever answers and proves the mesh."""

    host: str
    port: int
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class WebSocketPeer:
    """A node behind a web server, or reached as if it were one."""

    url: str
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Joining:
    """What `--join` asks for."""

    tickets: tuple[Ticket, ...] = ()
    peers: tuple[StaticPeer, ...] = ()
    websockets: tuple[WebSocketPeer, ...] = ()


def parse_joins(joins: Sequence[str]) -> Joining:
    """Read tickets and addresses; a ticket's own addresses count as well.

    Raises: ValueError.
    """
    tickets: list[Ticket] = []
    peers: list[StaticPeer] = []
    websockets: list[WebSocketPeer] = []
    for text in joins:
        try:
            if is_ticket(text):
                ticket = Ticket.read(text)
                tickets.append(ticket)
                for address in ticket.addresses:
                    if is_url(address):
                        websockets.append(WebSocketPeer(parse_url(address), ticket.node_id))
                    else:
                        peers.append(StaticPeer(*parse_address(address), ticket.node_id))
            elif is_url(text):
                websockets.append(WebSocketPeer(parse_url(text)))
            else:
                peers.append(StaticPeer(*parse_address(text)))
        except BadTicket:
            raise
        except ValueError as error:
            raise ValueError(f"a ticket, HOST:PORT or a URL is wanted: {error}") from error
    if len({(ticket.mesh_name, ticket.secret) for ticket in tickets}) > 1:
        raise ValueError("these tickets are of different meshes; a node is in one")
    return Joining(tuple(tickets), tuple(peers), tuple(websockets))


def is_url(text: str) -> bool:
    """Whether a text is meant as a URL; `parse_url` tells whether it is one."""
    return "://" in text


def parse_url(text: str) -> str:
    """Raises: ValueError for what is no `ws://` or `wss://` URL."""
    from swarm.io.websocket import WebSocketAddress  # late: few need it, and it takes time

    return WebSocketAddress.parse(text.strip()).url


def choose_membership(
    stored: Membership | None,
    joining: Joining,
    mesh_name: str | None,
    node_name: str,
    node_id: bytes,
    *,
    is_encrypted: bool = False,
    unix_seconds: float = 0,
) -> Membership:
    """The mesh to be in from now on; equal to `stored` when nothing changes.

    With `is_encrypted` an encrypted mesh is founded; any other is refused.

    Raises: ConfigError when what was asked for does not fit together.
    """
    asked = _asked_for(joining, mesh_name)
    if is_encrypted and (asked is not None or not (stored is None or stored.is_encrypted)):
        raise ConfigError(
            "--mesh-encrypted is for founding a mesh: whether one is encrypted never changes"
        )
    if stored is None:
        if asked is not None:
            _check_grant(asked, node_id, unix_seconds)
            return asked
        if joining.peers or joining.websockets:
            raise ConfigError(
                "join: HOST:PORT and URLs are for a mesh this node belongs to: give a ticket, or "
                "--mesh-name"
            )
        return Membership.found(node_name, node_id, is_encrypted=is_encrypted)
    if asked is None or asked.key == stored.key:
        return stored if asked is None else _renewed(stored, asked, node_id, unix_seconds)
    raise ConfigError(
        f"this node belongs to the mesh {stored.name!r} already: use another --data directory, "
        f"or delete mesh.toml to leave it"
    )


def _renewed(
    stored: Membership, asked: Membership, node_id: bytes, unix_seconds: float
) -> Membership:
    """The same mesh, with what a further ticket brings: a grant that allows more, a key."""
    renewed = replace(stored, founders=stored.founders or asked.founders)
    renewed = renewed.taking(asked.grants, unix_seconds)
    if not renewed.data_secret:
        renewed = replace(renewed, data_secret=asked.data_secret, is_encrypted=asked.is_encrypted)
    before = renewed.role_of(node_id, stored.grant, unix_seconds)
    after = renewed.role_of(node_id, asked.grant, unix_seconds)
    if before is None and _lets_in(renewed, node_id, unix_seconds, asked.grant):
        return replace(renewed, grant=asked.grant)
    if before is not None and after is not None and after.allows_more_than(before):
        return replace(renewed, grant=asked.grant)
    return renewed


def _lets_in(
    asked: Membership, node_id: bytes, unix_seconds: float, shown: Grant | None = None
) -> bool:
    """Whether anybody would let us in; if uses are counted, only the ticket's maker can tell."""
    grant = shown or asked.grant
    if grant is not None and grant.uses and grant.is_signed(asked.key):
        return asked.ledger(unix_seconds).admits(grant)
    return asked.role_of(node_id, grant, unix_seconds) is not None


def _check_grant(asked: Membership, node_id: bytes, unix_seconds: float) -> None:
    """Raises: ConfigError when the ticket would not let this node in."""
    grant = asked.grant
    if grant is None or _lets_in(asked, node_id, unix_seconds):
        return
    if grant.expiry is not None and grant.expiry <= unix_seconds:
        day = datetime.fromtimestamp(grant.expiry, UTC).strftime("%Y-%m-%d %H:%M")
        raise ConfigError(f"join: this ticket expired on {day} UTC: ask for a new one")
    if not grant.is_signed(asked.key):
        raise ConfigError(
            "join: no admin of its mesh has signed this ticket as it is here: copy it once more, "
            "or ask for a new one"
        )
    if grant.member not in (None, node_id):
        raise ConfigError(
            f"join: this ticket is for the node {encode_id(grant.member)}, and this one is "
            f"{encode_id(node_id)}"
        )
    raise ConfigError("join: the signer of this ticket is no admin of its mesh: ask for a new one")


def _asked_for(joining: Joining, mesh_name: str | None) -> Membership | None:
    if joining.tickets:
        with_grant = [ticket for ticket in joining.tickets if ticket.grant is not None]
        try:
            asked = Membership.join((with_grant or joining.tickets)[0])
        except ForgedRecord as error:
            raise ConfigError(f"join: this ticket holds {error}: ask for a new one") from None
        if mesh_name not in (None, asked.name):
            raise ConfigError(f"--mesh-name {mesh_name!r}, but the ticket is of {asked.name!r}")
        return asked
    return Membership.open_mesh(mesh_name) if mesh_name is not None else None
