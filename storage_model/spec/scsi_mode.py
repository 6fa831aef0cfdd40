"""Mode pages: what MODE SENSE tells and MODE SELECT may change (SPC-4 7.5, SBC-3 6.5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ModePage(IntEnum):
    """Page code in the low byte, subpage code above it."""

    READ_WRITE_ERROR_RECOVERY = 0x01
    CACHING = 0x08
    CONTROL = 0x0A
    CONTROL_EXTENSION = 0x010A
    INFORMATIONAL_EXCEPTIONS = 0x1C


ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF
SUBPAGE_FORMAT = 0x40
"""SPF, in the first byte of a page: the length has two bytes and the subpage code is told."""

CACHING_WCE = (2, 0x04)
CONTROL_D_SENSE = (2, 0x04)
CONTROL_SWP = (4, 0x08)
"""(byte, bit) of the changeable parameters."""


@dataclass(frozen=True, slots=True)
class ModePageLayout:
    """A mode page: its default bytes, header included, and the bits that MODE SELECT may change."""

    page: ModePage
    default: bytes
    changeable: bytes

    @property
    def page_code(self) -> int:
        return self.page & 0xFF

    @property
    def subpage(self) -> int:
        return self.page >> 8

    @property
    def header_length(self) -> int:
        return 4 if self.subpage else 2


def _layout(page: ModePage, default: str, length: int, *changeable: tuple[int, int]) -> ModePageLayout:
    """``default`` is hexadecimal and goes on with zeros; PS is 0 everywhere, as nothing is saved."""
    code, subpage = page & 0xFF, page >> 8
    if subpage:
        header = bytes((SUBPAGE_FORMAT | code, subpage)) + (length - 4).to_bytes(2, "big")
    else:
        header = bytes((code, length - 2))
    may_change = bytearray(header.ljust(length, b"\0"))
    for byte, bit in changeable:
        may_change[byte] |= bit
    return ModePageLayout(page, (header + bytes.fromhex(default)).ljust(length, b"\0"), bytes(may_change))


MODE_PAGES: Sequence[ModePageLayout] = (
    # SBC-3 6.5.8: no automatic reallocation, no retries of our own, no recovered errors: the host's storage does that.
    _layout(ModePage.READ_WRITE_ERROR_RECOVERY, "", 12),
    # SBC-3 6.5.6: write-back cache on, which is why SYNCHRONIZE CACHE and FUA mean something.
    _layout(ModePage.CACHING, "04", 20, CACHING_WCE),
    # SPC-4 7.5.8: QUEUE ALGORITHM MODIFIER 1 (simple commands may be reordered), QERR 0, busy timeout unlimited. TAS is
    # 0 and stays so: the others hear of their aborted tasks by a unit attention.
    _layout(ModePage.CONTROL, "00100000 0000ffff", 12, CONTROL_D_SENSE, CONTROL_SWP),
    # SPC-4 7.5.9: IALUAE, as a failover changes access states by itself; no priorities, sense data of any length.
    _layout(ModePage.CONTROL_EXTENSION, "01", 32),
    # SPC-4 7.5.11: DEXCPT with MRIE 0: no exception conditions are made or reported.
    _layout(ModePage.INFORMATIONAL_EXCEPTIONS, "08", 12),
)
"""In ascending order of page and subpage code, as MODE SENSE returns them."""
