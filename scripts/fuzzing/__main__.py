"""``scripts/fuzz``: the command line of the fuzzing campaign."""

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

from scripts.fuzzing.campaign import Campaign
from scripts.fuzzing.episodes import EPISODES
from storage_model.errors import PairvolError

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_SEEDS = 1 << 32


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Attacks a live array, with volumes of every kind, over real sockets: damaged PDU streams, login "
        "and text requests, CDBs and parameter lists. A well-behaved initiator checks all the time that it is served "
        "right, and the array's memory, file descriptors and log are watched.",
        epilog="exit status: 0 the array stood it, 1 something was found, 2 wrong arguments, 130 interrupted",
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: 1)")
    parser.add_argument("--seed", type=int, help="a random one otherwise, and printed")
    parser.add_argument(
        "--connections", type=int, default=6, metavar="N", help="rude initiators at a time (default: 6)"
    )
    parser.add_argument(
        "--progress", type=float, default=30.0, metavar="SECONDS", help="between two lines (default: 30)"
    )
    parser.add_argument(
        "--replay",
        metavar="KIND:WORKER:NUMBER",
        help="one episode of the seed's campaign alone, as a finding names it",
    )
    return parser


async def _run(options: argparse.Namespace, seed: int, directory: Path) -> int:
    campaign = Campaign(seed, options.connections, directory, options.progress)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        campaign.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    await campaign.run(options.minutes, options.replay)
    print(campaign.summary(), flush=True)
    if campaign.findings:
        print(f"again: scripts/fuzz --minutes {options.minutes:g} --seed {seed}", flush=True)
        return _FAILED
    return _INTERRUPTED if interrupted else 0


def _check(options: argparse.Namespace) -> str:
    if options.minutes <= 0 or not 1 <= options.connections <= 64:
        return "--minutes must be above 0, --connections 1 to 64"
    if options.replay is not None:
        kind, *numbers = options.replay.split(":")
        if kind not in EPISODES or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            return f"--replay {options.replay}: not KIND:WORKER:NUMBER with a kind of {', '.join(EPISODES)}"
    return ""


def main() -> int:
    options = _arguments().parse_args()
    wrong = _check(options)
    if wrong:
        print(f"scripts/fuzz: {wrong}", file=sys.stderr)
        return _USAGE
    seed = random.SystemRandom().randrange(_SEEDS) if options.seed is None else options.seed
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of writes to a connection that has been reset
    print(f"seed {seed}", flush=True)
    try:
        # In memory where that is possible: a campaign is not about the speed of a disk.
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="pairvol-fuzz-", dir=place) as directory:
            return asyncio.run(_run(options, seed, Path(directory)))
    except PairvolError as error:
        print(f"scripts/fuzz: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
