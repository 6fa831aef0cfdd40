"""The vendor pair-control commands, as they travel in-band in CDBs.

Two 16-byte CDBs from the vendor-specific range (SPC-4 4.2.5.1, operation codes C0h-FFh), shaped like PERSISTENT RESERVE
IN and OUT: the service action is in byte 1, bits 4-0, big-endian fields, the control byte last.

PAIR CONTROL IN (C0h)                           PAIR CONTROL OUT (C1h)
  byte 1     service action                       byte 1     service action
  2-9        reserved                             2          options, see :class:`PairOption`
  10-13      ALLOCATION LENGTH                    3          fence level of a CREATE; 0: as configured
  14         reserved                             4-7        EXPECTED EPOCH; 0: whatever it is
  15         CONTROL                              8-9        reserved
                                                  10-13      PARAMETER LIST LENGTH (a claim, a rate, or 0)
                                                  14, 15     reserved, CONTROL

EXPECTED EPOCH makes a verb conditional: it fails with EPOCH_MOVED if the pair has changed since the caller read it.
The parameter list of RESYNC, SWAP RESYNC, TAKEOVER and WITHDRAW is a claim: the I_T nexus for whom ownership of the
quorum volume is asked or given back. That of SET COPY RATE is the rate.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import construct as c

from storage_model.errors import CheckCondition
from storage_model.nexus import MAX_NAME_BYTES, ITNexus, is_name_length
from storage_model.pair_state import FenceLevel, PairRole, PairState, Side
from storage_model.sizes import MAX_SIZE_BYTES, MINIMUM_COPY_RATE
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from storage_model.volume import Buffer

PAIR_CONTROL_IN = 0xC0
PAIR_CONTROL_OUT = 0xC1


class PairIn(IntEnum):
    """Service actions of PAIR CONTROL IN."""

    REPORT_STATUS = 0x00


class PairOut(IntEnum):
    """Service actions of PAIR CONTROL OUT."""

    CREATE = 0x00
    SPLIT = 0x01
    RESYNC = 0x02
    SWAP_RESYNC = 0x03
    DELETE = 0x04
    WITHDRAW = 0x05
    """Give back the reservation, and any undecided or decided claim, of the nexus in the parameter list."""
    TAKEOVER = 0x06
    """An operator's word in place of the other array's vote: this half becomes the P-VOL, the other one is outdated.

    Only while the other array cannot be reached."""
    VERIFY = 0x07
    """At the P-VOL in PAIR: compare both copies in the background; what differs is copied by the next resync."""
    SET_COPY_RATE = 0x08
    """How fast this array copies and compares the pair; until it ends, or its configuration gives another rate."""


class PairOption(IntFlag):
    """Byte 2 of PAIR CONTROL OUT."""

    NONE = 0
    S_VOL_WRITABLE = 0x01
    """SPLIT: open the S-VOL for writes (pairsplit -rw)."""
    REMOTE_P_VOL = 0x02
    """CREATE: the volume of the *other* array becomes the P-VOL (paircreate -vr)."""
    GOOD_P_VOL = 0x04
    """RESYNC, SWAP RESYNC: the P-VOL's data is good, discard what the S-VOL has of its own."""
    GOOD_S_VOL = 0x08
    """RESYNC, SWAP RESYNC: the S-VOL's data is good, discard what the P-VOL has of its own."""
    NO_COPY = 0x10
    """CREATE: the caller vouches that both volumes are equal already (paircreate -nocopy)."""
    FORCE = 0x20
    """DELETE: forget the pair at this array alone, when the other cannot be reached. RESYNC, SWAP RESYNC, TAKEOVER: the
    side named good, or promoted, may be one that is outdated or was never complete."""
    GROUP = 0x40
    """SPLIT, RESYNC, SWAP RESYNC, TAKEOVER: every pair of the consistency group, as one decision.

    The expected epoch and the claim are those of the addressed pair. A pair that is where the verb leads already is
    left out; SWAP RESYNC takes pairs in PAIR, too."""


_OUT_CDB = c.Struct(
    "operation_code" / c.Const(PAIR_CONTROL_OUT, c.Byte),
    "service_action" / c.Byte,
    "options" / c.Byte,
    "fence" / c.Byte,
    "expected_epoch" / c.Int32ub,
    "reserved" / c.Padding(2),
    "parameter_list_length" / c.Int32ub,
    "reserved_14" / c.Padding(1),
    "control" / c.Const(0, c.Byte),
)

_IN_CDB = c.Struct(
    "operation_code" / c.Const(PAIR_CONTROL_IN, c.Byte),
    "service_action" / c.Byte,
    "reserved" / c.Padding(8),
    "allocation_length" / c.Int32ub,
    "reserved_14" / c.Padding(1),
    "control" / c.Const(0, c.Byte),
)


@dataclass(frozen=True, slots=True)
class PairControlOut:
    """PAIR CONTROL OUT, decoded."""

    service_action: PairOut
    options: PairOption = PairOption.NONE
    fence: FenceLevel | None = None
    expected_epoch: int = 0
    parameter_list_length: int = 0

    def encode(self) -> bytes:
        """The 16 bytes of the CDB."""
        return bytes(
            _OUT_CDB.build(
                {
                    "service_action": self.service_action,
                    "options": self.options,
                    "fence": self.fence or 0,
                    "expected_epoch": self.expected_epoch,
                    "parameter_list_length": self.parameter_list_length,
                }
            )
        )

    @classmethod
    def decode(cls, cdb: bytes) -> "PairControlOut":
        """From a 16-byte CDB; raises CheckCondition (INVALID FIELD IN CDB) with the field pointer."""
        service_action = cdb[1] & 0x1F
        if service_action not in PairOut._value2member_map_:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_FIELD_IN_CDB, field_pointer=1)
        if cdb[2] & ~0x7F or cdb[2] & 0x0C == 0x0C:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_FIELD_IN_CDB, field_pointer=2)
        if cdb[3] > FenceLevel.STATUS:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_FIELD_IN_CDB, field_pointer=3)
        return cls(
            PairOut(service_action),
            PairOption(cdb[2]),
            FenceLevel(cdb[3]) if cdb[3] else None,
            int.from_bytes(cdb[4:8], "big"),
            int.from_bytes(cdb[10:14], "big"),
        )

    @property
    def good_side(self) -> Side:
        """The side named as good, if any."""
        if self.options & PairOption.GOOD_P_VOL:
            return Side.P_VOL
        return Side.S_VOL if self.options & PairOption.GOOD_S_VOL else Side.NONE


def encode_report_status(allocation_length: int = 4096) -> bytes:
    """The CDB of PAIR CONTROL IN, REPORT PAIR STATUS."""
    return bytes(_IN_CDB.build({"service_action": PairIn.REPORT_STATUS, "allocation_length": allocation_length}))


def decode_pair_control_in(cdb: bytes) -> tuple[PairIn, int]:
    """Service action and allocation length; raises CheckCondition (INVALID FIELD IN CDB)."""
    service_action = cdb[1] & 0x1F
    if service_action not in PairIn._value2member_map_:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.INVALID_FIELD_IN_CDB, field_pointer=1)
    return PairIn(service_action), int.from_bytes(cdb[10:14], "big")


CLAIM_FORMAT = 0x01
_CLAIM = c.Struct(
    "format" / c.Byte,
    "reserved" / c.Padding(1),
    "target_port" / c.Int16ub,
    "isid" / c.Bytes(6),
    "name_length" / c.Int16ub,
    "name" / c.Bytes(c.this.name_length),
)
_CLAIM_HEADER_LENGTH = 12


def encode_claim(nexus: ITNexus) -> bytes:
    """The parameter list that names the nexus a claim is made for."""
    name = nexus.initiator_name.encode()
    return bytes(
        _CLAIM.build(
            {
                "format": CLAIM_FORMAT,
                "target_port": nexus.target_port,
                "isid": nexus.isid,
                "name_length": len(name),
                "name": name,
            }
        )
    )


def decode_claim(parameter_list: Buffer) -> ITNexus:
    """From a parameter list; raises CheckCondition (PARAMETER LIST LENGTH ERROR, INVALID FIELD IN PARAMETER LIST)."""
    data = bytes(parameter_list)
    if len(data) < _CLAIM_HEADER_LENGTH:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    name_length = int.from_bytes(data[10:12], "big")
    if data[0] != CLAIM_FORMAT:
        raise _bad_parameter(0)
    if not 0 < name_length <= MAX_NAME_BYTES or len(data) < _CLAIM_HEADER_LENGTH + name_length:
        raise _bad_parameter(10)
    fields = _CLAIM.parse(data)
    try:
        name = fields.name.decode()
    except UnicodeDecodeError:
        raise _bad_parameter(_CLAIM_HEADER_LENGTH) from None
    if not is_name_length(name):
        raise _bad_parameter(_CLAIM_HEADER_LENGTH)
    return ITNexus(name, bytes(fields.isid), fields.target_port)


RATE_LENGTH = 8


def encode_copy_rate(bytes_per_second: int) -> bytes:
    """The parameter list of SET COPY RATE; 0: as fast as it goes."""
    return bytes_per_second.to_bytes(RATE_LENGTH, "big")


def decode_copy_rate(parameter_list: Buffer) -> int:
    """Bytes per second; raises CheckCondition (PARAMETER LIST LENGTH ERROR, INVALID FIELD IN PARAMETER LIST)."""
    data = bytes(parameter_list)
    if len(data) != RATE_LENGTH:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    rate = int.from_bytes(data, "big")
    if rate and not MINIMUM_COPY_RATE <= rate <= MAX_SIZE_BYTES:
        raise _bad_parameter(0)
    return rate


def _bad_parameter(field_pointer: int) -> CheckCondition:
    return CheckCondition(
        SenseKey.ILLEGAL_REQUEST,
        AscAscq.INVALID_FIELD_IN_PARAMETER_LIST,
        field_pointer=field_pointer,
        in_parameter_list=True,
    )


class StatusFlag(IntFlag):
    """Bytes 8-9 of the pair status data."""

    NONE = 0
    QUORUM = 0x01
    """The volume is arbitrated: RESERVE on it is decided by an epoch."""
    LINK_UP = 0x02
    S_VOL_WRITABLE = 0x04
    IN_DOUBT = 0x08
    """An epoch was voted for here and is not known to be decided."""
    CONFIGURED = 0x10
    """A pair is configured for the volume (names and the peer are valid even in SMPL)."""
    OUTDATED = 0x20
    """The other half was promoted by a forced takeover: this one is not promotable until a resync names a good side."""
    PEER_OUTDATED = 0x40
    """This half was promoted by a forced takeover."""
    SPLIT_BRAIN = 0x80
    """After a forced takeover, the half left behind has (or, after its restart, may have) data of its own; or both
    halves were changed by force, so that they do not agree any more."""


class VerifyState(IntEnum):
    """Of the comparison of both copies: the one under way, or the last since the array's start."""

    NONE = 0
    RUNNING = 1
    ENDED = 2
    BROKEN_OFF = 3
    """The pair changed, the link went down or a medium failed before the end."""


_STATUS = c.Struct(
    "length" / c.Int32ub,
    "version" / c.Const(1, c.Byte),
    "role" / c.Byte,
    "state" / c.Byte,
    "fence" / c.Byte,
    "flags" / c.Int16ub,
    "copy_percent" / c.Byte,
    "reserved" / c.Padding(1),
    "epoch" / c.Int32ub,
    "ldev" / c.Int16ub,
    "peer_ldev" / c.Int16ub,
    "differing_bytes" / c.Int64ub,
    "size_bytes" / c.Int64ub,
    "owner_isid" / c.Bytes(6),
    "owner_target_port" / c.Int16ub,
    "serial" / c.PascalString(c.Byte, "ascii"),
    "peer_serial" / c.PascalString(c.Byte, "ascii"),
    "owner_serial" / c.PascalString(c.Byte, "ascii"),
    "owner_name" / c.PascalString(c.Byte, "utf8"),
    "pair_name" / c.PascalString(c.Byte, "utf8"),
    "group_name" / c.PascalString(c.Byte, "utf8"),
    "volume_name" / c.PascalString(c.Byte, "utf8"),
    "copy_rate" / c.Int64ub,
    "bytes_per_second" / c.Int64ub,
    "verify" / c.Byte,
    "reserved_tail" / c.Padding(7),
    "verified_bytes" / c.Int64ub,
    "verify_differing_bytes" / c.Int64ub,
    "verify_busy_bytes" / c.Int64ub,
)


@dataclass(frozen=True, slots=True)
class PairStatus:
    """REPORT PAIR STATUS data: the local half of the pair as its array knows it.

    ``owner`` is the nexus that owns a quorum volume, ``owner_serial`` the array at which it does; both are None and ""
    when nobody owns it. ``copy_percent`` is how much of the pair is equal, 0-100; ``differing_bytes`` what is left.
    ``copy_rate`` limits the copies and comparisons that this array drives (0: no limit), ``bytes_per_second`` is how
    fast the one under way goes, in bytes of the volume; ``verify_busy_bytes`` were being written whenever it looked.
    """

    role: PairRole
    state: PairState
    fence: FenceLevel
    flags: StatusFlag
    copy_percent: int
    epoch: int
    ldev: int
    peer_ldev: int
    differing_bytes: int
    size_bytes: int
    serial: str
    peer_serial: str
    owner_serial: str
    owner: ITNexus | None
    pair_name: str
    group_name: str
    volume_name: str
    copy_rate: int = 0
    bytes_per_second: int = 0
    verify: VerifyState = VerifyState.NONE
    verified_bytes: int = 0
    verify_differing_bytes: int = 0
    verify_busy_bytes: int = 0

    def encode(self) -> bytes:
        """The parameter data, its length field first."""
        owner = self.owner or ITNexus("", bytes(6), 0)
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "owner"}
        fields.update(owner_isid=owner.isid, owner_target_port=owner.target_port, owner_name=owner.initiator_name)
        data = bytes(_STATUS.build({"length": 0, **fields}))
        return (len(data) - 4).to_bytes(4, "big") + data[4:]

    @classmethod
    def decode(cls, data: Buffer) -> "PairStatus":
        """From parameter data; raises ValueError when it is cut short or of another version."""
        try:
            fields = _STATUS.parse(bytes(data))
            owner = (
                ITNexus(fields.owner_name, bytes(fields.owner_isid), fields.owner_target_port)
                if fields.owner_name
                else None
            )
            plain = {name: fields[name] for name in cls.__slots__ if name not in _CONVERTED}
            return cls(
                role=PairRole(fields.role),
                state=PairState(fields.state),
                fence=FenceLevel(fields.fence),
                flags=StatusFlag(fields.flags),
                verify=VerifyState(fields.verify),
                owner=owner,
                **plain,
            )
        except (c.ConstructError, UnicodeDecodeError) as error:
            raise ValueError(f"pair status data cannot be read: {error}") from None


_CONVERTED = frozenset({"role", "state", "fence", "flags", "verify", "owner"})
