"""The CmdSN window and the session table."""

from hypothesis import given
from hypothesis import strategies as st

from storage_model.spec.serial_number import serial_add, serial_le
from target.iscsi.session import CommandWindow, SessionKey, SessionTable


@given(st.integers(0, 2**32 - 1), st.permutations(range(8)))
def test_any_order_of_arrival_is_delivered_in_order(first: int, order: list[int]) -> None:
    window: CommandWindow[int] = CommandWindow(first, 8)
    delivered = [item for offset in order for item in window.receive(serial_add(first, offset), offset)]
    assert delivered == list(range(8))
    assert window.exp_cmd_sn == serial_add(first, 8)


def test_outside_of_the_window_and_duplicates_are_ignored() -> None:
    window: CommandWindow[str] = CommandWindow(10, 4)
    assert window.max_cmd_sn == 13
    assert window.receive(14, "above") == window.receive(9, "below") == []
    assert window.receive(11, "b") == window.receive(11, "again") == []
    assert window.receive(10, "a") == ["a", "b"]
    assert window.receive(10, "late") == []
    assert (window.exp_cmd_sn, window.max_cmd_sn) == (12, 15)


def test_open_commands_close_the_window_and_max_cmd_sn_never_goes_back() -> None:
    window: CommandWindow[int] = CommandWindow(0xFFFFFFFE, 3)
    last_max = window.max_cmd_sn
    for number in (0xFFFFFFFE, 0xFFFFFFFF, 0):
        assert window.receive(number, number) == [number]
        window.active += 1
        assert serial_le(last_max, window.max_cmd_sn)
        last_max = window.max_cmd_sn
    assert window.max_cmd_sn == 0 and window.receive(1, 1) == []
    window.active -= 1
    assert window.receive(1, 1) == [1]


def test_cancelled_numbers_are_used_up() -> None:
    window: CommandWindow[str] = CommandWindow(5, 8)
    window.receive(6, "six")
    window.receive(7, "seven")
    assert window.cancel(6) == []
    assert window.receive(5, "five") == ["five", "seven"]
    assert window.cancel(8) == [] and window.exp_cmd_sn == 9
    assert window.cancel(3) == [] and window.exp_cmd_sn == 9


def test_session_table() -> None:
    table: SessionTable[str] = SessionTable()
    one, two = SessionKey("iqn.a", bytes(6)), SessionKey("iqn.a", b"\1" * 6)
    first, second = table.add(one, "first"), table.add(two, "second")
    assert 0 not in (first, second) and first != second
    assert table.get(one) == "first" and table.has_tsih(one, first) and not table.has_tsih(one, second)
    table.remove(one, "other")
    assert len(table) == 2
    table.remove(one, "first")
    assert table.get(one) is None and not table.has_tsih(one, first)
    assert second not in {table.new_tsih() for _ in range(70000)}


def test_the_tsih_of_a_session_that_is_over_is_free_again() -> None:
    table: SessionTable[int] = SessionTable()
    keys = [SessionKey("iqn.a", number.to_bytes(6)) for number in range(100)]
    for _ in range(700):  # 70,000 sessions, a hundred at a time: more than there are numbers
        tsihs = {table.add(key, number) for number, key in enumerate(keys)}
        assert len(tsihs) == len(keys) and 0 not in tsihs
        for number, key in enumerate(keys):
            table.remove(key, number)
    assert len(table) == 0


def test_the_next_number_is_taken_only_when_nothing_waits_and_the_window_is_open() -> None:
    window: CommandWindow[str] = CommandWindow(0xFFFFFFFF, 2)
    assert not window.take(0) and window.take(0xFFFFFFFF) and window.exp_cmd_sn == 0
    window.receive(1, "waits")
    assert not window.take(0)
    assert window.receive(0, "next") == ["next", "waits"]
    window.active = 2
    assert not window.take(2)
    window.active = 1
    assert window.take(2)
