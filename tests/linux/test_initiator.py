"""A real Linux initiator against one array: what an administrator would do with a disk of it."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from tests.linux.guest import Guest, StepFailed
from tests.linux.linux_array import (
    ARRAY_SECRET,
    BLOCKS_4096,
    DATA,
    GROWING,
    HOST_SECRET,
    PORTAL,
    SECOND_PORTAL,
    TARGET,
    UNITS,
    LinuxArray,
)
from tests.linux.network import Network

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

WHERE = {"TARGET": TARGET, "PORTAL": PORTAL}
CHAP = (
    "node.session.auth.authmethod=CHAP",
    "node.session.auth.username=host",
    f"node.session.auth.password={HOST_SECRET}",
)
MUTUAL = (*CHAP, "node.session.auth.username_in=array", f"node.session.auth.password_in={ARRAY_SECRET}")
HEADER, DATA_DIGEST = "node.conn[0].iscsi.HeaderDigest=CRC32C", "node.conn[0].iscsi.DataDigest=CRC32C"
LOGINS = {
    "plain": ("plain", ()),
    "header digest": ("plain", (HEADER,)),
    "data digest": ("plain", (DATA_DIGEST,)),
    "both digests": ("plain", (HEADER, DATA_DIGEST)),
    "CHAP": ("chap", CHAP),
    "CHAP and both digests": ("chap", (*CHAP, HEADER, DATA_DIGEST)),
    "mutual CHAP": ("mutual", MUTUAL),
    "mutual CHAP and both digests": ("mutual", (*MUTUAL, HEADER, DATA_DIGEST)),
}


UNAUTHORIZED, GAVE_UP = "login failed due to authorization failure", "non-retryable iSCSI login failure"
REFUSED = {
    "without CHAP": ("chap", (), UNAUTHORIZED),
    "with a wrong secret": ("chap", (*CHAP[:-1], "node.session.auth.password=wrong-secret-16b"), UNAUTHORIZED),
    "from a wrong address": ("stranger", (), UNAUTHORIZED),
    "by the initiator, for the array's secret": (
        "mutual",
        (*MUTUAL[:-1], "node.session.auth.password_in=wrong-secret-16b"),
        GAVE_UP,
    ),
}
MARKER = "a mark that is found in the volume's file: 7c0c1f4e"
FILLED_MIB = 48
GROWN_BYTES = 96 << 20


async def test_guest_boots(guest: Guest) -> None:
    """a Linux guest boots, with open-iscsi"""
    await guest.run("boot.sh")


async def test_discovery(guest: Guest, array: LinuxArray) -> None:
    """discovery"""
    await guest.run("discovery.sh", {**WHERE, "FOUND": f"{PORTAL},1 {TARGET};{SECOND_PORTAL},2 {TARGET}"})


@pytest.mark.parametrize("how", LOGINS)
async def test_login(guest: Guest, array: LinuxArray, how: str) -> None:
    """login"""
    initiator, settings = LOGINS[how]
    login = {"INITIATOR": initiator, "SETTINGS": " ".join(settings)}
    digests = {"HEADER_DIGEST": int(HEADER in settings), "DATA_DIGEST": int(DATA_DIGEST in settings)}
    await guest.run("login.sh", {**WHERE, **login, **digests})


@pytest.mark.parametrize("how", REFUSED)
async def test_login_refused(guest: Guest, array: LinuxArray, how: str) -> None:
    """login refused"""
    initiator, settings, reason = REFUSED[how]
    login = {"INITIATOR": initiator, "SETTINGS": " ".join(settings), "REASON": reason}
    await guest.run("login_refused.sh", {**WHERE, **login})


async def test_masked_units(guest: Guest, array: LinuxArray) -> None:
    """an initiator with one unit, write protected"""
    await guest.run("masked.sh", {**WHERE, "LUN": BLOCKS_4096})


async def test_inquiry(guest: Guest, array: LinuxArray) -> None:
    """sg_inq, sg_vpd, sg_readcap, sg_luns, sg_opcodes"""
    await guest.run("inquiry.sh", {**WHERE, "LUNS": UNITS})


async def test_persistent_reservations(guest: Guest, array: LinuxArray) -> None:
    """sg_persist by two initiators"""
    await guest.run("reservation.sh", WHERE)


async def test_reservation_over_a_restart(guest: Guest, array: LinuxArray) -> None:
    """sg_persist with APTPL: the reservation holds after a kill -9 of the array"""
    step = await guest.start("reservation_kept.sh", WHERE)
    await step.announces("reserved")
    await array.kill()
    await array.start()
    await step.tell("restarted")
    await step.ended()


async def test_reserve_and_reset(guest: Guest, array: LinuxArray) -> None:
    """sg_raw RESERVE(6), sg_reset of unit and target"""
    await guest.run("reset.sh", WHERE)


async def test_portal_groups(guest: Guest, array: LinuxArray) -> None:
    """sg_rtpg through both portal groups"""
    await guest.run("portal_groups.sh", {**WHERE, "SECOND_PORTAL": SECOND_PORTAL})


async def test_provisioning_commands(guest: Guest, array: LinuxArray) -> None:
    """sg_write_same, sg_unmap, sg_compare_and_write"""
    await guest.run("provisioning.sh", WHERE)


async def test_blkdiscard(guest: Guest, array: LinuxArray) -> None:
    """blkdiscard gives the host its disk space back"""
    await guest.run("fill.sh", {**WHERE, "MEBIBYTES": FILLED_MIB})
    filled = array.allocated_bytes("data")
    assert filled >= FILLED_MIB << 20, "nothing was written"
    await guest.run("discard.sh", {**WHERE, "MEBIBYTES": FILLED_MIB})
    assert array.allocated_bytes("data") <= filled - (FILLED_MIB << 20), "the file is as large as before"


@pytest.mark.parametrize("lun", [DATA, BLOCKS_4096], ids=["512-byte blocks", "4096-byte blocks"])
async def test_file_system(guest: Guest, array: LinuxArray, lun: int) -> None:
    """ext4 with files, checksums and fsck"""
    where = {**WHERE, "LUN": lun, "MARKER": MARKER}
    await guest.run("filesystem_write.sh", where)
    await guest.run("filesystem_verify.sh", where)


async def test_flipped_byte_is_found(guest: Guest, array: LinuxArray) -> None:
    """a byte flipped in the volume's file is found, so that the checks can fail"""
    where = {**WHERE, "LUN": DATA, "MARKER": MARKER}
    await guest.run("filesystem_write.sh", where)
    position = array.flip_byte("data", MARKER.encode())
    with pytest.raises(StepFailed, match="a file is not what it was"):
        await guest.run("filesystem_verify.sh", where)
    array.flip_byte_at("data", position)
    await guest.run("filesystem_verify.sh", where)


@pytest.mark.parametrize("digests", [(), (HEADER, DATA_DIGEST)], ids=["plain", "with both digests"])
async def test_fio(guest: Guest, array: LinuxArray, digests: tuple[str, ...]) -> None:
    """fio with verify"""
    await guest.run("fio.sh", {**WHERE, "LUN": DATA, "SETTINGS": " ".join(digests)})


async def test_lvm(guest: Guest, array: LinuxArray) -> None:
    """LVM over two disks, with a file system that grows"""
    await guest.run("lvm.sh", WHERE)


async def test_resize(guest: Guest, array: LinuxArray) -> None:
    """a volume that grows is seen after a rescan"""
    before = array.file("growing").stat().st_size
    sizes = {"SECTORS_BEFORE": before // 512, "SECTORS_AFTER": GROWN_BYTES // 512}
    step = await guest.start("resize.sh", {**WHERE, "LUN": GROWING, **sizes})
    await step.announces("ready")
    array.grow_to(GROWN_BYTES)
    await step.tell("grown")
    await step.ended()


async def survive(guest: Guest, disturb: Callable[[], Coroutine[None, None, None]], times: int) -> None:
    """File system and fio at work while ``disturb`` takes the connection away, so many times."""
    step = await guest.start("survive.sh", WHERE)
    await step.announces("pass")
    for _ in range(times):
        disturbance = asyncio.create_task(disturb())
        await step.announces("lost")
        await disturbance
        # The pass that was under way, and one that began with the connection back.
        await step.announces("pass")
        await step.announces("pass")
    await step.tell(str(times))
    await step.ended()


async def test_array_restart_under_io(guest: Guest, array: LinuxArray) -> None:
    """kill -9 of the array under I/O, twice: no error in the file system or fio"""

    async def restart() -> None:
        await array.kill()
        await array.start()

    await survive(guest, restart, 2)


async def test_dropped_connection_under_io(guest: Guest, array: LinuxArray, network: Network) -> None:
    """the connection reset under I/O, three times: no error in the file system or fio"""
    await survive(guest, lambda: network.reset_connections(guest.number), 3)


async def test_pulled_cable_under_io(guest: Guest, array: LinuxArray, network: Network) -> None:
    """the cable pulled under I/O until the initiator notices: no error in the file system or fio"""
    step = await guest.start("survive.sh", WHERE)
    await step.announces("pass")
    await network.pull_cable(guest.number)
    await step.announces("lost")
    await network.plug_cable(guest.number)
    await step.announces("pass")
    await step.announces("pass")
    await step.tell("1")
    await step.ended()
