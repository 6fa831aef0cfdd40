"""Task management as the transport sees it (RFC 7143 §11.5, §11.6, §4.2.3.3)."""

from typing import Any

import pytest

from storage_model.spec.iscsi_pdu import (
    DataOutPdu,
    Pdu,
    R2TPdu,
    RejectPdu,
    RejectReason,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
)
from storage_model.spec.scsi_task import TaskFunction, TaskFunctionResponse
from target.iscsi.events import Limits, TaskManagementReceived
from target.iscsi.outstanding_commands import Command
from tests.iscsi_driver import Driver

ABORT_TASK = TaskFunction.ABORT_TASK


def logged_in(limits: Limits | None = None) -> Driver:
    driver = Driver(limits=limits)
    driver.login(InitialR2T="Yes", ImmediateData="No")
    return driver


def manage(driver: Driver, function: int, itt: int = 50, **fields: Any) -> list[Pdu]:
    return driver.send(TaskManagementRequestPdu(function=function, itt=itt, cmd_sn=driver.cmd_sn, **fields))


def response_of(answers: list[Pdu]) -> int:
    (response,) = answers
    assert isinstance(response, TaskManagementResponsePdu)
    return response.response


def test_a_running_task_is_aborted_by_the_scsi_side_and_the_response_waits_for_it() -> None:
    driver = logged_in()
    driver.send(driver.read(1, 4))
    assert manage(driver, ABORT_TASK, referenced_task_tag=1, ref_cmd_sn=100) == []
    assert driver.events[-1] == TaskManagementReceived(50, ABORT_TASK, 0, 1)
    driver.tasks[0].aborted = True
    driver.connection.task_management_done(50, TaskFunctionResponse.COMPLETE)
    assert response_of(driver.received()) == TaskFunctionResponse.COMPLETE
    assert driver.complete(driver.commands[0], aborted=True) == []
    driver.send(driver.read(1, 4))  # its tag is free again
    assert len(driver.tasks) == 2


def test_a_write_that_waits_for_data_is_aborted_at_once() -> None:
    driver = logged_in()
    (r2t,) = driver.send(driver.write(1, 4))
    assert isinstance(r2t, R2TPdu)
    assert response_of(manage(driver, ABORT_TASK, referenced_task_tag=1)) == TaskFunctionResponse.COMPLETE
    assert driver.send(DataOutPdu(itt=1, ttt=r2t.ttt, data=b"late")) == [] and driver.tasks == []


def test_a_command_on_its_way_counts_as_received() -> None:
    driver = logged_in()
    driver.cmd_sn = 101
    answers = manage(driver, ABORT_TASK, referenced_task_tag=1, ref_cmd_sn=100)
    assert response_of(answers) == TaskFunctionResponse.COMPLETE
    assert driver.send(driver.read(1, 4, cmd_sn=100)) == [] and driver.tasks == []
    driver.send(driver.read(2, 4))
    assert [task.tag for task in driver.tasks] == [2]


def test_an_unknown_task_is_the_scsi_sides_answer() -> None:
    driver = logged_in()
    assert manage(driver, ABORT_TASK, referenced_task_tag=77, ref_cmd_sn=99) == []
    assert isinstance(driver.events[-1], TaskManagementReceived)


@pytest.mark.parametrize("function", [2, 4, 5, 6, 7])
def test_functions_on_a_task_set_start_what_came_before_and_spare_what_comes_after(function: int) -> None:
    driver = logged_in()
    driver.send(driver.write(1, 4))
    request = TaskManagementRequestPdu(function=function, itt=50, cmd_sn=102)
    answers = driver.send(driver.read(2, 4, lun=b"\0\1" + bytes(6)), request, driver.write(3, 4))
    assert [pdu.itt for pdu in answers if isinstance(pdu, R2TPdu)] == [3]
    commands = [event for event in driver.events if isinstance(event, Command | TaskManagementReceived)]
    if function < 6:  # another unit's command is not concerned
        assert isinstance(commands[0], Command) and commands[0].task.tag == 2
    assert isinstance(commands[-1], TaskManagementReceived) and commands[-1].function == function


@pytest.mark.parametrize(("function", "response"), [(8, 4), (9, 5), (0, 5), (127, 5)])
def test_functions_that_we_do_not_have(function: int, response: int) -> None:
    assert response_of(manage(logged_in(), function)) == response


def test_too_much_of_it() -> None:
    driver = logged_in(Limits(task_management=1))
    assert manage(driver, 5) == []
    for itt, reason in ((50, RejectReason.TASK_IN_PROGRESS), (51, RejectReason.IMMEDIATE_COMMAND_REJECT)):
        (reject,) = manage(driver, 5, itt)
        assert isinstance(reject, RejectPdu) and reject.reason == reason
