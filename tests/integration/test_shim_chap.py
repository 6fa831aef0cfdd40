"""CHAP on the host's side: the shim's own sessions, those it relays, pairctl and the pyscsi device."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.initiator_transport import IscsiSession, discover
from initiator_shim.pyscsi_device import PyscsiDevice
from initiator_shim.session_errors import LoginRefused, SessionError, TargetNotTrusted
from storage_model.secret import Secret
from tests.bad_input.chap_array import CREDENTIALS, ChapArray, chap_array, secret_file
from tests.chap_login import SECRET, TARGET_SECRET, TARGET_USER, USER
from tests.integration.client_tools import run
from tests.integration.shims import GOOD, RELEASE_6, RESERVE_6, TEST_UNIT_READY, ShimUnderTest, shim

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST, ISID = "iqn.2026-11.org.example:host", bytes.fromhex("80cafe000007")
SHIM_SECRET = b"the shim has its own"
MUTUAL_WORDS = f"mutual-user={TARGET_USER},mutual-secret-file=array.secret"
RULES = (
    f"initiator=*.pairvol-shim,chap-user=shim,chap-secret-env=SHIM_SECRET,{MUTUAL_WORDS}",
    f"chap-user={USER},chap-secret-file=host.secret,{MUTUAL_WORDS}",
)
ONE_WAY = ChapCredentials(USER, Secret(SECRET))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("arrays")
    secret_file(directory / "shim.secret", SHIM_SECRET)
    return directory


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(directory: Path) -> AsyncIterator[ChapArray]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SHIM_SECRET", SHIM_SECRET.decode())
        async with chap_array(directory, *RULES) as array:
            yield array


def shim_words(directory: Path, own: str = "shim.secret", mutual: str = "array.secret") -> list[str]:
    return [
        *("--chap-user", "shim", "--chap-secret-file", str(directory / own)),
        *("--mutual-user", TARGET_USER, "--mutual-secret-file", str(directory / mutual)),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(array: ChapArray, directory: Path) -> AsyncIterator[ShimUnderTest]:
    """A shim that proves itself to the array, and has the array do so."""
    async with shim(directory, array.process.address[1], *shim_words(directory)) as front:
        yield front


async def host_session(front: ShimUnderTest, chap: ChapCredentials | None, digests: bool = False) -> IscsiSession:
    return await IscsiSession.connect(
        "127.0.0.1", front.port, front.target_name, HOST, ISID, chap=chap, digests=digests
    )


# ------------------------------------------------------------------------------------------------ logins passed through


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("chap", [ONE_WAY, CREDENTIALS], ids=["one way", "mutual"])
async def test_a_relayed_login(chap: ChapCredentials, digests: bool, front: ShimUnderTest) -> None:
    """The exchange is the host's and the array's: the shim does not know the host's secret."""
    session = await host_session(front, chap, digests)
    for lun in (0, 1):
        while (await session.execute(lun, TEST_UNIT_READY)).status != GOOD:
            pass
    assert (await session.execute(0, RESERVE_6)).status == GOOD
    assert (await session.execute(0, RELEASE_6)).status == GOOD
    await session.logout()


async def test_a_relayed_discovery(front: ShimUnderTest) -> None:
    found = await discover("127.0.0.1", front.port, HOST, chap=CREDENTIALS)
    assert found == [(front.target_name, [f"127.0.0.1:{front.port},1"])]


@pytest.mark.parametrize("chap", [None, ChapCredentials(USER, Secret(b"some other secret"))], ids=["none", "wrong"])
async def test_a_relayed_login_is_refused_by_the_array(chap: ChapCredentials | None, front: ShimUnderTest) -> None:
    with pytest.raises(LoginRefused, match="authentication failure"):
        await host_session(front, chap)


async def test_a_host_notices_through_the_shim_that_the_array_is_another(front: ShimUnderTest) -> None:
    with pytest.raises(TargetNotTrusted):
        await host_session(front, ChapCredentials(USER, Secret(SECRET), TARGET_USER, Secret(b"some other secret")))


# ------------------------------------------------------------------------------------------------ the shim's own logins


@pytest.mark.parametrize(
    ("secret", "mutual", "message"),
    [
        ("host.secret", "array.secret", "authentication failure (status 0201h)"),
        ("shim.secret", "host.secret", "the target does not know the mutual CHAP secret"),
    ],
    ids=["wrong secret", "the array has another"],
)
async def test_a_shim_that_cannot_log_in(
    secret: str, mutual: str, message: str, array: ChapArray, directory: Path
) -> None:
    words = [*_where(array), *shim_words(directory, secret, mutual)]
    status, line = await run(sys.executable, "-m", "initiator_shim", *words)
    assert status == 2 and message in line and line.count("\n") == 1


async def test_a_shim_without_a_secret(array: ChapArray) -> None:
    status, line = await run(sys.executable, "-m", "initiator_shim", *_where(array))
    assert status == 2 and "authentication failure (status 0201h)" in line and line.count("\n") == 1


def _where(array: ChapArray) -> list[str]:
    return ["--listen", "127.0.0.1:0", "--array", f"127.0.0.1:{array.process.address[1]}"]


# ------------------------------------------------------------------------------------------------- pairctl and pyscsi


async def test_pairctl(array: ChapArray, directory: Path) -> None:
    """Its options may come before the verb or behind it."""
    options = ["--chap-user", USER, "--chap-secret-file", str(directory / "host.secret")]
    where = ["-a", f"iscsi://127.0.0.1:{array.process.address[1]}"]
    for words in ([*where, *options, "status"], [*where, "status", *options]):
        status, output = await run(sys.executable, "-m", "initiator_shim.pairctl", *words)
        assert status == 0 and "authentication" not in output
    status, output = await run(sys.executable, "-m", "initiator_shim.pairctl", *where, "status")
    assert status == 2 and "authentication failure (status 0201h)" in output


async def test_pyscsi_device(array: ChapArray) -> None:
    host, port = array.process.address
    url = f"iscsi://{host}:{port}/{array.process.iqn}/0"

    def inquire(chap: ChapCredentials | None) -> bytes:
        from pyscsi.pyscsi.scsi import SCSI

        with SCSI(PyscsiDevice(url, chap=chap), 512) as scsi:
            return bytes(scsi.inquiry().result["t10_vendor_identification"])

    async with asyncio.timeout(20):
        assert (await asyncio.to_thread(inquire, CREDENTIALS)).strip() == b"PAIRVOL"
        with pytest.raises(SessionError, match="authentication failure"):
            await asyncio.to_thread(inquire, None)


async def test_no_secret_reaches_a_log(array: ChapArray, front: ShimUnderTest) -> None:
    for secret in (SECRET, TARGET_SECRET, SHIM_SECRET):
        assert secret.decode() not in array.process.log + front.log
