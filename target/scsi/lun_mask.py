"""LUN masking: which logical units one I_T nexus may see, and whether it may write."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from target.scsi.logical_unit import LogicalUnit


@dataclass(frozen=True, slots=True)
class LunMask:
    """``luns`` None: all of them, also those that come later."""

    luns: frozenset[int] | None = None
    read_only: bool = False


class MaskedUnits(Mapping[int, LogicalUnit]):
    """The units that ``luns`` lets through, as they are at the moment: units come and go while an array serves."""

    __slots__ = ("_luns", "_units")

    def __init__(self, units: Mapping[int, LogicalUnit], luns: frozenset[int]) -> None:
        self._units = units
        self._luns = luns

    def __getitem__(self, lun: int) -> LogicalUnit:
        if lun not in self._luns:
            raise KeyError(lun)
        return self._units[lun]

    def __iter__(self) -> Iterator[int]:
        return (lun for lun in self._units if lun in self._luns)

    def __len__(self) -> int:
        return sum(lun in self._luns for lun in self._units)
