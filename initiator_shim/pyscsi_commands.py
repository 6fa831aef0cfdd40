"""SCSICommand classes that pyscsi 2.1 lacks: RESERVE, RELEASE, persistent reservations, and our pair control.

Made like pyscsi's own: an OpCode first, then the fields of the CDB; ``unmarshall()`` fills ``result``. The OpCodes that
pyscsi's tables do not have for disks are here too.

pyscsi's metaclass makes every class twice, which ``super()`` without arguments does not survive: bases are named.
"""

from typing import Any

from pyscsi.pyscsi.scsi_command import SCSICommand
from pyscsi.pyscsi.scsi_opcode import OpCode
from pyscsi.utils.converter import scsi_ba_to_int

from storage_model.nexus import ITNexus
from storage_model.pair_state import FenceLevel
from storage_model.spec.pair_cdb import (
    PAIR_CONTROL_IN,
    PAIR_CONTROL_OUT,
    PairControlOut,
    PairOption,
    PairOut,
    PairStatus,
    encode_claim,
    encode_report_status,
)

RESERVE_6 = OpCode("RESERVE_6", 0x16, {})
RELEASE_6 = OpCode("RELEASE_6", 0x17, {})
RESERVE_10 = OpCode("RESERVE_10", 0x56, {})
RELEASE_10 = OpCode("RELEASE_10", 0x57, {})
PERSISTENT_RESERVE_IN = OpCode(
    "PERSISTENT_RESERVE_IN",
    0x5E,
    {"READ_KEYS": 0x00, "READ_RESERVATION": 0x01, "REPORT_CAPABILITIES": 0x02, "READ_FULL_STATUS": 0x03},
)
PERSISTENT_RESERVE_OUT = OpCode(
    "PERSISTENT_RESERVE_OUT",
    0x5F,
    {
        "REGISTER": 0x00,
        "RESERVE": 0x01,
        "RELEASE": 0x02,
        "CLEAR": 0x03,
        "PREEMPT": 0x04,
        "PREEMPT_AND_ABORT": 0x05,
        "REGISTER_AND_IGNORE_EXISTING_KEY": 0x06,
        "REGISTER_AND_MOVE": 0x07,
    },
)
PAIR_IN = OpCode("PAIR_CONTROL_IN", PAIR_CONTROL_IN, {"REPORT_STATUS": 0x00})
PAIR_OUT = OpCode("PAIR_CONTROL_OUT", PAIR_CONTROL_OUT, {verb.name: int(verb) for verb in PairOut})


class _Plain6(SCSICommand):
    """A six-byte CDB without fields (SPC-2 7.21, 7.23)."""

    _cdb_bits = {"opcode": [0xFF, 0]}  # noqa: RUF012 (pyscsi's way)

    def __init__(self, opcode: Any) -> None:
        SCSICommand.__init__(self, opcode, 0, 0)
        self.cdb = self.build_cdb(opcode=self.opcode.value)


class Reserve6(_Plain6):
    """RESERVE(6) of the whole logical unit (SPC-2 7.21)."""

    def __init__(self, opcode: Any = RESERVE_6) -> None:
        _Plain6.__init__(self, opcode)


class Release6(_Plain6):
    """RELEASE(6) (SPC-2 7.23)."""

    def __init__(self, opcode: Any = RELEASE_6) -> None:
        _Plain6.__init__(self, opcode)


class _Plain10(SCSICommand):
    """A ten-byte CDB without third party or extents (SPC-2 7.22, 7.24)."""

    _cdb_bits = {"opcode": [0xFF, 0]}  # noqa: RUF012 (pyscsi's way)

    def __init__(self, opcode: Any) -> None:
        SCSICommand.__init__(self, opcode, 0, 0)
        self.cdb = self.build_cdb(opcode=self.opcode.value)


class Reserve10(_Plain10):
    """RESERVE(10) of the whole logical unit (SPC-2 7.22)."""

    def __init__(self, opcode: Any = RESERVE_10) -> None:
        _Plain10.__init__(self, opcode)


class Release10(_Plain10):
    """RELEASE(10) (SPC-2 7.24)."""

    def __init__(self, opcode: Any = RELEASE_10) -> None:
        _Plain10.__init__(self, opcode)


class PersistentReserveIn(SCSICommand):
    """PERSISTENT RESERVE IN (SPC-4 6.15). ``result`` has ``pr_generation`` and what the service action adds."""

    _cdb_bits = {  # noqa: RUF012 (pyscsi's way)
        "opcode": [0xFF, 0],
        "service_action": [0x1F, 1],
        "alloc_len": [0xFFFF, 7],
    }

    def __init__(self, opcode: Any = PERSISTENT_RESERVE_IN, service_action: int = 0, alloclen: int = 4096) -> None:
        SCSICommand.__init__(self, opcode, 0, alloclen)
        self.cdb = self.build_cdb(opcode=self.opcode.value, service_action=service_action, alloc_len=alloclen)

    def unmarshall(self, **_: Any) -> None:
        self.result = self.unmarshall_datain(self.datain, self.cdb[1] & 0x1F)

    @staticmethod
    def unmarshall_datain(data: Any, service_action: int = 0) -> dict[str, Any]:
        """READ KEYS and READ RESERVATION in full; for the others what follows the header is left as ``data``."""
        if service_action == PERSISTENT_RESERVE_IN.serviceaction.REPORT_CAPABILITIES:
            return {"data": bytes(data[: scsi_ba_to_int(data[:2])])}
        result: dict[str, Any] = {"pr_generation": scsi_ba_to_int(data[:4])}
        body = bytes(data[8 : 8 + scsi_ba_to_int(data[4:8])])
        if service_action == PERSISTENT_RESERVE_IN.serviceaction.READ_KEYS:
            result["reservation_keys"] = [scsi_ba_to_int(body[at : at + 8]) for at in range(0, len(body) - 7, 8)]
        elif service_action == PERSISTENT_RESERVE_IN.serviceaction.READ_RESERVATION:
            if len(body) >= 16:
                result["reservation_key"] = scsi_ba_to_int(body[:8])
                result["scope"], result["pr_type"] = body[13] >> 4, body[13] & 0xF
        else:
            result["data"] = body
        return result


class PersistentReserveOut(SCSICommand):
    """PERSISTENT RESERVE OUT with the basic parameter list (SPC-4 6.16)."""

    _cdb_bits = {  # noqa: RUF012 (pyscsi's way)
        "opcode": [0xFF, 0],
        "service_action": [0x1F, 1],
        "scope": [0xF0, 2],
        "pr_type": [0x0F, 2],
        "parameter_list_length": [0xFFFFFFFF, 5],
    }

    def __init__(
        self,
        opcode: Any = PERSISTENT_RESERVE_OUT,
        service_action: int = 0,
        scope: int = 0,
        pr_type: int = 0,
        reservation_key: int = 0,
        service_action_reservation_key: int = 0,
        aptpl: int = 0,
        all_tg_pt: int = 0,
    ) -> None:
        SCSICommand.__init__(self, opcode, 24, 0)
        self.dataout = bytearray(reservation_key.to_bytes(8) + service_action_reservation_key.to_bytes(8) + bytes(8))
        self.dataout[20] = all_tg_pt << 2 | aptpl
        self.cdb = self.build_cdb(
            opcode=self.opcode.value,
            service_action=service_action,
            scope=scope,
            pr_type=pr_type,
            parameter_list_length=len(self.dataout),
        )


class _PairCommand(SCSICommand):
    """pyscsi refuses vendor-specific operation codes (C0h and up), so that its constructor is not run."""

    def __init__(self, opcode: Any, cdb: bytes, dataout: bytes, datain_length: int) -> None:
        self.opcode = opcode
        self.cdb = bytearray(cdb)
        self.dataout = bytearray(dataout)
        self.datain = bytearray(datain_length)
        self.result: dict[str, Any] = {}
        self.page_code = None


class PairControlInCommand(_PairCommand):
    """PAIR CONTROL IN, REPORT PAIR STATUS; ``result`` has the fields of ``PairStatus``."""

    def __init__(self, opcode: Any = PAIR_IN, alloclen: int = 4096) -> None:
        _PairCommand.__init__(self, opcode, encode_report_status(alloclen), b"", alloclen)

    @staticmethod
    def unmarshall_datain(data: Any) -> dict[str, Any]:
        status = PairStatus.decode(data)
        return {name: getattr(status, name) for name in PairStatus.__slots__}


class PairControlOutCommand(_PairCommand):
    """PAIR CONTROL OUT. ``claim`` is the nexus that ownership is asked, or given back, for."""

    def __init__(
        self,
        opcode: Any = PAIR_OUT,
        service_action: PairOut = PairOut.SPLIT,
        options: PairOption = PairOption.NONE,
        fence: FenceLevel | None = None,
        expected_epoch: int = 0,
        claim: ITNexus | None = None,
    ) -> None:
        parameter_list = b"" if claim is None else encode_claim(claim)
        command = PairControlOut(service_action, options, fence, expected_epoch, len(parameter_list))
        _PairCommand.__init__(self, opcode, command.encode(), parameter_list, 0)
