"""A signal that comes where the interpreter cannot raise is not lost, and says nothing."""

import os
import signal

import pytest

from scripts.benchmark import interrupts


class Interrupted:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_can_be_raised(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interrupts.as_keyboard_interrupts(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_one_in_the_end_of_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    with interrupts.as_keyboard_interrupts():
        interrupts.check()
        del_me = Interrupted()
        del del_me
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    with interrupts.as_keyboard_interrupts():
        interrupts.check()
    assert capsys.readouterr().err == ""
