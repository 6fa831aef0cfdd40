"""SIGHUP: an array process reads its configuration again while hosts use it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from initiator_shim.initiator_transport import IscsiSession
from tests.eventually import eventually
from tests.integration.array_process import ArrayProcess, running_array

ARRAY = '[array]\nportals = ["127.0.0.1:0"]\n'
VOLUME = '[[volumes]]\nname = "v{0}"\nlun = {0}\nfile = "v{0}.img"\nsize = "{1}MiB"\n'
MIB = 1 << 20
READ_LAST_OF_2_MIB = bytes.fromhex("2800 00000fff 00 0001 00")


@dataclass
class Served:
    array: ArrayProcess
    config: Path
    session: IscsiSession
    _reloads: int = 0

    async def reload(self, *sections: str) -> str:
        """Write the file, send SIGHUP; what the log said of it."""
        self.config.write_text(ARRAY + "".join(sections))
        before = len(self.array.log)
        os.kill(self.array.process.pid, signal.SIGHUP)

        def answer() -> str:
            return next((line for line in self.array.log[before:].splitlines() if "onfiguration " in line), "")

        return await eventually(answer, what="an answer to SIGHUP")

    async def sense(self, lun: int, cdb: bytes = bytes(6)) -> str:
        """Key and code of the next command's sense; empty: GOOD."""
        outcome = await self.session.execute(lun, cdb, data_in_length=512 if cdb[0] else 0)
        return f"{outcome.sense[2]:x} {outcome.sense[12:14].hex()}" if outcome.status else ""

    async def capacity(self, lun: int) -> int:
        outcome = await self.session.execute(lun, b"\x25" + bytes(9), data_in_length=8)
        assert outcome.status == 0
        return (int.from_bytes(outcome.data_in[:4]) + 1) * 512


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    config = tmp_path / "array.toml"
    config.write_text(ARRAY + VOLUME.format(0, 1) + VOLUME.format(1, 1))
    async with running_array(tmp_path, "--config", str(config), "--state-dir", str(tmp_path)) as array:
        session = await array.connect()
        await session.execute(1, bytes(6))
        yield Served(array, config, session)
        await session.logout()


async def test_a_volume_grows_with_its_size(served: Served, tmp_path: Path) -> None:
    assert await served.sense(0, READ_LAST_OF_2_MIB) == "5 2100"
    assert "configuration reloaded" in await served.reload(VOLUME.format(0, 2), VOLUME.format(1, 1))
    assert (tmp_path / "v0.img").stat().st_size == 2 * MIB
    assert await served.sense(0) == "6 2a09"
    assert await served.sense(0, READ_LAST_OF_2_MIB) == ""
    assert await served.capacity(0) == 2 * MIB
    assert await served.sense(1) == "" and await served.capacity(1) == MIB


async def test_a_volume_grows_with_its_file(served: Served, tmp_path: Path) -> None:
    os.truncate(tmp_path / "v0.img", 2 * MIB)
    assert await served.sense(0, READ_LAST_OF_2_MIB) == "5 2100"
    without_size = VOLUME.format(0, 2).replace('size = "2MiB"\n', "")
    assert "configuration reloaded" in await served.reload(without_size, VOLUME.format(1, 1))
    assert await served.sense(0) == "6 2a09"
    assert await served.capacity(0) == 2 * MIB


async def test_a_volume_is_added(served: Served) -> None:
    assert await served.sense(7) == "5 2500"
    assert "configuration reloaded" in await served.reload(*(VOLUME.format(lun, 1) for lun in (0, 1, 7)))
    assert [await served.sense(lun) for lun in (0, 1, 7)] == ["6 3f0e", "6 3f0e", "6 2900"]
    assert [await served.sense(lun) for lun in (0, 1, 7)] == ["", "", ""]
    assert await served.capacity(7) == MIB


async def test_a_volume_is_removed_and_comes_back_with_its_data(served: Served) -> None:
    write, read = bytes.fromhex("2a00 00000003 00 0001 00"), bytes.fromhex("2800 00000003 00 0001 00")
    assert (await served.session.execute(1, write, b"k" * 512)).status == 0
    assert "configuration reloaded" in await served.reload(VOLUME.format(0, 1))
    assert [await served.sense(lun) for lun in (0, 1)] == ["6 3f0e", "5 2500"]
    assert "configuration reloaded" in await served.reload(VOLUME.format(0, 1), VOLUME.format(1, 1))
    assert [await served.sense(lun) for lun in (0, 1)] == ["6 3f0e", "6 2900"]
    assert (await served.session.execute(1, read, data_in_length=512)).data_in == b"k" * 512


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        (["[[volumes"], "not TOML"),
        ([VOLUME.format(0, 1), '[array2]\n'], "array2 is not a known key"),
        ([VOLUME.format(0, 1).replace('"1MiB"', '"512KiB"')], "volume v0 has 1048576 bytes, not 524288"),
        ([VOLUME.format(0, 1), "block = 4096\n"], "block_length of volume v0 cannot change while the array runs"),
        ([VOLUME.format(0, 1), VOLUME.format(2, 1).replace("v2.img", "missing/v2.img")], "no such directory"),
        ([VOLUME.format(0, 1), '[[portal_groups]]\ntag = 2\nportals = ["127.0.0.1:0"]\n'],
         "the portals of group 2 cannot change"),
        ([VOLUME.format(0, 1), '[[access]]\nchap_user = "u"\nchap_secret_file = "nowhere"\n'], "nowhere"),
    ],
    ids=["no TOML", "unknown key", "shrink", "block length", "file", "portals", "secret"],
)  # fmt: skip
async def test_an_error_is_one_line_and_changes_nothing(served: Served, sections: list[str], reason: str) -> None:
    """All of it or nothing: LUN 1, which these files have no more, is still there."""
    line = await served.reload(*sections)
    assert " ERROR " in line and "configuration not reloaded, the old one holds: " in line and reason in line
    assert [await served.sense(lun) for lun in (0, 1)] == ["", ""]
    assert "configuration reloaded" in await served.reload(VOLUME.format(0, 1), VOLUME.format(1, 1))
    assert "Traceback" not in served.array.log


async def test_what_was_opened_for_nothing_is_closed_again(served: Served) -> None:
    """Or its lock would keep it from ever being served."""
    volumes = [VOLUME.format(lun, 1) for lun in (0, 1, 3)]
    impossible = VOLUME.format(4, 1).replace("v4.img", "missing/v4.img")
    assert "no such directory" in await served.reload(*volumes, impossible)
    assert "configuration reloaded" in await served.reload(*volumes)
    assert [await served.sense(lun) for lun in (0, 3)] == ["6 3f0e", "6 2900"]


async def test_a_file_that_is_gone_is_an_error_too(served: Served) -> None:
    served.config.rename(served.config.with_suffix(".old"))
    os.kill(served.array.process.pid, signal.SIGHUP)
    await eventually(lambda: "array.toml: No such file or directory" in served.array.log, what="the error")
    assert await served.sense(0) == ""


async def test_access_rules_change(served: Served) -> None:
    """Who may not stay is told and dropped; the others go on."""
    rule = '[[access]]\ninitiator = "iqn.2026-11.org.example:somebody-else"\n'
    assert "configuration reloaded" in await served.reload(VOLUME.format(0, 1), VOLUME.format(1, 1), rule)
    async with asyncio.timeout(10):
        assert "drops the connection" in str(await served.session.ended)


async def test_a_port_goes_to_standby(served: Served) -> None:
    group = '[[portal_groups]]\ntag = 1\nalua = "standby"\n'
    volumes = VOLUME.format(0, 1), VOLUME.format(1, 1)
    assert "configuration reloaded" in await served.reload(*volumes, group)
    assert [await served.sense(0) for _ in range(2)] == ["6 2a06", "2 040b"]
    assert "configuration reloaded" in await served.reload(*volumes, group.replace("standby", "active/optimized"))
    assert [await served.sense(0) for _ in range(2)] == ["6 2a06", ""]


async def test_without_a_file_there_is_nothing_to_change(tmp_path: Path) -> None:
    async with running_array(tmp_path) as array:
        os.kill(array.process.pid, signal.SIGHUP)
        await eventually(lambda: "configuration reloaded" in array.log, what="an answer to SIGHUP")
        await array.assert_serving()
