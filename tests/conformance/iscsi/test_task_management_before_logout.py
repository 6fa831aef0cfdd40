"""A task management request and a Logout on its heels: both are answered, in this order (RFC 7143 §11.6, §11.15)."""

import pytest

from storage_model.spec.iscsi_pdu import (
    LogoutRequestPdu,
    LogoutResponsePdu,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
)
from storage_model.spec.scsi_task import TaskFunction, TaskFunctionResponse
from target.iscsi.events import LogoutReceived, TaskManagementReceived
from tests.iscsi_driver import Driver


@pytest.mark.parametrize("session_ends_first", [False, True])
def test_the_response_comes_before_that_of_the_logout(session_ends_first: bool) -> None:
    """Also when the function takes longer than the end of the session."""
    driver = Driver()
    driver.login()
    reset = TaskManagementRequestPdu(function=TaskFunction.LOGICAL_UNIT_RESET, itt=50, cmd_sn=100)
    assert driver.send(reset, LogoutRequestPdu(reason=0, itt=51, cid=7, cmd_sn=100)) == []
    assert [type(event) for event in driver.events[-2:]] == [TaskManagementReceived, LogoutReceived]
    if session_ends_first:
        driver.connection.logout_done()
        assert driver.received() == []
    driver.connection.task_management_done(50, TaskFunctionResponse.COMPLETE)
    if not session_ends_first:
        driver.connection.logout_done()
    managed, logged_out = driver.received()
    assert isinstance(managed, TaskManagementResponsePdu) and (managed.itt, managed.response) == (50, 0)
    assert isinstance(logged_out, LogoutResponsePdu) and logged_out.itt == 51
    assert logged_out.stat_sn == managed.stat_sn + 1
