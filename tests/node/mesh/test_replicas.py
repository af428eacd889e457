from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.covalue.ids import RawCoId
from node.mesh.follow_rules import OwnerKind, OwnerRule
from node.mesh.messages import MAX_INTEREST_IDS, Interest
from node.mesh.replicas import (
    MAX_SELECTED_IDS,
    ReplicaPolicy,
    Selection,
    ToldInterest,
    TooManySelected,
    Why,
)
from tests.node.mesh import samples
from tests.node.mesh.samples import co_id

A, B, C = co_id(1), co_id(2), co_id(3)
OWNER = OwnerRule(OwnerKind.GROUP, "co_zOwner")


def test_policies() -> None:
    lazy, everything = ReplicaPolicy.parse("lazy"), ReplicaPolicy.parse("all")
    assert lazy.reason(A) is None
    assert everything.reason(A) == (Why.EVERYTHING, "all")
    with pytest.raises(ValueError, match="neither"):
        ReplicaPolicy.parse("some")
    mixed = ReplicaPolicy(pinned=frozenset([A]), prefixes=(B[:10],), owners=frozenset([OWNER]))
    assert mixed.reason(A) == (Why.PINNED, A)
    assert mixed.reason(B) == (Why.PREFIX, f"prefix:{B[:10]}")
    assert mixed.reason(C) is None
    assert mixed.reason(C, ["co_zOwner"]) == (Why.OWNER, "group:co_zOwner")
    strict = ReplicaPolicy(everything=True, denied=frozenset([A]))
    assert strict.reason(A) is None
    assert not strict.allows(A)
    assert strict.reason(B) == (Why.EVERYTHING, "all")
    stricter = replace(
        strict, denied_prefixes=(B[:10],), denied_owners=frozenset([OWNER]), pinned=frozenset([B])
    )
    assert stricter.denial(B) == f"prefix:{B[:10]}"
    assert stricter.reason(B) is None, "deny wins over pin"
    assert stricter.select(frozenset([A, B, C])) == {C}
    assert stricter.denial(C) is None
    assert stricter.denial(C, ("co_zOwner",)) == "group:co_zOwner"


def test_policies_in_brief() -> None:
    assert ReplicaPolicy().brief == ("lazy",)
    assert ReplicaPolicy(everything=True).brief == ("all",)
    assert ReplicaPolicy(
        pinned=frozenset([A]), owners=frozenset([OWNER]), denied=frozenset([C])
    ).brief == ("pin", "follow", "deny")


def test_selection_adds_up() -> None:
    owners: dict[RawCoId, tuple[str, ...] | None] = {A: (), B: ("co_zOwner",), C: None}
    selection = Selection(owners.__getitem__)
    assert not selection.matches(A)
    selection.apply(Interest(added=(A, B)))
    selection.apply(Interest(added=(C,), removed=(A,)))
    assert selection.ids == {B, C}
    assert dict(selection.pick({A: {}, B: {}})) == {B: {}}
    selection.apply(Interest(everything=True))
    assert dict(selection.pick({A: {}, B: {}})) == {A: {}, B: {}}
    selection.apply(Interest(prefixes=(A[:12],), owners=("later:co_zOwner",)))
    assert dict(selection.pick({A: {}, B: {}})) == {A: {}}
    selection.apply(Interest(owners=("owner:co_zOwner",)))
    assert dict(selection.pick({A: {}, B: {}, C: {}})) == {B: {}, C: {}}, "C is not known any more"


def test_what_a_full_replica_leaves_out_has_a_name() -> None:
    policy = ReplicaPolicy(everything=True)
    assert policy.scope == b""
    others = [
        replace(policy, denied=frozenset([A])),
        replace(policy, denied_prefixes=(A,)),
        replace(policy, denied_owners=frozenset([OWNER])),
        replace(policy, max_value_bytes=5),
        replace(policy, max_age_seconds=5),
    ]
    assert len({other.scope for other in others}) >= 4
    assert all(other.scope for other in others)
    assert replace(policy, pinned=frozenset([A])).scope == b""


def test_a_selection_is_bounded() -> None:
    selection = Selection()
    ids = [RawCoId(f"co_z{number}") for number in range(MAX_SELECTED_IDS)]
    selection.apply(Interest(added=tuple(ids)))
    selection.apply(Interest(added=tuple(ids[:10])))
    with pytest.raises(TooManySelected):
        selection.apply(Interest(added=(A,)))
    assert len(selection.ids) == MAX_SELECTED_IDS


@given(
    st.lists(
        st.tuples(
            st.frozensets(samples.ids, max_size=8),
            st.booleans(),
            st.frozensets(samples.ids, max_size=2),
            st.frozensets(samples.ids, max_size=2),
        ),
        max_size=6,
    )
)
def test_what_was_told_is_what_is_selected(
    steps: list[tuple[frozenset[RawCoId], bool, frozenset[RawCoId], frozenset[RawCoId]]],
) -> None:
    told, selection = ToldInterest(), Selection()
    for subscribed, everything, pinned, denied in steps:
        policy = ReplicaPolicy(everything, pinned=pinned, denied=denied)
        wanted = policy.select(subscribed)
        for interest in told.plan(policy, wanted):
            selection.apply(interest)
        assert selection.everything == everything
        assert selection.ids == (set() if everything else (subscribed | pinned) - denied)
        assert told.plan(policy, wanted) == []


def test_long_lists_are_cut_and_longer_ones_become_everything() -> None:
    told = ToldInterest()
    some = {RawCoId(f"co_z{number}") for number in range(2 * MAX_INTEREST_IDS + 1)}
    messages = told.plan(ReplicaPolicy(), some)
    assert [len(message.added) for message in messages] == [4096, 4096, 1]
    more = {RawCoId(f"co_z{number}") for number in range(MAX_SELECTED_IDS + 1)}
    assert told.plan(ReplicaPolicy(), more) == [Interest(everything=True)]
    back = told.plan(ReplicaPolicy(), {A})
    assert back == [Interest(added=(A,))]


def test_removals_come_before_additions() -> None:
    told = ToldInterest()
    told.plan(ReplicaPolicy(), {A})
    assert told.plan(ReplicaPolicy(), {B}) == [Interest(removed=(A,)), Interest(added=(B,))]
