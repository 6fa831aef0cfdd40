"""VPD page 88h, and page 83h on the second of two ports (SPC-4 7.8.14, 7.8.6; RFC 7143 §4.4.4)."""

from storage_model.spec.scsi_pages import Association, DesignatorType, decode_designators
from tests.conformance.scsi.target_ports import PORT_2_A, with_two_ports

IQN = "iqn.2026-11.org.pairvol:array"


async def test_scsi_ports_lists_every_port(bench):
    with_two_ports(bench)
    body = (await bench.good("12 01 88 ff ff 00"))[4:]
    for number in (1, 2):
        assert body[:12] == b"\0\0" + number.to_bytes(2) + bytes(6) + body[10:12]
        length = int.from_bytes(body[10:12])
        (name,) = decode_designators(b"\0\0" + body[10:12] + body[12 : 12 + length])
        assert name.value.rstrip(b"\0").decode() == f"{IQN},t,0x{number:04x}"
        assert (name.association, name.designator_type) == (Association.TARGET_PORT, DesignatorType.SCSI_NAME_STRING)
        body = body[12 + length :]
    assert body == b""


async def test_device_identification_names_the_port_that_was_asked(bench):
    with_two_ports(bench)
    for nexus, number in ((bench.nexus_a, 1), (PORT_2_A, 2)):
        designators = decode_designators(await bench.good("12 01 83 ff ff 00", nexus=nexus))
        port = {d.designator_type: d.value for d in designators if d.association == Association.TARGET_PORT}
        assert port == {
            DesignatorType.RELATIVE_TARGET_PORT: number.to_bytes(4),
            DesignatorType.TARGET_PORT_GROUP: number.to_bytes(4),
            DesignatorType.SCSI_NAME_STRING: f"{IQN},t,0x{number:04x}".encode().ljust(40, b"\0"),
        }


async def test_the_unit_is_the_same_on_both_ports(bench):
    with_two_ports(bench)

    async def unit(nexus):
        page = await bench.good("12 01 83 ff ff 00", nexus=nexus)
        return [d for d in decode_designators(page) if d.association == Association.LOGICAL_UNIT]

    assert await unit(PORT_2_A) == await unit(bench.nexus_a)
