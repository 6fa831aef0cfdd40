"""The kinds of volumes that the suite is run on, and what of it is run on each.

Sizes are chosen so that the tool passes over nothing: with more than 1 GiB of 512-byte blocks it leaves out, without a
word, what is meant for READ(6); WriteSame10.ZeroBlocks wants more than MAXIMUM WRITE SAME LENGTH on a unit that takes
0 as "to the end", which are those that are fully provisioned.

A kind with physical blocks of several logical ones is there because some tests ask for it. They are of 256 logical
blocks each because GetLBAStatus.UnmapSingle takes it for granted that LBA n + 1 is reported with the physical block
after it, where SBC-3 5.4.2 wants the LBA that was asked for: it does so for every physical block inside of the first
256 logical ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

DESTRUCTIVE = ("-d", "--allow-sanitize")
"""Without the first the tool writes nothing, and SANITIZE needs both."""

SANITIZE = "ALL.Sanitize"

LUN_RESET = "iSCSITMF.LUNResetSimpleAsync"
"""In its suite this test does nothing, since the one before it closes the connection: it needs a tool of its own.

There it asserts before anything else what only the answer to a LUN RESET makes true, its own of the time before. Thus
it is run twice, as a test of the families ALL and iSCSI: the first time fails whatever the target does, the second one
counts. The first also frees its write and then logs out, and the library puts the answer to the write into the freed
memory (valgrind says so), which kills the tool before the second when the answer comes late, as on a busy machine, and
has a residual count. ``KEEP_FREED_MEMORY`` keeps it alive.
"""
KEEP_FREED_MEMORY = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=65535"}
"""Environment in which what a thread has freed stays apart, so that writing into it does no harm: glibc keeps that many
pieces of each size in a cache that ``calloc`` does not take from, where it otherwise keeps 7."""

_WITHOUT_WRITING = (
    "Inquiry",
    "Mandatory",
    "ModeSense6",
    "NoMedia",
    "Prefetch10",
    "Prefetch16",
    "PreventAllow",
    "PrinReadKeys",
    "PrinServiceactionRange",
    "PrinReportCapabilities",
    "ProutRegister",
    "ProutClear",
    "ProutPreempt",
    "Read6",
    "Read10",
    "Read12",
    "Read16",
    "ReadCapacity10",
    "ReadCapacity16",
    "ReadDefectData10",
    "ReadDefectData12",
    "ReadOnly",
    "ReportSupportedOpcodes",
    "Reserve6",
    "StartStopUnit",
    "TestUnitReady",
    "Verify10",
    "Verify12",
    "Verify16",
    "iSCSIcmdsn",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """``words`` are those of ``--volume``; ``file`` a name for its file, of ``prefilled_bytes`` when not 0.

    ``suites``: only these. ``rate`` is the array's pace of SANITIZE OVERWRITE: Sanitize.Reset wants it to be still at
    work when five seconds are over.
    """

    name: str
    words: str
    file: str | None = None
    prefilled_bytes: int = 0
    suites: tuple[str, ...] | None = None
    rate: str = "6MiB"


KINDS = (
    Kind("memory", "64MiB"),
    Kind("thin", "64MiB", "thin.img"),
    Kind("thin-4096", "64MiB,block=4096", "thin-4096.img"),
    Kind("full", "160MiB,full", "full.img", rate="16MiB"),
    Kind("physical", "64MiB,physical=128KiB"),
    Kind("removable", "64MiB,removable"),
    Kind("encrypted", "64MiB,encrypted", "encrypted.img"),
    # The tool does not know of a medium that nobody can write: its other suites fail where they write.
    Kind("read-only", "write-protected", "read-only.img", 64 << 20, _WITHOUT_WRITING),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the tool: what it is told to run, through how many portals, with what besides in its environment."""

    selector: str
    paths: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)


def runs_of(kind: Kind, tests: Iterable[str]) -> Sequence[Run]:
    """Suite by suite, what has these ``Suite.Test`` names."""
    runs: dict[str, Run] = {}
    for test in tests:
        suite = test.partition(".")[0]
        if kind.suites is not None and suite not in kind.suites:
            continue
        if test == LUN_RESET:
            runs[test] = Run(f"*.{test}", environment=KEEP_FREED_MEMORY)
        else:
            # With a second path, Sanitize.Reservations leaves a reservation behind that makes Sanitize.Reset fail.
            selector = f"ALL.{suite}"
            runs.setdefault(suite, Run(selector, paths=1 if selector == SANITIZE else 2))
    return list(runs.values())
