"""What ``pairctl watch`` shows: one line for each pair, with how far its copy is and how fast it goes.

The array that drives a copy tells the speed; of another one it is reckoned from what is left.
"""

from collections.abc import Sequence

from initiator_shim.pair_display import PairUnit, seconds_left, state_label
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import PairStatus, VerifyState

_BAR = 20
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class CopyProgress:
    """Remembers what was left the time before, to tell a rate. ``now`` is in seconds."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def lines(self, units: Sequence[PairUnit], now: float) -> list[str]:
        """One for each pair."""
        return [self._line(unit, unit.status.bytes_per_second or self._rate(unit, now)) for unit in units]

    def _rate(self, unit: PairUnit, now: float) -> float:
        """Bytes per second, smoothed; 0 while nothing is known."""
        name, left = unit.status.pair_name, unit.status.differing_bytes
        then, left_then = self._before.get(name, (now, left))
        if now > then:
            latest = max(0.0, (left_then - left) / (now - then))
            known = self._rates.get(name)
            self._rates[name] = latest if known is None else 0.7 * known + 0.3 * latest
        self._before[name] = now, left
        return self._rates.get(name, 0.0)

    def _line(self, unit: PairUnit, rate: float) -> str:
        status = unit.status
        text = f"{status.pair_name:<12} {status.role.label:<5} {state_label(status.role, status.state):<4}"
        if status.state is PairState.SMPL:
            return text.rstrip()
        done = status.copy_percent * _BAR // 100
        text += f" [{'#' * done}{'.' * (_BAR - done)}] {status.copy_percent:>3} %"
        if status.differing_bytes:
            text += f", {readable_bytes(status.differing_bytes)} left"
        if status.state is PairState.COPY and rate > 0:
            text += f", {readable_bytes(rate)}/s, {status.differing_bytes / rate:.0f} s to go"
        if status.verify is VerifyState.RUNNING:
            text += f", {_verify(status)}{_pace(status)}"
        return text


def _verify(status: PairStatus) -> str:
    percent = 100 * status.verified_bytes // max(1, status.size_bytes)
    text = f"verify {status.verify.name.lower().replace('_', ' ')}: {percent} % compared"
    text += f", {readable_bytes(status.verify_differing_bytes)} in regions that differ"
    return text + (f", {readable_bytes(status.verify_busy_bytes)} busy" if status.verify_busy_bytes else "")


def _pace(status: PairStatus) -> str:
    left = seconds_left(status)
    return "" if left is None else f", {readable_bytes(status.bytes_per_second)}/s, {left} s to go"


def work(units: Sequence[PairUnit]) -> str:
    """What ``display -v`` says of each pair's copy and comparison, under way or of late, and of their limit."""
    lines = []
    for unit in units:
        status = unit.status
        limit = f"copy_rate {readable_bytes(status.copy_rate)}/s" if status.copy_rate else "copy_rate unlimited"
        parts = [limit]
        if status.state is PairState.COPY:
            parts.append(f"{readable_bytes(status.differing_bytes)} to copy{_pace(status)}")
        if status.verify is not VerifyState.NONE:
            parts.append(_verify(status) + (_pace(status) if status.verify is VerifyState.RUNNING else ""))
        lines.append(f"{status.pair_name}: {'; '.join(parts)}\n")
    return "".join(lines)


def readable_bytes(number: float) -> str:
    """With a binary unit: 1536 is 1.5 KiB."""
    for unit in _UNITS[:-1]:
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} {_UNITS[-1]}"


def copying(units: Sequence[PairUnit]) -> bool:
    """True while there is any progress to wait for."""
    return any(unit.status.state is PairState.COPY or unit.status.verify is VerifyState.RUNNING for unit in units)


def fitting(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """What a terminal of this size can show: a line that it wraps or scrolls away could not be drawn over."""
    shown = list(lines) if len(lines) < rows else [*lines[: max(0, rows - 2)], f"({len(lines)} pairs)"]
    return [line[: max(1, columns - 1)] for line in shown]


def redraw(lines: Sequence[str], lines_before: int) -> str:
    """Terminal output that puts ``lines`` in the place of the ones drawn before."""
    up = f"\x1b[{lines_before}A" if lines_before else ""
    return up + "\r\x1b[J" + "".join(f"{line}\n" for line in lines)
