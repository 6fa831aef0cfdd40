"""MODE SENSE and MODE SELECT, 6 and 10 (SPC-4 6.9 to 6.12). [C]"""

from storage_model.errors import CheckCondition
from storage_model.spec.scsi_cdb import OperationCode
from storage_model.spec.scsi_mode import ALL_PAGES, ALL_SUBPAGES, MODE_PAGES, SUBPAGE_FORMAT, ModePageLayout
from storage_model.spec.scsi_sense import AscAscq, SenseKey
from target.scsi.command_context import CommandContext, invalid_field, invalid_parameter
from target.scsi.logical_unit import LogicalUnit
from target.scsi.task import TaskOutcome

_WP = 0x80
_DPOFUA = 0x10
_DBD = 0x08
_LLBAA = 0x10

_CHANGEABLE, _DEFAULT, _SAVED = 1, 2, 3
"""PAGE CONTROL; 0 is the current values."""


async def mode_sense(context: CommandContext) -> TaskOutcome:
    lu, cdb = context.lu, context.cdb
    six = cdb[0] == OperationCode.MODE_SENSE_6
    allocation_length = cdb[4] if six else cdb[7] << 8 | cdb[8]
    page_control, page_code, subpage = cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]
    if page_control == _SAVED:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.SAVING_PARAMETERS_NOT_SUPPORTED)
    layouts = _layouts(page_code, subpage)
    long_lba = not six and bool(cdb[1] & _LLBAA)
    descriptor = b"" if cdb[1] & _DBD else _block_descriptor(lu, long_lba)
    body = descriptor + b"".join(_page(lu, layout, page_control) for layout in layouts)
    protected = lu.write_protected or context.server.read_only(context.task.nexus)
    device_specific = _DPOFUA | (_WP if protected else 0)
    if six:
        header = bytes((len(body) + 3, 0, device_specific, len(descriptor)))
    else:
        header = (
            (len(body) + 6).to_bytes(2, "big")
            + bytes((0, device_specific, 0x01 if long_lba and descriptor else 0, 0))
            + len(descriptor).to_bytes(2, "big")
        )
    return context.data_in(header + body, allocation_length)


def _layouts(page_code: int, subpage: int) -> list[ModePageLayout]:
    """The pages that PAGE CODE and SUBPAGE CODE ask for (SPC-4 table 189)."""
    of_page = [layout for layout in MODE_PAGES if page_code in (ALL_PAGES, layout.page_code)]
    if not of_page:
        raise invalid_field(2, 5)
    if page_code == ALL_PAGES and subpage not in (0, ALL_SUBPAGES):
        raise invalid_field(3)
    layouts = [layout for layout in of_page if subpage in (ALL_SUBPAGES, layout.subpage)]
    if not layouts:
        raise invalid_field(3)
    return layouts


def _block_descriptor(lu: LogicalUnit, long_lba: bool) -> bytes:
    """SBC-3 6.5.2: a count that does not fit is all ones."""
    if long_lba:
        return lu.block_count.to_bytes(8, "big") + b"\0" * 4 + lu.block_length.to_bytes(4, "big")
    return min(lu.block_count, 0xFFFFFFFF).to_bytes(4, "big") + lu.block_length.to_bytes(4, "big")


def _page(lu: LogicalUnit, layout: ModePageLayout, page_control: int) -> bytes:
    if page_control == _CHANGEABLE:
        return layout.changeable
    if page_control == _DEFAULT:
        return layout.default
    return bytes(lu.mode_pages[layout.page])


async def mode_select(context: CommandContext) -> TaskOutcome:
    """All pages are checked before any takes effect; other nexuses hear 2Ah/01h (SPC-4 6.9)."""
    lu, cdb = context.lu, context.cdb
    six = cdb[0] == OperationCode.MODE_SELECT_6
    length = cdb[4] if six else cdb[7] << 8 | cdb[8]
    if not cdb[1] & 0x10:  # PF 0: pages of the vendor's own format, of which there are none
        raise invalid_field(1)
    if length == 0:
        return TaskOutcome()
    parameters = bytes(context.parameter_list(length))
    offset = _after_block_descriptor(lu, parameters, six)
    changed = _parse_pages(lu, parameters, offset)
    if changed:
        lu.mode_pages.update(changed)
        lu.mode_pages_changed()
        lu.unit_attentions.establish(AscAscq.MODE_PARAMETERS_CHANGED, but=context.task.nexus)
    return TaskOutcome(transfer_length_bytes=length)


def _after_block_descriptor(lu: LogicalUnit, parameters: bytes, six: bool) -> int:
    """Where the pages start. A block descriptor may repeat what is, or say 0 for "as it is"; nothing can be changed."""
    header_length = 4 if six else 8
    if len(parameters) < header_length:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    descriptor_length = parameters[3] if six else parameters[6] << 8 | parameters[7]
    long_lba = not six and bool(parameters[4] & 0x01)
    expected = 16 if long_lba else 8
    if descriptor_length == 0:
        return header_length
    if descriptor_length != expected:
        raise invalid_parameter(3 if six else 6)
    descriptor = parameters[header_length : header_length + expected]
    if len(descriptor) < expected:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
    count = int.from_bytes(descriptor[: expected // 2 if long_lba else 4], "big")
    block_length = int.from_bytes(descriptor[-4:] if long_lba else descriptor[5:8], "big")
    all_ones = 0xFFFFFFFFFFFFFFFF if long_lba else 0xFFFFFFFF
    if count not in (0, lu.block_count, all_ones):
        raise invalid_parameter(header_length)
    if block_length not in (0, lu.block_length):
        raise invalid_parameter(header_length + expected - 4)
    return header_length + expected


def _parse_pages(lu: LogicalUnit, parameters: bytes, offset: int) -> dict[int, bytearray]:
    """New bytes by page. A bit that is not changeable has to be as it is (SPC-4 6.9.1)."""
    changed: dict[int, bytearray] = {}
    while offset < len(parameters):
        layout = _layout_at(parameters, offset)
        page = bytearray(parameters[offset : offset + len(layout.default)])
        header = layout.header_length
        same = header if page[1:header] == layout.default[1:header] else 0
        if len(page) < header or (len(page) < len(layout.default) and same):
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
        if not same:  # PAGE LENGTH
            raise invalid_parameter(offset + header // 2)
        page[0] &= 0x7F  # PS is reserved in MODE SELECT, and initiators send back what they have read
        current = lu.mode_pages[layout.page]
        for index in range(header, len(page)):
            if (page[index] ^ current[index]) & ~layout.changeable[index]:
                raise invalid_parameter(offset + index)
        if page != current:
            changed[layout.page] = page
        offset += len(page)
    return changed


def _layout_at(parameters: bytes, offset: int) -> ModePageLayout:
    """The layout of the page that begins at ``offset``."""
    page_code, subpage = parameters[offset] & 0x3F, 0
    if parameters[offset] & SUBPAGE_FORMAT:
        if offset + 1 == len(parameters):
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, AscAscq.PARAMETER_LIST_LENGTH_ERROR)
        subpage = parameters[offset + 1]
    has_subpage_format = bool(parameters[offset] & SUBPAGE_FORMAT)
    for layout in MODE_PAGES:
        if (layout.page_code, layout.subpage) == (page_code, subpage) and has_subpage_format is bool(subpage):
            return layout
    raise invalid_parameter(offset)
