"""CmdSN: ordering, window, immediate commands (RFC 7143 §4.2.2.1)."""

from storage_model.spec.iscsi_pdu import NopOutPdu, RejectPdu, RejectReason
from target.iscsi.events import Limits
from tests.iscsi_driver import Driver, good


def logged_in(limits: Limits | None = None) -> Driver:
    driver = Driver(good, limits=limits)
    driver.login()
    return driver


def test_first_command_has_the_cmd_sn_of_the_login() -> None:
    driver = logged_in()
    driver.send(driver.read(1, 4, cmd_sn=100))
    assert [task.tag for task in driver.tasks] == [1]


def test_commands_are_delivered_in_order_of_cmd_sn_not_of_arrival() -> None:
    driver = logged_in()
    assert driver.send(driver.read(3, 4, cmd_sn=102), driver.read(2, 4, cmd_sn=101)) == []
    assert len(driver.send(driver.read(1, 4, cmd_sn=100))) == 3
    assert [task.tag for task in driver.tasks] == [1, 2, 3]


def test_immediate_command_overtakes_and_does_not_use_its_number_up() -> None:
    driver = logged_in()
    driver.send(driver.read(2, 4, cmd_sn=101), driver.read(9, 4, cmd_sn=100, immediate=True))
    assert [task.tag for task in driver.tasks] == [9]
    driver.send(driver.read(1, 4, cmd_sn=100))
    assert [task.tag for task in driver.tasks] == [9, 1, 2]


def test_commands_outside_of_the_window_are_ignored_silently() -> None:
    driver = logged_in(Limits(queue_depth=4))
    assert driver.send(driver.read(1, 4, cmd_sn=104), driver.read(2, 4, cmd_sn=99)) == []
    assert driver.tasks == []


def test_a_number_that_came_already_is_ignored() -> None:
    driver = logged_in()
    driver.send(driver.read(1, 4, cmd_sn=100))
    assert driver.send(driver.read(2, 4, cmd_sn=100)) == []


def test_ping_waits_for_its_turn() -> None:
    driver = logged_in()
    assert driver.send(NopOutPdu(itt=5, cmd_sn=101)) == []
    assert [pdu.opcode for pdu in driver.send(driver.read(1, 4, cmd_sn=100))] == [0x20, 0x25]


def test_immediate_commands_are_limited() -> None:
    driver = Driver(limits=Limits(immediate_commands=2))
    driver.login()
    (reject,) = driver.send(*(driver.read(itt, 4, immediate=True) for itt in range(3)))
    assert isinstance(reject, RejectPdu) and reject.reason == RejectReason.IMMEDIATE_COMMAND_REJECT
