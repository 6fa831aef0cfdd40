"""``scripts/demo``: the command line of the failover drill."""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from scripts.failover_drill.broker import BrokerKind, installed_mosquitto
from scripts.failover_drill.drill import Drill, Options
from scripts.failover_drill.report import OutputClosed, Timeline
from scripts.failover_drill.scenario import Failure, Site
from storage_model.errors import PairvolError

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
_OUTPUT_CLOSED = 141  # as the shell tells of a command that SIGPIPE ended
_SEEDS = 1 << 32
_RACES_MAX = 100_000
_STDOUT = Path("-")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="The failover drill: two arrays, two shims, two cluster nodes and an MQTT broker, each a process "
        "of its own, are taken through Figures 7-13 of JP2003-76592A.",
        epilog="exit status: 0 every check held, 1 one did not or the drill could not go on, 2 wrong arguments, "
        "130 interrupted, 141 the reader of the output went away",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--fail",
        metavar="WHAT",
        choices=[failure.value for failure in Failure],
        help=f"what breaks in Figure 11: {', '.join(Failure)} (default: {Failure.HEARTBEAT})",
    )
    what.add_argument("--races", metavar="N", type=_count, help="repeat the start race N times instead, with jitter")
    parser.add_argument("--seed", type=int, help="of the jitter; a random one otherwise, and printed")
    parser.add_argument("--first", choices=["a", "b"], help="give this site's host a head start in every race")
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        help="write the transcript there; -: to standard output, and the timeline to standard error",
    )
    parser.add_argument(
        "--without-shims",
        action="store_true",
        help="the hosts talk to their arrays directly: both win the start, and the drill fails, as it has to",
    )
    parser.add_argument(
        "--broker",
        choices=[kind.value for kind in BrokerKind],
        help="default: mosquitto when it is installed, else embedded",
    )
    parser.add_argument(
        "--directory", metavar="DIR", type=Path, help="keep volumes, states and logs there (must be new)"
    )
    parser.add_argument("--colour", choices=["auto", "always", "never"], default="auto")
    return parser


def _count(text: str) -> int:
    # A longer number cannot be right, and int() refuses one of thousands of digits.
    count = int(text) if text.isdecimal() and len(text) <= len(str(_RACES_MAX)) else 0
    if not 1 <= count <= _RACES_MAX:
        raise argparse.ArgumentTypeError(f"a whole number from 1 to {_RACES_MAX}")
    return count


async def _run(drill: Drill) -> bool:
    running = asyncio.current_task()
    assert running is not None
    # Ctrl-C cancels already; the others end the drill in the same good order.
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    return await drill.run()


def _discard(stream: TextIO) -> None:
    """Whoever read it has seen enough; without this the flush at exit complains."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _conduct(arguments: argparse.Namespace, options: Options, directory: Path) -> int:
    stream = sys.stderr if arguments.json == _STDOUT else sys.stdout
    colour = arguments.colour == "always" or (arguments.colour == "auto" and stream.isatty())
    timeline = Timeline(stream, colour)
    opening: dict[str, object] = {"seed": options.seed}
    if options.races:
        opening["series"] = f"{options.races} start races"
    else:
        opening["failure"] = f"{options.failure}: {options.failure.words}"
    drill = Drill(options, directory, timeline)
    status = _FAILED
    try:
        timeline.opening(**opening)
        status = 0 if asyncio.run(_run(drill)) else _FAILED
    except OutputClosed:
        _discard(stream)
        status = _OUTPUT_CLOSED
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("scripts/demo: interrupted", file=sys.stderr)
        status = _INTERRUPTED
    except PairvolError as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
    written = 0 if arguments.json is None else _write_transcript(arguments.json, timeline, drill)
    return status or written


def _write_transcript(path: Path, timeline: Timeline, drill: Drill) -> int:
    """The exit status: 0 when it is written."""
    try:
        if path == _STDOUT:
            print(timeline.json_text(drill.events()), end="", flush=True)
        else:
            timeline.write_json(path, drill.events())
    except BrokenPipeError:
        if path == _STDOUT:
            _discard(sys.stdout)
        return _OUTPUT_CLOSED
    except OSError as error:
        print(f"scripts/demo: --json {path}: {error.strerror}", file=sys.stderr)
        return _USAGE
    return 0


def _check_writable(path: Path) -> None:
    """Raises OSError now rather than after the drill. Leaves nothing behind, and a pipe alone: opening one is heard."""
    if path.is_dir() or path.is_file():
        path.open("ab").close()
    elif not path.exists():
        path = path.resolve()  # a link that points nowhere yet stays
        path.open("xb").close()
        path.unlink()


def _make_directory(kept: Path | None) -> Path:
    """Raises OSError."""
    if kept is None:
        return Path(tempfile.mkdtemp(prefix="pairvol-drill-"))
    kept.mkdir(parents=True)
    return kept.resolve()


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        failure=Failure(arguments.fail or Failure.HEARTBEAT),
        races=arguments.races or 0,
        seed=random.randrange(_SEEDS) if arguments.seed is None else arguments.seed,
        first=Site(arguments.first.upper()) if arguments.first else None,
        broker=BrokerKind(arguments.broker) if arguments.broker else None,
        shims=not arguments.without_shims,
    )


def main() -> int:
    """The exit status, also in --help.

    0: every check held. 1: one did not, or the drill could not go on. 2: usage. 130: interrupted. 141: the reader of
    the output went away.
    """
    arguments = _arguments().parse_args()
    if arguments.broker == BrokerKind.MOSQUITTO and installed_mosquitto() is None:
        print("scripts/demo: --broker mosquitto: it is not installed", file=sys.stderr)
        return _USAGE
    kept: Path | None = arguments.directory
    try:
        directory = _make_directory(kept)
    except OSError as error:
        print(f"scripts/demo: --directory {kept}: {error.strerror}", file=sys.stderr)
        return _USAGE
    try:
        if arguments.json not in (None, _STDOUT):
            _check_writable(arguments.json)  # it may lie in the directory
    except OSError as error:
        directory.rmdir()
        print(f"scripts/demo: --json {arguments.json}: {error.strerror}", file=sys.stderr)
        return _USAGE
    status = _conduct(arguments, _options(arguments), directory)
    if kept is None and status in (0, _INTERRUPTED, _OUTPUT_CLOSED):
        shutil.rmtree(directory, ignore_errors=True)
    elif status not in (0, _OUTPUT_CLOSED):
        print(f"scripts/demo: volumes, states and logs are in {directory}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
