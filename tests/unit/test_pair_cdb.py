"""PAIR CONTROL IN and OUT byte by byte, claims of every length, and the status data that comes back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.errors import CheckCondition
from storage_model.nexus import ITNexus, is_name_length
from storage_model.pair_state import FenceLevel, PairRole, PairState, Side
from storage_model.spec.pair_cdb import (
    PairControlOut,
    PairIn,
    PairOption,
    PairOut,
    PairStatus,
    StatusFlag,
    VerifyState,
    decode_claim,
    decode_copy_rate,
    decode_pair_control_in,
    encode_claim,
    encode_copy_rate,
    encode_report_status,
)

HOST = ITNexus("iqn.2026-11.org.pairvol:host-a", bytes.fromhex("00023d0000aa"), 1)


def golden(text: str) -> bytes:
    """Annotated hex: what follows a ``;`` is for the reader."""
    return bytes.fromhex("".join(line.partition(";")[0] for line in text.splitlines()))


GOLDEN_OUT = [
    (
        """
        C1           ; PAIR CONTROL OUT
        00           ; CREATE
        12           ; REMOTE_P_VOL, NO_COPY
        02           ; fence level data
        00000000     ; EXPECTED EPOCH: whatever it is
        0000
        00000000     ; no parameter list
        00 00        ; CONTROL
        """,
        PairControlOut(PairOut.CREATE, PairOption.REMOTE_P_VOL | PairOption.NO_COPY, FenceLevel.DATA),
    ),
    (
        """
        C1 01        ; SPLIT
        01 00        ; S_VOL_WRITABLE
        00000000 0000 00000000 00 00
        """,
        PairControlOut(PairOut.SPLIT, PairOption.S_VOL_WRITABLE),
    ),
    (
        """
        C1 02        ; RESYNC
        04 00        ; GOOD_P_VOL
        01020304     ; EXPECTED EPOCH
        0000
        0000002A     ; PARAMETER LIST LENGTH: a claim
        00 00
        """,
        PairControlOut(PairOut.RESYNC, PairOption.GOOD_P_VOL, None, 0x01020304, 42),
    ),
    (
        """
        C1 03        ; SWAP RESYNC
        08 00        ; GOOD_S_VOL
        FFFFFFFF 0000 00000000 00 00
        """,
        PairControlOut(PairOut.SWAP_RESYNC, PairOption.GOOD_S_VOL, None, 0xFFFFFFFF),
    ),
    (
        """
        C1 04        ; DELETE
        20 00        ; FORCE
        00000000 0000 00000000 00 00
        """,
        PairControlOut(PairOut.DELETE, PairOption.FORCE),
    ),
    (
        """
        C1 05        ; WITHDRAW
        00 00 00000000 0000 0000002A 00 00
        """,
        PairControlOut(PairOut.WITHDRAW, parameter_list_length=42),
    ),
    (
        """
        C1 06        ; TAKEOVER
        20 00        ; FORCE
        00000007 0000 0000002A 00 00
        """,
        PairControlOut(PairOut.TAKEOVER, PairOption.FORCE, None, 7, 42),
    ),
    (
        """
        C1 07        ; VERIFY
        00 00 00000000 0000 00000000 00 00
        """,
        PairControlOut(PairOut.VERIFY),
    ),
    (
        """
        C1 08        ; SET COPY RATE
        00 00 00000000 0000 00000008 00 00
        """,
        PairControlOut(PairOut.SET_COPY_RATE, parameter_list_length=8),
    ),
]


@pytest.mark.parametrize(("text", "command"), GOLDEN_OUT, ids=lambda value: getattr(value, "service_action", None))
def test_pair_control_out(text: str, command: PairControlOut) -> None:
    assert command.encode() == golden(text)
    assert PairControlOut.decode(golden(text)) == command


def test_every_service_action_has_a_golden_cdb() -> None:
    assert {command.service_action for _, command in GOLDEN_OUT} == set(PairOut)


def test_report_pair_status() -> None:
    cdb = golden("C0 00 ; REPORT PAIR STATUS \n 00000000 00000000 00000102 ; ALLOCATION LENGTH \n 00 00")
    assert encode_report_status(0x102) == cdb
    assert decode_pair_control_in(cdb) == (PairIn.REPORT_STATUS, 0x102)


def test_claim() -> None:
    name = b"iqn.2026-11.org.pairvol:host-a"
    header = golden(
        """
        01           ; format
        00
        0001         ; relative target port
        00023D0000AA ; ISID
        001E         ; length of the name that follows
        """
    )
    assert encode_claim(HOST) == header + name
    assert decode_claim(header + name) == HOST
    assert decode_claim(memoryview(bytearray(header + name + b"more"))) == HOST


@given(
    st.builds(
        PairControlOut,
        st.sampled_from(PairOut),
        st.integers(0, 0x3F).filter(lambda bits: bits & 0x0C != 0x0C).map(PairOption),
        st.none() | st.sampled_from(FenceLevel),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
    )
)
def test_pair_control_out_survives_the_wire(command: PairControlOut) -> None:
    cdb = command.encode()
    assert len(cdb) == 16
    assert PairControlOut.decode(cdb) == command


@pytest.mark.parametrize(
    ("options", "side"),
    [
        (PairOption.NONE, Side.NONE),
        (PairOption.FORCE, Side.NONE),
        (PairOption.GOOD_P_VOL, Side.P_VOL),
        (PairOption.GOOD_S_VOL | PairOption.FORCE, Side.S_VOL),
    ],
)
def test_good_side(options: PairOption, side: Side) -> None:
    assert PairControlOut(PairOut.RESYNC, options).good_side is side


@pytest.mark.parametrize(
    ("index", "value", "pointer"),
    [(1, 0x09, 1), (1, 0x1F, 1), (2, 0x80, 2), (2, 0x0C, 2), (3, 4, 3), (3, 0xFF, 3)],
)
def test_bad_field_of_a_cdb_is_pointed_at(index: int, value: int, pointer: int) -> None:
    cdb = bytearray(PairControlOut(PairOut.RESYNC).encode())
    cdb[index] = value
    with pytest.raises(CheckCondition) as error:
        PairControlOut.decode(bytes(cdb))
    assert (error.value.sense_key, error.value.asc_ascq) == (0x5, 0x2400)
    assert (error.value.field_pointer, error.value.in_parameter_list) == (pointer, False)


@pytest.mark.parametrize("service_action", range(1, 32))
def test_unknown_service_action_of_pair_control_in(service_action: int) -> None:
    with pytest.raises(CheckCondition) as error:
        decode_pair_control_in(bytes([0xC0, service_action]) + bytes(14))
    assert (error.value.asc_ascq, error.value.field_pointer) == (0x2400, 1)


@pytest.mark.parametrize("length", range(len(encode_claim(HOST))))
def test_claim_cut_short_at_any_length(length: int) -> None:
    with pytest.raises(CheckCondition) as error:
        decode_claim(encode_claim(HOST)[:length])
    if length < 12:
        assert error.value.asc_ascq == 0x1A00  # PARAMETER LIST LENGTH ERROR
    else:
        assert (error.value.asc_ascq, error.value.field_pointer) == (0x2600, 10)
        assert error.value.in_parameter_list


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({0: b"\x00"}, 0),
        ({0: b"\x02"}, 0),
        ({10: b"\x00\x00"}, 10),  # no name
        ({10: b"\x00\xe0"}, 10),  # a name of 224 bytes (RFC 7143 §4.2.7.1: at most 223)
        ({10: b"\xff\xff"}, 10),
        ({12: b"\xff\xfe"}, 12),  # not UTF-8
    ],
)
def test_bad_field_of_a_claim_is_pointed_at(change: dict[int, bytes], pointer: int) -> None:
    data = bytearray(encode_claim(HOST) + bytes(300))
    for index, value in change.items():
        data[index : index + len(value)] = value
    with pytest.raises(CheckCondition) as error:
        decode_claim(data)
    assert (error.value.asc_ascq, error.value.field_pointer) == (0x2600, pointer)
    assert error.value.in_parameter_list


def test_claim_for_a_name_that_is_too_long_when_normalised() -> None:
    """As an owner it would not fit the status data."""
    name = ("\u0130" * 111).encode()  # 222 bytes; lower case adds a dot of two bytes to each
    header = encode_claim(HOST)[:10]
    with pytest.raises(CheckCondition) as caught:
        decode_claim(header + len(name).to_bytes(2, "big") + name)
    assert (caught.value.asc_ascq, caught.value.field_pointer) == (0x2600, 12)


@given(st.binary(max_size=300))
def test_claim_of_random_bytes_is_a_nexus_or_a_check_condition(data: bytes) -> None:
    try:
        nexus = decode_claim(b"\x01" + data)
    except CheckCondition:
        return
    assert decode_claim(encode_claim(nexus)) == nexus


# ----------------------------------------------------------------------------------------------- status data

STATUS = PairStatus(
    role=PairRole.P_VOL,
    state=PairState.PAIR,
    fence=FenceLevel.DATA,
    flags=StatusFlag.QUORUM | StatusFlag.LINK_UP | StatusFlag.CONFIGURED,
    copy_percent=100,
    epoch=7,
    ldev=10,
    peer_ldev=11,
    differing_bytes=65536,
    size_bytes=16 << 20,
    serial="30095",
    peer_serial="30096",
    owner_serial="30095",
    owner=HOST,
    pair_name="quorum0",
    group_name="qgrp",
    volume_name="quorum",
    copy_rate=20 << 20,
    bytes_per_second=3 << 20,
    verify=VerifyState.RUNNING,
    verified_bytes=8 << 20,
    verify_differing_bytes=1 << 16,
    verify_busy_bytes=4 << 16,
)


def test_status_on_the_wire() -> None:
    data = STATUS.encode()
    assert data[:44] == golden(
        """
        0000009D          ; length of what follows
        01                ; version
        01 02 02          ; P-VOL, PAIR, fence level data
        0013              ; CONFIGURED, LINK_UP, QUORUM
        64 00             ; 100 %
        00000007          ; epoch
        000A 000B         ; LDEVs, ours and the other array's
        0000000000010000  ; bytes that differ
        0000000001000000  ; size
        00023D0000AA 0001 ; owner: ISID, relative target port
        """
    )
    words = [b"30095", b"30096", b"30095", HOST.initiator_name.encode(), b"quorum0", b"qgrp", b"quorum"]
    names = b"".join(bytes([len(word)]) + word for word in words)
    assert data[44 : 44 + len(names)] == names
    assert data[44 + len(names) :] == golden(
        """
        0000000001400000  ; copy_rate: 20 MiB a second
        0000000000300000  ; 3 MiB a second
        01 00000000000000 ; a comparison runs
        0000000000800000  ; 8 MiB compared
        0000000000010000  ; one region differs
        0000000000040000  ; four regions were busy
        """
    )


def test_copy_rate() -> None:
    assert encode_copy_rate(20 << 20) == bytes.fromhex("0000000001400000")
    assert [decode_copy_rate(encode_copy_rate(rate)) for rate in (0, 64 << 10, 1 << 60)] == [0, 64 << 10, 1 << 60]
    for data, asc_ascq in ((b"", 0x1A00), (bytes(7), 0x1A00), (bytes(9), 0x1A00), (b"\0" * 7 + b"\1", 0x2600)):
        with pytest.raises(CheckCondition) as raised:
            decode_copy_rate(data)
        assert (raised.value.sense_key, raised.value.asc_ascq) == (5, asc_ascq)


_text = st.text(max_size=60).filter(lambda text: len(text.encode()) < 256)
_serial = st.text("0123456789", max_size=12)
_names = _text.filter(bool).filter(is_name_length)
_nexus = st.builds(ITNexus, _names, st.binary(min_size=6, max_size=6), st.integers(0, 0xFFFF))


@given(
    st.builds(
        PairStatus,
        st.sampled_from(PairRole),
        st.sampled_from(PairState),
        st.sampled_from(FenceLevel),
        st.integers(0, 0x1F).map(StatusFlag),
        st.integers(0, 100),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
        _serial,
        _serial,
        _serial,
        st.none() | _nexus,
        _text,
        _text,
        _text,
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
        st.sampled_from(VerifyState),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
        st.integers(0, (1 << 64) - 1),
    )
)
def test_status_survives_the_wire(status: PairStatus) -> None:
    data = status.encode()
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert PairStatus.decode(data) == status
    assert PairStatus.decode(memoryview(data)) == status


def test_longest_names_of_a_configuration_fit() -> None:
    owner = replace(HOST, initiator_name="iqn." + "x" * 219)
    status = replace(STATUS, owner=owner, pair_name="p" * 31, group_name="g" * 31, volume_name="v" * 31)
    data = status.encode()
    assert len(data) < 4096  # what a shim asks for
    assert PairStatus.decode(data) == status


@pytest.mark.parametrize("length", range(len(STATUS.encode())))
def test_status_cut_short_at_any_length(length: int) -> None:
    with pytest.raises(ValueError, match="pair status"):
        PairStatus.decode(STATUS.encode()[:length])


@pytest.mark.parametrize(
    ("index", "value"),
    [(4, 2), (5, 3), (6, 9), (7, 0), (7, 4), (46, 0xFF)],
    ids=["version", "role", "state", "no fence", "fence", "serial number"],
)
def test_status_that_cannot_be_read(index: int, value: int) -> None:
    data = bytearray(STATUS.encode())
    data[index] = value
    with pytest.raises(ValueError):  # noqa: PT011 - an enum's, or ours
        PairStatus.decode(data)
