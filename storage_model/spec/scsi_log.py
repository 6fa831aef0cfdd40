"""Log pages: layouts and codes (SPC-4 6.7, 6.8, 7.3)."""

from collections.abc import Iterable, Sequence
from enum import IntEnum

import construct as c


class LogPage(IntEnum):
    """Log page codes (SPC-4 table 351)."""

    SUPPORTED_PAGES = 0x00
    WRITE_ERROR_COUNTERS = 0x02
    READ_ERROR_COUNTERS = 0x03
    VERIFY_ERROR_COUNTERS = 0x05
    INFORMATIONAL_EXCEPTIONS = 0x2F


ALL_SUBPAGES = 0xFF
_SUBPAGE_FORMAT = 0x40


class PageControl(IntEnum):
    """The PC field: which values a log parameter is asked for or set to (SPC-4 table 179)."""

    THRESHOLD = 0
    CUMULATIVE = 1
    DEFAULT_THRESHOLD = 2
    DEFAULT_CUMULATIVE = 3


TOTAL_UNCORRECTED_ERRORS = 0x0006
"""The parameter of the error counter pages that has a meaning without a medium of our own (SPC-4 table 362)."""

BOUNDED_COUNTER = 0x02
"""FORMAT AND LINKING 10b with DU, TSD, ETC and TMC 0: a counter that stops at its highest value (SPC-4 table 353)."""
BINARY_LIST = 0x03
"""FORMAT AND LINKING 11b (SPC-4 table 353)."""

_PARAMETER = c.Struct(
    "code" / c.Int16ub,
    "control" / c.Int8ub,
    "value" / c.Prefixed(c.Int8ub, c.GreedyBytes),
)
_PAGE = c.Struct(
    "page_code" / c.Int8ub,
    "subpage" / c.Int8ub,
    "body" / c.Prefixed(c.Int16ub, c.GreedyBytes),
)


def log_parameter(code: int, control: int, value: bytes) -> bytes:
    """One log parameter (SPC-4 7.3.2.2)."""
    return bytes(_PARAMETER.build({"code": code, "control": control, "value": value}))


def log_page(page_code: int, body: bytes, *, subpage: int = 0) -> bytes:
    """A page with its header: SPF when it has a subpage code, DS 1, as nothing is ever saved (SPC-4 7.3.2.1)."""
    disable_save = 0x80 if page_code != LogPage.SUPPORTED_PAGES else 0
    first = disable_save | (_SUBPAGE_FORMAT if subpage else 0) | page_code
    return bytes(_PAGE.build({"page_code": first, "subpage": subpage, "body": body}))


def decode_log_page(data: bytes) -> tuple[int, int, bytes]:
    """(page code, subpage code, body); raises ``construct.ConstructError`` when it is cut short."""
    page = _PAGE.parse(data)
    return page.page_code & 0x3F, page.subpage, page.body


def decode_log_parameters(body: bytes) -> Sequence[tuple[int, bytes]]:
    """(parameter code, value) of each parameter of a page's body."""
    return [(parameter.code, parameter.value) for parameter in c.GreedyRange(_PARAMETER).parse(body)]


def supported_pages(pages: Iterable[int]) -> bytes:
    """Page 00h: the codes of the pages (SPC-4 7.3.17)."""
    return log_page(LogPage.SUPPORTED_PAGES, bytes(pages))


def supported_subpages(pages: Iterable[tuple[int, int]]) -> bytes:
    """Page 00h, subpage FFh: (page code, subpage code) of all (SPC-4 7.3.18)."""
    body = b"".join(bytes(pair) for pair in pages)
    return log_page(LogPage.SUPPORTED_PAGES, body, subpage=ALL_SUBPAGES)
