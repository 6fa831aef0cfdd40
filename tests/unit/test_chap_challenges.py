"""Challenges of a target: none twice, each remembered while its login lasts."""

import pytest

from storage_model.errors import RemoteProtocolError
from storage_model.secret import Secret
from storage_model.spec.iscsi_codes import LoginStatus
from target.iscsi.chap import RECENT_CHALLENGES, Challenges, ChapAccount, TargetChap
from tests.chap_login import counting_bytes


def test_a_draw_that_was_there_is_drawn_again() -> None:
    draws = iter([b"one", b"one", b"two"])
    challenges = Challenges(lambda length: next(draws))
    assert (challenges.issue(3), challenges.issue(3)) == (b"one", b"two")


def test_a_random_source_that_repeats_itself_is_an_error_of_the_target() -> None:
    challenges = Challenges(bytes)
    challenges.issue(16)
    with pytest.raises(RemoteProtocolError, match="random source repeats") as raised:
        challenges.issue(16)
    assert raised.value.reason == LoginStatus.TARGET_ERROR


def test_a_random_source_that_gives_too_little_is_one_as_well() -> None:
    with pytest.raises(RemoteProtocolError, match="random source"):
        Challenges(lambda length: b"x").issue(16)


def test_an_open_challenge_is_remembered_whatever_comes_after_it() -> None:
    challenges = Challenges(counting_bytes())
    first = challenges.issue(16)
    others = [challenges.issue(16) for _ in range(RECENT_CHALLENGES + 10)]
    assert challenges.issued(first)
    challenges.close(first)
    assert not challenges.issued(first) and challenges.issued(others[-1])


def test_memory_is_bounded() -> None:
    challenges = Challenges(counting_bytes())
    for _ in range(3 * RECENT_CHALLENGES):
        challenges.close(challenges.issue(16))
    assert (len(challenges._open), len(challenges._recent)) == (0, RECENT_CHALLENGES)


def test_a_login_gives_its_challenge_back() -> None:
    challenges = Challenges(counting_bytes())
    chap = TargetChap(ChapAccount("joe", Secret(b"correct horse")), None, challenges)
    chap.receive({"CHAP_A": "5"})
    assert len(challenges._open) == 1
    chap.close()
    chap.close()
    assert not challenges._open
