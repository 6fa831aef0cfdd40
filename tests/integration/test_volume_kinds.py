"""Kinds of volumes, from the words of the command line and from the file to what a host meets."""

from contextlib import AsyncExitStack
from pathlib import Path

from storage_model.spec.scsi_pages import unmap_parameter_list
from storage_model.spec.scsi_sense import decode_sense
from tests.integration.array_process import running_array

ANY = ("--portal", "127.0.0.1:0")
MIB = 1 << 20
READ_CAPACITY_16 = bytes.fromhex("9e10 0000000000000000 00000020 0000")
READ_FIRST = bytes.fromhex("2800 00000000 00 0008 00")
WRITE_FIRST = bytes.fromhex("2a00 00000000 00 0008 00")
UNMAP_FIRST = bytes.fromhex("4200 00000000 00 0018 00")
EJECT, LOAD = bytes.fromhex("1b0000000200"), bytes.fromhex("1b0000000300")


async def test_full_takes_its_space_and_thin_gives_it_back(tmp_path: Path) -> None:
    thin, full = tmp_path / "thin.img", tmp_path / "full.img"
    words = ("--volume", f"1MiB,file={thin}", "--volume", f"1MiB,file={full},full")
    parameters = unmap_parameter_list([(0, 8)])
    async with running_array(tmp_path, *ANY, *words) as array:
        assert (thin.stat().st_blocks, full.stat().st_blocks * 512 >= MIB) == (0, True)
        session = await array.connect()
        await session.execute(1, bytes(6))
        for lun in (0, 1):
            assert (await session.execute(lun, WRITE_FIRST, b"d" * 4096)).status == 0
        assert (await session.execute(0, READ_CAPACITY_16, b"", 32)).data_in[14] == 0xC0
        assert (await session.execute(1, READ_CAPACITY_16, b"", 32)).data_in[14] == 0
        assert (await session.execute(0, UNMAP_FIRST, parameters)).status == 0
        refused = await session.execute(1, UNMAP_FIRST, parameters)
        assert decode_sense(refused.sense).asc_ascq == 0x2000
        assert (await session.execute(0, READ_FIRST, b"", 4096)).data_in == bytes(4096)
        assert (await session.execute(1, READ_FIRST, b"", 4096)).data_in == b"d" * 4096
        await session.logout()
    assert (thin.stat().st_blocks, full.stat().st_blocks * 512 >= MIB) == (0, True)


async def test_a_write_protected_file_is_served_by_several_arrays(tmp_path: Path) -> None:
    image = tmp_path / "a.iso"
    image.write_bytes(b"i" * MIB)
    image.chmod(0o444)
    async with AsyncExitStack() as stack:
        for name in ("one", "two"):
            words = (*ANY, "--volume", f"file={image},write-protected,removable")
            array = await stack.enter_async_context(running_array(tmp_path, *words, name=name))
            session = await array.connect()
            assert (await session.execute(0, bytes.fromhex("120000006000"), b"", 96)).data_in[1] == 0x80
            assert (await session.execute(0, READ_FIRST, b"", 4096)).data_in == b"i" * 4096
            refused = decode_sense((await session.execute(0, WRITE_FIRST, bytes(4096))).sense)
            assert (refused.sense_key, refused.asc_ascq) == (0x7, 0x2700)
            assert (await session.execute(0, EJECT)).status == 0
            assert decode_sense((await session.execute(0, READ_FIRST, b"", 4096)).sense).asc_ascq == 0x3A00
            assert (await session.execute(0, LOAD)).status == 0
            assert (await session.execute(0, READ_FIRST, b"", 4096)).data_in == b"i" * 4096
            await session.logout()
    assert image.read_bytes() == b"i" * MIB


async def test_kinds_of_a_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "array.toml").write_text(
        """
[array]
portals = ["127.0.0.1:0"]
state_dir = "state"
[[volumes]]
name = "full"
size = "1MiB"
file = "full.img"
provisioning = "full"
block = 4096
[[volumes]]
name = "aligned"
size = "1MiB"
physical = 4096
write_protected = true
"""
    )
    words = ("--config", str(tmp_path / "array.toml"), "--state-dir", str(tmp_path / "state"))
    async with running_array(tmp_path, *words) as array:
        session = await array.connect()
        await session.execute(1, bytes(6))
        capacity = (await session.execute(0, READ_CAPACITY_16, b"", 32)).data_in
        assert (int.from_bytes(capacity[8:12], "big"), capacity[13], capacity[14]) == (4096, 0, 0)
        capacity = (await session.execute(1, READ_CAPACITY_16, b"", 32)).data_in
        assert (int.from_bytes(capacity[8:12], "big"), capacity[13], capacity[14]) == (512, 3, 0xC0)
        refused = await session.execute(1, WRITE_FIRST, bytes(4096))
        assert decode_sense(refused.sense).asc_ascq == 0x2700
        await session.logout()
    assert (tmp_path / "state" / "full.img").stat().st_blocks * 512 >= MIB
