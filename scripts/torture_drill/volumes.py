"""The pairs of the drill: a quorum pair, and data pairs in both directions, one of each fence level."""

from dataclasses import dataclass

BLOCK = 512
SITES = ("a", "b")
SERIALS = {"a": "30095", "b": "30096"}


@dataclass(frozen=True)
class PairedVolume:
    """A pair; ``p_site`` has the P-VOL when it is created. A slow copy is struck by more faults."""

    name: str
    lun: int
    fence: str
    size_bytes: int
    p_site: str
    quorum: bool = False
    copy_rate: str = "unlimited"


QUORUM = PairedVolume("quorum0", 0, "data", 1 << 20, "a", quorum=True)
DATA = (
    PairedVolume("data1", 1, "never", 2 << 20, "a", copy_rate="8MiB"),
    PairedVolume("data2", 2, "data", 2 << 20, "b", copy_rate="16MiB"),
    PairedVolume("data3", 3, "status", 2 << 20, "a"),
)
VOLUMES = (QUORUM, *DATA)


def other(site: str) -> str:
    """The other one of the two."""
    return SITES[1 - SITES.index(site)]
