"""Challenges that can be foreseen or sent back (tgt CVE-2024-45751): fresh random ones, also after a restart."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from storage_model.spec.iscsi_pdu import LoginResponsePdu, LoginStatus
from tests.bad_input.chap_array import CHAP, ChapArray, chap_array
from tests.chap_login import USER, answer_to

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOGINS = 100
BITS = 128


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChapArray]:
    async with chap_array(tmp_path_factory.mktemp("array"), CHAP) as array:
        yield array


async def challenges(array: ChapArray) -> list[tuple[str, int]]:
    """Identifier and challenge of many logins, one after the other."""
    drawn: list[tuple[str, int]] = []
    for _ in range(LOGINS):
        async with array.challenged() as (_, keys):
            drawn.append((keys["CHAP_I"], int(keys["CHAP_C"], 16)))
    return drawn


async def test_challenges_are_random_and_none_comes_twice(tmp_path: Path) -> None:
    """Two lives of the same array, from the same state: tgt drew the same numbers in each."""
    lives: list[list[tuple[str, int]]] = []
    for _ in range(2):
        async with chap_array(tmp_path, CHAP) as array:
            lives.append(await challenges(array))
    drawn = [challenge for life in lives for _, challenge in life]
    assert len(set(drawn)) == 2 * LOGINS
    assert len({identifier for life in lives for identifier, _ in life}) > LOGINS / 2
    # Each of the bits is one about as often as not: 200 draws, seven standard deviations.
    for bit in range(BITS):
        ones = sum(challenge >> bit & 1 for challenge in drawn)
        assert abs(ones - LOGINS) < 50, f"bit {bit} was set {ones} times of {2 * LOGINS}"
    # No draw follows from the one before it by a constant step, as those of a counter or a clock do.
    assert len({second - first for first, second in pairwise(drawn)}) == 2 * LOGINS - 1


async def test_connections_at_the_same_time_get_different_challenges(array: ChapArray) -> None:
    async with AsyncExitStack() as stack:
        drawn = [(await stack.enter_async_context(array.challenged()))[1]["CHAP_C"] for _ in range(10)]
        assert len(set(drawn)) == 10


async def test_an_old_answer_opens_nothing(array: ChapArray) -> None:
    """What was overheard of one login is no proof in the next."""
    async with array.challenged() as (initiator, keys):
        proof = {"CHAP_N": USER, "CHAP_R": answer_to(keys)}
        array.say(initiator, proof)
        assert (await initiator.expect(LoginResponsePdu)).status == LoginStatus.SUCCESS
    async with array.challenged() as (initiator, _):
        array.say(initiator, proof)
        assert (await initiator.expect(LoginResponsePdu)).status == LoginStatus.AUTHENTICATION_FAILURE


async def test_a_reflected_challenge_is_refused(array: ChapArray) -> None:
    """RFC 7143 §9.2.1: our own challenge, of this connection or another, is not answered and ends the connection."""
    async with array.challenged() as (_, theirs):
        for own in (True, False):
            async with array.challenged() as (initiator, keys):
                reflected = keys["CHAP_C"] if own else theirs["CHAP_C"]
                proof = {"CHAP_N": USER, "CHAP_R": answer_to(keys), "CHAP_I": "1", "CHAP_C": reflected}
                array.say(initiator, proof)
                response = await initiator.expect(LoginResponsePdu)
                assert (response.status, response.data) == (LoginStatus.AUTHENTICATION_FAILURE, b"")
                await initiator.hung_up()
    await array.log_in_and_out()
