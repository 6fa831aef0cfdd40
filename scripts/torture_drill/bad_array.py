"""Known-bad arrays: ``pairvol-array`` with a part exchanged for a wrong one, to show that the drill finds it.

A checker that cannot fail proves nothing. None of this exists in the product: methods are replaced in the process that
this program starts. Usage: ``python -m scripts.torture_drill.bad_array VARIANT ARGUMENTS OF THE ARRAY``.
"""

import itertools
import sys
from collections.abc import Callable
from typing import Any

from scripts.simulation.variants import VARIANTS as SIMULATED
from scripts.simulation.variants import Patch
from target.__main__ import main
from target.volumes.file_volume import FileVolume

_EVERY = 50


def _one_in_fifty_lost(original: Callable[..., Any]) -> Callable[..., Any]:
    numbers = itertools.count(1)

    async def write(self: Any, *arguments: Any, **named: Any) -> Any:
        if next(numbers) % _EVERY:
            return await original(self, *arguments, **named)
        return None

    return write


_FROM_THE_SIMULATOR = ("suspended-writes-unmarked", "swap-discards", "resync-succeeds-in-pair", "good-before-vote")
VARIANTS: dict[str, tuple[Patch, ...]] = {
    "loses-writes": ((FileVolume, "write", _one_in_fifty_lost),),
    **{name: SIMULATED[name] for name in _FROM_THE_SIMULATOR},
}
"""By name, as in the simulator: whose methods they are, and what makes the wrong one out of the right one."""


if __name__ == "__main__":
    for owner, attribute, wrong in VARIANTS[sys.argv[1]]:
        setattr(owner, attribute, wrong(getattr(owner, attribute)))
    sys.exit(main(sys.argv[2:]))
