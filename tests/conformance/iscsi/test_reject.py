"""Reject: the right reason, and the header of the offending PDU (RFC 7143 §11.17)."""

import pytest

from storage_model.spec.iscsi_pdu import (
    DataOutPdu,
    LogoutRequestPdu,
    RejectPdu,
    RejectReason,
    SnackRequestPdu,
)
from storage_model.spec.iscsi_stream import EncodablePdu, RawPdu
from tests.iscsi_driver import Driver


def logged_in() -> Driver:
    driver = Driver()
    driver.login()
    return driver


def rejected(driver: Driver, pdu: EncodablePdu) -> int:
    (reject,) = driver.send(pdu)
    assert isinstance(reject, RejectPdu)
    assert bytes(reject.data) == pdu.encode_bhs() and reject.itt == 0xFFFFFFFF
    return reject.reason


@pytest.mark.parametrize("opcode", [0x1C, 0x1F, 0x20, 0x3E])
def test_opcode_that_is_no_request(opcode: int) -> None:
    assert rejected(logged_in(), RawPdu(bytes((opcode,)) + bytes(47))) == RejectReason.COMMAND_NOT_SUPPORTED


def test_login_in_full_feature_phase() -> None:
    driver = logged_in()
    assert rejected(driver, driver.login_request()) == RejectReason.PROTOCOL_ERROR


def test_snack_is_for_higher_error_recovery_levels() -> None:
    assert rejected(logged_in(), SnackRequestPdu(itt=1)) == RejectReason.SNACK_REJECT


def test_task_tag_in_use() -> None:
    driver = logged_in()
    driver.send(driver.read(1, 4))
    assert rejected(driver, driver.read(1, 4)) == RejectReason.TASK_IN_PROGRESS


def test_reserved_task_tag_and_data_on_a_read() -> None:
    driver = logged_in()
    assert rejected(driver, driver.read(0xFFFFFFFF, 4)) == RejectReason.INVALID_PDU_FIELD
    assert rejected(driver, driver.read(1, 4, data=b"x")) == RejectReason.INVALID_PDU_FIELD


def test_data_out_that_nobody_asked_for() -> None:
    driver = logged_in()
    driver.send(driver.read(1, 4))
    assert rejected(driver, DataOutPdu(itt=1, data=b"x")) == RejectReason.PROTOCOL_ERROR
    assert driver.send(DataOutPdu(itt=2, data=b"x")) == []  # its task may have been aborted: ignored


def test_logout_reason() -> None:
    assert rejected(logged_in(), LogoutRequestPdu(reason=3, cmd_sn=100)) == RejectReason.INVALID_PDU_FIELD
