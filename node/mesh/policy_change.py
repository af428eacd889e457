"""One change of a policy, as an operator words it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from node.covalue.ids import RawCoId, is_agent_id, is_co_id, named_co_id
from node.mesh.follow_rules import OwnerRule, parse_rule
from node.mesh.messages import MAX_PATTERNS
from node.mesh.peer_rules import LAN, WAN, PeerRule, is_id_text
from node.mesh.replicas import MAX_SELECTED_IDS, ReplicaPolicy


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What is empty or None stays as it is; a bound of 0 takes the bound away.

    `follow` and `unfollow` are rules, `deny` and `allow` ids or rules (`follow_rules`).
    """

    pin: tuple[str, ...] = ()
    unpin: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()
    unfollow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    everything: bool | None = None
    max_value_bytes: int | None = None
    max_age_seconds: float | None = None
    peers: Mapping[str, PeerRule] = field(default_factory=dict)

    def apply(self, policy: ReplicaPolicy) -> ReplicaPolicy:
        """The policy as it is after this.

        Raises: ValueError for malformed ids and rules, for rules about ids that no owner has, for
        taking back what is not there, and for more than a member can be told.
        """
        for _, owners in (_rules(self.follow), _rules(_with_colon(self.deny))):
            for rule in owners:
                _check_owner(rule)
        return self.restore(policy)

    def restore(self, policy: ReplicaPolicy) -> ReplicaPolicy:
        """As `apply`, for what was kept: older nodes took rules about ids that no owner has.

        Raises: ValueError.
        """
        pinned = (policy.pinned | _ids(self.pin)) - _present(_ids(self.unpin), policy.pinned, "pin")
        prefixes, owners = _rules(self.follow)
        no_prefixes, no_owners = _rules(self.unfollow)
        all_prefixes = (set(policy.prefixes) | prefixes) - _present(
            no_prefixes, policy.prefixes, "follow"
        )
        all_owners = (policy.owners | owners) - _present(no_owners, policy.owners, "follow")
        for what, count, most in (
            ("pins", len(pinned), MAX_SELECTED_IDS),
            ("prefixes followed", len(all_prefixes), MAX_PATTERNS),
            ("owners followed", len(all_owners), MAX_PATTERNS),
        ):
            if count > most:
                raise ValueError(f"{count} {what}, at most {most}: a full replica keeps everything")
        return self._apply_bounds(
            self._apply_denials(
                replace(
                    policy,
                    everything=policy.everything if self.everything is None else self.everything,
                    pinned=pinned,
                    prefixes=tuple(sorted(all_prefixes)),
                    owners=all_owners,
                )
            )
        )

    def _apply_denials(self, policy: ReplicaPolicy) -> ReplicaPolicy:
        ids, (prefixes, owners) = _bare_ids(self.deny), _rules(_with_colon(self.deny))
        no_ids, (no_prefixes, no_owners) = _bare_ids(self.allow), _rules(_with_colon(self.allow))
        all_prefixes = (set(policy.denied_prefixes) | prefixes) - _present(
            no_prefixes, policy.denied_prefixes, "deny"
        )
        return replace(
            policy,
            denied=(policy.denied | ids) - _present(no_ids, policy.denied, "deny"),
            denied_prefixes=tuple(sorted(all_prefixes)),
            denied_owners=(policy.denied_owners | owners)
            - _present(no_owners, policy.denied_owners, "deny"),
        )

    def _apply_bounds(self, policy: ReplicaPolicy) -> ReplicaPolicy:
        size, age = self.max_value_bytes, self.max_age_seconds
        peers = policy.peers
        for key, rule in self.peers.items():
            peers = peers.with_rule(peer_key(key), rule)
        return replace(
            policy,
            max_value_bytes=policy.max_value_bytes if size is None else size or None,
            max_age_seconds=policy.max_age_seconds if age is None else age or None,
            peers=peers,
        )


def _ids(texts: Iterable[str]) -> frozenset[RawCoId]:
    return frozenset(map(named_co_id, texts))


def _rules(texts: Iterable[str]) -> tuple[set[str], frozenset[OwnerRule]]:
    rules = [parse_rule(text) for text in texts]
    return (
        {rule for rule in rules if isinstance(rule, str)},
        frozenset(rule for rule in rules if isinstance(rule, OwnerRule)),
    )


def _check_owner(rule: OwnerRule) -> None:
    """Raises: ValueError."""
    if not is_co_id(rule.id) and not is_agent_id(rule.id):
        raise ValueError(
            f"{rule.text!r}: {rule.id!r} is not the id of a group or account (co_z...), nor of "
            f"an agent (sealer_z.../signer_z...)"
        )


def _bare_ids(texts: Iterable[str]) -> frozenset[RawCoId]:
    return _ids(text for text in texts if ":" not in text)


def _with_colon(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if ":" in text]


def _present(gone: Iterable[object], standing: Iterable[object], what: str) -> frozenset[object]:
    """The ones to take back. Raises: ValueError when one is not there."""
    wanted, there = frozenset(gone), frozenset(standing)
    for item in wanted - there:
        text = item.text if isinstance(item, OwnerRule) else item
        raise ValueError(f"no {what} of {text!r}: `beemesh policy` lists what there is")
    return wanted


def peer_key(text: str) -> str:
    """How a rule about one peer is kept. Raises: ValueError for what can name none."""
    if not text.strip() or len(text) > 128 or not text.isprintable():
        raise ValueError(f"{text!r} is no node's name or id, {LAN} or {WAN}")
    lowered = text.lower()
    return lowered if is_id_text(lowered) else text
