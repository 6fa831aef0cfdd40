"""What one logged-in initiator can make the target keep: bounded whatever it sends, and given back when it ends."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from storage_model.spec.iscsi_pdu import (
    RESERVED_TAG,
    DataOutPdu,
    NopOutPdu,
    R2TPdu,
    RejectPdu,
    RejectReason,
    TaskManagementRequestPdu,
    TaskManagementResponsePdu,
    TextRequestPdu,
)
from storage_model.spec.scsi_task import TaskFunction
from target.iscsi.events import Limits
from tests.iscsi_driver import Driver

MEBIBYTE = 1 << 20
FIRST_BURST = 65536


class Watch:
    """Bytes allocated since the block began: ``peak`` once it has ended, ``kept`` of them still in use."""

    peak = kept = 0


@contextmanager
def watching_memory(collect: bool = True) -> Iterator[Watch]:
    watch = Watch()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        yield watch
        if collect:
            gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
        watch.kept, watch.peak = kept - before, peak - before
    finally:
        tracemalloc.stop()


def logged_in(**pairs: str) -> Driver:
    driver = Driver()
    driver.login(InitialR2T="No", ImmediateData="Yes", FirstBurstLength=str(FIRST_BURST), **pairs)
    return driver


def test_large_writes_take_memory_only_when_there_is_room_for_them() -> None:
    """Ten writes of 64 MiB each, one byte of each unsolicited: what is only announced must cost nothing."""
    driver = logged_in()
    with watching_memory() as watch:
        for itt in range(10):
            driver.send(driver.write(itt, 64 * MEBIBYTE, final=False))
            driver.send(DataOutPdu(final=False, itt=itt, data=b"x"))
    assert watch.peak < 10 * 2 * FIRST_BURST


def test_an_unsolicited_burst_that_is_continued_by_an_r2t_is_whole() -> None:
    """The memory for the rest comes with the R2T; what was there stays where it belongs."""
    driver = logged_in(MaxBurstLength="131072")
    total = FIRST_BURST + 131072 + 512
    content = bytes(index % 251 for index in range(total))
    driver.send(driver.write(1, total, data=content[:1024], final=False))
    answers = driver.send(DataOutPdu(itt=1, buffer_offset=1024, data=content[1024:FIRST_BURST]))
    while answers:
        (r2t,) = answers
        assert isinstance(r2t, R2TPdu)
        start, length = r2t.buffer_offset, r2t.desired_data_transfer_length
        answers = driver.send(DataOutPdu(itt=1, ttt=r2t.ttt, buffer_offset=start, data=content[start : start + length]))
    (task,) = driver.tasks
    assert bytes(task.data_out) == content


def test_commands_that_wait_and_are_aborted_leave_nothing() -> None:
    """One read fills the Data-In room; others queue behind it and are aborted one by one, for as long as it takes."""
    driver = logged_in()
    driver.send(driver.read(1, Limits().data_in))

    def read_and_abort(count: int) -> None:
        for _ in range(count):
            driver.send(driver.read(2, MEBIBYTE))
            request = TaskManagementRequestPdu(
                True, TaskFunction.ABORT_TASK, itt=3, referenced_task_tag=2, cmd_sn=driver.cmd_sn
            )
            (response,) = driver.send(request)
            assert isinstance(response, TaskManagementResponsePdu) and response.response == 0

    read_and_abort(10)
    with watching_memory() as watch:
        read_and_abort(300)
    assert len(driver.tasks) == 1  # none of them ever ran
    assert watch.kept < 65536


def test_a_hole_in_the_command_numbers_bounds_what_waits_behind_it() -> None:
    driver = logged_in()
    driver.cmd_sn += 1
    with watching_memory() as watch:
        for number in range(300):  # far beyond MaxCmdSN: ignored from there on
            driver.send(driver.write(number, FIRST_BURST, data=bytes(FIRST_BURST)))
    assert driver.tasks == []
    assert watch.kept < (Limits().queue_depth + 8) * FIRST_BURST


@pytest.mark.parametrize("data", [b"", b"X", b"X" * 8000])
def test_a_text_that_is_always_to_be_continued(data: bytes) -> None:
    """C bit after C bit (§6.2): by and by a Reject, nothing is kept, and the next text is answered."""
    driver = logged_in()
    ttt, rejects = RESERVED_TAG, 0
    with watching_memory() as watch:
        for _ in range(300):
            (answer,) = driver.send(
                TextRequestPdu(immediate=True, final=False, cont=True, itt=9, ttt=ttt, cmd_sn=driver.cmd_sn, data=data)
            )
            rejects += isinstance(answer, RejectPdu)
            ttt = getattr(answer, "ttt", RESERVED_TAG)
            driver.events.clear()
    assert watch.kept < 65536
    assert rejects >= 3
    (answer,) = driver.send(TextRequestPdu(immediate=True, itt=10, cmd_sn=driver.cmd_sn, data=b"X-1=1\0"))
    assert b"X-1=NotUnderstood" in bytes(getattr(answer, "data", b""))


def test_a_text_that_goes_on_with_nothing() -> None:
    """The reserved tag is nobody's (§11.10.4): texts sent under it must not pile up, whatever TTT they name."""
    driver = logged_in()
    with watching_memory() as watch:
        for _ in range(100):
            (answer,) = driver.send(
                TextRequestPdu(
                    True, final=False, cont=True, itt=RESERVED_TAG, ttt=0, cmd_sn=driver.cmd_sn, data=b"X" * 60000
                )
            )
            assert isinstance(answer, RejectPdu) and answer.reason == RejectReason.INVALID_PDU_FIELD
            driver.events.clear()
    assert watch.kept < 65536


def test_answers_that_nobody_takes_hold_commands_back() -> None:
    """Pings and reads while the socket is full: nothing more starts, whatever is asked for."""
    driver = Driver(execute=lambda task: pytest.fail("a command has started"))
    driver.login()
    driver.connection.pause_writing(True)
    for itt in range(100):
        driver.send(driver.read(itt, MEBIBYTE))
    assert driver.tasks == []
    (answer,) = driver.send(NopOutPdu(immediate=True, itt=0x100, cmd_sn=driver.cmd_sn, data=b"still here"))
    assert bytes(getattr(answer, "data", b"")) == b"still here"


def test_an_idle_session_keeps_little_and_nothing_of_the_text_of_its_login() -> None:
    """A thousand of them are a few MiB; and who may log in may not fill memory with aliases for it."""
    aliases = {"InitiatorAlias": "a" * 3000, "X-com.example.remark": "b" * 3000}
    logged_in(**aliases)
    with watching_memory() as watch:
        drivers = [logged_in(**aliases) for _ in range(20)]
        for driver in drivers:  # what the tests keep of it
            driver.events.clear()
    assert watch.kept < len(drivers) * 8192, "the login's keys and values are still there"


@pytest.mark.parametrize("digests", ["None", "CRC32C"])
def test_a_session_that_has_ended_keeps_nothing(digests: str) -> None:
    """Commands in every state, then the end of the connection: freed at once, not when the collector comes by."""

    def session() -> None:
        driver = logged_in(HeaderDigest=digests, DataDigest=digests)
        for itt in range(20):
            driver.send(driver.write(itt, FIRST_BURST, data=bytes(4096), final=False))
            driver.send(DataOutPdu(final=False, itt=itt, buffer_offset=4096, data=bytes(4096)))
        driver.cmd_sn += 1
        for itt in range(20, 40):
            driver.send(driver.write(itt, FIRST_BURST, data=bytes(FIRST_BURST)))
        driver.connection.end("")

    session()
    with watching_memory(collect=False) as watch:
        session()
    assert watch.peak > MEBIBYTE
    assert watch.kept < 65536
