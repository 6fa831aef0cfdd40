"""Parameter data: INQUIRY and its VPD pages, mode pages, capacities, provisioning (SPC-4 6 to 7, SBC-3 5 to 6).

None of this is on the data path, so ``construct`` declares it and both ends read and write it through the declaration.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

import construct as c

from storage_model.spec.iscsi_codes import lun_to_bytes

# --- INQUIRY -----------------------------------------------------------------------------------------------------

STANDARD_INQUIRY_LENGTH = 96
PERIPHERAL_DISK = 0x00
PERIPHERAL_NOT_CAPABLE = 0x7F
"""Qualifier 011b, type 1Fh: no logical unit can be here (SPC-4 table 142)."""

VERSION_SPC_4 = 0x06
VERSION_DESCRIPTORS = (0x00A0, 0x0960, 0x0460, 0x04C0)
"""SAM-5, iSCSI, SPC-4, SBC-3 (SPC-4 table 146), no particular revision claimed."""

STANDARD_INQUIRY = c.Struct(
    "peripheral" / c.Int8ub,
    "removable" / c.Int8ub,
    "version" / c.Int8ub,
    "response_data_format" / c.Int8ub,
    "additional_length" / c.Int8ub,
    "flags" / c.Bytes(3),
    "vendor" / c.Bytes(8),
    "product" / c.Bytes(16),
    "revision" / c.Bytes(4),
    "vendor_specific" / c.Padding(20),
    "clocking" / c.Padding(2),
    "version_descriptors" / c.Array(8, c.Int16ub),
    "reserved" / c.Padding(22),
)


def ascii_field(text: str, length: int) -> bytes:
    """Left-aligned, space-filled ASCII (SPC-4 4.3.1); longer text is cut, a character outside 20h-7Eh becomes ``?``."""
    printable = "".join(ch if " " <= ch <= "~" else "?" for ch in text)
    return printable[:length].ljust(length).encode("ascii")


def standard_inquiry(
    vendor: str, product: str, revision: str, *, removable: bool = False, present: bool = True, ports: int = 1
) -> bytes:
    """SPC-4 6.4.2. ``present`` false is the answer of a LUN where no logical unit is; ``ports``: target ports."""
    return bytes(
        STANDARD_INQUIRY.build(
            {
                "peripheral": PERIPHERAL_DISK if present else PERIPHERAL_NOT_CAPABLE,
                "removable": 0x80 if removable else 0,
                "version": VERSION_SPC_4,
                "response_data_format": 0x12,  # HISUP: LUNs are reported hierarchically; format 2 is the only one
                "additional_length": STANDARD_INQUIRY_LENGTH - 5,
                # TPGS 11b: implicit and explicit asymmetric access; 3PC; MULTIP; CMDQUE. No SCC, PROTECT or ENCSERV.
                "flags": bytes((0x38, 0x10 if ports > 1 else 0x00, 0x02)),
                "vendor": ascii_field(vendor, 8),
                "product": ascii_field(product, 16),
                "revision": ascii_field(revision, 4),
                "version_descriptors": [*VERSION_DESCRIPTORS, 0, 0, 0, 0],
            }
        )
    )


class VpdPage(IntEnum):
    """Vital product data page codes (SPC-4 7.8, SBC-3 6.6)."""

    SUPPORTED_PAGES = 0x00
    UNIT_SERIAL_NUMBER = 0x80
    DEVICE_IDENTIFICATION = 0x83
    EXTENDED_INQUIRY = 0x86
    SCSI_PORTS = 0x88
    THIRD_PARTY_COPY = 0x8F
    BLOCK_LIMITS = 0xB0
    BLOCK_DEVICE_CHARACTERISTICS = 0xB1
    LOGICAL_BLOCK_PROVISIONING = 0xB2


def vpd_page(page_code: int, body: bytes, *, peripheral: int = PERIPHERAL_DISK) -> bytes:
    """The four-byte header that every VPD page has, and its body."""
    return bytes((peripheral, page_code)) + len(body).to_bytes(2, "big") + body


class DesignatorType(IntEnum):
    """SPC-4 table 589."""

    T10_VENDOR_ID = 1
    NAA = 3
    RELATIVE_TARGET_PORT = 4
    TARGET_PORT_GROUP = 5
    SCSI_NAME_STRING = 8


class Association(IntEnum):
    """What a designator names (SPC-4 table 588)."""

    LOGICAL_UNIT = 0
    TARGET_PORT = 1
    TARGET_DEVICE = 2


_PROTOCOL_ISCSI = 0x5
_CODE_SET = {
    DesignatorType.T10_VENDOR_ID: 2,
    DesignatorType.NAA: 1,
    DesignatorType.RELATIVE_TARGET_PORT: 1,
    DesignatorType.TARGET_PORT_GROUP: 1,
    DesignatorType.SCSI_NAME_STRING: 3,
}


@dataclass(frozen=True, slots=True)
class Designator:
    """One designation descriptor of VPD page 83h (SPC-4 7.8.6); ``value`` is at most 255 bytes."""

    designator_type: int
    value: bytes
    association: int = Association.LOGICAL_UNIT

    def encode(self) -> bytes:
        code_set = _CODE_SET.get(DesignatorType(self.designator_type), 1)
        # PIV says that the protocol identifier counts; it may only be set for ports and devices.
        port_or_device = self.association != Association.LOGICAL_UNIT
        return (
            bytes(
                (
                    (_PROTOCOL_ISCSI << 4 if port_or_device else 0) | code_set,
                    (0x80 if port_or_device else 0) | self.association << 4 | self.designator_type,
                    0,
                    len(self.value),
                )
            )
            + self.value
        )


def decode_designators(page: bytes) -> list[Designator]:
    """The designators of a whole VPD page 83h; a truncated last one is left out."""
    rest = bytes(page[4 : 4 + int.from_bytes(page[2:4], "big")])
    designators = []
    while len(rest) >= 4 and len(rest) >= 4 + rest[3]:
        designators.append(Designator(rest[1] & 0x0F, rest[4 : 4 + rest[3]], rest[1] >> 4 & 0x3))
        rest = rest[4 + rest[3] :]
    return designators


def _name_string(name: str) -> bytes:
    """UTF-8, NUL-terminated, padded to a multiple of four (SPC-4 7.8.6.11)."""
    encoded = name.encode() + b"\0"
    return encoded.ljust(-(-len(encoded) // 4) * 4, b"\0")


def unit_designators(unique_name: str, vendor: str = "PAIRVOL") -> tuple[Designator, ...]:
    """The designators of a logical unit, all derived from one name: equal names give equal designators.

    NAA 3h is locally assigned (SPC-4 7.8.6.6.4): its 60 bits are a hash, so that any name fits.
    """
    naa = b"\x30" + b"\0" * 7
    digest = int.from_bytes(sha256(unique_name.encode()).digest()[:8], "big") >> 4
    naa = (int.from_bytes(naa, "big") | digest).to_bytes(8, "big")
    t10 = ascii_field(vendor, 8) + unique_name.encode("ascii", "replace")[:200]
    return (
        Designator(DesignatorType.NAA, naa),
        Designator(DesignatorType.T10_VENDOR_ID, t10),
        Designator(DesignatorType.SCSI_NAME_STRING, _name_string(f"naa.{naa.hex().upper()}")),
    )


def _port_name(target_iqn: str, relative_target_port: int) -> Designator:
    """A target port's name has the portal group tag, which here is its relative identifier, too (RFC 7143 §4.4.4)."""
    name = _name_string(f"{target_iqn},t,0x{relative_target_port:04x}")
    return Designator(DesignatorType.SCSI_NAME_STRING, name, Association.TARGET_PORT)


def port_designators(target_iqn: str, relative_target_port: int) -> tuple[Designator, ...]:
    """The target port through which the command came, its group, and the target device (SPC-4 7.8.6).

    Each port is a target port group of its own, of the same number.
    """
    port_number = relative_target_port.to_bytes(4, "big")
    return (
        Designator(DesignatorType.RELATIVE_TARGET_PORT, port_number, Association.TARGET_PORT),
        Designator(DesignatorType.TARGET_PORT_GROUP, port_number, Association.TARGET_PORT),
        _port_name(target_iqn, relative_target_port),
        Designator(DesignatorType.SCSI_NAME_STRING, _name_string(target_iqn), Association.TARGET_DEVICE),
    )


def scsi_ports(target_iqn: str, relative_target_ports: Iterable[int]) -> bytes:
    """The body of VPD page 88h: every target port with its name (SPC-4 7.8.14). Initiator ports are not told."""
    body = b""
    for port in relative_target_ports:
        name = _port_name(target_iqn, port).encode()
        body += b"\0\0" + port.to_bytes(2, "big") + b"\0" * 6 + len(name).to_bytes(2, "big") + name
    return body


EXTENDED_INQUIRY_BODY = bytes((0x00, 0x07, 0x01, 0x01)) + b"\0" * 56
"""SPC-4 7.8.7: GRP_CHK..REF_CHK 0; HEADSUP, ORDSUP, SIMPSUP; V_SUP (a volatile cache); LUICLR."""

BLOCK_LIMITS = c.Struct(
    "wsnz" / c.Int8ub,
    "maximum_compare_and_write_length" / c.Int8ub,
    "optimal_transfer_length_granularity" / c.Int16ub,
    "maximum_transfer_length" / c.Int32ub,
    "optimal_transfer_length" / c.Int32ub,
    "maximum_prefetch_length" / c.Int32ub,
    "maximum_unmap_lba_count" / c.Int32ub,
    "maximum_unmap_block_descriptor_count" / c.Int32ub,
    "optimal_unmap_granularity" / c.Int32ub,
    "unmap_granularity_alignment" / c.Int32ub,
    "maximum_write_same_length" / c.Int64ub,
    "maximum_atomic_transfer_length" / c.Int32ub,
    "atomic_alignment" / c.Int32ub,
    "atomic_transfer_length_granularity" / c.Int32ub,
    "maximum_atomic_transfer_length_with_atomic_boundary" / c.Int32ub,
    "maximum_atomic_boundary_size" / c.Int32ub,
)
"""SBC-4 6.6.4, after the page header; all counts are logical blocks."""


def block_device_characteristics(*, block_erase: bool, cryptographic_erase: bool) -> bytes:
    """SBC-3 6.6.2: a medium that does not rotate; WABEREQ, WACEREQ 01b: after such a SANITIZE reads are good."""
    after_sanitize = (0x40 if block_erase else 0x00) | (0x10 if cryptographic_erase else 0x00)
    return bytes((0x00, 0x01, 0x00, after_sanitize)) + b"\0" * 56


THIN_PROVISIONING_BODY = b"\x00\xe6\x02\x00"
"""SBC-3 6.6.5: no threshold; LBPU, LBPWS, LBPWS10, LBPRZ (unmapped blocks read as zeros), ANC_SUP; thin provisioned."""

FULL_PROVISIONING_BODY = b"\x00\x00\x00\x00"
"""SBC-3 6.6.5: nothing can be unmapped; PROVISIONING TYPE 0, fully provisioned."""

# --- Capacity and provisioning -----------------------------------------------------------------------------------

READ_CAPACITY_10 = c.Struct("last_lba" / c.Int32ub, "block_length" / c.Int32ub)
READ_CAPACITY_16 = c.Struct(
    "last_lba" / c.Int64ub,
    "block_length" / c.Int32ub,
    "protection" / c.Int8ub,
    "exponents" / c.Int8ub,
    "provisioning" / c.Int16ub,
    "reserved" / c.Padding(16),
)
LBPME_LBPRZ = 0xC000
"""READ CAPACITY(16) byte 14: provisioning is managed, unmapped blocks read as zeros (SBC-3 5.16.2)."""

LBA_STATUS_MAPPED = 0
LBA_STATUS_DEALLOCATED = 1
_LBA_STATUS_DESCRIPTOR = c.Struct("lba" / c.Int64ub, "blocks" / c.Int32ub, "status" / c.Int8ub, c.Padding(3))
UNMAP_DESCRIPTOR = c.Struct("lba" / c.Int64ub, "blocks" / c.Int32ub, c.Padding(4))


def lba_status(descriptors: Iterable[tuple[int, int, int]]) -> bytes:
    """GET LBA STATUS parameter data from (lba, blocks, provisioning status) (SBC-3 5.4.2)."""
    body = b"".join(_LBA_STATUS_DESCRIPTOR.build({"lba": a, "blocks": n, "status": s}) for a, n, s in descriptors)
    return (len(body) + 4).to_bytes(4, "big") + b"\0" * 4 + body


def unmap_parameter_list(ranges: Iterable[tuple[int, int]]) -> bytes:
    """UNMAP parameter list from (lba, blocks) (SBC-3 5.28.2)."""
    body = b"".join(UNMAP_DESCRIPTOR.build({"lba": lba, "blocks": blocks}) for lba, blocks in ranges)
    return (len(body) + 6).to_bytes(2, "big") + len(body).to_bytes(2, "big") + b"\0" * 4 + body


def report_luns(luns: Iterable[int]) -> bytes:
    """REPORT LUNS parameter data (SPC-4 6.35)."""
    body = b"".join(lun_to_bytes(lun) for lun in luns)
    return len(body).to_bytes(4, "big") + b"\0" * 4 + body
