"""Whether a process's memory grows: judged by its samples after a warm-up."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

WARM_UP_SHARE = 0.25
ALLOWED_GROWTH_SHARE = 0.05
# glibc keeps freed memory for reuse, up to what the largest commands of a moment once needed: steps of some MiB, then
# no more. A leak of 30 bytes per command is beyond this within an hour.
ALLOWED_GROWTH_BYTES = 20 << 20
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Trend:
    """``before`` and ``after`` are medians of the first and the last quarter after the warm-up, bytes."""

    before: float
    after: float

    @property
    def flat(self) -> bool:
        """Growth within what allocators and caches do."""
        return self.after - self.before <= max(ALLOWED_GROWTH_BYTES, self.before * ALLOWED_GROWTH_SHARE)

    def __str__(self) -> str:
        before, after = self.before / _MEBIBYTE, self.after / _MEBIBYTE
        return f"{before:.1f} MiB after the warm-up, {after:.1f} MiB at the end ({after - before:+.1f})"


def trend(samples: Sequence[int]) -> Trend | None:
    """None when there are too few samples to tell."""
    warm = samples[int(len(samples) * WARM_UP_SHARE) :]
    quarter = len(warm) // 4
    if quarter < 3:
        return None
    return Trend(median(warm[:quarter]), median(warm[-quarter:]))
