"""What is measured: each comparison as two sides, a server and the load on it, and which of them make a short run."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from scripts.benchmark.loads import Client, Load

KIBIBYTE = 1024
_SPREAD = 4096
"""Places of a load that shall touch as much of a small volume as of a large one: 16 MiB of blocks of 4 KiB."""


@dataclass(frozen=True, slots=True)
class Side:
    """A server, by its name on the stage, and a load."""

    server: str
    load: Load


@dataclass(frozen=True, slots=True)
class Comparison:
    """``name`` is for --only, JSON and bars. ``quick``: part of a short run. ``note`` says how to read it."""

    name: str
    ours: Side
    other: Side
    quick: bool = False
    note: str = ""


def _size(length: int) -> str:
    return "1m" if length == 1024 * KIBIBYTE else f"{length // KIBIBYTE}k"


def _direction(load: Load) -> str:
    return "write" if load.write else "read"


def name_of(load: Load) -> str:
    """As ``read-4k-qd32``; random, the sessions and digests are told when they are not the usual."""
    words = ["random"] if load.random else []
    words += [_direction(load), _size(load.length), f"qd{load.depth}"]
    words += [f"{load.sessions}-sessions"] if load.sessions > 1 else []
    words += ["digests"] if load.digests else []
    return "-".join(words)


def _versus(server: str, load: Load, quick: bool = False, note: str = "", ours: str = "array") -> Comparison:
    return Comparison(f"{name_of(load)}-vs-{server}", Side(ours, load), Side(server, load), quick, note)


def _both(length: int, depth: int) -> Iterator[Load]:
    yield Load(length * KIBIBYTE, depth)
    yield Load(length * KIBIBYTE, depth, write=True)


def basic_loads() -> Iterator[tuple[Load, bool]]:
    """Of one session of qemu-img bench; whether a short run has it."""
    for length, depth, quick in ((4, 1, True), (4, 32, True), (4, 128, False), (64, 32, False), (256, 16, True)):
        for load in _both(length, depth):
            yield load, quick
    for load in _both(1024, 8):
        yield load, False


def _versus_tgt() -> Iterator[Comparison]:
    for load, quick in basic_loads():
        yield _versus("tgt", load, quick)
    random_read = Load(4096, 32, random=True, client=Client.PERF)
    yield _versus("tgt", random_read, True)
    for sessions in (4, 16):
        many = Load(4096, 32, sessions=sessions, client=Client.OWN)
        yield _versus("tgt", many, sessions == 16)
        yield _versus("tgt", replace(many, write=True), sessions == 16)
    yield _versus("tgt", Load(4096, 32, write=True, random=True, client=Client.OWN), False)


def _versus_others() -> Iterator[Comparison]:
    for load in (*_both(4, 32), *_both(256, 16)):
        yield _versus("istgt", load)
    note = "vs nbdkit at QD 32: QEMU's NBD client keeps at most 16 requests in flight."
    for load in _both(4, 32):
        yield _versus("nbdkit", load, True, note)
    for load in _both(256, 16):
        yield _versus("nbdkit", load, True)
    yield _versus("nbdkit", Load(4096, 1), False)


def _within_ourselves() -> Iterator[Comparison]:
    for length, depth in ((4, 32), (256, 16)):
        for load in _both(length, depth):
            own = replace(load, client=Client.OWN)
            digests = replace(own, digests=True)
            yield Comparison(f"digests-{name_of(load)}", Side("array", digests), Side("array", own), True)
    for length, depth in ((4, 32), (256, 16)):
        for load in _both(length, depth):
            yield Comparison(f"shim-{name_of(load)}", Side("shim", load), Side("array", load), True)


def _growth() -> Iterator[Comparison]:
    """The larger is ours, the smaller the other: a ratio of CPU per operation above 1 is what growth costs."""
    load = Load(4096, 32, random=True, blocks=_SPREAD, client=Client.OWN)
    for one in (load, replace(load, write=True)):
        kind = _direction(one)
        units = replace(one, units=64, blocks=_SPREAD // 64)
        yield Comparison(
            f"growth-64-luns-{kind}", Side("array of 64 LUNs", units), Side("array of 64 MiB", one), not one.write
        )
        yield Comparison(
            f"growth-1tib-{kind}", Side("array of 1 TiB", one), Side("array of 64 MiB", one), not one.write
        )
        yield Comparison(
            f"growth-64-sessions-{kind}",
            Side("array of 64 MiB", replace(one, sessions=64)),
            Side("array of 64 MiB", one),
            not one.write,
        )


def _mirrored() -> Iterator[Comparison]:
    """A volume in PAIR and one in SMPL, of the same array."""
    for depth in (32, 1):
        load = Load(4096, depth, write=True, client=Client.OWN)
        yield Comparison(f"pair-{name_of(load)}", Side("volume in PAIR", load), Side("volume in SMPL", load), True)


def comparisons() -> list[Comparison]:
    """All of them, in the order of the report."""
    return [*_versus_tgt(), *_versus_others(), *_within_ourselves(), *_growth(), *_mirrored()]


def against_checkout() -> list[Comparison]:
    """The array of this checkout and that of another one."""
    loads = [load for load, _ in basic_loads()]
    loads.append(Load(4096, 32, random=True, client=Client.PERF))
    loads += [Load(4096, 32, write=write, sessions=16, client=Client.OWN) for write in (False, True)]
    loads += [Load(4096, 32, write=write, digests=True, client=Client.OWN) for write in (False, True)]
    return [
        replace(_versus("other checkout", load), name=f"{name_of(load)}-vs-other", quick=load.length != 64 * KIBIBYTE)
        for load in loads
    ]


def names_that_fit(names: Collection[str], patterns: Collection[str]) -> set[str]:
    """A pattern is a whole name, or else a shell pattern for one, or a part of one."""
    fitting: set[str] = set()
    for pattern in patterns:
        if pattern in names:
            fitting.add(pattern)
        else:
            fitting |= {name for name in names if fnmatchcase(name, pattern) or pattern in name}
    return fitting
