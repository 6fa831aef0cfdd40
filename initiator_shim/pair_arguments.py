"""``pairctl``'s command line. [IO]"""

import argparse
import math
from pathlib import PurePath
from typing import NoReturn, TypeAlias

from initiator_shim.pair_display import STATES
from initiator_shim.pair_exit_codes import ANSWERING, EX_ENORMT, USER_ERROR
from initiator_shim.secret_files import add_chap_arguments
from storage_model.errors import UserError
from storage_model.pair_state import FenceLevel
from storage_model.spec.pair_cdb import PairControlOut, PairOption, PairOut

ALIASES = {
    "display": ("status", "pairdisplay"),
    "create": ("paircreate",),
    "split": ("pairsplit",),
    "resync": ("pairresync",),
    "delete": (),
    "takeover": ("horctakeover",),
    "volchk": ("pairvolchk",),
    "evtwait": ("pairevtwait",),
    "wait": (),
    "watch": (),
    "verify": (),
    "rate": (),
}
"""What else each verb is called, also as the name of the program (a symbolic link to pairctl)."""

EPILOG = """\
NAME is a pair or a group; what is asked of a group is one decision: none of its pairs is changed if one of them is not
in a state for it. -g GROUP and -d PAIR say which of the two it is.
--array names the array that is asked; the verbs may be given to either array of a pair. --array, --timeout-seconds and
the options about CHAP may also come behind the verb.
CCI's names (paircreate, pairsplit ...) are the same verbs, also as names of symbolic links to pairctl.

exit status:
  0    done
  2    wrong arguments, no such pair, or the array cannot be reached
  3    wait: the state was not reached in time
  130  Ctrl-C
  221  the array rejects the command (CCI's EX_CMDRJE, command rejected)
  228  the pair is not in a state for it (EX_INVSTP, invalid state)
volchk, evtwait and takeover answer by their exit status (pairctl VERB --help), with 242 in the place of 2.
"""
_BY_FORCE = (
    "also where the pair has an owner or registered hosts, or its S-VOL alone is complete; it ends at both arrays, at"
    " this one alone only while the other cannot be reached"
)
_VOLCHK = """\
exit status:
  1  SMPL, 2  P-VOL, 3  S-VOL
with -ss:
  11  SMPL
  22  P-VOL in COPY, 23 PAIR, 24 PSUS, 25 PSUE, 26 PDUB (a group's pairs are in different states)
  32  S-VOL in COPY, 33 PAIR, 34 PSUS (SSUS), 35 PSUE, 36 PDUB
  236 the volumes of the group are in different roles (EX_ENQVOL)
  242 nobody to ask: wrong arguments, no such pair, or the array cannot be reached (EX_ENORMT)
"""
_EVTWAIT = """\
exit status:
  0    every pair is in the state
  233  not in time (EX_EWSTOT)
  234  a pair is suspended by an error, and will not reach the state by itself (EX_EWSUSE)
  242  nobody to ask: wrong arguments, no such pair, or the array cannot be reached (EX_ENORMT)
"""
_TAKEOVER = """\
Give it to the array that shall have the P-VOL. A pair in PAIR is split and swapped, one in PSUS is swapped. Without the
other array it needs --force, which asks for the name to be typed in. By force, what the other array wrote since then
stays there, outdated, until a resync names the good side: pairctl resync NAME --good p or --good s.

exit status (of a group: the highest):
  0    nop: the volume is the P-VOL already
  1    swap: P-VOL and S-VOL have changed places
  2    SVOL: the S-VOL was made the P-VOL by force
  3    PVOL-SMPL: never given here
  4    PVOL-PSUE: the P-VOL takes writes again, by force
  5    SVOL-SSUS: the pair is suspended, but the places were not changed
  221  the array rejects the command
  223  both volumes were written (EX_VOLCRE): resync --swap --good p or --good s
  225  the S-VOL is not current, or the other array cannot be asked (EX_VOLCUR)
  228  the pair is not in a state for it
  242  nobody to ask: wrong arguments, not confirmed, no such pair, or the array cannot be reached
"""
_VERIFY = """\
Digests of both copies travel, not the data. What differs is marked, and stays as it is until the next resync copies it
from the good side: pairctl split NAME; pairctl resync NAME. A region that is being written whenever it is looked at is
not compared, and counts as busy.

exit status with --wait (of a group: the highest):
  0    compared, and equal
  225  regions differ (EX_VOLCUR)
  228  broken off: the pair has changed, or the link went down
"""
_RATE = """\
Of the array that is asked: it counts while that array has the P-VOL. It holds until the array ends, or until another
copy_rate of the pair is read from its configuration (SIGHUP).
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
        case "split" if not given.simplex:
            return PairControlOut(PairOut.SPLIT, PairOption.S_VOL_WRITABLE if given.writable else PairOption.NONE)
        case "resync":
            if given.good is not None:
                options = PairOption.GOOD_P_VOL if given.good == "p" else PairOption.GOOD_S_VOL
            options |= PairOption.FORCE if given.force else PairOption.NONE
            return PairControlOut(PairOut.SWAP_RESYNC if given.swap or given.swapp else PairOut.RESYNC, options)
        case "delete" | "split":
            return PairControlOut(PairOut.DELETE, PairOption.FORCE if given.force else PairOption.NONE)
    raise AssertionError(given.verb)


class _Parser(argparse.ArgumentParser):
    """Ends with ``failure_status`` on wrong arguments: 2 is an answer of some verbs."""

    failure_status = USER_ERROR

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(self.failure_status if status == USER_ERROR else status, message)


def parse_arguments(arguments: list[str], program: str = "pairctl") -> argparse.Namespace:
    """Of the program by this name, which may be a verb's. Raises SystemExit, and UserError for what only we know."""
    name = PurePath(program).name
    if any(name in names for names in ALIASES.values()):
        arguments = [name, *arguments]
    verb = next((verb for verb in ALIASES if {verb, *ALIASES[verb]} & set(arguments)), "")
    return argument_parser(EX_ENORMT if verb in ANSWERING else USER_ERROR).parse_args(arguments)


def chosen_name(given: argparse.Namespace) -> str:
    """What the pairs are called on the command line. Raises UserError unless it is said exactly once."""
    names = [name for name in (given.name, given.group, given.pair) if name is not None]
    if len(names) == 2 and given.name is None:
        return f"{given.group} -d {given.pair}"
    if len(names) != 1:
        raise UserError(f"{given.verb}: one of NAME, -g GROUP and -d PAIR must say which pairs")
    return str(names[0])


def argument_parser(failure_status: int = USER_ERROR) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pairctl",
        description="Controls the pair volumes of an array, in-band over iSCSI.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_session(parser, "iscsi://127.0.0.1:3260", 10.0)
    add_chap_arguments(parser)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_display(_add_verb(verbs, "display", "show the pairs of the array (pairdisplay)"))
    _add_changes(verbs)
    _add_takeover(_add_verb(verbs, "takeover", "make this array's volume the P-VOL (horctakeover)", _TAKEOVER))
    volchk = _add_verb(verbs, "volchk", "tell the role, and the state, by the exit status (pairvolchk)", _VOLCHK)
    volchk.add_argument("-ss", dest="with_state", action="store_true", help="the state as well")
    volchk.add_argument("--json", action="store_true", help="a JSON object instead of a line")
    evtwait = _add_verb(verbs, "evtwait", "wait until the pairs are in a state (pairevtwait)", _EVTWAIT)
    evtwait.add_argument("-s", dest="state", required=True, metavar="STATE", help=f"one of {', '.join(STATES)}")
    evtwait.add_argument("-t", dest="timeout", type=_seconds, default=60.0, metavar="N", help="seconds (default 60)")
    wait = verbs.add_parser("wait", help="wait until the pair is in a state: evtwait, with the exit status of pairctl")
    wait.add_argument("name", metavar="NAME", help="a pair or a group")
    wait.add_argument("state", metavar="STATE", help=f"one of {', '.join(STATES)}")
    wait.add_argument("--timeout", type=_seconds, default=60.0, metavar="S", help="seconds (default %(default)s)")
    wait.set_defaults(verb="wait", group=None, pair=None)
    _add_copies(verbs)
    _add_watch(_add_verb(verbs, "watch", "show how far the pairs are with copying, until none copies"))
    parser.failure_status = failure_status
    for verb in set(verbs.choices.values()):
        # Only what is given there: a default would undo what was given before the verb.
        _add_session(verb, argparse.SUPPRESS, argparse.SUPPRESS)
        add_chap_arguments(verb, argparse.SUPPRESS)
        verb.failure_status = failure_status
    return parser


Verbs: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _add_changes(verbs: Verbs) -> None:
    """create, split, resync and delete."""
    create = _add_verb(verbs, "create", "make a pair: SMPL to COPY (paircreate)")
    place = create.add_mutually_exclusive_group()
    place.add_argument("-vl", dest="remote_p_vol", action="store_false", help="this array's volume becomes the P-VOL")
    place.add_argument("--remote-p-vol", "-vr", action="store_true", help="the other array's volume becomes the P-VOL")
    create.set_defaults(remote_p_vol=False)
    levels = ["never", "data", "status"]
    create.add_argument("--fence", "-f", choices=levels, help="fence level (default: as configured)")
    create.add_argument("--no-copy", "-nocopy", action="store_true", help="both volumes are known to be equal")
    split = _add_verb(verbs, "split", "suspend: COPY or PAIR to PSUS (pairsplit)")
    way = split.add_mutually_exclusive_group()
    way.add_argument("-r", dest="writable", action="store_false", help="the S-VOL can be read (the default)")
    way.add_argument("-rw", dest="writable", action="store_true", help="open the S-VOL for writes")
    way.add_argument("-S", dest="simplex", action="store_true", help="end the pair: back to SMPL, as delete does")
    split.set_defaults(writable=False)
    split.add_argument("--force", action="store_true", help=f"with -S: {_BY_FORCE}")
    resync = _add_verb(verbs, "resync", "resynchronise: PSUS to COPY (pairresync)")
    swaps = resync.add_mutually_exclusive_group()
    swaps.add_argument("--swap", "-swaps", action="store_true", help="given at the S-VOL: exchange the roles")
    swaps.add_argument("-swapp", action="store_true", help="given at the P-VOL: exchange the roles; needs --peer")
    resync.add_argument(
        "--good", choices=["p", "s"], help="this half is right, discard what the other has of its own (also from PSUE)"
    )
    resync.add_argument("--force", action="store_true", help="with --good: even if that half was never complete")
    _add_peer(resync, "with -swapp: the S-VOL's array, which is told")
    delete = _add_verb(verbs, "delete", "end the pair: back to SMPL (pairsplit -S)")
    delete.add_argument("--force", action="store_true", help=_BY_FORCE)


def _add_takeover(takeover: argparse.ArgumentParser) -> None:
    takeover.add_argument("--force", action="store_true", help="without the other array, which cannot be reached")
    takeover.add_argument("--yes-i-know", metavar="NAME", help="with --force: the name once more, instead of typing it")
    takeover.add_argument(
        "--incomplete", action="store_true", help="with --force: even if this half is outdated or was never complete"
    )
    takeover.add_argument(
        "--owner",
        metavar="IQN,i,0xISID[,t,0xTAG]",
        help="with --force, of a quorum pair: the initiator port that shall own it, and the portal group of this array"
        " that it is logged in to (0x1)",
    )
    takeover.add_argument("--json", action="store_true", help="a JSON list, one object for each pair")


def _add_copies(verbs: Verbs) -> None:
    """verify and rate."""
    verify = _add_verb(verbs, "verify", "compare both copies while hosts write; at the P-VOL's array, in PAIR", _VERIFY)
    verify.add_argument("--wait", action="store_true", help="until it has ended, and tell the outcome")
    verify.add_argument("--json", action="store_true", help="a JSON list, one object for each pair")
    rate = _add_verb(verbs, "rate", "limit how fast the pairs are copied and compared, also while they are", _RATE)
    rate.add_argument("rate", metavar="RATE", help="bytes a second (20MiB), or unlimited")


def _add_watch(watch: argparse.ArgumentParser) -> None:
    watch.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="seconds (default %(default)s)")
    watch.add_argument("--follow", action="store_true", help="go on until Ctrl-C")
    watch.add_argument("--json", action="store_true", help="one JSON object a line, for each pair that has changed")


def _seconds(text: str) -> float:
    """An argument's type: a span of time. NaN is neither over nor to come; nobody means infinity."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return seconds


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
        type=_seconds,
        default=timeout_seconds,
        metavar="S",
        help=f"for each command to the array{default}",
    )


def _add_display(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="a JSON list, one object for each pair")
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="also epoch and owner, copies and verification",
    )
    _add_peer(parser, "ask the other array for the (R) lines, instead of implying")


def _add_peer(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--peer", metavar="iscsi://HOST:PORT[/IQN]", help=text)


def _add_verb(verbs: Verbs, name: str, text: str, epilog: str | None = None) -> "_Parser":
    parser = verbs.add_parser(
        name,
        aliases=ALIASES[name],
        help=text,
        description=text,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a pair or a group")
    parser.add_argument("-g", dest="group", metavar="GROUP", help="the pairs of this group")
    parser.add_argument("-d", dest="pair", metavar="PAIR", help="this pair (with -g: of the group)")
    parser.set_defaults(verb=name)
    return parser
