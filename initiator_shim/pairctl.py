"""``pairctl``: pair control from a host. [IO]"""

import argparse
import asyncio
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from initiator_shim.config import parse_unit_url
from initiator_shim.initiator_transport import IscsiSession
from initiator_shim.logical_units import report_luns
from initiator_shim.pair_arguments import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_TIMED_OUT,
    argument_parser,
    pair_command,
)
from initiator_shim.pair_client import PairRefused, pair_control, report_pair_status
from initiator_shim.pair_display import (
    PairUnit,
    advice,
    as_json,
    goal_reached,
    owners,
    parse_state,
    refusal_number,
    remarks,
    select,
    table,
)
from initiator_shim.secret_files import chap_credentials
from initiator_shim.session_errors import SessionError
from storage_model.errors import PairvolError
from storage_model.pair_state import PairState
from storage_model.spec.pair_cdb import StatusFlag

_INITIATOR_NAME = "iqn.2026-11.org.pairvol:pairctl"
_POLL_SECONDS = 0.2


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


async def _pair_units(session: IscsiSession, timeout: float) -> list[PairUnit]:
    """Every LUN that has a pair configured, whatever its state."""
    units: list[PairUnit] = []
    for lun in await report_luns(session, timeout):
        try:
            status = await report_pair_status(session, lun, timeout)
        except PairRefused as refused:
            if refused.sense is None:
                raise
            continue  # not a volume, or one that no pair is configured for
        if status.flags & StatusFlag.CONFIGURED:
            units.append(PairUnit(lun, status))
    return units


async def _with_peer(units: list[PairUnit], given: argparse.Namespace) -> list[PairUnit]:
    async with _session(given.peer, "--peer", given) as session:
        theirs = {unit.status.pair_name: unit.status for unit in await _pair_units(session, given.timeout_seconds)}
    return [replace(unit, peer=theirs.get(unit.status.pair_name)) for unit in units]


async def _show(session: IscsiSession, given: argparse.Namespace) -> int:
    all_units = await _pair_units(session, given.timeout_seconds)
    units = all_units if given.name is None else select(all_units, given.name)
    if given.peer:
        units = await _with_peer(units, given)
    if given.json:
        print(json.dumps([as_json(unit) for unit in units], indent=2))
    else:
        text = table(units) + remarks(units, all_units, peer_asked=bool(given.peer))
        print(text + (owners(units) if given.verbose else ""), end="")
    return EXIT_OK


async def _order(session: IscsiSession, given: argparse.Namespace) -> int:
    command = pair_command(given)
    units = select(await _pair_units(session, given.timeout_seconds), given.name)
    for position, unit in enumerate(units):
        try:
            await pair_control(session, unit.lun, command, b"", given.timeout_seconds)
        except PairRefused as refused:
            if position:
                status = await report_pair_status(session, unit.lun, given.timeout_seconds)
                if goal_reached(command, status):
                    continue
            number, name = refusal_number(refused.refusal), unit.status.pair_name
            words = "invalid state" if number == 228 else "command rejected"
            how = advice(given.verb, refused.refusal)
            print(f"pairctl: {given.verb} {name}: {number} {words}: {refused}{how}", file=sys.stderr)
            return EXIT_REFUSED
    return EXIT_OK


async def _wait(session: IscsiSession, given: argparse.Namespace) -> int:
    wanted = parse_state(given.state)
    units = select(await _pair_units(session, given.timeout_seconds), given.name)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + given.timeout
    while True:
        states: list[PairState] = []
        for unit in units:
            status = await report_pair_status(session, unit.lun, given.timeout_seconds)
            states.append(status.state)
        if all(state is wanted for state in states):
            return EXIT_OK
        if loop.time() >= deadline:
            now = ", ".join(state.name for state in states)
            print(f"pairctl: wait {given.name}: not {wanted.name} in {given.timeout:g} s, but {now}", file=sys.stderr)
            return EXIT_TIMED_OUT
        await asyncio.sleep(min(_POLL_SECONDS, max(0.0, deadline - loop.time())))


async def _run(given: argparse.Namespace) -> int:
    if given.verb == "wait":
        parse_state(given.state)  # a wrong word is told before anybody is asked
    async with _session(given.array, "--array", given) as session:
        match given.verb:
            case "status":
                return await _show(session, given)
            case "wait":
                return await _wait(session, given)
            case _:
                return await _order(session, given)


def main(arguments: list[str] | None = None) -> int:
    """The ``pairctl`` command."""
    given = argument_parser().parse_args(arguments)
    try:
        return asyncio.run(_run(given))
    except PairvolError as error:
        print(f"pairctl: {error}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit complains
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
