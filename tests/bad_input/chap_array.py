"""An array that asks for CHAP, in a process of its own, and initiators that get as far as its challenge."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from initiator_shim.initiator_chap import ChapCredentials
from initiator_shim.initiator_transport import IscsiSession
from storage_model.secret import Secret
from storage_model.spec.iscsi_pdu import LoginResponsePdu, Stage
from storage_model.spec.iscsi_text import parse_text
from tests.chap_login import SECRET, TARGET_SECRET, TARGET_USER, USER
from tests.integration.array_process import HOST, ArrayProcess, running_array
from tests.integration.raw_initiator import RUDE, RawInitiator

CHAP = f"chap-user={USER},chap-secret-file=host.secret,mutual-user={TARGET_USER},mutual-secret-file=array.secret"
CREDENTIALS = ChapCredentials(USER, Secret(SECRET), TARGET_USER, Secret(TARGET_SECRET))


def secret_file(path: Path, secret: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(secret + b"\n")
    path.chmod(mode)
    return path


@dataclass
class ChapArray:
    process: ArrayProcess

    def say(self, initiator: RawInitiator, pairs: Mapping[str, str], *, transit: bool = True) -> None:
        """One request of the security stage."""
        nsg = Stage.LOGIN_OPERATIONAL_NEGOTIATION if transit else Stage.SECURITY_NEGOTIATION
        initiator.send(initiator.login_request(pairs, csg=Stage.SECURITY_NEGOTIATION, nsg=nsg, transit=transit))

    @asynccontextmanager
    async def challenged(self) -> AsyncIterator[tuple[RawInitiator, dict[str, str]]]:
        """A connection that has been asked to prove itself, and the target's CHAP_A, CHAP_I and CHAP_C."""
        async with RawInitiator.connection(self.process.address) as initiator:
            names = {"InitiatorName": RUDE, "TargetName": self.process.iqn, "AuthMethod": "CHAP"}
            self.say(initiator, names, transit=False)
            await initiator.expect(LoginResponsePdu)
            self.say(initiator, {"CHAP_A": "5"}, transit=False)
            response = await initiator.expect(LoginResponsePdu)
            assert response.status == 0, response
            yield initiator, parse_text(response.data)

    async def log_in(self, name: str = HOST, chap: ChapCredentials = CREDENTIALS) -> IscsiSession:
        return await IscsiSession.connect(*self.process.address, self.process.iqn, name, chap=chap)

    async def log_in_and_out(self) -> None:
        """The array serves whoever has the secret."""
        session = await self.log_in()
        await session.execute(0, bytes(6))
        assert (await session.execute(0, bytes(6))).status == 0
        await session.logout()


@asynccontextmanager
async def chap_array(directory: Path, *access: str, words: tuple[str, ...] = ()) -> AsyncIterator[ChapArray]:
    """``access`` are the words of ``--access``; ``host.secret`` and ``array.secret`` in them stand for real files."""
    secret_file(directory / "host.secret", SECRET)
    secret_file(directory / "array.secret", TARGET_SECRET)
    rules = [word for rule in access for word in ("--access", rule.replace("-file=", f"-file={directory}/"))]
    arguments = ("--portal", "127.0.0.1:0", "--volume", "16MiB", "--volume", "16MiB", *rules, *words)
    async with running_array(directory, *arguments) as process:
        yield ChapArray(process)
