"""The numbers of RFC 7143 §11 that PDUs carry: opcodes, reasons, statuses, stages, and the LUN field."""

from enum import IntEnum
from typing import Final

RESERVED_TAG: Final = 0xFFFFFFFF
BHS_LENGTH: Final = 48
NO_LUN = bytes(8)


class Opcode(IntEnum):
    """RFC 7143 §11.2.1.2."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK_REQUEST = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


class RejectReason(IntEnum):
    """RFC 7143 §11.17.1."""

    DATA_DIGEST_ERROR = 0x02
    SNACK_REJECT = 0x03
    PROTOCOL_ERROR = 0x04
    COMMAND_NOT_SUPPORTED = 0x05
    IMMEDIATE_COMMAND_REJECT = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_DATA_ACK = 0x08
    INVALID_PDU_FIELD = 0x09
    LONG_OPERATION_REJECT = 0x0A
    DEPRECATED_NEGOTIATION_RESET = 0x0B
    WAITING_FOR_LOGOUT = 0x0C


class LoginStatus(IntEnum):
    """Status-Class << 8 | Status-Detail (RFC 7143 §11.13.5)."""

    SUCCESS = 0x0000
    TARGET_MOVED_TEMPORARILY = 0x0101
    TARGET_MOVED_PERMANENTLY = 0x0102
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    TARGET_REMOVED = 0x0204
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    CANNOT_INCLUDE_IN_SESSION = 0x0208
    SESSION_TYPE_NOT_SUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    INVALID_DURING_LOGIN = 0x020B
    TARGET_ERROR = 0x0300
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class AsyncEvent(IntEnum):
    """RFC 7143 §11.9.1."""

    SCSI_EVENT = 0
    LOGOUT_REQUESTED = 1
    CONNECTION_DROPPED = 2
    ALL_CONNECTIONS_DROPPED = 3
    NEGOTIATION_REQUESTED = 4


class LogoutReason(IntEnum):
    """RFC 7143 §11.14.1."""

    CLOSE_SESSION = 0
    CLOSE_CONNECTION = 1
    RECOVERY = 2


class LogoutResponse(IntEnum):
    """RFC 7143 §11.15.1."""

    SUCCESS = 0
    CID_NOT_FOUND = 1
    RECOVERY_NOT_SUPPORTED = 2
    CLEANUP_FAILED = 3


class Stage(IntEnum):
    """CSG and NSG of a login (RFC 7143 §11.12.3)."""

    SECURITY_NEGOTIATION = 0
    LOGIN_OPERATIONAL_NEGOTIATION = 1
    FULL_FEATURE_PHASE = 3


def lun_to_bytes(lun: int) -> bytes:
    """The 8-byte LUN field: peripheral device addressing below 256, else flat space addressing (SAM-5 4.7.7)."""
    if lun < 0x100:
        return bytes((0, lun, 0, 0, 0, 0, 0, 0))
    if lun < 0x4000:
        return bytes((0x40 | lun >> 8, lun & 0xFF, 0, 0, 0, 0, 0, 0))
    return (lun & (1 << 64) - 1).to_bytes(8)


def lun_from_bytes(field: bytes) -> int:
    """The logical unit number of a LUN field.

    A field that uses an addressing method or a level we do not have comes back as a number of 2**64 or more, which
    names no unit, so that the command ends with LOGICAL UNIT NOT SUPPORTED like any other unknown LUN.
    """
    if field[2:] == b"\0\0\0\0\0\0":
        if field[0] == 0:
            return field[1]
        if field[0] & 0xC0 == 0x40:
            return (field[0] & 0x3F) << 8 | field[1]
    return 1 << 64 | int.from_bytes(field)
