"""The servers of a run, each started when a measure first asks for it, on files that are written and cached."""

import contextlib
import os
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

from scripts.benchmark import arrays, peers
from scripts.benchmark.servers import BenchmarkError, Server
from scripts.pair_cost.sites import SIMPLE, pair_and_simple
from storage_model.errors import UserError

MEBIBYTE, TEBIBYTE = 1 << 20, 1 << 40
MANY_UNITS = 64
SMALL = 64 * MEBIBYTE
_BLOCKS = (512, 4096)


class Processors:
    """Servers on the first processor we may use, clients on the others; needs two."""

    def __init__(self) -> None:
        self.all = os.sched_getaffinity(0)
        self.of_servers = {min(self.all)}
        self.of_clients = self.all - self.of_servers
        if not self.of_clients:
            raise UserError("--pin: there is only one processor")

    @contextlib.contextmanager
    def starting_a_server(self) -> Iterator[None]:
        """A process inherits where it may run; so the clients come from a process of theirs: this one."""
        os.sched_setaffinity(0, self.of_servers)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.of_clients)


class Stage:
    """``server(name)`` starts it the first time; all of them end with the block. ``size`` is bytes per volume."""

    def __init__(
        self, directory: Path, root: Path, other_root: Path | None, size: int, processors: Processors | None = None
    ) -> None:
        self.directory = directory
        self.root = root
        self._other_root = other_root
        self._size = size
        self._processors = processors
        self._running: dict[str, tuple[Server, contextlib.ExitStack]] = {}
        self._starts: dict[str, Callable[[Path], contextlib.AbstractContextManager[Server]]] = {
            "array": lambda place: arrays.array(place, root, self._words(place)),
            "other checkout": self._other_array,
            "shim": lambda place: arrays.shim(place, root, self.server("array")),
            "tgt": lambda place: peers.tgtd(place, self._files(place)),
            "istgt": lambda place: peers.istgt(place, self._files(place)[0]),
            "nbdkit": lambda place: peers.nbdkit(place, self._files(place)[0]),
            "volume in PAIR": lambda place: pair_and_simple(place, root, size),
            "volume in SMPL": lambda place: self._simple(),
            "array of 64 LUNs": lambda place: arrays.array(place, root, self._sparse(place, MANY_UNITS, SMALL)),
            "array of 64 MiB": lambda place: arrays.array(place, root, self._sparse(place, 1, SMALL)),
            "array of 1 TiB": lambda place: arrays.array(place, root, self._sparse(place, 1, TEBIBYTE)),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as cleanup:
            for _, stack in self._running.values():
                cleanup.callback(stack.close)

    def server(self, name: str) -> Server:
        """Raises BenchmarkError when it does not come up."""
        if name not in self._running:
            place = self.directory / name.replace(" ", "-")
            place.mkdir(exist_ok=True)
            stack = contextlib.ExitStack()
            try:
                with self._processors.starting_a_server() if self._processors else contextlib.nullcontext():
                    server = stack.enter_context(self._starts[name](place))
            except OSError as error:
                raise BenchmarkError(f"{name}: {error.strerror or error}") from None
            self._running[name] = server, stack
        return self._running[name][0]

    def unpin(self) -> None:
        """What is started from now on runs where it likes."""
        if self._processors:
            os.sched_setaffinity(0, self._processors.all)

    def end(self, name: str) -> None:
        """One that has failed, or that is not needed any more; the next ``server(name)`` starts it anew."""
        if name in self._running:
            self._running.pop(name)[1].close()

    def _other_array(self, place: Path) -> contextlib.AbstractContextManager[Server]:
        if self._other_root is None:
            raise BenchmarkError("there is no other checkout")
        return arrays.array(place, self._other_root, self._words(place), "other checkout")

    def _simple(self) -> contextlib.AbstractContextManager[Server]:
        """Of the same array as the volume in PAIR."""
        array = self.server("volume in PAIR")
        return contextlib.nullcontext(replace(array, urls=(array.urls[SIMPLE],)))

    def _files(self, place: Path) -> list[Path]:
        """LUN 0 and 1, written from end to end, so that no server gains by holes, and in the page cache."""
        files = [place / f"volume{number}.img" for number in range(len(_BLOCKS))]
        for file in files:
            if not file.exists():
                arrays.write_volume(file, self._size)
        return files

    def _words(self, place: Path) -> list[str]:
        volumes = zip(self._files(place), _BLOCKS, strict=True)
        return [word for file, block in volumes for word in ("--volume", arrays.volume_word(file, block))]

    def _sparse(self, place: Path, count: int, size: int) -> list[str]:
        files = [place / f"volume{number}.img" for number in range(count)]
        for file in files:
            with file.open("ab") as volume:
                volume.truncate(size)
        return [word for file in files for word in ("--volume", arrays.volume_word(file, _BLOCKS[0]))]
