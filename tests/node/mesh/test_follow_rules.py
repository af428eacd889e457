from __future__ import annotations

import pytest

from node.mesh.follow_rules import OwnerKind, OwnerRule, first_match, parse_rule, read_patterns

GROUP, ACCOUNT, VALUE = "co_zGroup", "co_zAccount", "co_zValue"
OF_GROUP = (GROUP, ACCOUNT)


def test_rules_are_read_as_they_are_written() -> None:
    assert parse_rule("prefix:co_z12") == "co_z12"
    assert parse_rule("prefix:co_z") == "co_z"
    for text in (f"owner:{GROUP}", f"group:{GROUP}", f"account:{ACCOUNT}"):
        rule = parse_rule(text)
        assert isinstance(rule, OwnerRule)
        assert rule.text == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "co_zGroup", "group:", "group", "prefix:", "prefix:x", "prefix:co_z!", "Group:x"),
        *(f"owner:{'x' * 200}", f"prefix:co_z{'1' * 41}", "owner:\n"),
    ],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no owner:ID|begin with co_z"):
        parse_rule(text)


def test_who_owns_what() -> None:
    owner, group, account = (
        OwnerRule(OwnerKind.OWNER, GROUP),
        OwnerRule(OwnerKind.GROUP, GROUP),
        OwnerRule(OwnerKind.ACCOUNT, ACCOUNT),
    )
    cases = [
        (VALUE, OF_GROUP, {owner, group, account}),
        (GROUP, (ACCOUNT,), {group, account}),
        (ACCOUNT, ("sealer_z/signer_z",), {account}),
        (VALUE, (ACCOUNT,), {account}),
        (VALUE, ("co_zOther", GROUP), set()),
        (VALUE, (), set()),
    ]
    for co_id, owners, matching in cases:
        assert {rule for rule in (owner, group, account) if rule.matches(co_id, owners)} == matching
    assert first_match([owner, account], GROUP, (ACCOUNT,)) == account
    assert first_match([], VALUE, OF_GROUP) is None


def test_kinds_of_a_later_version_are_left_out() -> None:
    assert read_patterns(["team:x", "group:co_zGroup", ""]) == {
        OwnerRule(OwnerKind.GROUP, "co_zGroup")
    }
