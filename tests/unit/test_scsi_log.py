"""Log pages as bytes (SPC-4 7.3.2)."""

import construct
import pytest

from storage_model.spec import scsi_log as log
from storage_model.spec.scsi_log import LogPage


def test_parameter_and_page_bytes():
    parameter = log.log_parameter(log.TOTAL_UNCORRECTED_ERRORS, log.BOUNDED_COUNTER, (7).to_bytes(8, "big"))
    assert parameter.hex() == "000602080000000000000007"
    page = log.log_page(LogPage.READ_ERROR_COUNTERS, parameter)
    assert page.hex() == "8300000c" + parameter.hex()
    assert log.decode_log_page(page) == (LogPage.READ_ERROR_COUNTERS, 0, parameter)
    assert log.decode_log_parameters(parameter * 2) == [(6, (7).to_bytes(8, "big"))] * 2


def test_lists_of_pages():
    assert log.supported_pages([0, 2, 0x2F]).hex() == "0000000300022f"
    assert log.supported_subpages([(0, 0), (0, 0xFF)]).hex() == "40ff0004000000ff"


def test_a_page_that_is_cut_short():
    with pytest.raises(construct.ConstructError):
        log.decode_log_page(bytes.fromhex("8300000c0006"))
