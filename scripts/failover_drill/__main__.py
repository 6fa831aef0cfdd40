"""``scripts/demo``: the command line of the failover drill."""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from scripts.failover_drill.broker import BrokerKind, installed_mosquitto
from scripts.failover_drill.drill import Drill, Options
from scripts.failover_drill.report import Timeline
from scripts.failover_drill.scenario import Failure, Site
from storage_model.errors import PairvolError

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_SEEDS = 1 << 32


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="The failover drill: two arrays, two shims, two cluster nodes and an MQTT broker, each a process "
        "of its own, are taken through Figures 7-13 of JP2003-76592A. Exit status 0 only if every check held.",
    )
    parser.add_argument(
        "--fail",
        metavar="WHAT",
        choices=list(Failure),
        default=Failure.HEARTBEAT.value,
        help=f"what breaks in Figure 11: {', '.join(Failure)} (default: %(default)s)",
    )
    parser.add_argument("--races", metavar="N", type=_count, help="repeat the start race N times instead, with jitter")
    parser.add_argument("--seed", type=int, help="of the jitter; a random one otherwise, and printed")
    parser.add_argument("--first", choices=["a", "b"], help="give this site's host a head start in every race")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the transcript there")
    parser.add_argument(
        "--without-shims",
        action="store_true",
        help="the hosts talk to their arrays directly: both win the start, and the drill fails, as it has to",
    )
    parser.add_argument(
        "--broker", choices=list(BrokerKind), help="default: mosquitto when it is installed, else embedded"
    )
    parser.add_argument(
        "--directory", metavar="DIR", type=Path, help="keep volumes, states and logs there (must be new)"
    )
    parser.add_argument("--colour", choices=["auto", "always", "never"], default="auto")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 100_000:
        raise argparse.ArgumentTypeError("from 1 to 100000")
    return count


async def _run(drill: Drill) -> bool:
    running = asyncio.current_task()
    assert running is not None
    # Ctrl-C cancels already; the others end the drill in the same good order.
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    return await drill.run()


def _conduct(arguments: argparse.Namespace, options: Options, directory: Path) -> int:
    colour = arguments.colour == "always" or (arguments.colour == "auto" and sys.stdout.isatty())
    timeline = Timeline(sys.stdout, colour)
    opening: dict[str, object] = {"seed": options.seed}
    if options.races:
        opening["series"] = f"{options.races} start races"
    else:
        opening["failure"] = f"{options.failure}: {options.failure.words}"
    timeline.opening(**opening)
    drill = Drill(options, directory, timeline)
    status = _FAILED
    try:
        status = 0 if asyncio.run(_run(drill)) else _FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("scripts/demo: interrupted", file=sys.stderr)
        status = _INTERRUPTED
    except PairvolError as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
    if arguments.json is not None:
        try:
            timeline.write_json(arguments.json, drill.events())
        except OSError as error:
            print(f"scripts/demo: --json {arguments.json}: {error.strerror}", file=sys.stderr)
            status = status or _USAGE
    return status


def main() -> int:
    """Exit status 0: every check held. 1: one did not, or the drill could not go on. 2: usage. 130: interrupted."""
    arguments = _arguments().parse_args()
    if arguments.broker == BrokerKind.MOSQUITTO and installed_mosquitto() is None:
        print("scripts/demo: --broker mosquitto: it is not installed", file=sys.stderr)
        return _USAGE
    options = Options(
        failure=Failure(arguments.fail),
        races=arguments.races or 0,
        seed=random.randrange(_SEEDS) if arguments.seed is None else arguments.seed,
        first=Site(arguments.first.upper()) if arguments.first else None,
        broker=BrokerKind(arguments.broker) if arguments.broker else None,
        shims=not arguments.without_shims,
    )
    kept: Path | None = arguments.directory
    try:
        if kept is not None:
            kept.mkdir(parents=True)
        directory = kept.resolve() if kept is not None else Path(tempfile.mkdtemp(prefix="pairvol-drill-"))
    except OSError as error:
        print(f"scripts/demo: --directory {kept}: {error.strerror}", file=sys.stderr)
        return _USAGE
    status = _conduct(arguments, options, directory)
    if kept is None and status in (0, _INTERRUPTED):
        shutil.rmtree(directory, ignore_errors=True)
    elif status:
        print(f"scripts/demo: volumes, states and logs are in {directory}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
