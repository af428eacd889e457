"""[trio] The verbs about what this node keeps, carried out by a running node."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

import trio

from hypercore.crypto import decode_id
from node.mesh.member_book import MemberBook
from node.mesh.mesh import Mesh
from node.mesh.peer_rules import LAN, WAN, Direction, PeerRule, is_called
from node.mesh.policy_change import PolicyChange, peer_key
from node.mesh.policy_file import follow_texts, save_policy
from node.mesh.replicas import ReplicaPolicy
from node.verbs import ChangePolicy, ExitCode, Result, ShowPolicy, VerbError


class Policies:
    """The policy of a running node, and the file that keeps it over restarts."""

    def __init__(self, mesh: Mesh | None, path: Path, configured: str) -> None:
        self._mesh = mesh
        self._path = path
        self._configured = configured
        self._lock = trio.Lock()

    async def perform(self, verb: ShowPolicy | ChangePolicy) -> AsyncGenerator[Result, None]:
        """Carry out one verb; yields one result, the policy as it is then.

        Raises: VerbError.
        Cancel: the change holds and is written down, or neither.
        """
        mesh = self._mesh
        if mesh is None:
            raise VerbError(
                ExitCode.USAGE, "--store sqlite has no mesh, hence no policy: use bee or hybrid"
            )
        if isinstance(verb, ChangePolicy):
            async with self._lock:
                try:
                    policy = _change(verb, mesh).apply(mesh.policy)
                except ValueError as error:
                    raise VerbError(ExitCode.USAGE, str(error)) from None
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(save_policy, self._path, policy, self._configured)
                mesh.change_policy(policy)
        yield describe_policy(mesh.policy, mesh.trust.book)


def describe_policy(policy: ReplicaPolicy, book: MemberBook) -> Result:
    """All of it, JSON-ready.

    `members` are those met that a rule names, `is_known` whether there are any.
    """
    return {
        "replicate": "all" if policy.everything else "lazy",
        "pin": sorted(policy.pinned),
        "follow": follow_texts(policy.prefixes, policy.owners),
        "deny": [
            *sorted(policy.denied),
            *follow_texts(policy.denied_prefixes, policy.denied_owners),
        ],
        "max_value_bytes": policy.max_value_bytes,
        "max_age_seconds": policy.max_age_seconds,
        "peers": {
            name: _describe_rule(name, rule, book)
            for name, rule in sorted(policy.peers.named.items())
        },
    }


def _describe_rule(key: str, rule: PeerRule, book: MemberBook) -> dict[str, object]:
    called = [met for met in book if is_called(met.id, met.name, key)]
    return {
        "direction": rule.direction.value,
        "day_bytes": rule.day_bytes,
        "month_bytes": rule.month_bytes,
        "is_known": key in (LAN, WAN) or bool(called),
        "members": [{"id": met.id, "name": met.name} for met in called],
    }


def _change(verb: ChangePolicy, mesh: Mesh) -> PolicyChange:
    """Raises: ValueError."""
    peers: dict[str, PeerRule] = {}
    for peer in verb.peers:
        direction, text = Direction(peer.direction), peer_key(peer.name)
        peers[text] = PeerRule()  # it may be one by name, of before the member was met
        rule = PeerRule(direction, peer.day_bytes or None, peer.month_bytes or None)
        if rule == PeerRule() and text in mesh.policy.peers.named:
            continue
        peers[_rule_key(text, mesh)] = rule
    everything = None if verb.replicate is None else ReplicaPolicy.parse(verb.replicate).everything
    return PolicyChange(
        pin=verb.pin,
        unpin=verb.unpin,
        follow=verb.follow,
        unfollow=verb.unfollow,
        deny=verb.deny,
        allow=verb.allow,
        everything=everything,
        max_value_bytes=verb.max_value_bytes,
        max_age_seconds=verb.max_age_seconds,
        peers=peers,
    )


def _rule_key(text: str, mesh: Mesh) -> str:
    """The id of the one member met that is meant; the text where nobody is.

    Raises: ValueError where several are.
    """
    if text in (LAN, WAN):
        return text
    with suppress(ValueError):
        return decode_id(text).hex()
    known = [met for met in mesh.trust.book if not mesh.trust.is_barred(bytes.fromhex(met.id))]
    found = [met for met in known if is_called(met.id, met.name, text)]
    if len(found) > 1:
        which = ", ".join(f"{met.id[:12]} ({met.name})" for met in found)
        raise ValueError(f"several members are meant by {text!r}: {which}: say its id")
    return found[0].id if found else text
