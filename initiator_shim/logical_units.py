"""Which logical units a target has, and through which of its ports we see them. [C]"""

from initiator_shim.pair_client import CommandPort, execute_past_unit_attention
from initiator_shim.session_errors import SessionError
from storage_model.spec.iscsi_codes import lun_from_bytes
from storage_model.spec.scsi_cdb import OperationCode
from storage_model.spec.scsi_task import ScsiStatus

_REPORT_LUNS_BYTES = 16384  # 2047 units
_VPD_BYTES = 4096
_DEVICE_IDENTIFICATION = 0x83
_TARGET_PORT_ASSOCIATION = 1
_RELATIVE_TARGET_PORT = 4


async def report_luns(port: CommandPort, timeout: float = 5.0) -> list[int]:
    """LUNs in ascending order (SPC-4 6.33). Raises SessionError when the target does not tell."""
    cdb = bytes((OperationCode.REPORT_LUNS, 0, 0, 0, 0, 0)) + _REPORT_LUNS_BYTES.to_bytes(4) + bytes(2)
    outcome = await execute_past_unit_attention(port, 0, cdb, b"", _REPORT_LUNS_BYTES, timeout)
    if outcome.status != ScsiStatus.GOOD or len(outcome.data_in) < 8:
        raise SessionError(f"the target does not report its LUNs (status {outcome.status:02X}h)")
    end = 8 + min(int.from_bytes(outcome.data_in[:4]), len(outcome.data_in) - 8)
    return sorted(lun_from_bytes(outcome.data_in[at : at + 8]) for at in range(8, end - 7, 8))


async def relative_target_port(port: CommandPort, lun: int, timeout: float = 5.0) -> int | None:
    """The relative target port identifier of the port that ``port`` leads to (SPC-4 7.8.6.7); None: not told."""
    cdb = bytes((OperationCode.INQUIRY, 1, _DEVICE_IDENTIFICATION)) + _VPD_BYTES.to_bytes(2) + bytes(1)
    outcome = await execute_past_unit_attention(port, lun, cdb, b"", _VPD_BYTES, timeout)
    page = outcome.data_in
    if outcome.status != ScsiStatus.GOOD or len(page) < 4 or page[1] != _DEVICE_IDENTIFICATION:
        return None
    descriptors = page[4 : 4 + int.from_bytes(page[2:4])]
    while len(descriptors) >= 4:
        designator = descriptors[4 : 4 + descriptors[3]]
        association, designator_type = descriptors[1] >> 4 & 3, descriptors[1] & 0xF
        if (association, designator_type) == (_TARGET_PORT_ASSOCIATION, _RELATIVE_TARGET_PORT) and len(designator) == 4:
            return int.from_bytes(designator[2:])
        descriptors = descriptors[4 + len(designator) :]
    return None
