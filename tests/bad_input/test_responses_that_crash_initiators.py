"""Responses that crash initiators (open-iscsi, QEMU): never a byte more than was asked for.

Parameter data is cut to the ALLOCATION LENGTH, to the byte, for every command that has one (SPC-4 4.2.5.6); Data-In
PDUs fit the peer's MaxRecvDataSegmentLength; a Reject says which request it is about (RFC 7143 §11.17).
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from storage_model.spec.iscsi_pdu import DataInPdu, RejectPdu, ScsiCommandPdu, SnackRequestPdu
from storage_model.spec.scsi_sense import decode_sense
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.command_row import DataDirection
from target.scsi.command_table import COMMAND_ROWS
from tests.conformance.scsi.bench import Bench, make_bench
from tests.integration.array_process import ArrayProcess, running_array
from tests.integration.raw_initiator import RawInitiator

FIELDS = {
    # (operation code, service action or None): first byte and width of ALLOCATION LENGTH, and its least value.
    (0x03, None): (4, 1, 0),
    (0x12, None): (3, 2, 0),
    (0x1A, None): (4, 1, 0),
    (0x37, None): (7, 2, 0),
    (0x3C, None): (6, 3, 0),
    (0x4D, None): (7, 2, 0),
    (0x5A, None): (7, 2, 0),
    (0x5E, 0x00): (7, 2, 0),
    (0x5E, 0x01): (7, 2, 0),
    (0x5E, 0x02): (7, 2, 0),
    (0x5E, 0x03): (7, 2, 0),
    (0x84, 0x03): (10, 4, 0),
    (0x9E, 0x10): (10, 4, 0),
    (0x9E, 0x12): (10, 4, 0),
    (0xA0, None): (6, 4, 16),  # SPC-4 6.35: less than 16 may be refused, and always was
    (0xA3, 0x0A): (6, 4, 0),
    (0xA3, 0x0C): (6, 4, 0),
    (0xA3, 0x0D): (6, 4, 4),  # SPC-4 6.36: at least four
    (0xB7, None): (6, 4, 0),
}
WITHOUT = {
    *((0x08, None), (0x28, None), (0x88, None), (0xA8, None)),  # READ: a transfer length, in blocks
    (0x25, None),  # READ CAPACITY(10): eight bytes, always
    *((0x84, 0x00), (0x84, 0x01), (0x84, 0x04)),  # they have data only about a copy; their tests are with the copies
    (0xC0, 0x00),  # the pair's, with the pair's tests
}
REQUESTS = [
    "03 00",
    "03 01",
    "12 00",
    *(f"12 01 {page}" for page in ("00", "80", "83", "86", "88", "b0", "b1", "b2")),
    "1a 00 3f ff",
    "1a 08 0a 00",
    "37 00 1d",
    *(f"3c {mode}" for mode in ("02", "03", "0a", "0b")),
    *(f"4d 00 {page}" for page in ("00", "40ff", "42", "43", "45", "6f")),
    "5a 00 3f ff",
    "5a 10 3f",
    *(f"5e {action}" for action in ("00", "01", "02", "03")),
    "84 03",
    "9e 10",
    "9e 12",
    *(f"a0 00 {select}" for select in ("00", "01", "02")),
    "a3 0a",
    "a3 2a",
    "a3 0c 00",
    "a3 0c 80",
    "a3 0c 81 28",
    "a3 0c 82 9e 0010",
    "a3 0c 03 ff",
    "a3 0d 00",
    "a3 0d 80",
    "b7 1d",
]
LONGEST = 4200


def cdb_of(request: str, allocation_length: int) -> bytes:
    cdb = bytearray(bytes.fromhex(request).ljust(16, b"\0"))
    first, width, _ = FIELDS.get((cdb[0], cdb[1] & 0x1F), FIELDS.get((cdb[0], None), (0, 0, 0)))
    cdb[first : first + width] = allocation_length.to_bytes(width, "big")
    return bytes(cdb)


def width_of(request: str) -> int:
    cdb = bytes.fromhex(request)
    return FIELDS.get((cdb[0], cdb[1] & 0x1F), FIELDS.get((cdb[0], None), (0, 0, 0)))[1]


def least_of(request: str) -> int:
    cdb = bytes.fromhex(request)
    return FIELDS.get((cdb[0], cdb[1] & 0x1F), FIELDS.get((cdb[0], None), (0, 0, 0)))[2]


async def prepared() -> Bench:
    """An echo buffer that holds something, so that it can be read."""
    bench = make_bench()
    await bench.good("3b 0a 00 000000 000020", bytes(range(32)))
    return bench


async def test_every_command_with_parameter_data_is_here() -> None:
    rows = {(row.operation_code, row.service_action) for row in COMMAND_ROWS if row.direction is DataDirection.IN}
    assert rows == set(FIELDS) | WITHOUT
    asked = {bytes.fromhex(request) for request in REQUESTS}
    assert {(cdb[0], None) if (cdb[0], None) in FIELDS else (cdb[0], cdb[1] & 0x1F) for cdb in asked} == set(FIELDS)


@pytest.mark.parametrize("request_", REQUESTS)
async def test_allocation_length_is_obeyed_to_the_byte(request_: str) -> None:
    bench = await prepared()
    most = min((1 << 8 * width_of(request_)) - 1, LONGEST)
    full = bytes((await bench.run(cdb_of(request_, most))).data_in)
    assert full
    for length in range(least_of(request_), min(len(full) + 2, most + 1)):
        outcome = await bench.run(cdb_of(request_, length))
        assert outcome.status is ScsiStatus.GOOD, length
        assert bytes(outcome.data_in) == full[:length]
        assert outcome.transfer_length_bytes == len(outcome.data_in)


@pytest.mark.parametrize("request_", [request for request in REQUESTS if least_of(request)])
async def test_an_allocation_length_that_is_too_small_gets_nothing(request_: str) -> None:
    bench = await prepared()
    for length in range(least_of(request_)):
        outcome = await bench.run(cdb_of(request_, length))
        assert outcome.status is ScsiStatus.CHECK_CONDITION and not outcome.data_in
        assert decode_sense(outcome.sense).asc_ascq == 0x2400


@pytest.mark.parametrize("request_", ["12 00", "03 00", "03 01", "a0 00"])
async def test_where_no_unit_is(request_: str) -> None:
    bench = make_bench()
    full = bytes((await bench.run(cdb_of(request_, 255), lun=9)).data_in)
    for length in range(least_of(request_), len(full) + 2):
        outcome = await bench.run(cdb_of(request_, length), lun=9)
        assert bytes(outcome.data_in) == full[:length] and outcome.transfer_length_bytes == len(outcome.data_in)


# --- over a connection

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def array(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArrayProcess]:
    async with running_array(Path(tmp_path_factory.mktemp("array"))) as array:
        yield array
        await array.assert_serving()


async def collected(initiator: RawInitiator) -> list[DataInPdu]:
    pdus = [await initiator.expect(DataInPdu)]
    while not pdus[-1].status_present:
        pdus.append(await initiator.expect(DataInPdu))
    return pdus


@pytest.mark.parametrize("segment", [512, 516, 1024, 8192])
async def test_data_in_fits_the_receiver(array: ArrayProcess, segment: int) -> None:
    """RFC 7143 §13.12: MaxRecvDataSegmentLength is what the peer can take in one PDU."""
    async with RawInitiator.connection(array.address) as initiator:
        await initiator.log_in(array.iqn, MaxRecvDataSegmentLength=str(segment))
        command = ScsiCommandPdu(itt=0, read=True, expected_data_transfer_length=65536, cdb=bytes(16))
        initiator.command(command)  # hears of the power on
        await initiator.receive()
        initiator.command(
            ScsiCommandPdu(
                itt=0, read=True, expected_data_transfer_length=65536, cdb=b"\x28" + bytes(7) + b"\x80" + bytes(7)
            )
        )
        pdus = await collected(initiator)
        assert max(len(pdu.data) for pdu in pdus) <= segment
        assert sum(len(pdu.data) for pdu in pdus) == 65536


@pytest.mark.parametrize("expected", [4, 5, 36, 95])
async def test_data_in_is_never_more_than_expected(array: ArrayProcess, expected: int) -> None:
    """RFC 7143 §11.4.5.1: beyond the Expected Data Transfer Length there is only a residual count."""
    async with RawInitiator.connection(array.address) as initiator:
        await initiator.log_in(array.iqn)
        initiator.command(
            ScsiCommandPdu(itt=0, read=True, expected_data_transfer_length=expected, cdb=b"\x12\0\0\0\xff" + bytes(11))
        )
        pdus = await collected(initiator)
        assert sum(len(pdu.data) for pdu in pdus) == expected
        assert pdus[-1].overflow and pdus[-1].residual_count == 96 - expected


async def test_a_reject_says_what_it_rejects(array: ArrayProcess) -> None:
    """RFC 7143 §11.17.4: the header of the request, with its Initiator Task Tag, is the Reject's data."""
    async with RawInitiator.connection(array.address) as initiator:
        await initiator.log_in(array.iqn)
        snack = SnackRequestPdu(itt=0x12345678)
        initiator.send(snack)
        reject = await initiator.expect(RejectPdu)
        assert bytes(reject.data) == snack.encode_bhs() and bytes(reject.data)[16:20] == b"\x12\x34\x56\x78"
