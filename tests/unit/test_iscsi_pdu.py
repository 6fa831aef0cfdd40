"""Each PDU's codec: round trip, and the struct codecs against the declared layouts."""

import typing
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_model.spec import iscsi_pdu
from storage_model.spec.iscsi_layout import LAYOUTS
from storage_model.spec.iscsi_pdu import (
    Opcode,
    Pdu,
    decode_pdu,
    lun_from_bytes,
    lun_to_bytes,
    sense_from_segment,
    sense_segment,
)
from storage_model.spec.iscsi_stream import RawPdu

PDU_CLASSES: tuple[Any, ...] = typing.get_args(Pdu)
# Fields narrower than a word, in bits.
WIDTHS = {
    "attribute": 3, "status": 8, "response": 8, "csg": 2, "nsg": 2, "version_max": 8, "version_min": 8,
    "version_active": 8, "tsih": 16, "cid": 16, "function": 7, "reason": 7, "time2wait": 16, "time2retain": 16,
    "snack_type": 4, "async_event": 8, "async_vcode": 8, "parameter1": 16, "parameter2": 16, "parameter3": 16,
}  # fmt: skip
BYTES = {"lun": 8, "isid": 6, "cdb": 16}


def _values(name: str, kind: Any) -> st.SearchStrategy[Any]:
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(0, 2 ** WIDTHS.get(name, 32) - 1)
    if name == "ahs":
        return st.binary(max_size=20).map(lambda value: value[: len(value) & ~3])
    if name == "data":
        return st.binary(max_size=40)
    return st.binary(min_size=BYTES[name], max_size=BYTES[name])


@st.composite
def pdus(draw: st.DrawFn, classes: tuple[Any, ...] = PDU_CLASSES) -> Any:
    cls = draw(st.sampled_from(classes))
    hints = typing.get_type_hints(cls)
    return cls(**{field.name: draw(_values(field.name, hints[field.name])) for field in fields(cls)})


def test_every_opcode_has_a_class_and_a_layout() -> None:
    assert {cls.opcode for cls in PDU_CLASSES} == set(Opcode) == set(LAYOUTS)
    assert all(layout.sizeof() == 48 for layout in LAYOUTS.values())


@given(pdus())
def test_round_trip(pdu: Any) -> None:
    bhs = pdu.encode_bhs()
    assert len(bhs) == 48
    assert decode_pdu(RawPdu(bhs, getattr(pdu, "ahs", b""), getattr(pdu, "data", b""))) == pdu


@given(pdus())
def test_the_layout_reads_what_the_codec_wrote(pdu: Any) -> None:
    bhs = pdu.encode_bhs()
    parsed = LAYOUTS[pdu.opcode].parse(bhs)
    for field in fields(pdu):
        if field.name not in ("ahs", "data"):
            assert parsed[field.name] == getattr(pdu, field.name), field.name
    assert parsed["data_segment_length"] == len(getattr(pdu, "data", b""))
    assert parsed["total_ahs_length"] * 4 == len(getattr(pdu, "ahs", b""))
    assert LAYOUTS[pdu.opcode].build(parsed) == bhs


@given(st.sampled_from(PDU_CLASSES), st.binary(min_size=48, max_size=48))
def test_any_48_bytes_decode_and_reserved_bits_are_ignored(cls: Any, noise: bytes) -> None:
    bhs = bytes((noise[0] & 0xC0 | cls.opcode,)) + noise[1:]
    pdu = cls.decode(bhs, b"", b"")
    parsed = LAYOUTS[cls.opcode].parse(bhs)
    assert all(parsed[f.name] == getattr(pdu, f.name) for f in fields(pdu) if f.name not in ("ahs", "data"))


@pytest.mark.parametrize(
    ("lun", "field"),
    [(0, "0000"), (1, "0001"), (255, "00ff"), (256, "4100"), (0x3FFF, "7fff")],
)
def test_lun_field(lun: int, field: str) -> None:
    assert lun_to_bytes(lun) == bytes.fromhex(field + "000000000000")
    assert lun_from_bytes(lun_to_bytes(lun)) == lun


def test_flat_addressing_reaches_small_luns_and_foreign_fields_name_no_unit() -> None:
    assert lun_from_bytes(bytes.fromhex("4005000000000000")) == 5
    for field in ("0105000000000000", "c101000000000000", "0001000100000000", "8000000000000000"):
        assert lun_from_bytes(bytes.fromhex(field)) >= 1 << 64
        assert lun_to_bytes(lun_from_bytes(bytes.fromhex(field))) == bytes.fromhex(field)


def test_sense_segment() -> None:
    assert sense_segment(b"") == b"" and sense_segment(b"\x70\0") == b"\0\2\x70\0"
    assert sense_from_segment(sense_segment(b"\x70\0\5")) == b"\x70\0\5"
    assert sense_from_segment(b"") == sense_from_segment(b"\0") == b""


def test_public_names_exist() -> None:
    assert all(hasattr(iscsi_pdu, name) for name in iscsi_pdu.__all__)
