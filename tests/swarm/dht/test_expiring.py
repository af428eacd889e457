from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from swarm.dht.expiring import ExpiringMap

SECONDS = 10.0


def create_map(
    dropped: list[str] | None = None, *, items: int = 4, per_host: int = 3, size: int = 100
) -> ExpiringMap[str, int]:
    return ExpiringMap(
        seconds=SECONDS,
        max_items=items,
        max_per_host=per_host,
        max_bytes=size,
        on_drop=None if dropped is None else dropped.append,
    )


def test_values_are_forgotten_in_time() -> None:
    dropped: list[str] = []
    kept = create_map(dropped)
    assert kept.set("a", 1, "h", 1, 0.0)
    assert kept.get("a", 9.9) == 1
    assert kept.get("a", 10.0) is None
    kept.expire(10.0)
    assert (len(kept), kept.size_bytes, dropped) == (0, 0, ["a"])


def test_setting_again_renews() -> None:
    kept = create_map()
    kept.set("a", 1, "h", 1, 0.0)
    kept.set("b", 2, "h", 1, 1.0)
    kept.set("a", 3, "h", 5, 5.0)
    assert (list(kept), kept.size_bytes) == (["b", "a"], 6)
    assert kept.get("a", 12.0) == 3
    assert kept.get("b", 12.0) is None


def test_the_oldest_make_room() -> None:
    dropped: list[str] = []
    kept = create_map(dropped)
    for index, name in enumerate("abcde"):
        kept.set(name, index, f"h{index}", 1, float(index))
    assert (list(kept), dropped) == (list("bcde"), ["a"])
    kept.set("f", 5, "h", 98, 5.0)
    assert (list(kept), dropped) == (list("def"), list("abc"))


def test_a_host_is_refused_more_than_its_share() -> None:
    kept = create_map(items=10)
    assert all(kept.set(name, 0, "h", 1, 0.0) for name in "abc")
    assert not kept.set("d", 0, "h", 1, 0.0)
    assert kept.set("a", 9, "h", 1, 1.0), "it may replace its own"
    assert kept.set("d", 0, "other", 1, 0.0)
    assert not kept.set("d", 7, "h", 1, 0.0), "nor take over another's"
    assert kept.get("d", 1.0) == 0
    assert kept.set("e", 0, "h", 1, 20.0), "what is too old does not count"


def test_taking_out() -> None:
    dropped: list[str] = []
    kept = create_map(dropped)
    kept.set("a", 1, "h", 7, 0.0)
    assert kept.pop("a") == 1
    assert kept.pop("a") is None
    assert (len(kept), kept.size_bytes, dropped) == (0, 0, [])


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefg"), st.sampled_from("xyz"), st.integers(0, 60),
                  st.floats(0.0, 4.0), st.booleans()),
    )
)  # fmt: skip
def test_no_bound_is_ever_passed(steps: list[tuple[str, str, int, float, bool]]) -> None:
    dropped: list[str] = []
    kept = create_map(dropped)
    model: dict[str, tuple[str, int, float]] = {}
    now = 0.0
    for key, host, size, seconds, is_removal in steps:
        now += seconds
        if is_removal:
            assert (kept.pop(key) is not None) == (model.pop(key, None) is not None)
            continue
        is_set = kept.set(key, 0, host, size, now)
        for name in dropped:
            model.pop(name)
        dropped.clear()
        if is_set:
            model[key] = (host, size, now)
        assert set(kept) == set(model)
        assert len(kept) <= 4
        assert kept.size_bytes == sum(size for _, size, _ in model.values()) <= 100
        assert max(Counter(host for host, _, _ in model.values()).values(), default=0) <= 3
