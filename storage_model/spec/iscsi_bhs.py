"""The BHS fields of the data path, with ``struct`` (RFC 7143 §11.3, §11.4, §11.7).

Apart from the PDU classes, which use them too, so that a command and its answer need none of their objects.
"""

from struct import Struct
from typing import Final

from storage_model.spec.iscsi_codes import NO_LUN, RESERVED_TAG, Opcode

ISCSI_COMPLETED_AT_TARGET: Final = 0x00  # the Response field of a SCSI Response (§11.4.3)

IMMEDIATE: Final = 0x40
FINAL: Final = 0x80  # byte 1 of a SCSI Command (§11.3.1), with the next three
READ: Final = 0x40
WRITE: Final = 0x20
ATTRIBUTE: Final = 0x07
OVERFLOW: Final = 0x04  # byte 1 of a Data-In and of a SCSI Response (§11.4.1, §11.7.1), with the next
UNDERFLOW: Final = 0x02
STATUS_PRESENT: Final = 0x01  # byte 1 of a Data-In
HEADER: Final = Struct(">BBBBI8s8I")  # every BHS but the SCSI Command's: words at bytes 16 to 47
SCSI_COMMAND_BHS: Final = Struct(">BBBBI8s4I16s")
"""Opcode, flags, 2 reserved, lengths, LUN, ITT, Expected Data Transfer Length, CmdSN, ExpStatSN, CDB (§11.3)."""
_DATA_IN: Final = int(Opcode.DATA_IN)
_SCSI_RESPONSE: Final = int(Opcode.SCSI_RESPONSE)


def data_in_bhs(
    flags: int, length: int, lun: bytes, itt: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int, data_sn: int,
    buffer_offset: int, residual_count: int, status: int = 0, ttt: int = RESERVED_TAG,
) -> bytes:  # fmt: skip
    """The BHS of a Data-In with ``length`` bytes of data; ``flags`` is byte 1 (§11.7)."""
    return HEADER.pack(
        _DATA_IN, flags, 0, status, length, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn, buffer_offset,
        residual_count,
    )  # fmt: skip


def scsi_response_bhs(
    flags: int, status: int, length: int, itt: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int, exp_data_sn: int,
    residual_count: int, response: int = ISCSI_COMPLETED_AT_TARGET, bidirectional_residual_count: int = 0,
    snack_tag: int = 0,
) -> bytes:  # fmt: skip
    """The BHS of a SCSI Response with ``length`` bytes of sense segment; ``flags`` is byte 1 (§11.4)."""
    return HEADER.pack(
        _SCSI_RESPONSE, flags, response, status, length, NO_LUN, itt, snack_tag, stat_sn, exp_cmd_sn, max_cmd_sn,
        exp_data_sn, bidirectional_residual_count, residual_count,
    )  # fmt: skip
