"""Residual count: what the CDB would move against what the initiator expects (RFC 7143 §11.4.5)."""

import pytest

from storage_model.spec.iscsi_pdu import DataInPdu, ScsiResponsePdu
from storage_model.spec.scsi_task import ScsiStatus
from target.scsi.task import TaskOutcome
from tests.iscsi_driver import Driver

CASES = [(512, 512, False, False, 0), (1024, 512, False, True, 512), (512, 1024, True, False, 512)]


@pytest.mark.parametrize(("expected", "transfer", "overflow", "underflow", "count"), CASES)
def test_read(expected: int, transfer: int, overflow: bool, underflow: bool, count: int) -> None:
    driver = Driver(lambda task: TaskOutcome(data_in=bytes(transfer), transfer_length_bytes=transfer))
    driver.login()
    (data_in,) = driver.send(driver.read(1, expected))
    assert isinstance(data_in, DataInPdu) and len(data_in.data) == min(expected, transfer)
    assert (data_in.overflow, data_in.underflow, data_in.residual_count) == (overflow, underflow, count)


@pytest.mark.parametrize(("expected", "transfer", "overflow", "underflow", "count"), CASES)
def test_write(expected: int, transfer: int, overflow: bool, underflow: bool, count: int) -> None:
    driver = Driver(lambda task: TaskOutcome(transfer_length_bytes=transfer))
    driver.login()
    (response,) = driver.send(driver.write(1, expected, bytes(expected)))
    assert isinstance(response, ScsiResponsePdu)
    assert (response.overflow, response.underflow, response.residual_count) == (overflow, underflow, count)


def test_neither_read_nor_write_flag_gets_no_data_and_an_overflow() -> None:
    driver = Driver(lambda task: TaskOutcome(data_in=bytes(512), transfer_length_bytes=512))
    driver.login()
    (response,) = driver.send(driver.command(1))
    assert isinstance(response, ScsiResponsePdu) and (response.overflow, response.residual_count) == (True, 512)


def test_reservation_conflict_leaves_everything_untransferred() -> None:
    driver = Driver(lambda task: TaskOutcome(ScsiStatus.RESERVATION_CONFLICT))
    driver.login()
    (response,) = driver.send(driver.read(1, 512))
    assert isinstance(response, ScsiResponsePdu) and response.status == ScsiStatus.RESERVATION_CONFLICT
    assert (response.underflow, response.residual_count, response.data) == (True, 512, b"")
