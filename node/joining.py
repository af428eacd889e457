"""Which mesh a start means: what `mesh.toml` says, and what `--join` and `--mesh-name` ask for.

Pure. The first start with nothing said founds a mesh; later ones stay in it. A node is in one
mesh: leaving is done by hand, so that no mistyped option can do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypercore.encoding import DecodeError
from node.config import parse_address
from node.errors import ConfigError
from node.mesh.membership import Membership
from node.mesh.ticket import TICKET_PREFIX, Ticket


@dataclass(frozen=True, slots=True)
class StaticPeer:
    """A node to dial; `public_key` None accepts whoever answers and proves the mesh."""

    host: str
    port: int
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Joining:
    """What `--join` asks for."""

    tickets: tuple[Ticket, ...] = ()
    peers: tuple[StaticPeer, ...] = ()


def parse_joins(joins: Sequence[str]) -> Joining:
    """Read tickets and addresses; a ticket's own addresses count as well.

    Raises: ConfigError.
    """
    tickets: list[Ticket] = []
    peers: list[StaticPeer] = []
    for text in joins:
        try:
            if text.startswith(TICKET_PREFIX):
                ticket = Ticket.decode(text)
                tickets.append(ticket)
                addresses = [parse_address(address) for address in ticket.addresses]
                peers += [StaticPeer(host, port, ticket.node_id) for host, port in addresses]
            else:
                peers.append(StaticPeer(*parse_address(text)))
        except DecodeError as error:
            raise ConfigError(f"--join: {error}; copy the whole ticket") from error
        except ValueError as error:
            raise ConfigError(f"--join takes a ticket or HOST:PORT: {error}") from error
    if len({(ticket.mesh_name, ticket.secret) for ticket in tickets}) > 1:
        raise ConfigError("--join: these tickets are of different meshes; a node is in one")
    return Joining(tuple(tickets), tuple(peers))


def choose_membership(
    stored: Membership | None,
    joining: Joining,
    mesh_name: str | None,
    node_name: str,
    node_id: bytes,
) -> Membership:
    """The mesh to be in from now on; equal to `stored` when nothing changes.

    Raises: ConfigError when what was asked for does not fit together.
    """
    asked = _asked_for(joining, mesh_name)
    if stored is None:
        if asked is not None:
            return asked
        if joining.peers:
            raise ConfigError(
                "--join HOST:PORT is for a mesh this node belongs to: give a ticket, or --mesh-name"
            )
        return Membership.found(node_name, node_id)
    if asked is None or asked.key == stored.key:
        if asked is not None and stored.grant is None and node_id not in stored.admins:
            return replace(stored, grant=asked.grant, admins=stored.admins | asked.admins)
        return stored
    raise ConfigError(
        f"this node belongs to the mesh {stored.name!r} already: use another --data directory, "
        f"or delete mesh.toml to leave it"
    )


def _asked_for(joining: Joining, mesh_name: str | None) -> Membership | None:
    if joining.tickets:
        with_grant = [ticket for ticket in joining.tickets if ticket.grant is not None]
        asked = Membership.join((with_grant or joining.tickets)[0])
        if mesh_name not in (None, asked.name):
            raise ConfigError(f"--mesh-name {mesh_name!r}, but the ticket is of {asked.name!r}")
        return asked
    return Membership.open_mesh(mesh_name) if mesh_name is not None else None
