"""Checks the two copies themselves: where they differ, a mark says so."""

from scripts.simulation.arrays import SimulatedArray
from scripts.simulation.journal import Journal
from storage_model.differential_bitmap import REGION_BYTES, DifferentialBitmap
from storage_model.pair_state import PairState


class Copies:
    """Looks at both arrays' disks and, where they run, at their marks in memory."""

    def __init__(self, journal: Journal, arrays: tuple[SimulatedArray, SimulatedArray], pairs: tuple[str, ...]) -> None:
        self._journal = journal
        self._arrays = arrays
        self._pairs = pairs
        self.compared = 0

    def check(self) -> None:
        """At any moment of a pair that both arrays see in the same epoch."""
        for pair in self._pairs:
            one, other = (array.disk.records.get(pair) for array in self._arrays)
            if one is None or other is None or one.decided != other.decided or one.state is PairState.SMPL:
                continue
            volumes = [array.disk.volumes.get(pair) for array in self._arrays]
            marks = [self._marks(array, pair) for array in self._arrays]
            if volumes[0] is None or volumes[1] is None or any(marked is None for marked in marks):
                continue
            self.compared += 1
            for region in self._differing(volumes[0].live, volumes[1].live):
                if not any(marked is not None and region in marked for marked in marks):
                    self._journal.violated(
                        f"{pair}: region {region} differs in epoch {one.decided.epoch}, {one.state.name} and"
                        f" {other.state.name}, and neither array has marked it"
                    )

    def check_equal(self) -> None:
        """In PAIR, when nothing is under way."""
        for pair in self._pairs:
            one, other = (array.disk.volumes[pair].live for array in self._arrays)
            for region in self._differing(one, other):
                self._journal.violated(f"{pair}: region {region} differs although the pair is idle in PAIR")

    @staticmethod
    def _differing(one: bytearray, other: bytearray) -> list[int]:
        if one == other:
            return []
        regions = range(-(-len(one) // REGION_BYTES))
        at = [slice(region * REGION_BYTES, (region + 1) * REGION_BYTES) for region in regions]
        return [region for region in regions if one[at[region]] != other[at[region]]]

    @staticmethod
    def _marks(array: SimulatedArray, pair: str) -> DifferentialBitmap | None:
        control = array.controls.get(pair)
        if control is not None:
            return control.half.marks.bitmap
        saved = array.disk.bitmaps.get(f"{pair}.bitmap")
        if saved is None:
            return None
        bitmap = DifferentialBitmap(len(array.disk.volumes[pair].live))
        bitmap.load(bytes(saved))
        return bitmap
