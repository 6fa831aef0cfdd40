"""The limit of a copy's rate: held over time, changed while it runs, no credit beyond a burst; progress figures."""

import asyncio

import pytest

from target.remote_copy.copy_pace import BURST_SECONDS, SPEED_SECONDS, CopyPace, CopyProgress, Speed


class Time:
    """Sleeping is what makes it pass."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.naps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def pace(self, rate: int) -> CopyPace:
        return CopyPace(rate, lambda: self.now, self.sleep)


async def test_the_limit_holds_for_all_who_share_it() -> None:
    time = Time()
    pace = time.pace(1000)
    await asyncio.gather(*(pace.spend(100) for _ in range(100)))
    assert 9.5 <= time.now - 100.0 <= 10.0


async def test_no_limit_needs_no_clock() -> None:
    await CopyPace().spend(1 << 40)


async def test_idle_time_earns_a_burst_and_no_more() -> None:
    time = Time()
    pace = time.pace(1000)
    time.now += 3600
    for _ in range(10):
        await pace.spend(100)
    assert 1.0 - BURST_SECONDS - 0.11 <= time.now - 3700.0 <= 1.0


@pytest.mark.parametrize(("rate", "seconds"), [(0, 0.25), (100_000, 0.25), (10, 100.0)])
async def test_a_change_counts_at_once(rate: int, seconds: float) -> None:
    time = Time()
    pace = time.pace(100)
    await pace.spend(1000)  # ten seconds in advance
    waiting = asyncio.create_task(pace.spend(1))
    await asyncio.sleep(0)
    pace.bytes_per_second = rate
    await waiting
    assert time.now - 100.0 == pytest.approx(seconds, rel=0.05)


def test_progress_says_percent_rate_and_cost() -> None:
    progress = CopyProgress(to_copy=200, started=10.0)
    assert progress.percent(200) == 0
    progress.regions, progress.sent_bytes, progress.fetched_bytes, progress.hole_regions = 100, 4000, 2000, 7
    assert progress.percent(100) == 50
    assert progress.percent(1) == 99 and progress.percent(0) == 100
    assert progress.rate(12.0) == 3000 and progress.rate(10.0) == 0
    assert progress.line(12.5) == "copied 100 regions, 4000 bytes sent, 2000 fetched, in 2.500 s (7 regions were holes)"


async def test_who_waits_for_a_rate_that_is_not_his_any_more_is_sent_on() -> None:
    time = Time()
    slow = time.pace(100)
    await slow.spend(1000)
    wanted = [True]
    waiting = asyncio.create_task(slow.spend(1, lambda: wanted[0]))
    await asyncio.sleep(0)
    wanted.clear()
    wanted.append(False)
    assert await waiting is False
    fast = slow.alike(10_000)
    assert await fast.spend(1) and time.now == 100.25


def test_speed_looks_back_one_or_two_windows() -> None:
    speed = Speed(100.0)
    assert speed.per_second(100.0) == 0
    speed.add(10, 101.0)
    assert speed.per_second(101.0) == 10
    for second in range(1, 20):
        speed.add(1000, 101.0 + second)
    assert speed.per_second(120.0) == pytest.approx(1000, rel=0.01)
    assert speed.per_second(120.0 + 100 * SPEED_SECONDS) < 50, "it stands"
