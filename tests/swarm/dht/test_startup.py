from __future__ import annotations

from swarm.dht.startup import Phase, Startup


def test_a_guest_asks_one_node_before_it_tests_itself() -> None:
    startup = Startup(is_persistent=False, is_firewalled=True)
    assert startup.phase is Phase.NEW
    startup.begin_round(7)
    assert not startup.takes_probe(6), "another query"
    assert [startup.takes_probe(7), startup.takes_probe(7)] == [True, False]
    before = startup.is_test_worthwhile
    startup.probe_answered()
    assert (before, startup.is_test_worthwhile) == (False, True)
    assert [startup.ends_round(6), startup.ends_round(7), startup.ends_round(7)] == [
        False, True, False,
    ]  # fmt: skip


def test_who_is_reachable_searches_once_more_and_no_more_than_that() -> None:
    startup = Startup(is_persistent=True, is_firewalled=True)
    startup.begin_round(1)
    assert not startup.takes_probe(1), "a member tests itself anyway"
    assert startup.is_test_worthwhile
    assert startup.takes_another_round(is_reachable=True)
    startup.begin_round(2)
    assert not startup.takes_another_round(is_reachable=True)


def test_who_is_not_reachable_is_done_after_one_search() -> None:
    startup = Startup(is_persistent=True, is_firewalled=True)
    startup.begin_round(1)
    assert not startup.takes_another_round(is_reachable=False)
