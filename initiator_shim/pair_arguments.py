"""``pairctl``'s command line. [IO]"""

import argparse

from initiator_shim.pair_display import STATES
from initiator_shim.secret_files import add_chap_arguments
from storage_model.pair_state import FenceLevel
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut

EXIT_OK, EXIT_REFUSED, EXIT_FAILED, EXIT_TIMED_OUT = 0, 1, 2, 3

EPILOG = """\
NAME is a pair or a group; of a group, the verb goes to each of its pairs. --array names the array that is asked; the
verbs may be given to either array of a pair. --array, --timeout-seconds and the options about CHAP may also come behind
the verb.

exit status:
  0  done
  1  the array refused the verb; the message has CCI's number: 221 command rejected, 228 invalid state
  2  wrong arguments, no such pair, or the array cannot be reached
  3  wait: the state was not reached in time
"""


def pair_command(given: argparse.Namespace) -> PairControlOut:
    """The PAIR CONTROL OUT that a verb's arguments stand for."""
    options = PairOption.NONE
    match given.verb:
        case "create":
            options |= PairOption.REMOTE_P_VOL if given.remote_p_vol else PairOption.NONE
            options |= PairOption.NO_COPY if given.no_copy else PairOption.NONE
            fence = FenceLevel[given.fence.upper()] if given.fence else None
            return PairControlOut(PairOut.CREATE, options, fence)
        case "split":
            return PairControlOut(PairOut.SPLIT, PairOption.S_VOL_WRITABLE if given.writable else PairOption.NONE)
        case "resync":
            if given.good is not None:
                options = PairOption.GOOD_P_VOL if given.good == "p" else PairOption.GOOD_S_VOL
            return PairControlOut(PairOut.SWAP_RESYNC if given.swap else PairOut.RESYNC, options)
        case "delete":
            return PairControlOut(PairOut.DELETE, PairOption.FORCE if given.force else PairOption.NONE)
    raise AssertionError(given.verb)


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pairctl",
        description="Controls the pair volumes of an array, in-band over iSCSI.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_session(parser, "iscsi://127.0.0.1:3260", 10.0)
    add_chap_arguments(parser)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_status(verbs.add_parser("status", help="show the pairs of the array (pairdisplay)"))
    create = _add_verb(verbs, "create", "make a pair: SMPL to COPY (paircreate)")
    create.add_argument("--remote-p-vol", action="store_true", help="the other array's volume becomes the P-VOL (-vr)")
    create.add_argument("--fence", choices=["never", "data", "status"], help="fence level (default: as configured)")
    create.add_argument("--no-copy", action="store_true", help="both volumes are known to be equal (-nocopy)")
    split = _add_verb(verbs, "split", "suspend: COPY or PAIR to PSUS (pairsplit)")
    split.add_argument("-rw", dest="writable", action="store_true", help="open the S-VOL for writes")
    resync = _add_verb(verbs, "resync", "resynchronise: PSUS to COPY (pairresync)")
    resync.add_argument("--swap", action="store_true", help="given at the S-VOL: exchange the roles (-swaps)")
    resync.add_argument(
        "--good", choices=["p", "s"], help="this half is right, discard what the other has of its own (also from PSUE)"
    )
    delete = _add_verb(verbs, "delete", "end the pair: back to SMPL (pairsplit -S)")
    delete.add_argument("--force", action="store_true", help="at this array alone, when the other cannot be reached")
    wait = _add_verb(verbs, "wait", "wait until the pair is in a state (pairevtwait)")
    wait.add_argument("state", metavar="STATE", help=f"one of {', '.join(STATES)}")
    wait.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds (default %(default)s)")
    for verb in verbs.choices.values():
        # Only what is given there: a default would undo what was given before the verb.
        _add_session(verb, argparse.SUPPRESS, argparse.SUPPRESS)
        add_chap_arguments(verb, argparse.SUPPRESS)
    return parser


def _add_session(parser: argparse.ArgumentParser, array: str, timeout_seconds: float | str) -> None:
    """The options about the session, with these defaults."""
    default = "" if array == argparse.SUPPRESS else " (default %(default)s)"
    parser.add_argument(
        "-a",
        "--array",
        default=array,
        metavar="iscsi://HOST:PORT[/IQN]",
        help=f"the array to ask{default}; IQN only where it has several targets",
    )
    parser.add_argument(
        "--timeout-seconds",
        type=float,
        default=timeout_seconds,
        metavar="S",
        help=f"for each command to the array{default}",
    )


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="only this pair or group")
    parser.add_argument("--json", action="store_true", help="a JSON list, one object for each pair")
    parser.add_argument("-v", "--verbose", action="store_true", help="also the epoch and owner of quorum pairs")
    parser.add_argument(
        "--peer", metavar="iscsi://HOST:PORT[/IQN]", help="ask the other array for the (R) lines, instead of implying"
    )


def _add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("name", metavar="NAME", help="a pair or a group")
    return parser
