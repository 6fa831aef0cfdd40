"""``pairctl``: pair control from a host. [IO]"""

import argparse
import asyncio
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from initiator_shim.config import parse_unit_url
from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.pair_arguments import chosen_name, pair_command, parse_arguments
from initiator_shim.pair_client import report_pair_status
from initiator_shim.pair_copies import begin_verify, set_copy_rate, verify_outcome, verifying
from initiator_shim.pair_display import (
    PairUnit,
    as_json,
    owners,
    parse_state,
    remarks,
    select,
    select_group,
    state_label,
    table,
)
from initiator_shim.pair_exit_codes import (
    ANSWERING,
    EX_ENORMT,
    EX_EWSTOT,
    EX_EWSUSE,
    INTERRUPTED,
    OK,
    USER_ERROR,
    WAIT_TIMED_OUT,
    volchk_status,
)
from initiator_shim.pair_orders import find_pairs, order, take_over
from initiator_shim.pair_progress import CopyProgress, copying, fitting, redraw, work
from initiator_shim.secret_files import chap_credentials
from initiator_shim.session_errors import SessionError
from storage_model.errors import PairvolError, UserError
from storage_model.nexus import ITNexus
from storage_model.pair_state import PairState
from storage_model.sizes import parse_copy_rate

_INITIATOR_NAME = "iqn.2026-11.org.pairvol:pairctl"
_POLL_SECONDS = 0.2
_SHORTEST_INTERVAL = 0.05


def _tell(text: str) -> None:
    print(f"pairctl: {text}", file=sys.stderr)


@asynccontextmanager
async def _session(url: str, flag: str, given: argparse.Namespace) -> AsyncIterator[IscsiSession]:
    """Logged in, and out at the end. A SessionError within names the address: there may be two sessions."""
    unit = parse_unit_url(url, flag)
    isid = b"\x80" + secrets.token_bytes(5)  # two pairctl at once are two nexuses
    host, port = unit.address.host, unit.address.port
    try:
        timeout, chap = given.timeout_seconds, chap_credentials(given)
        session = await IscsiSession.connect(host, port, unit.target_name, _INITIATOR_NAME, isid, timeout, chap=chap)
        try:
            yield session
        finally:
            await session.logout()
    except _ArrayFailed:
        raise  # of another session within this one
    except SessionError as error:
        named = f"{host}:{port}" in str(error)
        raise _ArrayFailed(str(error) if named else f"{unit.address}: {error}") from None


class _ArrayFailed(SessionError):
    """A session failed, and the text names the array's address."""


def _chosen(units: list[PairUnit], given: argparse.Namespace) -> list[PairUnit]:
    chosen_name(given)
    return select(units, given.name) if given.name is not None else select_group(units, given.group, given.pair)


async def _find(session: IscsiSession, given: argparse.Namespace) -> list[PairUnit]:
    """The pairs that the command line names."""
    return _chosen(await find_pairs(session, given.timeout_seconds), given)


async def _ask_again(session: IscsiSession, units: list[PairUnit], given: argparse.Namespace) -> list[PairUnit]:
    seconds = given.timeout_seconds
    return [replace(unit, status=await report_pair_status(session, unit.lun, seconds)) for unit in units]


def _is_named(given: argparse.Namespace) -> bool:
    return (given.name, given.group, given.pair) != (None, None, None)


# ---------------------------------------------------------------------------------------------------------- what shows


async def _with_peer(units: list[PairUnit], given: argparse.Namespace) -> list[PairUnit]:
    async with _session(given.peer, "--peer", given) as session:
        theirs = {unit.status.pair_name: unit.status for unit in await find_pairs(session, given.timeout_seconds)}
    return [replace(unit, peer=theirs.get(unit.status.pair_name)) for unit in units]


async def _display(session: IscsiSession, given: argparse.Namespace) -> int:
    all_units = await find_pairs(session, given.timeout_seconds)
    units = _chosen(all_units, given) if _is_named(given) else all_units
    if given.peer:
        units = await _with_peer(units, given)
    if given.json:
        print(json.dumps([as_json(unit) for unit in units], indent=2))
    else:
        text = table(units) + remarks(units, all_units, peer_asked=bool(given.peer))
        print(text + (owners(units) + work(units) if given.verbose else ""), end="")
    return OK


async def _volchk(session: IscsiSession, given: argparse.Namespace) -> int:
    units = await _find(session, given)
    number = volchk_status([unit.status for unit in units], with_state=given.with_state)
    if given.json:
        pairs = [as_json(unit) for unit in units]
        print(json.dumps({"name": chosen_name(given), "exit_status": number, "pairs": pairs}, indent=2))
        return number
    for unit in units:
        status = unit.status
        state = f"[status = {state_label(status.role, status.state)} fence = {status.fence.name}]"
        print(
            f"pairvolchk : {status.pair_name} : Volstat is {status.role.label}."
            + (state if status.state is not PairState.SMPL else "")
        )
    return number


async def _watch(session: IscsiSession, given: argparse.Namespace) -> int:
    """On a terminal the lines are drawn anew in their place; elsewhere a line is printed when it has changed."""
    all_units = await find_pairs(session, given.timeout_seconds)
    units = _chosen(all_units, given) if _is_named(given) else all_units
    progress, drawn, shown = CopyProgress(), 0, list[str]()
    loop = asyncio.get_running_loop()
    while True:
        lines = progress.lines(units, loop.time())
        if given.json:
            lines = [json.dumps(as_json(unit)) for unit in units]
        if sys.stdout.isatty() and not given.json:
            lines = fitting(lines, *shutil.get_terminal_size())
            print(redraw(lines, drawn), end="", flush=True)
            drawn = len(lines)
        else:
            print("".join(f"{line}\n" for line in lines if line not in shown), end="", flush=True)
            shown = lines
        if not copying(units) and not given.follow:
            return OK
        await asyncio.sleep(max(_SHORTEST_INTERVAL, given.interval))
        units = await _ask_again(session, units, given)


# ----------------------------------------------------------------------------------------------------- what waits, acts


async def _wait(session: IscsiSession, given: argparse.Namespace) -> int:
    wanted = parse_state(given.state)
    units = await _find(session, given)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + given.timeout
    as_cci = given.verb == "evtwait"
    what = f"{given.verb} {chosen_name(given)}"
    while True:
        units = await _ask_again(session, units, given)
        states = [unit.status.state for unit in units]
        if all(state is wanted for state in states):
            return OK
        if as_cci and PairState.PSUE in states and wanted is not PairState.PSUE:
            failed = next(unit for unit in units if unit.status.state is PairState.PSUE)
            _tell(f"{what}: {EX_EWSUSE}: {failed.status.pair_name} is suspended by an error (PSUE)")
            return EX_EWSUSE
        if loop.time() >= deadline:
            now = ", ".join(state.name for state in states)
            _tell(f"{what}: not {wanted.name} in {given.timeout:g} s, but {now}")
            return EX_EWSTOT if as_cci else WAIT_TIMED_OUT
        await asyncio.sleep(min(_POLL_SECONDS, max(0.0, deadline - loop.time())))


async def _order(session: IscsiSession, given: argparse.Namespace) -> int:
    units = await _find(session, given)
    return await order(session, units, pair_command(given), given.verb, given.timeout_seconds, _tell)


async def _verify(session: IscsiSession, given: argparse.Namespace) -> int:
    units = await _find(session, given)
    number = await begin_verify(session, units, given.timeout_seconds, _tell)
    if number != OK:
        return number
    units = await _ask_again(session, units, given)
    while given.wait and verifying(units):
        await asyncio.sleep(_POLL_SECONDS)
        units = await _ask_again(session, units, given)
    if given.json:
        print(json.dumps([as_json(unit) for unit in units], indent=2))
    if not given.wait:
        return OK
    outcomes = [verify_outcome(unit.status) for unit in units]
    if not given.json:
        print("".join(f"{line}\n" for _, line in outcomes), end="")
    return max(number for number, _ in outcomes)


async def _rate(session: IscsiSession, given: argparse.Namespace) -> int:
    rate = parse_copy_rate(given.rate, "RATE")
    return await set_copy_rate(session, await _find(session, given), rate, given.timeout_seconds, _tell)


async def _take_over(session: IscsiSession, given: argparse.Namespace) -> int:
    units = await _find(session, given)
    results = await take_over(
        session,
        units,
        given.timeout_seconds,
        _tell,
        force=given.force,
        incomplete=given.incomplete,
        owner=_owner(given.owner),
    )
    if given.json:
        after = await _ask_again(session, units, given)
        named = [{"exit_status": results.get(unit.status.pair_name), **as_json(unit)} for unit in after]
        print(json.dumps(named, indent=2))
    return max(results.values())


def _owner(text: str | None) -> ITNexus | None:
    if text is None:
        return None
    match = re.fullmatch(r"(.+?),i,0x([0-9a-fA-F]{12})(?:,t,0x([0-9a-fA-F]{1,4}))?", text)
    if match is None:
        raise UserError(
            f"--owner {text}: not an initiator port, IQN,i,0xISID with 12 hexadecimal digits, or one and a portal"
            " group, IQN,i,0xISID,t,0xTAG with up to 4"
        )
    tag = int(match[3] or "1", 16)
    if not tag:
        raise UserError(f"--owner {text}: there is no portal group 0")
    return ITNexus(match[1], bytes.fromhex(match[2]), tag)


def _confirm(given: argparse.Namespace) -> None:
    """Before anybody is asked: the operator says the name once more. Raises UserError."""
    name = chosen_name(given)
    said = given.yes_i_know
    if said is None:
        print(
            f"Takeover of {name} by force: the other array's half is outdated from now on, and what hosts write there\n"
            f"is not merged. It must not be in use. Type {name} to go on: ",
            end="",
            file=sys.stderr,
            flush=True,
        )
        said = sys.stdin.readline().strip()
    if said != name:
        raise UserError(f"takeover --force is not confirmed: {said!r} is not {name}; nothing was changed")


# ------------------------------------------------------------------------------------------------------------ the whole

_ACTIONS = {
    "display": _display,
    "volchk": _volchk,
    "watch": _watch,
    "wait": _wait,
    "evtwait": _wait,
    "takeover": _take_over,
    "verify": _verify,
    "rate": _rate,
}


def _check_beforehand(given: argparse.Namespace) -> None:
    """What is wrong with the words alone is told before anybody is asked."""
    if given.verb not in ("display", "watch") or _is_named(given):
        chosen_name(given)
    if given.verb in ("wait", "evtwait"):
        parse_state(given.state)
    if given.verb == "split" and given.force and not given.simplex:
        raise UserError("split: --force belongs to -S")
    if given.verb == "resync" and given.force and given.good is None:
        raise UserError("resync: --force belongs to --good")
    if given.verb == "resync" and given.swapp and not given.peer:
        raise UserError("resync -swapp: --peer must name the S-VOL's array")
    if given.verb == "rate":
        parse_copy_rate(given.rate, "RATE")
    if given.verb == "takeover":
        _owner(given.owner)
        if not given.force and (given.yes_i_know or given.incomplete or given.owner):
            raise UserError("takeover: --yes-i-know, --incomplete and --owner belong to --force")
        if given.force:
            _confirm(given)


async def _run(given: argparse.Namespace) -> int:
    url, flag = given.array, "--array"
    if given.verb == "resync" and given.swapp:
        url, flag = given.peer, "--peer"  # Figure 4: a swap resync ends normally at the S-VOL only
    async with _session(url, flag, given) as session:
        return await _ACTIONS.get(given.verb, _order)(session, given)


def main(arguments: list[str] | None = None) -> int:
    """The ``pairctl`` command, which may also be called by the name of a verb."""
    program = "pairctl" if arguments is not None else sys.argv[0]
    given = parse_arguments(sys.argv[1:] if arguments is None else arguments, program)
    try:
        _check_beforehand(given)
        return asyncio.run(_run(given))
    except PairvolError as error:
        _tell(str(error))
        return EX_ENORMT if given.verb in ANSWERING else USER_ERROR
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit complains
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
