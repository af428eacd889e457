"""Figures as people read them, one way in all tables and lists."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.web.status import CompactionStatus
from node.web.summary import status_rows
from node.web.wording import format_share
from tests.node.test_web_admin import STATUS


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 3, "0 %"),
        (1, 2, "50 %"),
        (999_999, 1_000_000, "99 %"),
        (7, 7, "100 %"),
        (3, 2, "150 %"),
    ],
)
def test_a_share_is_whole_only_where_nothing_is_missing(part: int, whole: int, text: str) -> None:
    assert format_share(part, whole) == text


def test_the_status_writes_shares_as_the_tables_do() -> None:
    compaction = CompactionStatus(dead_share=0.5, dead_bytes=2048)
    rows = dict(status_rows(replace(STATUS, compaction=compaction)))
    assert rows["compaction"] == "2.0 KiB dead (50 %)"


def test_the_status_counts_what_had_a_bad_signature_or_was_no_message() -> None:
    sync = replace(STATUS.sync, refused=7, bad_lines=1_200)
    refused = dict(status_rows(replace(STATUS, sync=sync)))["refused"]
    assert "7 messages, 1,200 unreadable lines" in refused
    assert "3 denied" in refused
