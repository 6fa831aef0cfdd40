"""One simulated array: the real composition, with a simulated disk in the place of files."""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any, NoReturn

import initiator_shim.portal
import target.array
import target.freed_memory
from scripts.simulation.disks import Disk, Place, SimulatedBitmapFile, SimulatedMetadata, SimulatedVolume, as_path
from scripts.simulation.event_loop import Process, VirtualLoop
from scripts.simulation.network import Machine, Network
from storage_model.differential_bitmap import REGION_BYTES
from storage_model.pair_state import FenceLevel
from storage_model.volume import VolumeError
from target.array import Array
from target.config import ArrayConfig, PairConfig, VolumeConfig
from target.link_config import RemoteCopyConfig
from target.medium_operations import MediumOperations
from target.remote_copy import copy_task, region_marks
from target.remote_copy.pair_control import PairControl

IQN = "iqn.2026-11.org.pairvol:array"
PORTAL, LINK = 3260, 3300
SERIALS = {"array-a": "30095", "array-b": "30096"}
LUNS = {"quorum0": 0, "data0": 1, "log0": 2}
REGIONS = {"quorum0": 2, "data0": 5, "log0": 1}
_FIRST_LDEV = {"array-a": 10, "array-b": 20}


_LIMITS: tuple[tuple[tuple[Any, str, float], ...], ...] = (
    ((region_marks, "PASSING_LIMIT", 2),),
    ((copy_task, "CHECKPOINT_SECONDS", 0.0), (copy_task, "FLUSH_REGIONS", 1), (copy_task, "UNFLUSHED_REGIONS", 1)),
    ((copy_task, "CHUNK_REGIONS", 1), (copy_task, "BUSY_CHUNK_REGIONS", 1)),
    ((copy_task, "RUN_REGIONS", 2),),
)
"""Volumes of a few regions never reach these limits of the data path: so they may be small as well."""


def _no_passage() -> NoReturn:
    raise OSError(errno.EMFILE, "simulated sockets are none of the kernel's")


@contextmanager
def substituted(random: Random) -> Iterator[None]:
    """Inside, arrays get simulated parts in place of those that they take from their surroundings without asking."""
    parts: list[tuple[Any, str, Any]] = [
        (target.array, "BitmapFile", SimulatedBitmapFile),
        (initiator_shim.portal, "KernelPassage", _no_passage),
        (target.freed_memory.Trimming, "session_ended", lambda self: None),
    ]
    parts += [limit for together in _LIMITS if random.random() < 0.5 for limit in together]
    with ExitStack() as undo:
        for owner, name, part in parts:
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, part)
        yield


class _Composed(Array):
    """The composition root, but for what it opens."""

    def __init__(self, config: ArrayConfig, disk: Disk) -> None:
        super().__init__(config)
        self._disk = disk

    def _open_state(self) -> None:
        store: Any = SimulatedMetadata(self._disk)
        self._state_dir = as_path(Place(self._disk))
        self._store = store
        self._operations = MediumOperations(store, self._config.background_rate)

    def _open_volume(self, config: VolumeConfig) -> Any:
        assert config.size_bytes is not None
        return self._disk.volumes.setdefault(config.name, SimulatedVolume(self._disk, config.name, config.size_bytes))

    @property
    def controls(self) -> dict[str, PairControl]:
        return self._controls


class SimulatedArray:
    """A machine with a disk on which an array runs, or does not."""

    def __init__(
        self,
        name: str,
        network: Network,
        disk: Disk,
        fence: FenceLevel,
        copy_rate: int,
        *,
        pairs: tuple[str, ...],
        group: tuple[str, ...],
    ) -> None:
        self.name = name
        self.serial = SERIALS[name]
        self.peer = next(other for other in SERIALS if other != name)
        self.machine: Machine = network.machine(name)
        self.disk = disk
        self.process: Process | None = None
        self._array: _Composed | None = None
        self._network = network
        self._fence = fence
        self._copy_rate = copy_rate
        self._pairs = pairs
        self._group = group

    @property
    def running(self) -> bool:
        return self.process is not None

    @property
    def controls(self) -> dict[str, PairControl]:
        """The live halves; none while the array does not run."""
        return self._array.controls if self._array is not None else {}

    def start(self, loop: VirtualLoop) -> None:
        """Boot, and start the array's process."""
        if not self.machine.up:
            self._network.boot(self.machine)
        self.process = Process(self.name, self.machine, loop)
        self._network.journal.note(self.name, "starts")
        _ = self.process.start(self._serve())

    async def _serve(self) -> None:
        """A start that its disk does not allow is tried again, as a supervisor would."""
        while True:
            self._array = _Composed(self._config(), self.disk)
            try:
                await self._array.start()
            except VolumeError:
                self._network.journal.note(self.name, "cannot start")
                await asyncio.sleep(0.5)
            else:
                return

    def kill(self, *, power: bool) -> None:
        """By a signal, or by the loss of power."""
        self.disk.crash(power=power)  # first: what is under way there is forgotten with the process
        if self.process is not None:
            self._network.kill(self.process, power=power)
        if power:
            self.machine.up = False
        self.process = self._array = None

    def _config(self) -> ArrayConfig:
        volumes = tuple(
            VolumeConfig(
                name,
                LUNS[name],
                REGIONS[name] * REGION_BYTES,
                quorum=name == "quorum0",
                ldev=_FIRST_LDEV[self.name] + LUNS[name],
            )
            for name in self._pairs
        )
        fences = {"quorum0": FenceLevel.DATA, "data0": self._fence, "log0": self._fence}
        return ArrayConfig(
            iqn=IQN,
            serial=self.serial,
            state_dir="/",
            portals=((self.name, PORTAL),),
            volumes=volumes,
            remote_copy=RemoteCopyConfig((self.name, LINK), (self.peer, LINK), SERIALS[self.peer]),
            pairs=tuple(
                PairConfig(name, "group" if name in self._group else name, name, fences[name]) for name in self._pairs
            ),
            copy_rate=self._copy_rate,
        )
