from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.udx.mtu import BASE_MTU, MAX_MTU, MAX_PROBES, MtuSearch
from swarm.udx.packet import MAX_PADDING_BYTES


def search(limit: int, largest: int) -> tuple[int, list[int]]:
    """Probe until it is done on a path that carries `largest`; what was found, and tried."""
    mtu = MtuSearch(limit)
    sizes: list[int | None] = [mtu.wanted]
    assert sizes == [None]  # the base has not passed yet
    mtu.receive_ack()
    tried: list[int] = []
    while (size := mtu.wanted) is not None:
        assert 0 < size - mtu.mtu <= MAX_PADDING_BYTES
        tried.append(size)
        mtu.start_probe()
        sizes.append(mtu.wanted)
        if size <= largest:
            mtu.receive_probe_ack(size)
        else:
            mtu.receive_probe_loss(size)
    assert mtu.is_done
    assert not any(sizes)  # never a second probe while one is under way
    return mtu.mtu, tried


def test_an_ordinary_link_takes_two_probes() -> None:
    assert search(MAX_MTU, 1500) == (1500, [1455, 1500])


def test_a_narrow_first_link_is_believed() -> None:
    assert search(1420, 9000) == (1420, [1420])
    assert search(BASE_MTU, 9000) == (BASE_MTU, [])
    assert search(576, 9000) == (BASE_MTU, [])


@given(st.integers(BASE_MTU, 1600))
def test_what_passes_is_found_nearly(largest: int) -> None:
    found, tried = search(MAX_MTU, largest)
    assert min(largest, MAX_MTU) - 32 < found <= largest
    assert len(tried) <= 6 * MAX_PROBES


@pytest.mark.parametrize("losses", [1, 2])
def test_one_or_two_losses_may_be_chance(losses: int) -> None:
    mtu = MtuSearch()
    mtu.receive_ack()
    for _ in range(losses):
        mtu.start_probe()
        mtu.receive_probe_loss(1455)
    assert mtu.wanted == 1455
    mtu.start_probe()
    mtu.receive_probe_ack(1455)
    assert (mtu.mtu, mtu.wanted) == (1455, 1500)


def test_late_news_of_other_sizes_are_ignored() -> None:
    mtu = MtuSearch()
    mtu.receive_ack()
    mtu.start_probe()
    mtu.receive_probe_loss(1300)
    assert mtu.wanted is None
    mtu.receive_probe_ack(9000)
    assert mtu.mtu == BASE_MTU
