"""How many lines about strangers go into the log: a flood of failing logins must not fill a disk."""


class LogBudget:
    """``burst`` lines at once, and ``per_second`` in the long run. ``now`` is monotonic seconds."""

    def __init__(self, burst: int = 200, per_second: float = 20.0) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._at = 0.0
        self._left_out = 0

    def spend(self, now: float) -> int | None:
        """None: leave the line out. Else write it; the number is of lines that were left out since the last one."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            self._left_out += 1
            return None
        self._left -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
