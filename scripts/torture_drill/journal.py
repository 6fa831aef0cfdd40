"""What the drill saw: a log with times, counts, and what was wrong."""

import time
from collections import Counter
from pathlib import Path

_VIOLATIONS_MAX = 50


class Journal:
    """Written to ``file`` line by line, so that it is there when the drill is killed."""

    def __init__(self, file: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._file = file.open("a", buffering=1)
        self._began = time.monotonic()

    def note(self, *words: object) -> None:
        self._file.write(f"{time.monotonic() - self._began:9.3f} {' '.join(map(str, words))}\n")

    def violated(self, text: str) -> None:
        """The first ones are kept; a drill ends with the cycle that has one."""
        self.note("VIOLATION:", text)
        if len(self.violations) < _VIOLATIONS_MAX:
            self.violations.append(text)

    def close(self) -> None:
        self._file.close()
