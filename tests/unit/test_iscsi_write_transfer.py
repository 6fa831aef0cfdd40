"""Data-Out of one command: every negotiated combination, and what is wrong in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.errors import RemoteProtocolError
from storage_model.spec.iscsi_pdu import RESERVED_TAG, DataOutPdu, R2TPdu
from target.iscsi.session import SessionParameters
from target.iscsi.write_transfer import (
    INCORRECT_AMOUNT_OF_DATA,
    PROTOCOL_SERVICE_CRC_ERROR,
    TOO_LONG,
    UNEXPECTED_UNSOLICITED_DATA,
    WriteTransfer,
)

LIMIT = 1 << 20


def parameters(**changes: object) -> SessionParameters:
    values: dict[str, object] = {
        "initial_r2t": False,
        "immediate_data": True,
        "first_burst_length": 1000,
        "max_burst_length": 2000,
        "max_outstanding_r2t": 1,
    }
    return SessionParameters(**{**values, **changes})  # type: ignore[arg-type]


def solicit(transfer: WriteTransfer, ttt: int = 1) -> R2TPdu:
    return transfer.solicit(ttt, 5, bytes(8), 0, 0, 0)


def pieces(start: int, end: int, size: int, ttt: int, source: bytes) -> list[DataOutPdu]:
    offsets = range(start, end, size)
    return [
        DataOutPdu(
            final=offset + size >= end,
            ttt=ttt,
            data_sn=number,
            buffer_offset=offset,
            data=source[offset : min(offset + size, end)],
        )
        for number, offset in enumerate(offsets)
    ]


@given(
    st.booleans(),
    st.booleans(),
    st.integers(1, 9000),
    st.integers(1, 1500),
    st.integers(512, 3000),
    st.integers(512, 3000),
    st.integers(1, 4),
)
def test_every_combination_collects_all_bytes(
    initial_r2t: bool, immediate_data: bool, length: int, segment: int, first: int, burst: int, outstanding: int
) -> None:
    agreed = parameters(
        initial_r2t=initial_r2t,
        immediate_data=immediate_data,
        first_burst_length=min(first, burst),
        max_burst_length=burst,
        max_outstanding_r2t=outstanding,
    )
    source = bytes(index * 7 & 0xFF for index in range(length))
    unasked = min(length, agreed.first_burst_length)
    immediate = min(unasked, segment) if immediate_data else 0
    final = initial_r2t or immediate == unasked
    transfer = WriteTransfer(length, agreed, memoryview(source)[:immediate], final, LIMIT)
    if not final:
        assert not transfer.wants_r2t
        for pdu in pieces(immediate, unasked, segment, RESERVED_TAG, source):
            transfer.receive(pdu)
    ttt = 0
    while not transfer.done:
        asked = []
        while transfer.wants_r2t:
            ttt += 1
            asked.append(solicit(transfer, ttt))
        assert 1 <= len(asked) <= outstanding
        for r2t in asked:
            assert r2t.desired_data_transfer_length <= burst
            end = r2t.buffer_offset + r2t.desired_data_transfer_length
            for pdu in pieces(r2t.buffer_offset, end, segment, r2t.ttt, source):
                transfer.receive(pdu)
    assert transfer.failure is None and bytes(transfer.data) == source


def test_r2t_numbers_count_up() -> None:
    transfer = WriteTransfer(5000, parameters(initial_r2t=True, max_outstanding_r2t=3), b"", True, LIMIT)
    asked = [solicit(transfer, ttt) for ttt in (1, 2, 3)]
    assert [(r2t.r2t_sn, r2t.buffer_offset, r2t.desired_data_transfer_length) for r2t in asked] == [
        (0, 0, 2000),
        (1, 2000, 2000),
        (2, 4000, 1000),
    ]
    assert not transfer.wants_r2t


@pytest.mark.parametrize(
    ("changes", "immediate", "final", "failure"),
    [
        ({"immediate_data": False}, 10, True, UNEXPECTED_UNSOLICITED_DATA),
        ({"initial_r2t": True}, 0, False, UNEXPECTED_UNSOLICITED_DATA),
        ({}, 1001, True, INCORRECT_AMOUNT_OF_DATA),
    ],
)
def test_data_nobody_asked_for(
    changes: dict[str, object], immediate: int, final: bool, failure: tuple[int, int]
) -> None:
    transfer = WriteTransfer(3000, parameters(**changes), bytes(immediate), final, LIMIT)
    assert transfer.failure == failure and not transfer.wants_r2t
    assert transfer.done is final
    if not final:  # the status waits for the Final bit that is owed
        transfer.receive(DataOutPdu(data=bytes(10)))
        assert transfer.done


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({"data_sn": 1}, PROTOCOL_SERVICE_CRC_ERROR),
        ({"buffer_offset": 4}, INCORRECT_AMOUNT_OF_DATA),
        ({"data": bytes(2001)}, INCORRECT_AMOUNT_OF_DATA),
        ({"data": bytes(1999)}, INCORRECT_AMOUNT_OF_DATA),
    ],
)
def test_wrong_data_out_fails_the_command_at_its_final_bit(change: dict[str, object], failure: tuple[int, int]) -> None:
    transfer = WriteTransfer(3000, parameters(initial_r2t=True), b"", True, LIMIT)
    solicit(transfer)
    values: dict[str, object] = {"ttt": 1, "data": bytes(2000), **change}
    transfer.receive(DataOutPdu(**values))  # type: ignore[arg-type]
    assert transfer.done and transfer.failure == failure and not transfer.wants_r2t


def test_damaged_data_waits_for_the_final_bit() -> None:
    transfer = WriteTransfer(2000, parameters(initial_r2t=True), b"", True, LIMIT)
    solicit(transfer)
    transfer.receive(DataOutPdu(ttt=1, final=False, data=bytes(1000)), damaged=True)
    assert not transfer.done
    transfer.receive(DataOutPdu(ttt=1, data_sn=1, buffer_offset=1000, data=bytes(1000)))
    assert transfer.done and transfer.failure == PROTOCOL_SERVICE_CRC_ERROR


def test_unknown_and_out_of_turn_transfer_tags() -> None:
    transfer = WriteTransfer(4000, parameters(initial_r2t=True, max_outstanding_r2t=2), b"", True, LIMIT)
    solicit(transfer, 1)
    solicit(transfer, 2)
    for ttt in (2, 3, RESERVED_TAG):
        with pytest.raises(RemoteProtocolError):
            transfer.receive(DataOutPdu(ttt=ttt, data=bytes(10)))
    assert transfer.failure is None


def test_short_first_burst() -> None:
    whole = WriteTransfer(900, parameters(), b"", False, LIMIT)
    whole.receive(DataOutPdu(data=bytes(500)))  # all of it could have come: we ask for the rest
    assert whole.failure is None and solicit(whole).buffer_offset == 500
    cut = WriteTransfer(3000, parameters(), b"", False, LIMIT)
    cut.receive(DataOutPdu(data=bytes(500)))
    assert cut.failure == INCORRECT_AMOUNT_OF_DATA


def test_longer_than_we_ever_keep() -> None:
    transfer = WriteTransfer(LIMIT + 1, parameters(), b"", True, LIMIT)
    assert transfer.done and transfer.failure == TOO_LONG


def test_immediate_data_alone_is_not_copied() -> None:
    data = memoryview(bytes(512))
    transfer = WriteTransfer(512, parameters(), data, True, LIMIT)
    assert transfer.data is data


def test_data_that_was_received_in_its_place_is_not_copied() -> None:
    transfer = WriteTransfer(3000, parameters(initial_r2t=True), b"", True, LIMIT)
    transfer.granted = True
    r2t = solicit(transfer)
    place = transfer.place(r2t.ttt, 0, 0, 2000)
    assert place is not None and len(place) == 2000
    place[:] = b"a" * 2000
    transfer.receive(DataOutPdu(final=True, itt=1, ttt=r2t.ttt, data=place.toreadonly()))
    r2t = solicit(transfer, 2)
    transfer.receive(DataOutPdu(final=True, itt=1, ttt=r2t.ttt, buffer_offset=2000, data=b"b" * 1000))
    assert transfer.failure is None and bytes(transfer.data) == b"a" * 2000 + b"b" * 1000
    assert isinstance(transfer.data, bytearray) and place.obj is transfer.data


@pytest.mark.parametrize(
    ("ttt", "data_sn", "offset", "length"),
    [(2, 0, 0, 10), (1, 1, 0, 10), (1, 0, 4, 10), (1, 0, 0, 2001), (RESERVED_TAG, 0, 0, 10)],
    ids=["other tag", "other DataSN", "other offset", "beyond the burst", "unsolicited"],
)
def test_data_that_is_not_expected_has_no_place(ttt: int, data_sn: int, offset: int, length: int) -> None:
    transfer = WriteTransfer(3000, parameters(initial_r2t=True), b"", True, LIMIT)
    transfer.granted = True
    solicit(transfer)
    assert transfer.place(1, 0, 0, 2000) is not None
    assert transfer.place(ttt, data_sn, offset, length) is None
