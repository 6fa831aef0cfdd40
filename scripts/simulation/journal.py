"""What happened in a run, in order: readable, and as one digest."""

import hashlib
from collections import Counter
from collections.abc import Callable

_LINE = 240


class Journal:
    """``clock`` gives virtual seconds. Entries are formatted only when somebody wants to read them."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = lambda: 0.0
        self.entries: list[tuple[object, ...]] = []
        self.faults: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.violations: list[str] = []
        self.ended: Callable[[], None] = lambda: None

    def note(self, *what: object) -> None:
        self.entries.append((self.clock(), *what))

    def fault(self, kind: str, *what: object) -> None:
        self.faults[kind] += 1
        self.note("FAULT", kind, *what)

    def violated(self, text: str) -> None:
        """The run ends at once: what follows would only be confusing."""
        self.note("VIOLATION", text)
        if not self.violations:
            self.violations.append(text)
            self.ended()

    def digest(self) -> str:
        """The same for the same seed, whichever process ran it."""
        state = hashlib.sha256()
        for entry in self.entries:
            if entry[1] != "log":
                state.update(repr(entry).encode())
        return state.hexdigest()

    def tail(self, count: int) -> list[str]:
        """The last entries that a person wants to see."""
        chosen = [entry for entry in self.entries if entry[1] != "net"]
        lines = (
            f"{entry[0]:10.4f}  {' '.join(str(part) for part in entry[1:])}" for entry in chosen[len(chosen) - count :]
        )
        return [line[:_LINE] for line in lines]
