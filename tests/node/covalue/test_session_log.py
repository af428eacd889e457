from __future__ import annotations

import json
from typing import Any

import pytest

from node.cojson.crypto import RunningHash, decode_signature, hash_text
from node.covalue.content import PIECE_BYTES, Transaction, canonical_transaction
from node.covalue.ids import CoSessionId, agent_public_key, session_owner
from node.covalue.session_log import InvalidSessionSignature, SessionLog, feed
from tests.support.authors import Author, edits
from tests.support.cojson_vectors import VALUES, account_keys, pieces, vectors

ANN = Author("ann")
KEY = agent_public_key(ANN.agent_id)


@pytest.mark.parametrize("name", VALUES)
def test_recorded_sessions_verify(name: str) -> None:
    keys = account_keys()
    logs: dict[CoSessionId, SessionLog] = {}
    for piece in pieces(name):
        for session_id, part in piece.new.items():
            owner = session_owner(session_id)
            key = keys[owner] if owner in keys else agent_public_key(owner)
            log = logs.get(session_id, SessionLog())
            logs[session_id] = log.extended(part.transactions, part.signature, key)
            with pytest.raises(InvalidSessionSignature):
                log.extended(part.transactions, part.signature, KEY)


def _transaction(raw: dict[str, Any]) -> Transaction:
    key_used = raw.get("keyUsed")
    changes = raw["changes"] if key_used is None else raw["encryptedChanges"]
    return Transaction(raw["madeAt"], changes, key_used, raw.get("meta"))


WHOLE = [case for case in vectors()["sessions"] if all("tx" in step for step in case["steps"])]
"""Without the one whose transactions were too large to be recorded."""


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case["name"])
def test_each_step_of_a_session_has_the_recorded_hash(case: dict[str, Any]) -> None:
    running = RunningHash()
    for step in case["steps"]:
        transaction = _transaction(step["tx"])
        assert canonical_transaction(transaction) == step["canonicalTx"]
        assert json.loads(step["canonicalTx"]) == step["tx"]
        feed(running, [transaction])
        assert hash_text(running) == step["hash"]


def test_a_log_grows_and_keeps_its_past() -> None:
    transactions = edits(5)
    first = SessionLog().extended(transactions[:2], ANN.sign(transactions[:2]), KEY)
    second = first.extended(transactions[2:], ANN.sign(transactions), KEY)
    assert (first.count, second.count) == (2, 5)
    again = first.extended(transactions[2:], ANN.sign(transactions), KEY)
    assert again.signature == second.signature


@pytest.mark.parametrize("part", ["changes", "made_at", "key_used", "meta"])
def test_a_changed_transaction_does_not_verify(part: str) -> None:
    transactions = edits(2)
    forged: dict[str, object] = {"changes": "[]", "made_at": 7, "key_used": "key_z1", "meta": "{}"}
    changed = [transactions[0]._replace(**{part: forged[part]}), transactions[1]]  # type: ignore[arg-type]  # one field
    with pytest.raises(InvalidSessionSignature):
        SessionLog().extended(changed, ANN.sign(transactions), KEY)


def test_a_checkpoint_is_due_above_the_limit() -> None:
    transactions = edits(3, size=PIECE_BYTES // 2)
    log = SessionLog().extended(transactions[:1], ANN.sign(transactions[:1]), KEY)
    assert not log.is_checkpoint
    log = log.extended(transactions[1:2], ANN.sign(transactions[:2]), KEY)
    assert log.is_checkpoint
    assert log.bytes_since_checkpoint == 0
    log = log.extended(transactions[2:], ANN.sign(transactions), KEY)
    assert not log.is_checkpoint


def test_half_a_surrogate_pair_is_an_encoding_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        SessionLog().extended([Transaction(1, "\ud800")], bytes(64), KEY)


def test_an_unhashed_log_says_so() -> None:
    assert SessionLog().is_hashed
    assert not SessionLog(3, bytes(64), 5).is_hashed
    with pytest.raises(RuntimeError):
        SessionLog(3, bytes(64), 5).extended(edits(1), bytes(64), KEY)


def test_the_recorded_deletion_verifies() -> None:
    case = vectors()["deletion"]["session"]
    transactions = [_transaction(step["tx"]) for step in case["steps"]]
    owner = session_owner(CoSessionId(case["sessionID"]))
    key = account_keys()[owner]
    SessionLog().extended(transactions, decode_signature(case["lastSignature"]), key)
