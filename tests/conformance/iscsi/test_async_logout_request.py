"""Asynchronous messages: the target requests a logout, and drops who does not follow (RFC 7143 §11.9)."""

import pytest

from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    AsyncEvent,
    AsyncMessagePdu,
    LogoutRequestPdu,
    LogoutResponsePdu,
    NopInPdu,
    NopOutPdu,
    ScsiResponsePdu,
)
from target.iscsi.connection import Phase
from target.iscsi.events import ConnectionEnded
from tests.iscsi_driver import Driver, good

SECONDS = 3


def asked(driver: Driver) -> AsyncMessagePdu:
    driver.connection.request_logout(SECONDS, driver.now)
    (message,) = driver.received()
    assert isinstance(message, AsyncMessagePdu)
    return message


def logged_in(**options: object) -> Driver:
    driver = Driver(good, **options)  # type: ignore[arg-type]
    driver.login()
    return driver


def test_the_message() -> None:
    """§11.9: ITT FFFFFFFFh, AsyncEvent 1, Parameter3 the seconds, the others reserved."""
    message = asked(logged_in())
    assert (message.itt, message.async_event, message.parameter3) == (
        RESERVED_TAG,
        AsyncEvent.LOGOUT_REQUESTED,
        SECONDS,
    )
    assert (message.lun, message.parameter1, message.parameter2, bytes(message.data)) == (bytes(8), 0, 0, b"")


def test_it_takes_a_stat_sn() -> None:
    """§4.2.2.2: the next status has the next number."""
    driver = logged_in()
    message = asked(driver)
    (pong,) = driver.send(NopOutPdu(immediate=True, itt=7, cmd_sn=driver.cmd_sn))
    assert isinstance(pong, NopInPdu) and pong.stat_sn == message.stat_sn + 1


def test_commands_are_served_until_the_logout() -> None:
    driver = logged_in()
    asked(driver)
    (response,) = driver.send(driver.command(5))
    assert isinstance(response, ScsiResponsePdu) and response.status == 0


def test_a_logout_in_time_is_an_orderly_end() -> None:
    driver = logged_in()
    asked(driver)
    driver.send(LogoutRequestPdu(itt=8, cid=7, cmd_sn=driver.cmd_sn))
    driver.connection.logout_done()
    (response,) = driver.received()
    assert isinstance(response, LogoutResponsePdu) and response.response == 0
    assert driver.end_reason == ""


def test_without_a_logout_the_connection_is_dropped() -> None:
    """§11.9.1: event 2 names the connection, Time2Wait and Time2Retain are 0; not a moment earlier."""
    driver = logged_in()
    asked(driver)
    assert driver.connection.next_deadline() == SECONDS
    driver.connection.handle_deadline(SECONDS - 0.01)
    assert driver.received() == [] and driver.connection.phase is Phase.FULL_FEATURE
    driver.connection.handle_deadline(SECONDS)
    (message,) = driver.received()
    assert isinstance(message, AsyncMessagePdu)
    assert (message.async_event, message.parameter1) == (AsyncEvent.CONNECTION_DROPPED, 7)
    assert (message.parameter2, message.parameter3) == (0, 0)
    assert driver.end_reason


def test_who_talks_on_is_dropped_all_the_same() -> None:
    """Traffic keeps the ping's deadline away, not this one."""
    driver = logged_in()
    asked(driver)
    driver.now = 2.0
    driver.send(driver.command(5))
    assert driver.connection.next_deadline() == SECONDS


def test_asking_twice_is_asking_once() -> None:
    driver = logged_in()
    asked(driver)
    driver.connection.request_logout(100, 1.0)
    assert driver.received() == [] and driver.connection.next_deadline() == SECONDS


@pytest.mark.parametrize("event", [AsyncEvent.CONNECTION_DROPPED, AsyncEvent.ALL_CONNECTIONS_DROPPED])
def test_a_drop_of_ours_is_announced(event: AsyncEvent) -> None:
    driver = logged_in()
    driver.connection.drop("the array stops", event)
    (message,) = driver.received()
    assert isinstance(message, AsyncMessagePdu) and message.async_event == event
    assert message.parameter1 == (7 if event is AsyncEvent.CONNECTION_DROPPED else 0)
    assert driver.end_reason == "the array stops"


def test_during_login_there_is_nobody_to_tell() -> None:
    """The messages belong to the full feature phase: a login that is under way ends, to be tried again."""
    driver = Driver()
    driver.send(driver.login_request(transit=False, nsg=0))
    driver.connection.request_logout(SECONDS, 0.0)
    assert driver.received() == [] and driver.connection.phase is Phase.ENDED
    (ended,) = [event for event in driver.connection.next_events() if isinstance(event, ConnectionEnded)]
    assert ended.expected
