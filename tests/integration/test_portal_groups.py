"""Several portal groups of one array, seen by real clients and by our own initiator."""

from collections.abc import Callable
from pathlib import Path

from initiator_shim.initiator_transport import IscsiSession, discover
from storage_model.spec.scsi_pages import Association, DesignatorType, decode_designators
from storage_model.spec.scsi_target_port_groups import AccessState, decode_target_port_groups, set_target_port_groups
from tests.integration.array_process import HOST, ArrayProcess, running_array
from tests.integration.client_tools import run_tool

RequireTool = Callable[[str], str]
WORDS = ("--portal", "127.0.0.1:0", "--portal", "127.0.0.1:0,5", "--volume", "1MiB", "--volume", "2MiB")
ISID = bytes.fromhex("00023d000042")
REPORT = bytes.fromhex("a30a 00000000 00001000 0000")
NOT_ACCESSIBLE = b"\x04\x0b"


def addresses(array: ArrayProcess) -> list[str]:
    return list(dict.fromkeys(url.split("/")[2] for url in array.urls))


async def log_in(address: str, isid: bytes = ISID) -> IscsiSession:
    """A session that has heard of the power on of both units."""
    host, _, port = address.rpartition(":")
    session = await IscsiSession.connect(host, int(port), initiator_name=HOST, isid=isid)
    for lun in (0, 1):
        await session.execute(lun, bytes(6))
    return session


async def test_iscsi_ls_shows_every_portal_with_its_units(tmp_path: Path, require_tool: RequireTool) -> None:
    async with running_array(tmp_path, *WORDS) as array:
        one, five = addresses(array)
        output = await run_tool(require_tool("iscsi-ls"), "-s", f"iscsi://{one}")
        for portal in (f"{one},1", f"{five},5"):
            _, _, after = output.partition(f"Target:{array.iqn} Portal:{portal}\n")
            assert [line.split()[0] for line in after.splitlines()[:2]] == ["Lun:0", "Lun:1"], output
        assert await discover(*array.address) == [(array.iqn, [f"{one},1", f"{five},5"])]


async def test_one_initiator_on_two_ports(tmp_path: Path) -> None:
    """The same name and ISID: two nexuses, with one reservation between them."""
    async with running_array(tmp_path, *WORDS) as array:
        one, five = [await log_in(address) for address in addresses(array)]
        for session, number in ((one, 1), (five, 5)):
            page = (await session.execute(0, bytes.fromhex("12 01 83 ffff 00"), data_in_length=0xFFFF)).data_in
            port = {d.designator_type: d.value for d in decode_designators(page) if d.association == Association(1)}
            assert port[DesignatorType.RELATIVE_TARGET_PORT] == number.to_bytes(4)
        assert (await one.execute(0, b"\x16" + bytes(5))).status == 0
        assert (await five.execute(0, b"\x16" + bytes(5))).status == 0x18
        await one.logout()
        assert (await five.execute(0, b"\x16" + bytes(5))).status == 0
        await five.logout()


async def test_a_port_is_put_into_standby_and_back(tmp_path: Path) -> None:
    async with running_array(tmp_path, *WORDS) as array:
        one, five = [await log_in(address) for address in addresses(array)]
        groups = decode_target_port_groups((await one.execute(0, REPORT, data_in_length=4096)).data_in)
        assert [(group.group, group.state, group.relative_target_ports) for group in groups] == [
            (1, AccessState.ACTIVE_OPTIMIZED, (1,)),
            (5, AccessState.ACTIVE_OPTIMIZED, (5,)),
        ]
        for state, sense in ((AccessState.STANDBY, NOT_ACCESSIBLE), (AccessState.ACTIVE_OPTIMIZED, None)):
            parameters = set_target_port_groups({5: state})
            cdb = bytes.fromhex("a40a 00000000") + len(parameters).to_bytes(4) + bytes(2)
            assert (await one.execute(0, cdb, parameters)).status == 0
            assert (await one.execute(0, bytes(6))).status == 0
            for lun in (0, 1):  # the state is the port's, and every unit of it tells the change first
                assert (await five.execute(lun, bytes(6))).sense[12:14] == b"\x2a\x06"
                outcome = await five.execute(lun, bytes.fromhex("2800 00000000 00 0001 00"), data_in_length=512)
                assert (outcome.sense[12:14] if outcome.status else None) == sense
        await one.logout()
        await five.logout()
        await array.assert_serving()
        assert "target port group 5 is standby, as iqn.2026-11.org.example:host" in array.log
