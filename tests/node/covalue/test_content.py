"""The texts that are signed, against JSON written key by key."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.covalue.content import (
    Transaction,
    bare_lines,
    canonical_lines,
    canonical_transaction,
    join_lines,
    split_lines,
)

texts = st.text() | st.text(st.characters(max_codepoint=0x7F))
transactions = st.builds(
    Transaction, st.integers(0, 2**64 - 1), texts, st.none() | texts, st.none() | texts
)


def slow_text(transaction: Transaction) -> str:
    """The same by the standard library, whose keys are sorted."""
    made_at, changes, key_used, meta = transaction
    fields: dict[str, int | str] = {"madeAt": made_at, "privacy": "trusting", "changes": changes}
    if key_used is not None:
        fields = {"madeAt": made_at, "privacy": "private", "encryptedChanges": changes}
        fields["keyUsed"] = key_used
    if meta is not None:
        fields["meta"] = meta
    return json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@given(st.lists(transactions, max_size=5))
def test_lines_are_canonical_json(several: list[Transaction]) -> None:
    wanted = [slow_text(transaction) for transaction in several]
    lines = canonical_lines(several)
    assert split_lines(lines.decode()) == wanted
    assert join_lines(lines.decode()) == ",".join(wanted)
    assert bare_lines(lines) == "".join(wanted).encode()
    assert [canonical_transaction(transaction) for transaction in several] == wanted


def test_half_a_surrogate_pair_has_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        canonical_lines([Transaction(1, '"\ud800"')])
