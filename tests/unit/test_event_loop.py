"""The selector that looks a moment before it sleeps: when it does, and when it had better not."""

import os
import selectors
import socket
from collections.abc import Callable, Iterator

import pytest

from target.event_loop import LONG_PATIENCE_SECONDS, PATIENCE_SECONDS, PatientSelector, new_event_loop

PROBES = 32
"""Waits of which one looks although it does not seem to pay."""


class Machine:
    """Time that passes with each look and each sleep; what happens at a look is the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.looks = 0
        self.step = PATIENCE_SECONDS / 5
        self.asleep = 0.1
        self.at_look: Callable[[], None] = lambda: None
        self.at_sleep: Callable[[], None] = lambda: None
        monkeypatch.setattr(os, "sched_yield", self._look)
        select = selectors.EpollSelector.select

        def sleep(
            selector: selectors.EpollSelector, timeout: float | None = None
        ) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout:
                self.now += self.asleep
                self.at_sleep()
            return select(selector, timeout)

        monkeypatch.setattr(selectors.EpollSelector, "select", sleep)
        self.ours, self.theirs = socket.socketpair()
        self.selector = PatientSelector(clock=lambda: self.now)
        self.selector.register(self.ours, selectors.EVENT_READ)

    def _look(self) -> None:
        self.looks += 1
        self.now += self.step
        self.at_look()

    def wait(self, timeout: float = 0.0001) -> tuple[bool, int]:
        """Whether something came, and how often it was looked for."""
        before = self.looks
        ready = self.selector.select(timeout)
        if ready:
            self.ours.recv(16)
        return bool(ready), self.looks - before

    def send(self) -> None:
        self.theirs.send(b"x")

    def earn(self) -> None:
        """Wait until it looks, and let that look find something at once."""
        self.at_look = self.send
        while self.wait() == (False, 0):
            pass
        self.at_look = lambda: None


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(monkeypatch)
    yield made
    made.selector.close()
    made.ours.close()
    made.theirs.close()


def test_what_is_there_is_answered_without_a_look(machine: Machine) -> None:
    machine.earn()
    machine.send()
    assert machine.wait() == (True, 0)
    assert machine.wait(0) == (False, 0)  # nor does it wait for anything when it must not


def test_an_array_with_little_to_do_sleeps(machine: Machine) -> None:
    looked = [number for number in range(1, 2 * PROBES + 1) if machine.wait()[1]]
    assert looked == [PROBES, 2 * PROBES]


def test_after_a_look_that_paid_it_looks_again(machine: Machine) -> None:
    machine.earn()
    machine.at_look = machine.send
    assert [machine.wait() for _ in range(100)] == [(True, 1)] * 100


def test_looks_in_vain_end(machine: Machine) -> None:
    for _ in range(20):
        machine.earn()
    looks = [machine.wait()[1] for _ in range(PROBES)]
    first_sleep = looks.index(0)
    assert 0 < first_sleep <= 16
    assert sum(1 for count in looks[first_sleep:] if count) <= 1


def test_a_look_ends_with_its_patience(machine: Machine) -> None:
    machine.earn()
    _, looks = machine.wait()
    assert looks * machine.step <= PATIENCE_SECONDS + 2 * machine.step


def sleeps_end_soon(machine: Machine) -> None:
    machine.asleep, machine.at_sleep = LONG_PATIENCE_SECONDS / 2, machine.send
    while not machine.wait(0.01)[1]:
        pass


def test_sleeps_that_end_soon_make_it_look_for_longer(machine: Machine) -> None:
    sleeps_end_soon(machine)
    begun = machine.now
    machine.at_look = lambda: machine.send() if machine.now - begun > 2 * PATIENCE_SECONDS else None
    found, looks = True, 0
    while not looks:
        begun = machine.now
        found, looks = machine.wait(0.01)
    assert found and PATIENCE_SECONDS < looks * machine.step <= LONG_PATIENCE_SECONDS


def test_long_looks_that_are_always_in_vain_are_few(machine: Machine) -> None:
    """What it waits for comes soon, but never so soon."""
    machine.asleep, machine.at_sleep = LONG_PATIENCE_SECONDS / 2, machine.send
    looked = [machine.wait(0.01)[1] for _ in range(10 * PROBES)]
    assert 0 < sum(map(bool, looked)) <= 10 * PROBES // 3


def test_after_a_long_sleep_it_looks_for_no_longer_than_before(machine: Machine) -> None:
    sleeps_end_soon(machine)
    machine.asleep, machine.at_sleep = 0.1, lambda: None
    machine.wait()
    machine.earn()
    assert machine.wait()[1] * machine.step <= PATIENCE_SECONDS + 2 * machine.step


def test_on_a_busy_machine_sleeps_that_end_soon_do_not_make_it_look(machine: Machine) -> None:
    """Whoever has the processor keeps it for its slice: most of the waits sleep all the same."""
    sleeps_end_soon(machine)
    machine.step = 3e-3
    looked = [machine.wait()[1] for _ in range(10 * PROBES)]
    assert sum(map(bool, looked)) <= 10 * PROBES // 12


def test_who_loses_the_processor_to_others_sleeps(machine: Machine) -> None:
    for _ in range(20):
        machine.earn()
    machine.step = 3e-3  # another process had it for its whole slice
    machine.at_look = machine.send
    assert machine.wait() == (True, 1)
    machine.step, machine.at_look = PATIENCE_SECONDS / 5, lambda: None
    assert machine.wait() == (False, 0)


def test_it_still_blocks(machine: Machine) -> None:
    """A thread's event, long after the patience is over, and with no timeout at all."""
    machine.earn()
    loop = new_event_loop()
    try:
        woken = loop.run_in_executor(None, machine.send)
        assert machine.selector.select(None)
        loop.run_until_complete(woken)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
