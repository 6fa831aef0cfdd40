"""CHAP values that are too long, too short or no values (LIO CVE-2018-14633): the login fails, the array lives."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from storage_model.spec.iscsi_pdu import LoginResponsePdu, LoginStatus, Stage
from storage_model.spec.iscsi_text import format_text, parse_text
from tests.bad_input.chap_array import CHAP, ChapArray, chap_array
from tests.chap_login import USER, answer_to
from tests.integration.raw_initiator import RawInitiator

pytestmark = pytest.mark.asyncio(loop_scope="module")

MALFORMED = {
    "nothing": "",
    "0x alone": "0x",
    "0b alone": "0b",
    "no prefix": "00" * 16,
    "decimal": "12345678",
    "odd number of digits": "0x" + "0" * 31,
    "one digit": "0x0",
    "no hexadecimal": "0x" + "0g" * 16,
    "sign": "0x-" + "0" * 31,
    "spaces": "0x" + "0 " * 16,
    "one byte": "0x00",
    "one byte more than the hash": "0x" + "00" * 17,
    "one byte less than the hash": "0x" + "00" * 15,
    "1024 bytes": "0x" + "00" * 1024,
    "1025 bytes": "0x" + "00" * 1025,
    "4 KiB": "0x" + "41" * 4000,
    "base64 of 1025 bytes": "0b" + "AAAA" * 341 + "AAA=",
    "base64 of 5 KiB": "0b" + "A" * 7000,
    "base64 that is padding": "0b====",
    "base64 that goes on after its padding": "0b" + "QQ==" * 8,
    "base64 without padding": "0bQQ",
    "no base64": "0b" + "*" * 24,
    "no ASCII": "0x" + "ÿ" * 32,
    "a reserved value": "Reject",
    "a list": "0x00,0x01",
}
OF_ANOTHER_LENGTH = {"one byte", "one byte more than the hash", "one byte less than the hash", "1024 bytes"}
"""What a response must not be, but a challenge may."""
CHALLENGE = "0x" + "5a" * 16


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChapArray]:
    async with chap_array(tmp_path_factory.mktemp("array"), CHAP) as array:
        yield array
        await array.log_in_and_out()
        assert "internal error" not in array.process.log


async def refused(initiator: RawInitiator) -> LoginStatus:
    """The status of a login that fails; the connection then ends."""
    response = await initiator.expect(LoginResponsePdu)
    await initiator.hung_up()
    assert not response.transit and response.data == b""
    return LoginStatus(response.status)


@pytest.mark.parametrize("case", MALFORMED)
async def test_response(case: str, array: ChapArray) -> None:
    async with array.challenged() as (initiator, _):
        array.say(initiator, {"CHAP_N": USER, "CHAP_R": MALFORMED[case]})
        assert await refused(initiator) is LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("case", sorted(set(MALFORMED) - OF_ANOTHER_LENGTH))
async def test_challenge_of_the_initiator(case: str, array: ChapArray) -> None:
    """After a right response, so that the value is really looked at."""
    async with array.challenged() as (initiator, keys):
        proof = {"CHAP_N": USER, "CHAP_R": answer_to(keys), "CHAP_I": "1", "CHAP_C": MALFORMED[case]}
        array.say(initiator, proof)
        assert await refused(initiator) is LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("identifier", ["", "-1", "256", "4294967296", "9" * 4000, "0x" + "f" * 4000, "x", "1e1"])
async def test_identifier_of_the_initiator(identifier: str, array: ChapArray) -> None:
    async with array.challenged() as (initiator, keys):
        proof = {"CHAP_N": USER, "CHAP_R": answer_to(keys), "CHAP_I": identifier, "CHAP_C": CHALLENGE}
        array.say(initiator, proof)
        assert await refused(initiator) is LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("name", ["", "x" * 4000, "joe\nERROR forged", "ÿ" * 2000, "%s%n", "joe'--"])
async def test_user_name(name: str, array: ChapArray) -> None:
    async with array.challenged() as (initiator, keys):
        array.say(initiator, {"CHAP_N": name, "CHAP_R": answer_to(keys)})
        assert await refused(initiator) is LoginStatus.AUTHENTICATION_FAILURE
        assert "forged" not in array.process.log


@pytest.mark.parametrize("prefix", ["0x", "0b"])
async def test_a_response_of_1_mib(prefix: str, array: ChapArray) -> None:
    """It comes in pieces, and the login is over long before its end."""
    async with array.challenged() as (initiator, _):
        text = format_text({"CHAP_N": USER, "CHAP_R": prefix + "A" * (1 << 20)})
        pieces = [text[at : at + 8192] for at in range(0, len(text), 8192)]
        answers = 0
        for piece in pieces:
            request = initiator.login_request({}, csg=0, nsg=0, transit=False, cont=True, data=piece)
            initiator.send(request)
            response = await initiator.expect(LoginResponsePdu)
            answers += 1
            if response.status:
                break
        assert response.status == LoginStatus.INITIATOR_ERROR and answers < 10
        await initiator.hung_up()


async def test_what_is_right_is_still_taken(array: ChapArray) -> None:
    """The tests above fail for the values, not for something else."""
    async with array.challenged() as (initiator, keys):
        array.say(initiator, {"CHAP_N": USER, "CHAP_R": answer_to(keys), "CHAP_I": "1", "CHAP_C": CHALLENGE})
        response = await initiator.expect(LoginResponsePdu)
        assert response.status == 0 and response.nsg == Stage.LOGIN_OPERATIONAL_NEGOTIATION
        assert set(parse_text(response.data)) == {"CHAP_N", "CHAP_R"}
