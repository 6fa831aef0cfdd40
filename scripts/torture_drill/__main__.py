"""``scripts/torture``: the command line of the torture drill."""

import argparse
import asyncio
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scripts.torture_drill.bad_array import VARIANTS
from scripts.torture_drill.campaign import Campaign
from scripts.torture_drill.faults import FAULTS
from scripts.torture_drill.stage import ARRAY
from storage_model.errors import PairvolError

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_SEEDS = 1 << 32
_CYCLES_MAX = 1_000_000


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/torture",
        description="Two arrays, two shims, the cable between the arrays, as processes and sockets: while initiators "
        "write, hosts race with RESERVE and an operator splits, resyncs and swaps, one fault or two strike in each "
        "cycle; then all is healed, and every block, both copies, the owners, logs and descriptors are checked.",
        epilog="exit status: 0 all was well, 1 something was found, 2 wrong arguments, 130 interrupted",
    )
    parser.add_argument("--cycles", type=int, default=24, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, metavar="S", help="of faults and requests; else a random one, and printed")
    parser.add_argument(
        "--fault",
        action="append",
        metavar="KIND",
        help=f"only this kind; may be repeated. One of: {', '.join(FAULTS)} (default: all, in turn)",
    )
    parser.add_argument("--variant", metavar="NAME", help=f"arrays that are known to be bad: {', '.join(VARIANTS)}")
    parser.add_argument("--directory", metavar="DIR", type=Path, help="keep volumes and logs there (must be new)")
    return parser


def _check(options: argparse.Namespace) -> str:
    if not 1 <= options.cycles <= _CYCLES_MAX:
        return f"--cycles must be from 1 to {_CYCLES_MAX}"
    if options.seed is not None and not 0 <= options.seed < _SEEDS:
        return f"--seed must be from 0 to {_SEEDS - 1}"
    for kind in options.fault or ():
        if kind not in FAULTS:
            return f"--fault {kind}: not one of {', '.join(FAULTS)}"
    if options.variant is not None and options.variant not in VARIANTS:
        return f"--variant {options.variant}: not one of {', '.join(VARIANTS)}"
    return ""


def _make_directory(kept: Path | None) -> Path:
    """Raises OSError."""
    if kept is None:
        return Path(tempfile.mkdtemp(prefix="pairvol-torture-"))
    kept.mkdir(parents=True)
    return kept.resolve()


async def _run(campaign: Campaign) -> bool:
    running = asyncio.current_task()
    assert running is not None
    # Ctrl-C cancels already; the others end the drill in the same good order.
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    return await campaign.run()


def _status(campaign: Campaign) -> int:
    status = _FAILED
    try:
        status = 0 if asyncio.run(_run(campaign)) else _FAILED
    except* PairvolError as errors:  # alone, or among what ended with it
        for error in errors.exceptions:
            print(f"FAILED: {error}")
    return status


def _conduct(prepare: Callable[[], Campaign]) -> int:
    began = time.monotonic()
    campaign = None
    try:
        campaign = prepare()
        status = _status(campaign)
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = _INTERRUPTED
    if campaign is None:
        return status
    for text in campaign.journal.violations:
        print(f"VIOLATION: {text}")
    print(campaign.summary())
    print(f"time          {time.monotonic() - began:.0f} s", flush=True)
    return status


def main() -> int:
    """The exit status, also in --help."""
    options = _arguments().parse_args()
    wrong = _check(options)
    if wrong:
        print(f"scripts/torture: {wrong}", file=sys.stderr)
        return _USAGE
    try:
        directory = _make_directory(options.directory)
    except OSError as error:
        print(f"scripts/torture: --directory {options.directory}: {error.strerror}", file=sys.stderr)
        return _USAGE
    seed = random.SystemRandom().randrange(_SEEDS) if options.seed is None else options.seed
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of writes to a connection that has been reset
    bad = (sys.executable, "-m", "scripts.torture_drill.bad_array", str(options.variant))

    def prepare() -> Campaign:
        print(f"seed {seed}", flush=True)
        return Campaign(
            directory,
            seed,
            options.cycles,
            lambda line: print(line, flush=True),
            faults=options.fault or tuple(FAULTS),
            program=ARRAY if options.variant is None else bad,
        )

    status = _conduct(prepare)
    if status in (0, _INTERRUPTED) and options.directory is None:
        shutil.rmtree(directory, ignore_errors=True)
    elif status == _FAILED:
        words = [f"--cycles {options.cycles} --seed {seed}", *(f"--fault '{kind}'" for kind in options.fault or ())]
        words += [f"--variant {options.variant}"] if options.variant else []
        print(f"again: scripts/torture {' '.join(words)}\nlogs and volumes are in {directory}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
