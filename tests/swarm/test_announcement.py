from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.announcement import MAX_STEADY_TOPICS, MAX_TOPICS, Announcement, topic_tag

SALT = b"saltsalt"
TOPICS = [bytes((i,)) * 32 for i in range(40)]


def as_record(announcement: Announcement) -> dict[bytes, bytes | None]:
    return {
        key if isinstance(key, bytes) else key.encode(): value
        if isinstance(value, bytes) or value is None
        else value.encode()
        for key, value in announcement.encode().items()
    }


def test_holders_of_a_topic_recognize_it() -> None:
    announcement = Announcement.of(TOPICS[:3], SALT)
    read = Announcement.decode(as_record(announcement))
    assert read == announcement
    assert read is not None
    assert read.common_topics(TOPICS[2:5]) == {TOPICS[2]}
    assert read.common_topics(TOPICS[3:5]) == frozenset()


def test_tags_differ_by_salt_and_the_topic_is_not_in_them() -> None:
    assert topic_tag(TOPICS[1], SALT) != topic_tag(TOPICS[1], b"tlastlas")
    record = as_record(Announcement.of(TOPICS[1:2], SALT))
    assert not any(TOPICS[1][:4] in (value or b"") for value in record.values())


def test_many_topics_still_fit_one_record() -> None:
    record = as_record(Announcement.of(TOPICS, SALT))
    assert len(record[b"t"] or b"") == 8 * MAX_TOPICS
    assert sum(len(key) + len(value or b"") + 2 for key, value in record.items()) <= 400


def test_of_too_many_topics_the_first_are_always_announced_and_the_others_in_turns() -> None:
    turns = [Announcement.of(TOPICS, SALT, turn).common_topics(TOPICS) for turn in range(3)]
    assert all(len(turn) == MAX_TOPICS for turn in turns)
    assert frozenset.intersection(*turns) == set(TOPICS[:MAX_STEADY_TOPICS])
    assert frozenset.union(*turns) == set(TOPICS)
    assert turns[0] == set(TOPICS[:MAX_TOPICS])
    one_more = TOPICS[: MAX_TOPICS + 1]
    turns = [Announcement.of(one_more, SALT, turn).common_topics(TOPICS) for turn in range(2)]
    assert [len(turn) for turn in turns] == [MAX_TOPICS, MAX_TOPICS]
    assert turns[0] | turns[1] == set(one_more)


@given(
    st.dictionaries(
        st.sampled_from([b"v", b"s", b"t", b"x"]),
        st.one_of(st.none(), st.just(b"1"), st.binary(max_size=32)),
    )
)
def test_any_record_is_an_announcement_or_none(record: dict[bytes, bytes | None]) -> None:
    announcement = Announcement.decode(record)
    if announcement is not None:
        assert record[b"v"] == b"1"
        assert Announcement.decode(as_record(announcement)) == announcement
        announcement.common_topics(TOPICS)
