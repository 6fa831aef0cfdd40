"""PDUs as they stand on the wire, annotated byte by byte in tests/golden/iscsi_pdus.txt."""

from pathlib import Path

import pytest

from storage_model.spec.iscsi_pdu import (
    DataInPdu,
    DataOutPdu,
    LoginRequestPdu,
    LogoutRequestPdu,
    Pdu,
    R2TPdu,
    RejectPdu,
    RejectReason,
    ScsiCommandPdu,
    ScsiResponsePdu,
    decode_pdu,
    lun_to_bytes,
)
from storage_model.spec.iscsi_stream import PduStream, encode_pdu

GOLDEN = Path(__file__).parent.parent / "golden" / "iscsi_pdus.txt"

EXPECTED: dict[str, Pdu] = {
    "login request": LoginRequestPdu(
        transit=True,
        csg=1,
        nsg=3,
        isid=bytes.fromhex("8039c0c00000"),
        itt=0x637E4A0A,
        cmd_sn=0x7FF9036B,
        exp_stat_sn=1,
        data=b"SessionType=Normal\0A=Yes\0\0",
    ),
    "test unit ready": ScsiCommandPdu(itt=0x637E4A0B, cmd_sn=0x7FF9036B, exp_stat_sn=1),
    "read command": ScsiCommandPdu(
        read=True,
        itt=0x637E4A16,
        expected_data_transfer_length=512,
        cmd_sn=0x7FF90376,
        exp_stat_sn=12,
        cdb=bytes.fromhex("28000000000000000100000000000000"),
    ),
    "write command": ScsiCommandPdu(
        write=True,
        itt=0x637E4A17,
        expected_data_transfer_length=512,
        cmd_sn=0x7FF90377,
        exp_stat_sn=13,
        cdb=bytes.fromhex("2a080000000000000100000000000000"),
        data=b"\1\1\1\1",
    ),
    "logout request": LogoutRequestPdu(itt=0x637E4A19, cmd_sn=0x7FF90379, exp_stat_sn=15),
    "scsi response": ScsiResponsePdu(
        itt=0x637E4A0B,
        status=2,
        stat_sn=1,
        exp_cmd_sn=0x7FF9036C,
        max_cmd_sn=0x7FF903EB,
        data=bytes.fromhex("0012700006000000000a00000000290000000000"),
    ),
    "data-in with status": DataInPdu(
        underflow=True,
        status_present=True,
        itt=0x637E4A15,
        stat_sn=11,
        exp_cmd_sn=0x7FF90376,
        max_cmd_sn=0x7FF903F5,
        residual_count=56,
        data=bytes.fromhex("00b2000400e40200"),
    ),
    "r2t": R2TPdu(lun_to_bytes(1), 7, 3, 0x10, 0x20, 0x30, 1, 0x10000, 0x40000),
    "data-out": DataOutPdu(True, lun_to_bytes(1), 7, 3, 0x11, 2, 0x10000, b"abc"),
    "reject": RejectPdu(RejectReason.PROTOCOL_ERROR, stat_sn=5, exp_cmd_sn=6, max_cmd_sn=7),
}


def blocks() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    name = ""
    for line in GOLDEN.read_text().splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            found[name] = b""
        elif line and not line.startswith("#"):
            found[name] += bytes.fromhex(line.split("  ")[0])
    return found


def test_every_block_has_its_meaning() -> None:
    assert blocks().keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_golden(name: str) -> None:
    wire = blocks()[name]
    (raw,) = PduStream(8192).receive_data(wire)
    assert decode_pdu(raw) == EXPECTED[name]
    assert b"".join(bytes(part) for part in encode_pdu(EXPECTED[name])) == wire
