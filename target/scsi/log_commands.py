"""LOG SENSE and LOG SELECT (SPC-4 6.7, 6.8). [C]

Only what is known is told: errors that the host's storage could not correct, and that no informational exception
exists. Temperature, self tests, background scans and media wear are the business of the disks underneath.
"""

from storage_model.spec import scsi_log as log_pages
from storage_model.spec.scsi_log import LogPage, PageControl
from storage_model.spec.scsi_sense import AscAscq
from target.scsi.command_context import CommandContext, invalid_field
from target.scsi.logical_unit import LogicalUnit
from target.scsi.task import TaskOutcome

_PCR = 0x02
_TEMPERATURE_UNKNOWN = 0xFF
_NO_EXCEPTION = bytes((0x00, 0x00, _TEMPERATURE_UNKNOWN, _TEMPERATURE_UNKNOWN))
"""ASC and ASCQ 0; the temperature and, in the vendor's byte, as initiators read it, its limit (SPC-4 7.3.9)."""


async def log_sense(context: CommandContext) -> TaskOutcome:
    """One page. SP has been refused by the usage mask: nothing can be saved."""
    cdb = context.cdb
    page_control, page_code, subpage = PageControl(cdb[2] >> 6), cdb[2] & 0x3F, cdb[3]
    pointer, allocation_length = cdb[5] << 8 | cdb[6], cdb[7] << 8 | cdb[8]
    if page_code == LogPage.SUPPORTED_PAGES:
        return context.data_in(_supported(subpage, pointer), allocation_length)
    if page_code not in list(LogPage):
        raise invalid_field(2, 5)
    if subpage:
        raise invalid_field(3)
    if page_control in (PageControl.THRESHOLD, PageControl.DEFAULT_THRESHOLD):
        raise invalid_field(2, 7)  # no parameter has a threshold
    parameters = _parameters(context.lu, LogPage(page_code), page_control)
    if parameters[-1][0] < pointer:
        raise invalid_field(5)
    body = b"".join(encoded for code, encoded in parameters if code >= pointer)
    return context.data_in(log_pages.log_page(page_code, body), allocation_length)


def _supported(subpage: int, pointer: int) -> bytes:
    if pointer:
        raise invalid_field(5)  # a list has no parameters to start from
    if subpage == 0:
        return log_pages.supported_pages(sorted(LogPage))
    if subpage == log_pages.ALL_SUBPAGES:
        lists = ((LogPage.SUPPORTED_PAGES, 0), (LogPage.SUPPORTED_PAGES, log_pages.ALL_SUBPAGES))
        rest = ((page, 0) for page in sorted(LogPage) if page != LogPage.SUPPORTED_PAGES)
        return log_pages.supported_subpages((*lists, *rest))
    raise invalid_field(3)


def _parameters(lu: LogicalUnit, page: LogPage, page_control: PageControl) -> list[tuple[int, bytes]]:
    """(parameter code, whole parameter), in the order of their codes; at least one."""
    if page is LogPage.INFORMATIONAL_EXCEPTIONS:
        return [(0, log_pages.log_parameter(0, log_pages.BINARY_LIST, _NO_EXCEPTION))]
    count = 0 if page_control is PageControl.DEFAULT_CUMULATIVE else lu.error_counters.uncorrected[page]
    code = log_pages.TOTAL_UNCORRECTED_ERRORS
    return [(code, log_pages.log_parameter(code, log_pages.BOUNDED_COUNTER, count.to_bytes(8, "big")))]


async def log_select(context: CommandContext) -> TaskOutcome:
    """PCR: the counters start from zero, and the others hear 2Ah/02h. Nothing else can be set (SPC-4 6.7)."""
    lu, cdb = context.lu, context.cdb
    page_control, page_code, subpage = cdb[2] >> 6, cdb[2] & 0x3F, cdb[3]
    if cdb[7] or cdb[8]:
        raise invalid_field(7)  # a list of values: errors are counted here, not made up
    # SPC-4 table 180: with PCR the fields name which parameters to reset; without it 11b asks for the default values.
    reset = bool(cdb[1] & _PCR) or page_control == PageControl.DEFAULT_CUMULATIVE
    if page_code or subpage:
        if page_code not in lu.error_counters.uncorrected:
            raise invalid_field(2, 5)
        if subpage:
            raise invalid_field(3)
    if reset:
        lu.error_counters.reset(LogPage(page_code) if page_code else None)
        lu.unit_attentions.establish(AscAscq.LOG_PARAMETERS_CHANGED, but=context.task.nexus)
    return TaskOutcome()
