from __future__ import annotations

import pytest

from swarm.dht.health import Health, HealthMonitor

GOOD, BAD, DEAD, IDLE = (20, 1), (5, 15), (0, 20), (1, 1)


def judge(*ticks: tuple[int, int]) -> Health:
    monitor = HealthMonitor()
    answers = timeouts = 0
    for answered, lost in ticks:
        answers += answered
        timeouts += lost
        monitor.tick(answers, timeouts)
    return monitor.state


@pytest.mark.parametrize(
    ("ticks", "state"),
    [
        ([], Health.ONLINE),
        ([GOOD] * 5, Health.ONLINE),
        ([DEAD], Health.ONLINE),
        ([DEAD] * 2, Health.OFFLINE),
        ([DEAD, IDLE, IDLE, DEAD], Health.OFFLINE),
        ([DEAD] * 5 + [IDLE] * 9, Health.OFFLINE),
        ([DEAD] * 5 + [GOOD], Health.ONLINE),
        ([BAD] * 3, Health.ONLINE),
        ([BAD] * 4, Health.DEGRADED),
        ([BAD] * 4 + [GOOD] * 3, Health.DEGRADED),
        ([BAD] * 4 + [GOOD] * 4, Health.ONLINE),
        ([BAD] * 4 + [DEAD] * 2, Health.OFFLINE),
        ([IDLE] * 20, Health.ONLINE),
    ],
)
def test_verdicts(ticks: list[tuple[int, int]], state: Health) -> None:
    assert judge(*ticks) is state


def test_after_a_reset_all_is_well() -> None:
    monitor = HealthMonitor()
    states: list[Health] = []
    for timeouts in (20, 40, 60):
        if timeouts == 60:
            monitor.reset()
            states.append(monitor.state)
        monitor.tick(0, timeouts)
        states.append(monitor.state)
    assert states == [Health.ONLINE, Health.OFFLINE, Health.ONLINE, Health.ONLINE]
