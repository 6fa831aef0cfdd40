"""Figures of one run of a client, pairs of them, and what is said about a list of pairs. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a client against one server. Seconds of wall and CPU time; ``length`` is bytes per operation."""

    operations: int
    seconds: float
    length: int
    server_seconds: float
    client_seconds: float
    relay_seconds: float = 0.0
    """CPU time of a shim between the client and the array, or of the array that has the S-VOL."""

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    @property
    def throughput(self) -> float:
        """Bytes per second."""
        return self.rate * self.length

    @property
    def server_cost(self) -> float:
        """CPU seconds of the server per operation."""
        return self.server_seconds / self.operations

    @property
    def client_cost(self) -> float:
        return self.client_seconds / self.operations

    @property
    def relay_cost(self) -> float:
        return self.relay_seconds / self.operations


class Quantity(Enum):
    """What a bar is about; the value names it in reports."""

    RATE = "rate"
    LATENCY = "latency"
    SERVER_CPU = "server CPU per operation"
    SHIM_CPU = "shim's CPU / array's CPU"
    VALUE = "value"
    P99 = "99th percentile of the figures"
    GREATEST = "greatest of the figures"


@dataclass(frozen=True, slots=True)
class Pair:
    """One run of each side, one right after the other."""

    ours: Sample
    other: Sample

    def ratio(self, quantity: Quantity) -> float:
        """Ours divided by the other's; of SHIM_CPU: the shim's divided by the array's, both behind ``ours``."""
        match quantity:
            case Quantity.RATE:
                return self.ours.rate / self.other.rate
            case Quantity.LATENCY:  # at queue depth 1 the one is the inverse of the other
                return self.other.rate / self.ours.rate
            case Quantity.SERVER_CPU:
                return self.ours.server_cost / self.other.server_cost
            case Quantity.SHIM_CPU:
                return self.ours.relay_seconds / self.ours.server_seconds
            case Quantity.VALUE | Quantity.P99 | Quantity.GREATEST:
                raise ValueError("a value is not compared")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some figures."""

    middle: float
    least: float
    greatest: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Raises ValueError when there are none."""
        if not figures:
            raise ValueError("no figures")
        return cls(median(figures), min(figures), max(figures))


def ratios(pairs: Sequence[Pair], quantity: Quantity) -> Spread:
    """The median of the ratios of pairs: not the ratio of medians, so that a slow minute of the machine drops out."""
    return Spread.of([pair.ratio(quantity) for pair in pairs])


def middle(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> float:
    """The median of one figure of the samples."""
    return median(figure(sample) for sample in samples)


@dataclass(frozen=True, slots=True)
class Value:
    """What one measure of our arrays alone gave; ``note`` says under which conditions."""

    figures: tuple[float, ...]
    unit: str
    note: str = ""

    @property
    def middle(self) -> float:
        return median(self.figures)

    def figure(self, quantity: Quantity) -> float:
        """What a bar is about: the median, unless the quantity is another one of a value."""
        match quantity:
            case Quantity.P99:
                return quantiles(self.figures, n=100, method="inclusive")[98] if self.figures[1:] else self.figures[0]
            case Quantity.GREATEST:
                return max(self.figures)
            case _:
                return self.middle
