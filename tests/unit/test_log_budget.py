"""Lines about strangers: a burst, then a trickle, and the number of those that were left out."""

from target.iscsi.log_budget import LogBudget


def test_a_burst_and_then_so_many_a_second() -> None:
    budget = LogBudget(burst=5, per_second=2)
    assert [budget.spend(100.0) for _ in range(8)] == [0, 0, 0, 0, 0, None, None, None]
    assert budget.spend(100.4) is None
    assert [budget.spend(100.6), budget.spend(100.6)] == [4, None]
    assert [budget.spend(101.6), budget.spend(101.6), budget.spend(101.6)] == [1, 0, None]


def test_silence_does_not_save_up_more_than_a_burst() -> None:
    budget = LogBudget(burst=3, per_second=2)
    budget.spend(0.0)
    assert [budget.spend(1e6) for _ in range(5)] == [0, 0, 0, None, None]


def test_a_flood_is_a_trickle_in_the_log() -> None:
    budget = LogBudget()
    written = sum(budget.spend(1000.0 + number / 1000) is not None for number in range(60_000))
    assert 1300 < written < 1500  # 200, and 20 for each of 60 seconds
