"""How often the medium of a logical unit failed: what the error counter log pages tell (SPC-4 7.3.7)."""

from storage_model.spec.scsi_cdb import OperationCode
from storage_model.spec.scsi_log import LogPage

_VERIFIES = frozenset({OperationCode.VERIFY_10, OperationCode.VERIFY_12, OperationCode.VERIFY_16})
_COUNTED = (LogPage.WRITE_ERROR_COUNTERS, LogPage.READ_ERROR_COUNTERS, LogPage.VERIFY_ERROR_COUNTERS)
MAXIMUM_COUNT = (1 << 64) - 1


class ErrorCounters:
    """``uncorrected`` has a count for each of the three pages; the error path counts, never the data path.

    The host's storage corrects errors, if it does, without telling: what is told is what it could not correct.
    """

    __slots__ = ("uncorrected",)

    def __init__(self) -> None:
        self.uncorrected = dict.fromkeys(_COUNTED, 0)

    def count(self, operation_code: int, *, writes: bool) -> None:
        """One command ended with MEDIUM ERROR."""
        if writes:
            page = LogPage.WRITE_ERROR_COUNTERS
        elif operation_code in _VERIFIES:
            page = LogPage.VERIFY_ERROR_COUNTERS
        else:
            page = LogPage.READ_ERROR_COUNTERS
        self.uncorrected[page] = min(self.uncorrected[page] + 1, MAXIMUM_COUNT)

    def reset(self, page: LogPage | None = None) -> None:
        """LOG SELECT: the counter of one page, or all. A power on does it by making a new unit."""
        for each in _COUNTED if page is None else (page,):
            self.uncorrected[each] = 0
