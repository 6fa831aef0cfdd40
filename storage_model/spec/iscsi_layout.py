"""Every Basic Header Segment, bit by bit, in the order of RFC 7143 §11's diagrams.

The layouts are the declaration: cold PDUs are built and parsed with them, and the ``struct`` codecs of the hot ones
(``iscsi_pdu``) are tested against them. Reserved bits are written as 0 and ignored when read.
"""

from typing import Any

from construct import BitsInteger, BitStruct, Bytes, Bytewise, Const, Default, Flag, Padding

from storage_model.spec.iscsi_codes import Opcode


def _number(name: str, bits: int) -> Any:
    return name / BitsInteger(bits)


def _word(name: str) -> Any:
    return name / BitsInteger(32)


def _bytes(name: str, count: int) -> Any:
    return name / Bytewise(Bytes(count))


def _flag(name: str) -> Any:
    return name / Flag


def _reserved(count: int) -> Any:
    """``count`` bytes that are zero on the wire and ignored when read."""
    return Padding(8 * count)


_ALWAYS_ONE = "_always_one" / Default(BitsInteger(1), 1)  # the F bit where the standard fixes it at 1
_FINAL_ONLY: list[Any] = [_ALWAYS_ONE, Padding(7), _reserved(2)]
_TEXT_FLAGS: list[Any] = [_flag("final"), _flag("cont"), Padding(6), _reserved(2)]
_LOGIN_FLAGS: list[Any] = [_flag("transit"), _flag("cont"), Padding(2), _number("csg", 2), _number("nsg", 2)]
_RESPONSE_CODE: list[Any] = [_ALWAYS_ONE, Padding(7), _number("response", 8), _reserved(1)]
_LUN: list[Any] = [_bytes("lun", 8)]
_NO_LUN: list[Any] = [_reserved(8)]
_ISID_TSIH: list[Any] = [_bytes("isid", 6), _number("tsih", 16)]
_REQUEST_NUMBERS: list[Any] = [_word("cmd_sn"), _word("exp_stat_sn")]
_RESPONSE_NUMBERS: list[Any] = [_word("stat_sn"), _word("exp_cmd_sn"), _word("max_cmd_sn")]


def _layout(opcode: Opcode, bytes_1_to_3: list[Any], bytes_8_to_15: list[Any], from_byte_20: list[Any]) -> Any:
    """A whole BHS: bytes 0, 4 to 7 and 16 to 19 are the same in every PDU (§11.2.1)."""
    # Only what takes a CmdSN can be marked for immediate delivery (§11.2.1.1).
    has_immediate = opcode < Opcode.NOP_IN and opcode not in (Opcode.DATA_OUT, Opcode.SNACK_REQUEST)
    return BitStruct(
        Padding(1),
        _flag("immediate") if has_immediate else Padding(1),
        Const(int(opcode), BitsInteger(6)),
        *bytes_1_to_3,
        _number("total_ahs_length", 8),
        _number("data_segment_length", 24),
        *bytes_8_to_15,
        _word("itt"),
        *from_byte_20,
    )


LAYOUTS: dict[Opcode, Any] = {
    Opcode.NOP_OUT: _layout(Opcode.NOP_OUT, _FINAL_ONLY, _LUN, [_word("ttt"), *_REQUEST_NUMBERS, _reserved(16)]),
    Opcode.NOP_IN: _layout(Opcode.NOP_IN, _FINAL_ONLY, _LUN, [_word("ttt"), *_RESPONSE_NUMBERS, _reserved(12)]),
    Opcode.SCSI_COMMAND: _layout(
        Opcode.SCSI_COMMAND,
        [_flag("final"), _flag("read"), _flag("write"), Padding(2), _number("attribute", 3), _reserved(2)],
        _LUN,
        [_word("expected_data_transfer_length"), *_REQUEST_NUMBERS, _bytes("cdb", 16)],
    ),
    Opcode.SCSI_RESPONSE: _layout(
        Opcode.SCSI_RESPONSE,
        [
            _ALWAYS_ONE,
            Padding(2),
            _flag("bidirectional_overflow"),
            _flag("bidirectional_underflow"),
            _flag("overflow"),
            _flag("underflow"),
            Padding(1),
            _number("response", 8),
            _number("status", 8),
        ],
        _NO_LUN,
        [
            _word("snack_tag"),
            *_RESPONSE_NUMBERS,
            _word("exp_data_sn"),
            _word("bidirectional_residual_count"),
            _word("residual_count"),
        ],
    ),
    Opcode.TASK_MANAGEMENT_REQUEST: _layout(
        Opcode.TASK_MANAGEMENT_REQUEST,
        [_ALWAYS_ONE, _number("function", 7), _reserved(2)],
        _LUN,
        [
            _word("referenced_task_tag"),
            *_REQUEST_NUMBERS,
            _word("ref_cmd_sn"),
            _word("exp_data_sn"),
            _reserved(8),
        ],
    ),
    Opcode.TASK_MANAGEMENT_RESPONSE: _layout(
        Opcode.TASK_MANAGEMENT_RESPONSE, _RESPONSE_CODE, _NO_LUN, [_reserved(4), *_RESPONSE_NUMBERS, _reserved(12)]
    ),
    Opcode.DATA_OUT: _layout(
        Opcode.DATA_OUT,
        [_flag("final"), Padding(7), _reserved(2)],
        _LUN,
        [
            _word("ttt"),
            _reserved(4),
            _word("exp_stat_sn"),
            _reserved(4),
            _word("data_sn"),
            _word("buffer_offset"),
            _reserved(4),
        ],
    ),
    Opcode.DATA_IN: _layout(
        Opcode.DATA_IN,
        [
            _flag("final"),
            _flag("acknowledge"),
            Padding(3),
            _flag("overflow"),
            _flag("underflow"),
            _flag("status_present"),
            _reserved(1),
            _number("status", 8),
        ],
        _LUN,
        [_word("ttt"), *_RESPONSE_NUMBERS, _word("data_sn"), _word("buffer_offset"), _word("residual_count")],
    ),
    Opcode.R2T: _layout(
        Opcode.R2T,
        _FINAL_ONLY,
        _LUN,
        [
            _word("ttt"),
            *_RESPONSE_NUMBERS,
            _word("r2t_sn"),
            _word("buffer_offset"),
            _word("desired_data_transfer_length"),
        ],
    ),
    Opcode.ASYNC_MESSAGE: _layout(
        Opcode.ASYNC_MESSAGE,
        _FINAL_ONLY,
        _LUN,
        [
            _reserved(4),
            *_RESPONSE_NUMBERS,
            _number("async_event", 8),
            _number("async_vcode", 8),
            _number("parameter1", 16),
            _number("parameter2", 16),
            _number("parameter3", 16),
            _reserved(4),
        ],
    ),
    Opcode.TEXT_REQUEST: _layout(
        Opcode.TEXT_REQUEST, _TEXT_FLAGS, _LUN, [_word("ttt"), *_REQUEST_NUMBERS, _reserved(16)]
    ),
    Opcode.TEXT_RESPONSE: _layout(
        Opcode.TEXT_RESPONSE, _TEXT_FLAGS, _LUN, [_word("ttt"), *_RESPONSE_NUMBERS, _reserved(12)]
    ),
    Opcode.LOGIN_REQUEST: _layout(
        Opcode.LOGIN_REQUEST,
        [*_LOGIN_FLAGS, _number("version_max", 8), _number("version_min", 8)],
        _ISID_TSIH,
        [_number("cid", 16), _reserved(2), *_REQUEST_NUMBERS, _reserved(16)],
    ),
    Opcode.LOGIN_RESPONSE: _layout(
        Opcode.LOGIN_RESPONSE,
        [*_LOGIN_FLAGS, _number("version_max", 8), _number("version_active", 8)],
        _ISID_TSIH,
        [_reserved(4), *_RESPONSE_NUMBERS, _number("status", 16), _reserved(10)],
    ),
    Opcode.LOGOUT_REQUEST: _layout(
        Opcode.LOGOUT_REQUEST,
        [_ALWAYS_ONE, _number("reason", 7), _reserved(2)],
        _NO_LUN,
        [_number("cid", 16), _reserved(2), *_REQUEST_NUMBERS, _reserved(16)],
    ),
    Opcode.LOGOUT_RESPONSE: _layout(
        Opcode.LOGOUT_RESPONSE,
        _RESPONSE_CODE,
        _NO_LUN,
        [
            _reserved(4),
            *_RESPONSE_NUMBERS,
            _reserved(4),
            _number("time2wait", 16),
            _number("time2retain", 16),
            _reserved(4),
        ],
    ),
    Opcode.SNACK_REQUEST: _layout(
        Opcode.SNACK_REQUEST,
        [_ALWAYS_ONE, Padding(3), _number("snack_type", 4), _reserved(2)],
        _LUN,
        [
            _word("ttt"),
            _reserved(4),
            _word("exp_stat_sn"),
            _reserved(8),
            _word("beg_run"),
            _word("run_length"),
        ],
    ),
    Opcode.REJECT: _layout(
        Opcode.REJECT,
        [_ALWAYS_ONE, Padding(7), _number("reason", 8), _reserved(1)],
        _NO_LUN,
        [_reserved(4), *_RESPONSE_NUMBERS, _word("data_sn"), _reserved(8)],
    ),
}
