"""Changes of a policy, and the file that keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import ConfigError
from node.mesh.follow_rules import OwnerKind, OwnerRule
from node.mesh.peer_rules import Direction, PeerRule, PeerRules
from node.mesh.policy_change import PolicyChange
from node.mesh.policy_file import format_policy, load_policy, parse_policy, save_policy
from node.mesh.replicas import ReplicaPolicy
from tests.node.mesh import samples
from tests.node.mesh.samples import co_id

A, B = co_id(1), co_id(2)
owner_rules = st.frozensets(
    st.builds(OwnerRule, st.sampled_from(OwnerKind), samples.ids), max_size=4
)
prefixes = st.sets(samples.ids.map(lambda id: id[:8]), max_size=4).map(lambda p: tuple(sorted(p)))
bounds = st.none() | st.integers(1, 2**50)
policies = st.builds(
    ReplicaPolicy,
    everything=st.booleans(),
    pinned=st.frozensets(samples.ids, max_size=5),
    prefixes=prefixes,
    owners=owner_rules,
    denied=st.frozensets(samples.ids, max_size=5),
    denied_prefixes=prefixes,
    denied_owners=owner_rules,
    max_value_bytes=bounds,
    max_age_seconds=bounds,
    peers=st.dictionaries(
        st.sampled_from(["lan", "wan", 'a "name" with = in it', "ab" * 32]),
        st.builds(PeerRule, st.sampled_from(Direction), bounds, bounds).filter(
            lambda rule: rule != PeerRule()
        ),
        max_size=3,
    ).map(PeerRules),
)


@given(policies)
def test_policies_round_trip(policy: ReplicaPolicy) -> None:
    assert parse_policy(format_policy(policy, "lazy"), "lazy") == policy


def test_a_configuration_that_was_changed_later_holds() -> None:
    text = format_policy(ReplicaPolicy(everything=True, pinned=frozenset([A])), "lazy")
    assert parse_policy(text, "lazy").everything, "as it was set while the node ran"
    assert parse_policy(format_policy(ReplicaPolicy(), "all"), "all") == ReplicaPolicy()
    changed = parse_policy(format_policy(ReplicaPolicy(), "lazy"), "all")
    assert changed == ReplicaPolicy(everything=True)


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert load_policy(path, "all") == ReplicaPolicy(everything=True)
    save_policy(path, ReplicaPolicy(pinned=frozenset([A])), "lazy")
    assert load_policy(path, "lazy") == ReplicaPolicy(pinned=frozenset([A]))
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("unheard = 1")
    with pytest.raises(ConfigError, match=f"{path}: unknown key 'unheard': mend it"):
        load_policy(path, "lazy")


def test_a_rule_that_an_older_node_took_is_read_and_can_be_taken_back() -> None:
    """It keeps no node from starting, though it is about an owner that there cannot be."""
    text = 'follow = ["group:x"]\ndeny = ["owner:y"]\n'
    policy = parse_policy(text, "lazy")
    assert parse_policy(format_policy(policy, "lazy"), "lazy") == policy
    changed = PolicyChange(unfollow=("group:x",), allow=("owner:y",)).apply(policy)
    assert changed == ReplicaPolicy()


@pytest.mark.parametrize(
    "text",
    [
        "[peers.lan]\nhour_bytes = 1",
        "replicate = ",
        'replicate = "some"',
        "pin = 3",
        'pin = ["x"]',
        'follow = ["co_z"]',
        "unheard = 1",
        "max_value_bytes = 0",
        "max_age_seconds = inf",
        "peers.x.day_bytes = nan",
        'max_age_seconds = "1d"',
        "peers = 1",
        'peers.x = "down"',
        'peers.x.direction = "sideways"',
    ],
)
def test_a_damaged_file_says_what_to_do(text: str) -> None:
    with pytest.raises(ConfigError, match="mend it, or remove it"):
        parse_policy(text, "lazy")


def test_changes() -> None:
    policy = ReplicaPolicy()
    policy = PolicyChange(pin=(A, B), follow=("prefix:co_z1", f"group:{A}")).apply(policy)
    assert policy.pinned == {A, B}
    assert policy.prefixes == ("co_z1",)
    assert policy.owners == {OwnerRule(OwnerKind.GROUP, A)}
    policy = PolicyChange(unpin=(A,), unfollow=("prefix:co_z1",), everything=True).apply(policy)
    assert policy.pinned == {B}
    assert policy.prefixes == ()
    policy = PolicyChange(deny=(A, "prefix:co_z2", f"owner:{B}"), max_value_bytes=9).apply(policy)
    assert policy.everything
    assert policy.denied == {A}
    assert policy.denied_prefixes == ("co_z2",)
    policy = PolicyChange(
        allow=(A, f"owner:{B}"), max_value_bytes=0, peers={"AB" * 32: PeerRule(Direction.UP)}
    ).apply(policy)
    assert (policy.denied, policy.denied_owners) == (frozenset(), frozenset())
    assert policy.max_value_bytes is None
    assert policy.peers.named == {"ab" * 32: PeerRule(Direction.UP)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (PolicyChange(pin=("x",)), "'x' is no coValue id: co_z and"),
        (PolicyChange(unpin=(A,)), "no pin of"),
        (PolicyChange(unfollow=(f"group:{A}",)), f"no follow of 'group:{A}'"),
        (PolicyChange(allow=("prefix:co_z1",)), "no deny of 'co_z1'"),
        (PolicyChange(follow=(A,)), "is no owner:ID"),
        (PolicyChange(follow=("group:x",)), "'x' is not the id of a group or account"),
        (PolicyChange(deny=(f"owner:{A[:-2]}",)), "is not the id of a group or account"),
        (PolicyChange(peers={"": PeerRule(Direction.UP)}), "no node's name"),
        (
            PolicyChange(follow=tuple(f"prefix:co_z{number:03}" for number in range(65))),
            "65 prefixes followed, at most 64",
        ),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(change: PolicyChange, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        change.apply(ReplicaPolicy())
