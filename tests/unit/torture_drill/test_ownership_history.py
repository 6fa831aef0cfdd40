"""The checker of ownership: what one owner at a time explains, and what it does not."""

import pytest

from scripts.torture_drill.ownership_history import Answer, OwnershipHistory, Request, TooUncertain

RESERVE, RELEASE, WRITE = Request.RESERVE, Request.RELEASE, Request.WRITE
SPLIT, RESYNC = Request.SPLIT, Request.RESYNC
DONE, REFUSED, UNKNOWN = Answer.DONE, Answer.REFUSED, Answer.UNKNOWN


class Told(OwnershipHistory):
    """Requests one after the other; :meth:`begin` and :meth:`end` for those that overlap."""

    def __call__(self, who: str, request: Request, answer: Answer = DONE) -> str:
        return self.end(self.begin(request, who), request, who, answer)


@pytest.fixture
def armed() -> Told:
    told = Told()
    assert told("operator", SPLIT) == ""
    return told


def test_one_winner_of_a_race(armed: Told) -> None:
    a, b = armed.begin(RESERVE, "a"), armed.begin(RESERVE, "b")
    assert armed.end(b, RESERVE, "b", REFUSED) == ""
    assert armed.end(a, RESERVE, "a", DONE) == ""
    assert armed("a", WRITE) == armed("a", RESERVE) == ""
    assert armed.settle("a", armed=False) == ""


def test_two_winners_of_a_race(armed: Told) -> None:
    a, b = armed.begin(RESERVE, "a"), armed.begin(RESERVE, "b")
    assert armed.end(b, RESERVE, "b", DONE) == ""
    assert "a: RESERVE answered DONE, but: owner b" in armed.end(a, RESERVE, "a", DONE)


def test_nobody_wins_what_is_not_armed() -> None:
    assert "owner None, not armed" in Told()("a", RESERVE)


def test_an_operators_resync_disarms(armed: Told) -> None:
    assert armed("operator", RESYNC) == ""
    assert armed("a", RESERVE) != ""


def test_a_release_or_a_split_lets_another_host_win(armed: Told) -> None:
    assert armed("a", RESERVE) == armed("a", RELEASE) == armed("b", RESERVE) == ""
    assert armed("operator", SPLIT) == armed("a", RESERVE) == ""
    assert armed("b", RELEASE) == "", "GOOD, and no effect"
    assert armed("b", RESERVE) != ""


def test_a_split_under_way_counts_once(armed: Told) -> None:
    split = armed.begin(SPLIT, "operator")
    assert armed("a", RESERVE) == armed("b", RESERVE) == ""
    assert armed("a", RESERVE) != ""
    assert armed.end(split, SPLIT, "operator", DONE) == ""


def test_a_request_without_an_answer_may_take_effect_later(armed: Told) -> None:
    assert armed("a", RESERVE, UNKNOWN) == ""
    assert armed("b", RESERVE, REFUSED) == ""
    assert armed("b", WRITE) == "", "there is no owner yet"
    assert armed.settle("a", armed=False) == ""
    assert armed("a", RESERVE) == "", "and gives nothing back any more"
    assert "owner a" in armed("b", WRITE)


def test_a_refused_reserve_may_still_be_given_back() -> None:
    """The host is told RESERVATION CONFLICT; its shim withdraws what it could not before, until it reserves again."""
    told = Told()
    assert told("operator", SPLIT) == told("a", RESERVE) == told("a", RESERVE, REFUSED) == ""
    assert told.settle("a", armed=False) == ""
    assert told("b", RESERVE) == "", "the withdrawal came between"
    assert told("operator", SPLIT) == told("a", RESERVE) == ""
    assert told("b", RESERVE) != "", "and does not come again"


def test_a_write_by_another_host_than_the_owner(armed: Told) -> None:
    assert armed("a", RESERVE) == ""
    assert armed("b", WRITE, REFUSED) == ""
    assert "b: WRITE answered DONE, but: owner a" in armed("b", WRITE)


def test_a_pair_that_may_be_arming_itself(armed: Told) -> None:
    """Released in mid-copy it is in PAIR for a moment, and then in PSUS."""
    assert armed("a", RESERVE) == armed("a", RELEASE) == armed.settle(None, armed=None) == ""
    assert armed("b", RESERVE) == ""
    assert armed("a", RESERVE) != ""


@pytest.mark.parametrize("owner", [None, "b"])
def test_what_the_arrays_say_in_the_end(armed: Told, owner: str | None) -> None:
    assert armed("a", RESERVE) == ""
    assert f"the arrays say that {owner or 'nobody'} is the owner" in armed.settle(owner, armed=False)


def test_nothing_is_judged_after_what_nobody_can_explain(armed: Told) -> None:
    """What the arrays did there would stay under way, and each further answer would double what is possible."""
    assert armed("a", RESERVE) == ""
    assert armed("b", RESERVE) != ""
    for _ in range(100):
        for who in ("a", "b", "c"):
            assert armed(who, RESERVE) == armed(who, RESERVE, UNKNOWN) == armed("operator", SPLIT, UNKNOWN) == ""
    assert armed.settle("nobody we know", armed=None) == ""


def test_too_many_orders_are_told(armed: Told) -> None:
    for number in range(20):
        armed(f"host-{number}", RESERVE, UNKNOWN)
    with pytest.raises(TooUncertain, match="more than 50000 states"):
        armed("operator", SPLIT)
